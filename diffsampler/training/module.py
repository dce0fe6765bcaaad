"""The LightningModule: how a sampler is trained, evaluated and kept."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError, check_count, check_instance, check_non_negative, check_positive
from diffsampler.fingerprint import differences
from diffsampler.log_z import LogZEstimate, estimate_log_z
from diffsampler.losses import Objective
from diffsampler.parts import check_initialised
from diffsampler.sampler import Sampler
from diffsampler.streams import fixed_weights, new_generator
from diffsampler.training.budget import Budget
from diffsampler.training.checkpoint_io import AtomicCheckpointIO
from diffsampler.training.checks import CHECK_POINTS, check_loss, check_precision, check_target, check_trainer
from diffsampler.training.divergence import Divergence
from diffsampler.training.stopping import NUM_DECIDING, looks_ready, progress_in_cycle, why_to_end

__all__ = ["SamplerModule"]

DECIDE_EVERY = 50


class SamplerModule(L.LightningModule):
    """Trains a sampler: each step, states come from the behaviour and one scalar from the loss.

    All noise comes from generators seeded by (seed, rank); the training generator's state is in every checkpoint, so
    that a resumed run equals an uninterrupted one.

    Arguments:
        sampler: the sampler to train.
        loss: by default that of the sampler's recipe: `SubTrajectoryBalance()`, or for a target alone maximum
            likelihood, then `LogVariance()`.
        behaviour: by default that of the recipe: `OnPolicy()`, or the points that the search has found.
        lr: Adam's learning rate for control and process; by default that of the recipe: 1e-3, or 3e-3.
        flow_lr: for the flow network.
        log_z_lr: for the scalar log Z.
        final_lr_factor: learning rates fall along half a cosine to this fraction of themselves at the end of training.
        weight_decay: Adam's L2 penalty on control and flow.
        max_target_evaluations: training ends before the target is evaluated at more points than that, the check at the
            start and validations included, if that comes before the last step; rates and behaviours follow whichever
            is nearer. A budget too small for the check, one step and the validation at the end is refused. It may be
            exceeded by a step that costs more than all before, as the searches of a `Replay` do, and by 3000 where a
            density looks as if it had no integral.
        seed: of all noise.
        tolerance: training ends where the 95 % interval of 10 000 fresh draws is at most +- that, and they are graded
            trustworthy. By default that of the recipe: 0.05 for a target alone; 0, never, for others. Learning rates
            then fall in cycles, each twice as long as the one before.

    Attributes:
        ended: why training ended, in words.
        history: one entry for each validation, from the first step on, resumed or not: the step and the fields of
            `LogZEstimate`.
        test_samples, test_log_weight, test_estimate: what `test` drew, over all ranks, and the estimate.

    Raises:
        InputError: if the loss cannot train this sampler.
    """

    def __init__(
        self,
        sampler: Sampler,
        loss: Objective | None = None,
        behaviour: Behaviour | None = None,
        lr: float | None = None,
        flow_lr: float = 1e-2,
        log_z_lr: float = 1e-1,
        final_lr_factor: float = 0.01,
        weight_decay: float = 0.0,
        max_target_evaluations: int | None = None,
        seed: int = 0,
        tolerance: float | None = None,
    ) -> None:
        super().__init__()
        self.sampler = sampler
        usual = sampler.recipe.training()
        loss = usual.loss if loss is None else loss
        self.loss = check_initialised("loss", check_instance("loss", loss, Objective, "SubTrajectoryBalance()"))
        behaviour = usual.behaviour if behaviour is None else behaviour
        self.behaviour = check_instance("behaviour", behaviour, Behaviour, "OnPolicy()")
        self.loss.check(sampler.dynamics, self.behaviour)
        self.behaviour.check(sampler.dynamics)
        if any(parameter.is_inference() for parameter in sampler.parameters()):
            raise InputError(
                "sampler was made inside torch.inference_mode(), where nothing can be trained: make it outside."
            )
        with fixed_weights():
            self.loss.adapt(sampler.dynamics)
        self.lr = check_positive("lr", usual.lr if lr is None else lr)
        self.flow_lr = check_positive("flow_lr", flow_lr)
        self.log_z_lr = check_positive("log_z_lr", log_z_lr)
        self.final_lr_factor = check_positive("final_lr_factor", final_lr_factor)
        self.weight_decay = check_non_negative("weight_decay", weight_decay)
        self.budget = Budget(sampler, max_target_evaluations)
        self.seed = check_count("seed", seed, minimum=0)
        self.tolerance = check_non_negative("tolerance", usual.tolerance if tolerance is None else tolerance)
        self.ended = ""
        self._next_try = 0
        self.history: list[dict[str, Any]] = []
        self.divergence = Divergence()
        self._draws: list[tuple[Tensor, Tensor]] = []
        self._restored_generators: list[Tensor] = []
        self._restored_step: int | None = None
        self._frozen: list[torch.nn.Parameter] = []

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.Adam(self._optimizer_groups())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _optimizer_groups(self) -> list[dict[str, Any]]:
        policy = self.sampler.policy
        controls = [policy.control, policy.process, self.loss]
        if policy.backward_control is not None:
            controls.append(policy.backward_control)
        control = [parameter for part in controls for parameter in part.parameters()]
        flow = [] if policy.flow is None else [*policy.flow.parameters()]
        # What a loss does not train is in its group all the same: a run may go on with another loss.
        return [
            {"params": control, "lr": self.lr, "weight_decay": self.weight_decay},
            {"params": flow, "lr": self.flow_lr, "weight_decay": self.weight_decay},
            {"params": [policy.log_z], "lr": self.log_z_lr, "weight_decay": 0.0},
        ]

    def _lr_factor(self, step: int) -> float:
        half_cosine = 0.5 * (1 + math.cos(math.pi * self._progress(step)))
        return self.final_lr_factor + (1 - self.final_lr_factor) * half_cosine

    def _progress(self, step: int) -> float:
        total = self.trainer.estimated_stepping_batches
        done = step / total if 0 < total < math.inf else 0.0
        if self.tolerance:
            done = progress_in_cycle(step, total)
        return min(max(done, self.budget.share_spent(self.trainer)), 1.0)

    def _agree_on_spending(self) -> tuple[int, int]:
        """Counts over all ranks, which then know alike what is spent."""
        num_evaluations, num_invalid = self.count_evaluations()
        self.budget.agree(self.trainer, num_evaluations)
        return num_evaluations, num_invalid

    def setup(self, stage: str) -> None:
        check_precision(self.trainer)
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if stage == "fit":  # before ranks are told what they will get gradients of
            self._frozen = [parameter for parameter in self._untrained() if parameter.requires_grad]
            for parameter in self._frozen:
                parameter.requires_grad_(False)

    def teardown(self, stage: str) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []

    def _untrained(self) -> Iterator[torch.nn.Parameter]:
        """What the loss leaves as it is."""
        policy = self.sampler.policy
        if policy.flow is not None and not self.loss.uses_flow:
            yield from policy.flow.parameters()
        if not self.loss.uses_log_z:
            yield policy.log_z

    # --- training

    def on_fit_start(self) -> None:
        check_trainer(self.trainer)
        self.generator = self.new_generator("train")
        self._agree_on_spending()
        interpolates = self.loss.uses_flow and self.sampler.policy.flow.uses_interpolation
        self.budget.check(self.trainer, interpolates, self._restored_step is None)
        if self._restored_step is None:
            check_target(self.sampler, self.generator)
            _, log_weight = self.sampler.weighted_draws(CHECK_POINTS, self.generator)
            # Every rank must start from the same log Z: DDP shares gradients, not values.
            self.sampler.policy.initialise_log_z(self.gather_rows(log_weight))
            self._agree_on_spending()
            self._end_before_training()
        elif len(self._restored_generators) == self.trainer.world_size:
            # A copy: torch crashes on a view into the states of all ranks.
            self.generator.set_state(self._restored_generators[self.global_rank].cpu().clone())

    def _end_before_training(self) -> None:
        """End where a search alone suffices."""
        cost = self.budget.validation_cost(self.trainer)
        if not (self.tolerance and cost) or not self.budget.allows(self.trainer, cost):
            return
        try:
            self._start_evaluation("validate")
            n = -(-self.trainer.datamodule.num_eval_samples // self.trainer.world_size)
            self._draws.append(self.sampler.weighted_draws(n, self.eval_generator))
            estimate = self._estimate()
        except InputError:
            return
        self._end_if_ready(estimate)
        if self.trainer.should_stop:
            self.history.append({"step": 0, **estimate.to_dict()})

    def _end_if_ready(self, estimate: LogZEstimate) -> None:
        """Stop training where fresh draws are good enough; on every rank alike."""
        if not self.tolerance or self.global_step < self._next_try or not looks_ready(estimate, self.tolerance):
            return
        if not self.budget.allows(self.trainer, 2 * NUM_DECIDING * self.budget.draw_cost()):
            return
        first = self.trainer.is_global_zero
        why = why_to_end(self.sampler, self.tolerance, self.seed, self.global_step) if first else ""
        self.ended = self.trainer.strategy.broadcast(why)
        if self.ended:
            self.trainer.should_stop = True
            if self.global_step == 0:
                alone = self.sampler.search_cost and not self.sampler.was_trained
                self.ended += ", by the search alone" if alone else ", before any training"
        # Deciding costs as much as some fifty steps.
        self._next_try = self.global_step + max(DECIDE_EVERY, self.global_step // 4)
        self._agree_on_spending()

    def on_train_end(self) -> None:
        if self.ended:
            return
        if self.trainer.max_steps > 0 and self.global_step >= self.trainer.max_steps:
            self.ended = f"all {self.trainer.max_steps} steps are done (max_steps)"
        elif not self.budget.allows_step(self.trainer, 0):
            self.ended = f"{self.budget.limit:,} target evaluations are spent (max_target_evaluations)"
        else:
            self.ended = f"it was stopped at step {self.global_step}"

    def on_fit_end(self) -> None:
        # Lightning leaves out `on_train_end` where training does not begin, and all checkpoints: none to go on with.
        if not self.ended or self.global_step > 0:
            return
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath and callback.filename:
                self.trainer.save_checkpoint(Path(callback.dirpath) / f"{callback.filename}.ckpt", weights_only=False)

    def on_train_start(self) -> None:
        self.divergence.start(self.global_step)
        # A resumed optimiser brings the old rates along; what is asked for now counts.
        (optimizer,) = self.trainer.optimizers
        asked = self._optimizer_groups()
        self.trainer.lr_scheduler_configs[0].scheduler.base_lrs = [options["lr"] for options in asked]
        for group, options in zip(optimizer.param_groups, asked, strict=True):
            group["initial_lr"] = options["lr"]
            group["lr"] = options["lr"] * self._lr_factor(self.global_step)
            group["weight_decay"] = options["weight_decay"]

    def training_step(self, batch_size: int, batch_idx: int) -> Tensor:
        progress, before = self._progress(self.global_step), self.sampler.num_target_evaluations
        self.sampler.was_trained = True
        loss = self.loss.step(self.sampler.dynamics, self.behaviour, batch_size, self.generator, progress)
        check_loss(type(self.loss).__name__, loss)
        self.budget.note_step(self.sampler.num_target_evaluations - before)
        self.divergence.check_now_and_then(self.global_step)
        self.log("train/loss", loss, prog_bar=True, batch_size=batch_size)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        # Lightning validates at the end of an epoch, or when asked to stop: the last step deserves it too.
        if self.global_step == self.trainer.max_steps or not self.budget.allows_step(self.trainer, batch_idx):
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        self.divergence.check(self.global_step)  # before the checkpoint, with or without a validation

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Leave out what is not finite, then clip."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.divergence.leave_out(gradients)
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # --- evaluation

    def on_validation_epoch_start(self) -> None:
        self.divergence.check(self.global_step)
        self._start_evaluation("validate")

    def on_test_epoch_start(self) -> None:
        self._start_evaluation("test")

    def on_predict_epoch_start(self) -> None:
        self._start_evaluation("predict")

    def validation_step(self, batch_size: int, batch_idx: int) -> None:
        self._draws.append(self.sampler.weighted_draws(batch_size, self.eval_generator))

    def test_step(self, batch_size: int, batch_idx: int) -> None:
        self.validation_step(batch_size, batch_idx)

    def predict_step(self, batch_size: int, batch_idx: int) -> dict[str, Tensor]:
        x, log_weight = self.sampler.weighted_draws(batch_size, self.eval_generator)
        return {"x": x, "log_weight": log_weight}

    def on_validation_epoch_end(self) -> None:
        fitting = self.trainer.state.fn == "fit"
        try:
            estimate = self._estimate()
        except InputError as error:
            if not fitting:
                raise
            rank_zero_warn(f"Step {self.global_step}: {error}")
            self.log("val/elbo", -math.inf, batch_size=1)
            self.log("val/interval_width", math.inf, batch_size=1)
            return
        if fitting:
            self.history.append({"step": self.global_step, **estimate.to_dict()})
            self.divergence.warn_of_collapse(self.history)
            self._end_if_ready(estimate)
        figures = {"elbo": estimate.elbo, "log_z": estimate.log_z, "ess": estimate.ess, "khat": estimate.khat}
        # What `EarlyStopping(monitor="val/interval_width", stopping_threshold=...)` of Lightning waits for.
        figures["interval_width"] = estimate.high - estimate.low
        if self.sampler.target.log_z is not None:
            figures["log_z_error"] = estimate.log_z - self.sampler.target.log_z
        for name, value in figures.items():
            self.log(f"val/{name}", value, prog_bar=name in {"elbo", "log_z", "ess"}, batch_size=1)
        self.log("val/log_z_learned", self.sampler.policy.log_z.detach(), batch_size=1)
        self.log("val/num_target_evaluations", float(estimate.num_target_evaluations), batch_size=1)

    def on_test_epoch_end(self) -> None:
        x, log_weight = (torch.cat(part) for part in zip(*self._draws, strict=True))
        self.test_samples, self.test_log_weight = self.gather_rows(x), self.gather_rows(log_weight)
        self.test_estimate = self._estimate()

    def _start_evaluation(self, stream: str) -> None:
        self.eval_generator = self.new_generator(stream)
        self._draws = []

    def _estimate(self) -> LogZEstimate:
        log_weight = self.gather_rows(torch.cat([log_weight for _, log_weight in self._draws]))
        return estimate_log_z(log_weight, *self._agree_on_spending(), rounding=self.sampler.counter.rounding)

    def count_evaluations(self) -> tuple[int, int]:
        """Target evaluations so far, and how many were invalid, over all ranks; to be called on every rank."""
        counter = self.sampler.counter
        counts = torch.tensor([[counter.num_evaluations, counter.num_invalid]], device=self.device)
        num_evaluations, num_invalid = self.gather_rows(counts).sum(0).tolist()
        return num_evaluations, num_invalid

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, one after the other; to be called on every rank."""
        return self.all_gather(rows).reshape(-1, *rows.shape[1:])

    # --- noise and checkpoints

    def new_generator(self, stream: str) -> torch.Generator:
        """A generator for this rank. Validations differ from each other; tests of one model do not."""
        step = self.global_step if stream in {"train", "validate"} else 0
        return new_generator(stream, self.seed, self.global_rank, step, self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = self.gather_rows(self.generator.get_state()[None].to(self.device))
        checkpoint["generators"] = list(states.cpu())
        checkpoint["parts"] = self.sampler.describe()
        checkpoint["behaviour"] = self.behaviour.state_dict()
        checkpoint["history"] = self.history
        checkpoint["next_try"] = self._next_try
        checkpoint["num_target_evaluations"], checkpoint["num_invalid_evaluations"] = self.count_evaluations()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "generators" not in checkpoint:
            raise InputError("This checkpoint was not written by diffsampler fit.")
        if found := differences(checkpoint.get("parts", {}), self.sampler.describe()):
            raise InputError(f"The checkpoint is of a sampler made otherwise: {found}.")
        step, last = checkpoint["global_step"], self.trainer.max_steps
        if self.trainer.state.fn == "fit" and 0 <= last <= step:
            raise InputError(
                f"Nothing to train: the checkpoint is at step {step} already. Raise max_steps, {last} now."
            )
        self._restored_step = step
        self._restored_generators = checkpoint["generators"]
        self.behaviour.load_state_dict(checkpoint["behaviour"])
        self.history = checkpoint["history"]
        self._next_try = checkpoint.get("next_try", 0)
        # The counts are those of all ranks together: each goes on with its share, since ranks spend alike.
        counter = self.sampler.counter
        counter.num_evaluations = self._share_of(checkpoint["num_target_evaluations"])
        counter.num_invalid = self._share_of(checkpoint["num_invalid_evaluations"])

    def _share_of(self, total: int) -> int:
        share, rest = divmod(total, self.trainer.world_size)
        return share + (rest if self.global_rank == 0 else 0)

    @property
    def trained_steps(self) -> int:
        """Training steps behind the current weights."""
        return max(self.global_step, self._restored_step or 0)
