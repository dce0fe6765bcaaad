"""The LightningModule: how a sampler is trained, evaluated and kept."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.checkpoints import was_trained
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError, check_count, check_instance, check_non_negative
from diffsampler.log_z import LogZEstimate, estimate_log_z
from diffsampler.log_z.estimate import warned_of_scores
from diffsampler.losses import Objective
from diffsampler.parts import check_initialised
from diffsampler.sampler import Sampler
from diffsampler.streams import fixed_weights, new_generator
from diffsampler.training.budget import Budget, share_of_rank
from diffsampler.training.checkpoint_io import AtomicCheckpointIO
from diffsampler.training.checks import (
    CHECK_POINTS,
    check_loss,
    check_precision,
    check_resumption,
    check_target,
    check_trainer,
)
from diffsampler.training.divergence import Divergence
from diffsampler.training.held_out import held_out_log_likelihood
from diffsampler.training.optimisation import Optimisation, untrained
from diffsampler.training.stopping import NUM_DECIDING, Stopping, progress_in_cycle, why_ended


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
        context: of a family: which of its densities `predict` draws of.
        history: one entry for each validation, from the first step on, resumed or not: the step and the fields of
            `LogZEstimate`; where no density is known, the mean `log_likelihood` of fresh simulations, bounded from
            below, and its `standard_error`.
        test_log_likelihood: the mean `log_likelihood` of the last validation or test, and its standard error, where no
            density is known.
        test_samples, test_log_weight, test_estimate, test_network_evaluations: what `test` drew, over all ranks, the
            estimate, and what networks were asked by then.

    Raises:
        InputError: if the loss cannot train this sampler.
    """

    def __init__(
        self,
        sampler: Sampler,
        loss: Objective | None = None,
        behaviour: Behaviour | None = None,
        lr: float | None = None,
        flow_lr: float = Optimisation.flow_lr,
        log_z_lr: float = Optimisation.log_z_lr,
        final_lr_factor: float = Optimisation.final_lr_factor,
        weight_decay: float = Optimisation.weight_decay,
        max_target_evaluations: int | None = None,
        seed: int = 0,
        tolerance: float | None = None,
    ) -> None:
        super().__init__()
        if sampler.is_member:
            raise InputError("One member of a family is not trained by itself: train the sampler that gave it.")
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
        self.lr = usual.lr if lr is None else lr
        self.optimisation = Optimisation(self.lr, flow_lr, log_z_lr, final_lr_factor, weight_decay)
        self.budget = Budget(sampler, max_target_evaluations)
        self.seed = check_count("seed", seed, minimum=0)
        self.tolerance = check_non_negative("tolerance", usual.tolerance if tolerance is None else tolerance)
        self.ended = ""
        self.context: Tensor | None = None
        self.test_log_likelihood: tuple[float, float] | None = None
        self.stopping = Stopping(sampler, self.tolerance, self.seed)
        self.history: list[dict[str, Any]] = []
        self.divergence = Divergence()
        self._draws: list[tuple[Tensor, Tensor]] = []
        self._likelihoods: list[Tensor] = []
        self._predicted: tuple[Sampler, ...] = ()
        self._restored_generators: list[Tensor] = []
        self._restored_step: int | None = None
        self._frozen: list[torch.nn.Parameter] = []

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.Adam(self.optimisation.groups(self.sampler.policy, self.loss))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _lr_factor(self, step: int) -> float:
        return self.optimisation.factor(self._progress(step))

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
            self._frozen = [p for p in untrained(self.sampler.policy, self.loss) if p.requires_grad]
            for parameter in self._frozen:
                parameter.requires_grad_(False)

    def teardown(self, stage: str) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []

    # --- training

    def on_fit_start(self) -> None:
        check_trainer(self.trainer)
        self.generator = self.new_generator("train")
        self._agree_on_spending()
        interpolates = self.loss.uses_flow and self.sampler.policy.flow.uses_interpolation
        self.budget.check(self.trainer, interpolates, self._restored_step is None)
        if self._restored_step is None:
            check_target(self.sampler, self.generator)
            if self.sampler.target.has_density:
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
        enough = self.budget.allows(self.trainer, 2 * NUM_DECIDING * self.budget.draw_cost())
        if enough and self.stopping.is_due(estimate, self.global_step):
            self.ended = self.trainer.strategy.broadcast(
                self.stopping.why(self.global_step) if self.trainer.is_global_zero else ""
            )
            self.trainer.should_stop = self.trainer.should_stop or bool(self.ended)
            self._agree_on_spending()

    def on_train_end(self) -> None:
        spent = not self.budget.allows_step(self.trainer, 0)
        self.ended = self.ended or why_ended(self.trainer, self.budget.limit if spent else None)

    def on_fit_end(self) -> None:
        # Lightning leaves out `on_train_end` where training does not begin, and all checkpoints: none to go on with.
        if not self.ended or self.global_step > 0:
            return
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath and callback.filename:
                self.trainer.save_checkpoint(Path(callback.dirpath) / f"{callback.filename}.ckpt", weights_only=False)

    def on_train_start(self) -> None:
        self.divergence.start(self.global_step)
        (optimizer,), groups = self.trainer.optimizers, self.optimisation.groups(self.sampler.policy, self.loss)
        self.trainer.lr_scheduler_configs[0].scheduler.base_lrs = [group["lr"] for group in groups]
        self.optimisation.renew(optimizer, groups, self._lr_factor(self.global_step))

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
        # Here, with the weights of the checkpoint, which are read after setup; and no module of this one.
        self._predicted = (self.sampler if self.context is None else self.sampler.given(self.context),)

    def validation_step(self, batch_size: int, batch_idx: int) -> None:
        if not self.sampler.target.has_density:
            self._likelihoods.append(held_out_log_likelihood(self.sampler, batch_size, self.eval_generator))
            return
        self._draws.append(self.sampler.weighted_draws(batch_size, self.eval_generator))

    def test_step(self, batch_size: int, batch_idx: int) -> None:
        self.validation_step(batch_size, batch_idx)

    def predict_step(self, batch_size: int, batch_idx: int) -> dict[str, Tensor]:
        sampler = self._predicted[0]
        if not sampler.target.has_density:
            return {"x": sampler.sample(batch_size, generator=self.eval_generator)}
        x, log_weight = sampler.weighted_draws(batch_size, self.eval_generator)
        return {"x": x, "log_weight": log_weight}

    def on_validation_epoch_end(self) -> None:
        fitting = self.trainer.state.fn == "fit"
        if self._likelihoods:
            self._note_likelihood(fitting)
            return
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

    def _note_likelihood(self, fitting: bool) -> None:
        """Where no density is known: of fresh simulations, as `held_out_log_likelihood` says."""
        found = self.gather_rows(torch.cat(self._likelihoods))
        mean, error = float(found.mean()), float(found.std() / math.sqrt(len(found)))
        if fitting:
            self.history.append({"step": self.global_step, "log_likelihood": mean, "standard_error": error})
        self.test_log_likelihood = mean, error
        self.log("val/log_likelihood", mean, prog_bar=True, batch_size=1)
        self.log("val/elbo", mean, batch_size=1)  # a lower bound, too, by which the best checkpoint is told

    def on_test_epoch_end(self) -> None:
        if self._likelihoods:
            self._note_likelihood(fitting=False)
            return
        x, log_weight = (torch.cat(part) for part in zip(*self._draws, strict=True))
        self.test_samples, self.test_log_weight = self.gather_rows(x), self.gather_rows(log_weight)
        self.test_estimate = self._estimate()
        self.test_network_evaluations = self.count_network_evaluations()

    def _start_evaluation(self, stream: str) -> None:
        self.eval_generator = self.new_generator(stream)
        self._draws, self._likelihoods = [], []

    def _estimate(self) -> LogZEstimate:
        x, log_weight = (self.gather_rows(torch.cat(part)) for part in zip(*self._draws, strict=True))
        log_weight = self.sampler.centred(x, log_weight)
        estimate = estimate_log_z(log_weight, *self._agree_on_spending(), rounding=self.sampler.counter.rounding)
        return warned_of_scores(estimate, *self.count_score_evaluations())

    def count_evaluations(self) -> tuple[int, int]:
        """Target evaluations so far, and how many were invalid, over all ranks; to be called on every rank."""
        return self._counts_of(self.sampler.counter)

    def count_score_evaluations(self) -> tuple[int, int]:
        """The same of the pretrained density for its score, in fine-tuning by it."""
        return (0, 0) if self.sampler.guide is None else self._counts_of(self.sampler.guide)

    def count_network_evaluations(self) -> int:
        """States that control networks have been asked at, over all ranks; to be called on every rank."""
        count = torch.tensor([[self.sampler.num_network_evaluations]], device=self.device)
        return int(self.gather_rows(count).sum())

    def _counts_of(self, counter: CountedTarget) -> tuple[int, int]:
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
        checkpoint["was_trained"] = self.sampler.was_trained
        checkpoint["behaviour"] = self.behaviour.state_dict()
        checkpoint["history"] = self.history
        checkpoint["next_try"] = self.stopping.next_try
        checkpoint["num_network_evaluations"] = self.count_network_evaluations()
        checkpoint["num_target_evaluations"], checkpoint["num_invalid_evaluations"] = self.count_evaluations()
        of_scores = self.count_score_evaluations()
        checkpoint["num_score_evaluations"], checkpoint["num_invalid_score_evaluations"] = of_scores

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_resumption(checkpoint, self.sampler, self.trainer)
        self._restored_step, self._restored_generators = checkpoint["global_step"], checkpoint["generators"]
        self.sampler.was_trained = was_trained(checkpoint)
        self.behaviour.load_state_dict(checkpoint["behaviour"])
        self.history = checkpoint["history"]
        self.stopping.next_try = checkpoint.get("next_try", 0)
        # The counts are those of all ranks together: each goes on with its share, since ranks spend alike.
        counter, ranks = self.sampler.counter, (self.trainer.world_size, self.global_rank)
        counter.num_evaluations = share_of_rank(checkpoint["num_target_evaluations"], *ranks)
        counter.num_invalid = share_of_rank(checkpoint["num_invalid_evaluations"], *ranks)
        network = share_of_rank(checkpoint.get("num_network_evaluations", 0), *ranks)
        self.sampler.network_counter.num_evaluations = network
        if self.sampler.guide is not None:
            guide, kept = self.sampler.guide, checkpoint.get
            guide.num_evaluations = share_of_rank(kept("num_score_evaluations", 0), *ranks)
            guide.num_invalid = share_of_rank(kept("num_invalid_score_evaluations", 0), *ranks)

    @property
    def trained_steps(self) -> int:
        """Training steps behind the current weights."""
        return max(self.global_step, self._restored_step or 0)
