"""`fit`: training from Python, in one call."""

import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar

from diffsampler.behaviours import Behaviour
from diffsampler.checkpoints import read_training
from diffsampler.coordinates import FoundCoordinates
from diffsampler.errors import InputError, check_count, check_instance
from diffsampler.losses import Objective
from diffsampler.progress import in_terminal, progress_of
from diffsampler.renamed import names_meant
from diffsampler.sampler import Sampler
from diffsampler.target import Target
from diffsampler.training.callbacks import ExponentialMovingAverage, PlainProgress
from diffsampler.training.checks import check_trainer
from diffsampler.training.data import TrajectoryCounts
from diffsampler.training.module import SamplerModule

OF_MODULE = {*inspect.signature(SamplerModule).parameters} - {"sampler", "loss", "behaviour", "seed"}
NOT_FOR_USERS = (
    r".*isinstance\(treespec, LeafSpec\)",
    r".*does not have many workers",
    r".*The number of training batches",
    r".*Couldn't infer the batch indices",
    r".*Experiment logs directory .* exists",
    r".*could not find the monitored key",
    r".*The dirpath has changed",
    r".*all_gather is deprecated",
    r".*It is recommended to use `self.log",  # on several ranks: what is logged has been gathered
)


@torch.inference_mode(False)
@torch.enable_grad()
def fit(
    sampler: Sampler,
    max_steps: int = 2000,
    seed: int = 0,
    loss: Objective | None = None,
    behaviour: Behaviour | None = None,
    batch_size: int = 256,
    steps_per_epoch: int | None = None,
    num_eval_samples: int = 2000,
    ema_decay: float = 0.999,
    ckpt_path: str | None = None,
    target: Target | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train a sampler in place; a thin wrapper of `SamplerModule` and Lightning's Trainer.

    With another target, of new data say, it becomes a sampler of that: what it has learned is kept, and place, scale
    and reference are found anew from what was found before. A line, and `reused` in the last entry, say what was.

    Arguments:
        sampler: the sampler to train; it ends with the averaged weights.
        max_steps: training steps.
        seed: of all noise in training.
        loss: by default that of the sampler's recipe: `SubTrajectoryBalance()`, or for a target alone maximum
            likelihood, then `LogVariance()`.
        behaviour: by default that of the recipe: `OnPolicy()`, or the points that the search has found.
        batch_size: trajectories of a step.
        steps_per_epoch: steps between validations; by default 100; where a tolerance may end training, what the recipe
            says, 50 for most targets.
        num_eval_samples: draws of a validation.
        ema_decay: decay of the averaged weights.
        ckpt_path: a checkpoint to resume from.
        target: another target in the same space, as in `Sampler.move_to`, whose sampler it then is.
        options: any other argument of `SamplerModule`: `tolerance`, at which training ends by itself (0.05 by default
            for a target alone), `max_target_evaluations`, `lr`, `flow_lr`, `log_z_lr`, `final_lr_factor`,
            `weight_decay`; and any of `lightning.Trainer`, which by default writes nothing to disk, clips gradients to
            a norm of 1, and shows a progress bar in a terminal, a line after validations elsewhere.

    Returns:
        One entry for each validation: the step and the fields of `LogZEstimate`; the last one says why training
        `ended`, and after a warm start what was `reused`.

    Raises:
        InputError: if the parts do not fit together, the target is unusable, or training diverges.
    """
    where = [name for name, value in locals().items() if name != "target" and isinstance(value, Target)]
    if where:  # by its place, mostly
        raise InputError(_way_of_a_target(where[0]))
    silence_lightning()
    check_instance("sampler", sampler, Sampler, "Sampler(target)")
    check_options(options)
    if target is not None and ckpt_path is not None:
        raise InputError("Give either ckpt_path, to go on with a run, or target, to begin one.")
    of_module = {name: options.pop(name) for name in OF_MODULE & options.keys()}
    module = SamplerModule(sampler, loss, behaviour, seed=seed, **of_module)
    if steps_per_epoch is None:
        steps_per_epoch = sampler.recipe.training().steps_per_epoch if module.tolerance else 100
    callbacks = options.pop("callbacks", None) or []
    callbacks = [*(callbacks if isinstance(callbacks, list) else [callbacks]), ExponentialMovingAverage(ema_decay)]
    bar = options.get("enable_progress_bar")
    if bar is None and any(isinstance(callback, ProgressBar) for callback in callbacks):
        bar = True
    if bar is None and not in_terminal():
        callbacks.append(PlainProgress())
    options = {
        **trainer_defaults(),
        "logger": False,
        "enable_checkpointing": False,
        **options,
        "enable_progress_bar": in_terminal() if bar is None else bar,
    }
    trainer = L.Trainer(max_steps=check_count("max_steps", max_steps), callbacks=callbacks, **options)
    counts = TrajectoryCounts(batch_size, steps_per_epoch, num_eval_samples)
    check_trainer(trainer)
    module.loss.check_batch_size(batch_size)
    if target is not None:  # nothing that is given is wrong
        sampler.move_to(target)
    if ckpt_path is None:
        search_first(sampler, seed, bar, module.budget.limit)
        if target is not None:
            reused = _what_is_reused(sampler)
            if bar is not False:
                print(reused, file=sys.stderr, flush=True)
    else:
        read_training(ckpt_path)  # raises in the user's language what Lightning raises in its own
    try:
        trainer.fit(module, counts, ckpt_path=ckpt_path)
    except SystemExit as stop:
        # Lightning's way to end on Ctrl-C: a caller, in a notebook say, expects the interrupt.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise
    if module.history:
        module.history[-1]["ended"] = module.ended
        if target is not None:
            module.history[-1]["reused"] = reused
    return module.history


def _what_is_reused(sampler: Sampler) -> str:
    """By a warm start, in words."""
    num_weights = sum(parameter.numel() for parameter in sampler.policy.parameters())
    learned = f"Warm start: {num_weights:,} weights of networks are reused"
    if sampler.coordinates is None:
        return f"{learned}."
    if not isinstance(sampler.coordinates, FoundCoordinates):
        return f"{learned}; coordinates are those that were given, or made as they were."
    if sampler.coordinates.is_warm:
        return f"{learned}; place, scale and reference were found anew from those of the target before."
    return f"{learned}; place, scale and reference were searched from nothing, as at a first time."


def _way_of_a_target(name: str) -> str:
    """What to write instead, for who gives a target as another argument."""
    if name == "sampler":
        return "sampler must be a Sampler, got a Target: write fit(Sampler(target))."
    return f"{name} got a Target: write fit(sampler, target=...) for a warm start with another target."


def check_options(options: Mapping[str, Any]) -> None:
    """Raise InputError for a misspelt argument of `fit`, which is not Lightning's to complain about."""
    accepted = {*inspect.signature(fit).parameters, *OF_MODULE, *inspect.signature(L.Trainer).parameters} - {"options"}
    for name in [name for name in options if name not in accepted]:
        near = names_meant(name, sorted(accepted))
        meant = (
            f"did you mean {' or '.join(near)}?"
            if near
            else "accepted are those of fit, of SamplerModule and of lightning.Trainer."
        )
        raise InputError(f"fit has no argument {name!r}: {meant}")


def search_first(
    sampler: Sampler, seed: int, progress_bar: bool | None = None, max_target_evaluations: int | None = None
) -> None:
    """Find the coordinates of a sampler that is to find them by itself, or whose target has changed since it did.

    Arguments:
        sampler: any sampler; others need no search.
        seed: of the search.
        progress_bar: whether to show a bar; by default in a terminal, and a line now and then elsewhere.
        max_target_evaluations: of search and training together: beyond half of it, no further search begins.

    Raises:
        InputError: if that is less than a single search may take.
    """
    if not isinstance(sampler.coordinates, FoundCoordinates):
        return
    if sampler.coordinates.is_found and not sampler.search_is_outdated():
        return
    smallest = sampler.coordinates.smallest_search
    if max_target_evaluations is not None and max_target_evaluations < smallest:
        raise InputError(
            f"max_target_evaluations must be at least {smallest:,} for a target alone, which is searched first, "
            f"got {max_target_evaluations:,}: raise it, or choose a process, which begins without a search."
        )
    with search_progress(progress_bar) as progress:
        sampler.search(seed, progress, None if max_target_evaluations is None else max_target_evaluations // 2)


@contextmanager
def search_progress(bar: bool | None = None) -> Iterator[Callable[[float], None]]:
    """Progress, as the function that is to be told the fraction of the work that is done; see `search_first`."""
    with progress_of("Search", 100, " %", bar is not False, bar) as tell:
        yield lambda done: tell(int(100 * done))


def trainer_defaults() -> dict[str, Any]:
    """The arguments of Lightning's Trainer that are others here, in Python and on the command line."""
    return {
        # Never Apple's: it has no float64, in which log-weights are summed.
        "accelerator": "cpu" if torch.backends.mps.is_available() else "auto",
        "max_epochs": -1,
        "gradient_clip_val": 1.0,
        "num_sanity_val_steps": 0,
        "inference_mode": False,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
    }


def silence_lightning() -> None:
    """Leave out of the terminal what says nothing about a run here: hardware, tips, and hints on data loading."""
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message)
