"""Callbacks: averaged weights, and what a run leaves behind in its folder: results, figures and samples."""

import math
import sys
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, WeightAveraging
from torch import Tensor

from diffsampler.assessment import Assessment, assess_draws, estimate_observables
from diffsampler.baseline import Annealed, reference
from diffsampler.errors import InputError, warn_of
from diffsampler.families import Family, read_context, read_contexts
from diffsampler.files import write_atomically, write_json
from diffsampler.log_z import LogZEstimate, estimate_log_z
from diffsampler.log_z.estimate import warned_of_scores
from diffsampler.models.names import summary_of
from diffsampler.observables import find_observables
from diffsampler.report.distances import MAX_DRAWS, distances_of_target
from diffsampler.report.metrics import wasserstein2
from diffsampler.sampler import Sampler
from diffsampler.spaces import Euclidean
from diffsampler.target import Target, space_of
from diffsampler.training.family_report import write_family_report, write_likelihood_report
from diffsampler.training.module import SamplerModule

LAST_EVALUATIONS = 5
SECONDS_BETWEEN_LINES = 5.0
SHOWN = "elbo", "log_z", "ess", "log_likelihood"
UNTRAINED = "  These are the weights before any training: give --ckpt_path to use a trained sampler."
BOUND_NAMES = {"eubo": "EUBO", "eubo_approximate": "EUBO (approximate)"}


class ExponentialMovingAverage(WeightAveraging):
    """Evaluates and keeps an exponential moving average of the weights.

    The decay warms up as (1 + n) / (10 + n): the weights before training are forgotten at once.

    Arguments:
        decay: of the average, in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay must be at least 0 and below 1, got {decay!r}.")

        def average(mean: Tensor, value: Tensor, n: Tensor) -> Tensor:
            weight = 1 - ((1 + n) / (10 + n)).clamp(max=decay)
            return torch.lerp(mean, value, weight.to(mean))

        super().__init__(use_buffers=False, avg_fn=average)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # The copy was made before the trainer's precision changed the dtype of parameters; buffers keep their own.
        for mean, value in zip(self._average_model.module.parameters(), pl_module.parameters(), strict=True):
            mean.data = mean.data.to(value.dtype)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # Outside `fit` the checkpoint's state_dict already is the average.
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class PlainProgress(L.Callback):
    """A line on stderr after validations, where a bar that paints over itself would fill a file."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = -SECONDS_BETWEEN_LINES

    def on_validation_end(self, trainer: L.Trainer, pl_module: SamplerModule) -> None:
        now = time.monotonic()
        if trainer.state.fn != "fit" or not trainer.is_global_zero or not pl_module.history:
            return
        if now - self._last < SECONDS_BETWEEN_LINES and not trainer.should_stop:
            return
        self._last, entry = now, pl_module.history[-1]
        if entry["step"] != trainer.global_step:
            return  # no draw had a density: a warning has said so
        figures = ", ".join(f"{name} {entry[name]:.5g}" for name in SHOWN if entry.get(name) is not None)
        print(f"Step {entry['step']}: {figures}", file=sys.stderr, flush=True)


def _folder_of(trainer: L.Trainer) -> Path:
    """Of the run; to be called on every rank, since `log_dir` is a broadcast."""
    return Path(trainer.log_dir or trainer.default_root_dir)


class Report(L.Callback):
    """Prints the log Z table and writes `results.json` and the figures, at the end of `fit` and of `test`.

    Those of a test are in a folder `test` of its own: what `fit` has written stays.

    Arguments:
        figures: whether to draw figures.
        coordinates: the pair that two-dimensional figures show; by default the target's choice.
        reference: whether to estimate log Z without learning too, for the verdict, where training has not begun with
            that: some 100 000 to 500 000 further evaluations of the target.
        observables: names of observables, each one of the target's own or of its kind of space, such as "energy", or
            the dotted path of a function of yours, such as "my_file.f"; by default all that the target offers.
        contexts: of a family, where to estimate log Z, each a list of its numbers; by default nine that are far from
            each other among those trained on.
    """

    def __init__(
        self,
        figures: bool = True,
        coordinates: tuple[int, int] | None = None,
        reference: bool = False,
        observables: list[str] | None = None,
        contexts: list[list[float]] | None = None,
    ) -> None:
        self.figures = figures
        self.coordinates = coordinates
        self.reference = reference
        self.observables = observables
        self.contexts = contexts
        self.folder: Path | None = None

    def setup(self, trainer: L.Trainer, module: SamplerModule, stage: str) -> None:
        self.folder = _folder_of(trainer)
        self.check(module.sampler.target)
        if self.contexts is not None:
            family = module.sampler.family
            if family is None:
                raise InputError(f"contexts are of families, and {module.sampler.target.known_as} is one density.")
            read_contexts(family, self.contexts)

    def check(self, target: Target) -> None:
        """Raise InputError if an observable has no such name, or another shape: before anything is spent."""
        find_observables(target, self.observables, tried=True)

    def on_fit_end(self, trainer: L.Trainer, module: SamplerModule) -> None:
        # On every rank: counts are summed over all of them.
        evaluated, num_invalid = module.count_evaluations()
        network, scores = module.count_network_evaluations(), module.count_score_evaluations()
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        sampler, n = module.sampler, trainer.datamodule.num_test_samples
        if sampler.family is not None:
            self._write_family(module, n)
            return
        before = sampler.num_target_evaluations, sampler.num_network_evaluations
        x, log_weight = sampler.sample(n, return_log_weights=True, generator=module.new_generator("test"))
        evaluated += sampler.num_target_evaluations - before[0]
        network += sampler.num_network_evaluations - before[1]
        rounding = sampler.counter.rounding
        estimate = estimate_log_z(log_weight, evaluated, num_invalid, rounding=rounding)
        estimate = warned_of_scores(estimate, *scores)
        self._write(trainer, module, x, log_weight, estimate, network)

    def on_exception(self, trainer: L.Trainer, module: SamplerModule, exception: BaseException) -> None:
        if not isinstance(exception, KeyboardInterrupt) or not trainer.is_global_zero or self.folder is None:
            return
        last = self.folder / "checkpoints" / "last.ckpt"
        if last.is_file():
            print(f"\nStopped. Go on with: diffsampler fit --ckpt_path {last}")

    def on_test_end(self, trainer: L.Trainer, module: SamplerModule) -> None:
        if trainer.is_global_zero:
            self.folder = self.folder / "test"
            if module.sampler.family is not None:
                self._write_family(module, trainer.datamodule.num_test_samples)
                return
            found = module.test_samples, module.test_log_weight, module.test_estimate
            self._write(trainer, module, *found, module.test_network_evaluations)

    def _write_family(self, module: SamplerModule, n: int) -> None:
        if module.ended:
            print(f"  Training ended: {module.ended}.")
        if not module.sampler.target.has_density:
            write_likelihood_report(self.folder, module.sampler, module.test_log_likelihood, module.trained_steps)
            return
        write_family_report(
            self.folder,
            module.sampler,
            n,
            module.seed,
            self.contexts,
            self.figures,
            module.trained_steps,
            self.reference,
        )

    def _write(
        self,
        trainer: L.Trainer,
        module: SamplerModule,
        x: Tensor,
        log_weight: Tensor,
        estimate: LogZEstimate,
        network: int,
    ) -> None:
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        sampler, target = module.sampler, module.sampler.target
        # One for exact draws and walks back: draws must not share their noise with the walk back.
        generator = module.new_generator("metrics")
        apart = reference(target, seed=module.seed) if self.reference and sampler.reference is None else None
        found = assess_draws(sampler, x, log_weight, estimate, generator, module.history, apart)
        observables = find_observables(target, self.observables)
        means = estimate_observables(target, observables, x, log_weight)
        found = replace(found, observables=means, num_network_evaluations=network)
        bounds, distance = {}, {}
        if found.eubo is not None:
            bounds = {"eubo" if found.draws_are_exact else "eubo_approximate": found.eubo}
        if found.draws_are_exact and type(space_of(target)) is Euclidean:  # else no distance of x that means anything
            distance = {"wasserstein2": wasserstein2(x[: len(found.draws)], found.draws.to(x))}
        compared, distances = None, {}
        if observables or target.space is not None:
            compared = _draws_to_compare(sampler, found, apart, 2 * MAX_DRAWS, generator)
        if compared is not None:
            distances = distances_of_target(target, x, log_weight, compared, generator)
        results = {
            **estimate.to_dict(),
            "true_log_z": target.log_z,
            "target": type(target).__name__,
            "num_network_evaluations": network,
            "num_invalid_evaluations": module.sampler.counter.num_invalid,
            "step": module.trained_steps,
            "checkpoint": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
            "diagnostics": {**_diagnostics(target, x), **bounds, **distance},
            "observables": {name: one.to_dict() for name, one in found.observables.items()},
            "distances": {name: one.to_dict() for name, one in distances.items()},
            "reference": None if found.reference is None else found.reference.to_dict(),
            "verdict": asdict(found.verdict),
            "ended": module.ended or None,
            "last_evaluations": summarise_history(module.history, target.log_z),
        }
        parameters = summary_of(target, x, log_weight)
        if parameters is not None:
            results["parameters"] = parameters.to_dict()
        write_json(folder / "results.json", results)
        if module.ended:
            print(f"  Training ended: {module.ended}.")
        elif results["step"] == 0 and not module.sampler.search_cost:
            print(UNTRAINED)
        print(found)
        if parameters is not None:
            print(parameters)
        for name, value in results["diagnostics"].items():
            print(f"  {name.replace('_', ' ')}: {value:.4g}")
        for name, value in distances.items():
            print(f"  {name.replace('_', ' ')}: {value}")
        print(f"Results: {folder / 'results.json'}")
        if self.figures:
            from diffsampler.report.figures import save_figures
            from diffsampler.report.observable_figures import save_figures_of_target
            from diffsampler.report.parameter_figures import save_parameter_figures

            paths = save_figures(
                folder,
                module.sampler,
                x,
                log_weight,
                estimate,
                module.history,
                module.seed,
                self.coordinates,
                found.reference,
                {BOUND_NAMES[name]: value for name, value in bounds.items()},
                module.loss.uses_flow,
                module.loss.uses_log_z,
            )
            paths += save_parameter_figures(folder, target, x, log_weight, parameters)
            paths += save_figures_of_target(folder, target, observables, x, log_weight, compared, found.observables)
            print(f"Figures: {', '.join(str(path) for path in paths)}")


def _draws_to_compare(
    sampler: Sampler, found: Assessment, apart: Annealed | None, n: int, generator: torch.Generator
) -> Tensor | None:
    """Draws of the target, with shape (m, D) for some m up to n: exact ones, or those of a search; None without."""
    if found.draws_are_exact:
        return sampler.target.sample(n, generator)
    if found.reference is None:
        return None
    return (sampler.coordinates.points if apart is None else apart.x)[-n:]


def _diagnostics(target: Target, x: Tensor) -> dict[str, float]:
    """Those of a target that are finite numbers; a warning of the others."""
    try:
        found = {str(name): float(value) for name, value in target.diagnostics(x.clone()).items()}
    except Exception as error:
        warn_of(f"{type(target).__name__}.diagnostics has failed, and the report goes without", error)
        return {}
    for name in [name for name, value in found.items() if not math.isfinite(value)]:
        warnings.warn(f"{type(target).__name__}.diagnostics: {name} is {found.pop(name)}, and left out.", stacklevel=2)
    return found


def summarise_history(history: list[dict[str, Any]], true_log_z: float | None) -> dict[str, float | int | None] | None:
    """The mean over the last evaluations of a run, never the best of them; None before the first."""
    last = [entry for entry in history[-LAST_EVALUATIONS:] if entry["log_z"] is not None]
    if not last:
        return None

    def mean(values: list[float | None]) -> float | None:
        return None if None in values else float(np.mean(values))

    summary = {"count": len(last), **{key: mean([e[key] for e in last]) for key in ("log_z", "elbo", "ess")}}
    if true_log_z is not None:
        summary["abs_log_z_error"] = mean([abs(entry["log_z"] - true_log_z) for entry in last])
        summary["elbo_gap"] = None if summary["elbo"] is None else true_log_z - summary["elbo"]
    return summary


class SampleWriter(BasePredictionWriter):
    """Writes what `predict` draws into `samples.npz`: `x` with shape (n, D) and `log_weight` with shape (n).

    Without weights where no density is known.

    Arguments:
        context: of a family: which of its densities to draw of.
    """

    def __init__(self, context: list[float] | None = None) -> None:
        super().__init__("epoch")
        self.context = context

    def setup(self, trainer: L.Trainer, module: SamplerModule, stage: str) -> None:
        super().setup(trainer, module, stage)
        self.folder = _folder_of(trainer)
        if stage == "predict":
            module.context = self._read_context(module.sampler.target)

    def _read_context(self, target: Target) -> Tensor | None:
        """Which density is drawn of; None where there is one."""
        name = type(target).__name__
        if not isinstance(target, Family):
            if self.context is not None:
                raise InputError(f"samples.context is for families; {name} is one density.")
            return None
        if self.context is None:
            raise InputError(
                f"predict draws of one density, and {name} is a family: say which by --samples.context='[...]': "
                f"{', '.join(target.context_names) or f'{target.context_dim} numbers'}."
            )
        return read_context(target, self.context)

    def write_on_epoch_end(
        self, trainer: L.Trainer, module: SamplerModule, predictions: list[dict[str, Tensor]], batch_indices: Any
    ) -> None:
        arrays = {
            key: module.gather_rows(torch.cat([part[key] for part in predictions]).to(module.device)).cpu().numpy()
            for key in predictions[0]
        }
        if not trainer.is_global_zero:
            return
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        if module.trained_steps == 0 and not module.sampler.search_cost:
            print(UNTRAINED)
        write_atomically(folder / "samples.npz", lambda file: np.savez(file, **arrays))
        shapes = ", ".join(f"{key} {value.shape}" for key, value in arrays.items())
        print(f"Samples: {folder / 'samples.npz'} ({shapes})")
