"""The LightningModule: how a sampler is trained, evaluated and kept."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffsampler.behaviours import Behaviour, OnPolicy
from diffsampler.data import TrajectoryCounts
from diffsampler.errors import InputError, check_count, check_instance, check_non_negative, check_positive
from diffsampler.estimators import LogZEstimate, estimate_log_z
from diffsampler.estimators.propriety import MAX_AXES, check_proper
from diffsampler.estimators.unbounded import unbounded
from diffsampler.losses import Loss, SubTrajectoryBalance
from diffsampler.recipe import default_training
from diffsampler.sampler import Sampler
from diffsampler.stopping import NUM_DECIDING, looks_ready, progress_in_cycle, why_to_end
from diffsampler.streams import fixed_weights, new_generator
from diffsampler.support import support_of
from diffsampler.target import NUM_COMPARED, CountedTarget, check_repeatable, naming_the_target

__all__ = ["SamplerModule"]

DEFAULT_LR, DEFAULT_TOLERANCE = 1e-3, 0.05
DECIDE_EVERY = 50
CHECK_POINTS = 256
DIVERGENCE_CHECK_STEPS = 50
PROPRIETY, PROPRIETY_PER_COORDINATE = 1200, 70  # evaluations of `check_proper`, where nothing looks suspicious
MAX_LOST, FEW_LOST = 0.1, 2
COLLAPSE = 100.0  # times the gap at the best ELBO, or nats where that gap is below 1


class SamplerModule(L.LightningModule):
    """Trains a sampler: states from the behaviour, densities from `Sampler.evaluate`, one scalar from the loss.

    All noise comes from generators seeded by (seed, rank); the training generator's state is in every checkpoint, so
    that a resumed run equals an uninterrupted one.

    Arguments:
        sampler: the sampler to train.
        loss: by default `SubTrajectoryBalance()`, or that of `diffsampler.recipe` for a sampler of a target alone.
        behaviour: by default `OnPolicy()`, or that of the recipe.
        lr: Adam's learning rate for drift and process; by default 1e-3, or that of `diffsampler.recipe` with its loss.
        flow_lr: for the flow network.
        log_z_lr: for the scalar log Z.
        final_lr_factor: learning rates fall along half a cosine to this fraction of themselves at the end of training.
        weight_decay: Adam's L2 penalty on drift and flow.
        max_target_evaluations: training ends before the target is evaluated at more points than that, the check at the
            start and validations included, if that comes before the last step; rates and behaviours follow whichever
            is nearer. A budget too small for the check, one step and the validation at the end is refused. It may be
            exceeded by a step that costs more than all before, as the searches of a `Replay` do, and by 3000 where a
            density looks as if it had no integral.
        seed: of all noise.
        tolerance: training ends where the 95 % interval of 10 000 fresh draws is at most +- that, and they are graded
            trustworthy. By default 0.05 for a target alone with loss and behaviour by default too; 0, never, for
            others. Learning rates then fall in cycles, each twice as long as the one before.

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
        loss: Loss | None = None,
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
        default_lr, default_tolerance = DEFAULT_LR, 0.0
        if sampler.self_chosen and loss is None and behaviour is None:
            loss, behaviour, default_lr = default_training()
            default_tolerance = DEFAULT_TOLERANCE
        loss = SubTrajectoryBalance() if loss is None else loss
        self.loss = check_instance("loss", loss, Loss, "SubTrajectoryBalance()")
        behaviour = OnPolicy() if behaviour is None else behaviour
        self.behaviour = check_instance("behaviour", behaviour, Behaviour, "OnPolicy()")
        self.loss.check(sampler, self.behaviour)
        self.behaviour.check(sampler)
        if any(parameter.is_inference() for parameter in sampler.parameters()):
            raise InputError(
                "sampler was made inside torch.inference_mode(), where nothing can be trained: make it outside."
            )
        with fixed_weights():
            self.loss.adapt(sampler)
        self.lr = check_positive("lr", default_lr if lr is None else lr)
        self.flow_lr = check_positive("flow_lr", flow_lr)
        self.log_z_lr = check_positive("log_z_lr", log_z_lr)
        self.final_lr_factor = check_positive("final_lr_factor", final_lr_factor)
        self.weight_decay = check_non_negative("weight_decay", weight_decay)
        self.max_target_evaluations = max_target_evaluations
        if max_target_evaluations is not None:
            check_count("max_target_evaluations", max_target_evaluations)
        self.seed = check_count("seed", seed, minimum=0)
        self.tolerance = check_non_negative("tolerance", default_tolerance if tolerance is None else tolerance)
        self.ended = ""
        self._next_try = 0
        self.history: list[dict[str, Any]] = []
        self._step_cost = self._unlike = 0
        self._num_lost: Tensor | int = 0
        self._lost_since = 0
        self._has_collapsed = False
        self._draws: list[tuple[Tensor, Tensor]] = []
        self._restored_generators: list[Tensor] = []
        self._restored_step: int | None = None
        if sampler.flow is not None:
            sampler.flow.requires_grad_(self.loss.uses_flow)
        sampler.log_z.requires_grad_(self.loss.uses_log_z)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.Adam(self._optimizer_groups())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _optimizer_groups(self) -> list[dict[str, Any]]:
        sampler = self.sampler
        controls = [sampler.drift, sampler.process, self.loss]
        if sampler.backward_drift is not None:
            controls.append(sampler.backward_drift)
        control = [parameter for part in controls for parameter in part.parameters()]
        flow = [] if sampler.flow is None else [*sampler.flow.parameters()]
        # What a loss does not train is in its group all the same: a run may go on with another loss.
        return [
            {"params": control, "lr": self.lr, "weight_decay": self.weight_decay},
            {"params": flow, "lr": self.flow_lr, "weight_decay": self.weight_decay},
            {"params": [sampler.log_z], "lr": self.log_z_lr, "weight_decay": 0.0},
        ]

    def _lr_factor(self, step: int) -> float:
        half_cosine = 0.5 * (1 + math.cos(math.pi * self._progress(step)))
        return self.final_lr_factor + (1 - self.final_lr_factor) * half_cosine

    def _progress(self, step: int) -> float:
        total = self.trainer.estimated_stepping_batches
        done = step / total if 0 < total < math.inf else 0.0
        if self.tolerance:
            done = progress_in_cycle(step, total)
        if self.max_target_evaluations is not None:
            # Ranks spend alike, so that each can tell from its own count.
            # What a search has spent is no part of training's own progress, nor is the last validation.
            before = self.sampler.search_cost * self.trainer.world_size
            available = self.max_target_evaluations - before - self._validation_cost()
            done = max(done, (self._spent() - before) / max(available, 1))
        return min(done, 1.0)

    # --- a budget of evaluations, of all ranks together

    def _spent(self) -> int:
        return self.sampler.num_target_evaluations * self.trainer.world_size + self._unlike

    def _agree_on_spending(self) -> tuple[int, int]:
        """Counts over all ranks, which then know alike what is spent; the rest they evaluate in equal shares."""
        num_evaluations, num_invalid = self.count_evaluations()
        self._unlike = num_evaluations - self.sampler.num_target_evaluations * self.trainer.world_size
        return num_evaluations, num_invalid

    def _draw_cost(self) -> int:
        """Evaluations for a weighted draw."""
        return self.sampler.grid.num_steps + 1 if self.sampler.uses_score else 1

    def _validation_cost(self) -> int:
        counts = self.trainer.datamodule
        if not isinstance(counts, TrajectoryCounts) or not self.trainer.limit_val_batches:
            return 0
        share = -(-counts.num_eval_samples // self.trainer.world_size)
        chunks = -(-share // counts.chunk_size)
        return (share * self._draw_cost() + chunks * NUM_COMPARED) * self.trainer.world_size

    def _can_go_on(self, batch_idx: int) -> bool:
        """Whether one more step fits into the budget, with the validation at the end and one that comes before."""
        if self.max_target_evaluations is None:
            return True
        ends_epoch = batch_idx + 1 == self.trainer.num_training_batches
        ahead = self._step_cost * self.trainer.world_size + (2 if ends_epoch else 1) * self._validation_cost()
        return self._spent() + ahead <= self.max_target_evaluations

    def _check_budget(self) -> None:
        """Raise InputError where the budget is too small for what cannot be left out."""
        counts, ranks = self.trainer.datamodule, self.trainer.world_size
        if self.max_target_evaluations is None or not isinstance(counts, TrajectoryCounts):
            return
        everywhere = self.loss.uses_flow and self.sampler.flow.uses_interpolation
        self._step_cost = counts.batch_size * (self.sampler.grid.num_steps + 1 if everywhere else self._draw_cost())
        # Two rollouts, one without weights, and a few points that are asked for again.
        check = (2 * self._draw_cost() + 1) * CHECK_POINTS + 4 * NUM_COMPARED
        if self.sampler.reference is None and not self.sampler.process.periodic:
            check += PROPRIETY + PROPRIETY_PER_COORDINATE * min(self.sampler.target.dim, MAX_AXES)
        check *= ranks
        check = check if self._restored_step is None else 0
        step, validation, spent = self._step_cost * ranks, self._validation_cost(), self._spent()
        if spent + check + step + validation > self.max_target_evaluations:
            raise InputError(
                f"max_target_evaluations must be at least {spent + check + step + validation:,} here, got "
                f"{self.max_target_evaluations:,}: {spent:,} are spent, the check at the start takes {check:,}, a step "
                f"{step:,}, and the validation at the end {validation:,}. Lower batch_size or num_eval_samples."
            )

    def setup(self, stage: str) -> None:
        check_precision(self.trainer)

    # --- training

    def on_fit_start(self) -> None:
        check_trainer(self.trainer)
        self.generator = self.new_generator("train")
        spent = self.sampler.search_cost
        if self.max_target_evaluations is not None and spent >= self.max_target_evaluations:
            raise InputError(
                f"max_target_evaluations must be above the {spent:,} evaluations that the search has spent, got "
                f"{self.max_target_evaluations:,}."
            )
        self._agree_on_spending()
        self._check_budget()
        if self._restored_step is None:
            check_target(self.sampler, self.generator)
            _, log_weight = self.sampler.weighted_rollout(CHECK_POINTS, self.generator)
            # Every rank must start from the same log Z: DDP shares gradients, not values.
            self.sampler.initialise_log_z(self.gather_rows(log_weight))
            self._agree_on_spending()
            self._end_before_training()
        elif len(self._restored_generators) == self.trainer.world_size:
            # A copy: torch crashes on a view into the states of all ranks.
            self.generator.set_state(self._restored_generators[self.global_rank].cpu().clone())

    def _end_before_training(self) -> None:
        """End where a search alone suffices."""
        cost = self._validation_cost()
        if not (self.tolerance and cost) or not self._can_spend(cost):
            return
        try:
            self._start_evaluation("validate")
            n = -(-self.trainer.datamodule.num_eval_samples // self.trainer.world_size)
            self._draws.append(self.sampler.weighted_rollout(n, self.eval_generator))
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
        if not self._can_spend(2 * NUM_DECIDING * self._draw_cost()):
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

    def _can_spend(self, num_evaluations: int) -> bool:
        """Whether that many more, and a step and a validation, fit into the budget."""
        if self.max_target_evaluations is None:
            return True
        step = self._step_cost * self.trainer.world_size
        return self._spent() + num_evaluations + step + self._validation_cost() <= self.max_target_evaluations

    def on_train_end(self) -> None:
        if self.ended:
            return
        if self.trainer.max_steps > 0 and self.global_step >= self.trainer.max_steps:
            self.ended = f"all {self.trainer.max_steps} steps are done (max_steps)"
        elif self.max_target_evaluations is not None and not self._can_go_on(0):
            self.ended = f"{self.max_target_evaluations:,} target evaluations are spent (max_target_evaluations)"
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
        self._num_lost, self._lost_since = 0, self.global_step
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
        loss = self.loss.step(self.sampler, self.behaviour, batch_size, self.generator, progress)
        self._step_cost = max(self._step_cost, self.sampler.num_target_evaluations - before)
        if self.global_step - self._lost_since >= DIVERGENCE_CHECK_STEPS:
            self._check_divergence()
        self.log("train/loss", loss, prog_bar=True, batch_size=batch_size)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        # Lightning validates at the end of an epoch, or when asked to stop: the last step deserves it too.
        if self.global_step == self.trainer.max_steps or not self._can_go_on(batch_idx):
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        self._check_divergence()  # before the checkpoint, with or without a validation

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Leave out a gradient that is not finite, then clip: one bad trajectory must not end a run.

        Such a step goes on by the optimiser's momentum alone; to tell it apart here would make a GPU wait.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = torch.stack([gradient.isfinite().all() for gradient in gradients]).all()
        for gradient in gradients:
            gradient.copy_(torch.where(finite, gradient, 0.0))
        self._num_lost = self._num_lost + ~finite
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _check_divergence(self) -> None:
        # Only now and then: on a GPU, reading waits for the step.
        num_lost, since = int(self._num_lost), self._lost_since
        num_steps = self.global_step - since
        if num_lost > max(FEW_LOST, MAX_LOST * num_steps):
            raise InputError(
                f"Training diverged: of the {num_steps} steps before step {self.global_step}, {num_lost} had a "
                "gradient that is not finite. Checkpoints, where they are kept, are from before. Lower lr, or the "
                "trainer's gradient_clip_val."
            )
        if num_steps < DIVERGENCE_CHECK_STEPS:
            return  # an epoch has ended: the count goes on
        self._num_lost, self._lost_since = 0, self.global_step
        if num_lost:
            rank_zero_warn(
                f"Step {self.global_step}: {num_lost} of the last {num_steps} steps had a gradient that is not finite, "
                "which was left out."
            )

    # --- evaluation

    def on_validation_epoch_start(self) -> None:
        self._check_divergence()
        self._start_evaluation("validate")

    def on_test_epoch_start(self) -> None:
        self._start_evaluation("test")

    def on_predict_epoch_start(self) -> None:
        self._start_evaluation("predict")

    def validation_step(self, batch_size: int, batch_idx: int) -> None:
        self._draws.append(self.sampler.weighted_rollout(batch_size, self.eval_generator))

    def test_step(self, batch_size: int, batch_idx: int) -> None:
        self.validation_step(batch_size, batch_idx)

    def predict_step(self, batch_size: int, batch_idx: int) -> dict[str, Tensor]:
        x, log_weight = self.sampler.weighted_rollout(batch_size, self.eval_generator)
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
            self._check_collapse()
            self._end_if_ready(estimate)
        figures = {"elbo": estimate.elbo, "log_z": estimate.log_z, "ess": estimate.ess, "khat": estimate.khat}
        # What `EarlyStopping(monitor="val/interval_width", stopping_threshold=...)` of Lightning waits for.
        figures["interval_width"] = estimate.high - estimate.low
        if self.sampler.target.log_z is not None:
            figures["log_z_error"] = estimate.log_z - self.sampler.target.log_z
        for name, value in figures.items():
            self.log(f"val/{name}", value, prog_bar=name in {"elbo", "log_z", "ess"}, batch_size=1)
        self.log("val/log_z_learned", self.sampler.log_z.detach(), batch_size=1)
        self.log("val/num_target_evaluations", float(estimate.num_target_evaluations), batch_size=1)

    def _check_collapse(self) -> None:
        """Say when a sampler that was good has become useless, though every number is finite."""
        entries = [entry for entry in self.history if entry["elbo"] is not None]
        if self._has_collapsed or not entries:
            return
        best, last = max(entries, key=lambda entry: entry["elbo"]), entries[-1]
        fall = best["elbo"] - last["elbo"]
        if fall > COLLAPSE * max(best["log_z"] - best["elbo"], 1.0):
            self._has_collapsed = True
            rank_zero_warn(
                f"Step {last['step']}: the ELBO has fallen from {best['elbo']:.4g}, at step {best['step']}, to "
                f"{last['elbo']:.4g}: training has diverged. best.ckpt, where checkpoints are kept, is from before. "
                "Lower lr."
            )

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
        checkpoint["behaviour"] = self.behaviour.state_dict()
        checkpoint["history"] = self.history
        checkpoint["next_try"] = self._next_try
        checkpoint["num_target_evaluations"], checkpoint["num_invalid_evaluations"] = self.count_evaluations()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "generators" not in checkpoint:
            raise InputError("This checkpoint was not written by diffsampler fit.")
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


def check_precision(trainer: L.Trainer) -> None:
    """Raise InputError where densities and the target would be rounded, as networks may be."""
    if torch.is_autocast_enabled(trainer.strategy.root_device.type):
        raise InputError(
            "torch.autocast must be off: log-weights need full precision. For networks in bfloat16 take "
            "drift=ReducedPrecision, a wrapper."
        )
    if str(trainer.precision) not in {"32-true", "64-true"}:
        raise InputError(
            f"trainer.precision must be 32-true or 64-true, got {trainer.precision}: log-weights need it. For "
            "networks in bfloat16 take drift=ReducedPrecision, a wrapper."
        )


def check_trainer(trainer: L.Trainer) -> None:
    """Raise InputError if a sampler cannot be trained so; to be called before the target has cost anything."""
    check_precision(trainer)
    for name in ("max_steps", "max_epochs"):
        if getattr(trainer, name) == 0:
            raise InputError(f"trainer.{name} must be at least 1, or -1 for no limit, got 0: nothing would be trained.")
    if trainer.limit_train_batches == 0:
        raise InputError("trainer.limit_train_batches must be above 0, got 0: nothing would be trained.")


def check_target(sampler: Sampler, generator: torch.Generator) -> None:
    """One small rollout before training: raise InputError if the target is usable nowhere that the sampler goes.

    Or if it has no integral, unless the search has asked already, or states are angles.
    """
    name = type(sampler.target).__name__
    with naming_the_target(sampler.target, f"Rolling out the first {CHECK_POINTS} trajectories"):
        x = sampler.rollout(CHECK_POINTS, generator).x[-1]
        check_repeatable(sampler.counter, x)
        log_prob = sampler.counter.log_prob(x)
    if log_prob.isnan().all():
        raise InputError(f"{name}.log_prob is NaN at all {CHECK_POINTS} points where the sampler starts.")
    if not log_prob.isfinite().any():
        raise InputError(
            f"{name}.log_prob is not finite at any of {CHECK_POINTS} points where the sampler starts; "
            "move or scale the target, or the process, so that they meet."
        )
    if sampler.reference is None and not sampler.process.periodic:
        x = sampler.process.position(x)
        x = x if sampler.coordinates is None else sampler.coordinates(x)
        counter = unbounded(CountedTarget(sampler.target))
        onto = support_of(sampler.target)
        check_proper(counter, x if onto is None else onto.inverse(x.double()))
        sampler.counter.num_evaluations += counter.num_evaluations
