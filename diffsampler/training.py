"""`fit`: training from Python, in one call."""

from typing import Any

import lightning as L

from diffsampler.behaviours import Behaviour
from diffsampler.callbacks import ExponentialMovingAverage
from diffsampler.data import TrajectoryCounts
from diffsampler.errors import check_count
from diffsampler.losses import Loss
from diffsampler.module import SamplerModule
from diffsampler.sampler import Sampler

__all__ = ["fit"]


def fit(
    sampler: Sampler,
    max_steps: int = 2000,
    seed: int = 0,
    loss: Loss | None = None,
    behaviour: Behaviour | None = None,
    lr: float = 1e-3,
    batch_size: int = 256,
    steps_per_epoch: int = 100,
    ema_decay: float = 0.999,
    ckpt_path: str | None = None,
    module_options: dict[str, Any] | None = None,
    **trainer_options: Any,
) -> list[dict[str, Any]]:
    """Train a sampler in place; a thin wrapper of `SamplerModule` and Lightning's Trainer.

    Arguments:
        sampler: the sampler to train; it ends with the averaged weights.
        max_steps: training steps.
        seed: of all noise in training.
        loss: by default `SubTrajectoryBalance()`.
        behaviour: by default `OnPolicy()`.
        lr: learning rate of drift and process.
        batch_size: trajectories of a step.
        steps_per_epoch: steps between validations.
        ema_decay: decay of the averaged weights.
        ckpt_path: a checkpoint to resume from.
        module_options: further arguments of `SamplerModule`.
        trainer_options: arguments of `lightning.Trainer`; by default it writes nothing to disk.

    Returns:
        One entry for each validation: the step and the fields of `LogZEstimate`.

    Raises:
        InputError: if the parts do not fit together, the target is unusable, or training diverges.
    """
    module = SamplerModule(sampler, loss, behaviour, lr=lr, seed=seed, **(module_options or {}))
    options = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "gradient_clip_val": 1.0,
        "inference_mode": False,
        "use_distributed_sampler": False,
        **trainer_options,
    }
    callbacks = options.pop("callbacks", None) or []
    callbacks = [*(callbacks if isinstance(callbacks, list) else [callbacks]), ExponentialMovingAverage(ema_decay)]
    trainer = L.Trainer(max_steps=check_count("max_steps", max_steps), max_epochs=-1, callbacks=callbacks, **options)
    counts = TrajectoryCounts(batch_size=batch_size, steps_per_epoch=steps_per_epoch)
    trainer.fit(module, counts, ckpt_path=ckpt_path)
    return module.history
