"""Callbacks: averaged weights, and what a run leaves behind in its folder: results, figures and samples."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, WeightAveraging
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.estimators import LogZEstimate, estimate_log_z, judge, reference
from diffsampler.module import SamplerModule
from diffsampler.target import Target

__all__ = ["ExponentialMovingAverage", "Report", "SampleWriter", "format_table"]

LAST_EVALUATIONS = 5
NUM_COMPARED = 2000
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


class Report(L.Callback):
    """Prints the log Z table and writes `results.json` and the figures, at the end of `fit` and of `test`.

    Arguments:
        figures: whether to draw figures.
        coordinates: the pair that two-dimensional figures show; by default the target's choice.
        reference: whether to estimate log Z without learning too, for the verdict, where training has not begun with
            that: some 100 000 to 500 000 further evaluations of the target.
    """

    def __init__(
        self, figures: bool = True, coordinates: tuple[int, int] | None = None, reference: bool = False
    ) -> None:
        self.figures = figures
        self.coordinates = coordinates
        self.reference = reference

    def on_fit_end(self, trainer: L.Trainer, module: SamplerModule) -> None:
        # On every rank: counts are summed over all of them.
        evaluated, num_invalid = module.count_evaluations()
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        n, before = trainer.datamodule.num_test_samples, module.sampler.num_target_evaluations
        x, log_weight = module.sampler.sample(n, return_log_weights=True, generator=module.new_generator("test"))
        evaluated += module.sampler.num_target_evaluations - before
        self._write(trainer, module, x, log_weight, estimate_log_z(log_weight, evaluated, num_invalid))

    def _reference(self, module: SamplerModule) -> tuple[LogZEstimate | None, Tensor | None]:
        """An independent estimate and its draws: those of the search, or of one made now if that is asked for."""
        sampler = module.sampler
        if sampler.reference is not None:
            return sampler.reference, sampler.coordinates.points
        if not self.reference:
            return None, None
        found = reference(sampler.target, seed=module.seed)
        return found.estimate, found.x

    def _draws_of_the_target(
        self, target: Target, n: int, reference_x: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor | None, bool]:
        """Draws of the target, if there are any, and whether they are exact; those of the reference are not."""
        if target.has_exact_samples:
            return target.sample(n, generator), True
        return None if reference_x is None else reference_x[-n:], False

    def on_exception(self, trainer: L.Trainer, module: SamplerModule, exception: BaseException) -> None:
        last = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero and last.is_file():
            print(f"\nStopped. Go on with: diffsampler fit --ckpt_path {last}")

    def on_test_end(self, trainer: L.Trainer, module: SamplerModule) -> None:
        if trainer.is_global_zero:
            self._write(trainer, module, module.test_samples, module.test_log_weight, module.test_estimate)

    def _write(
        self, trainer: L.Trainer, module: SamplerModule, x: Tensor, log_weight: Tensor, estimate: LogZEstimate
    ) -> None:
        from diffsampler.metrics import rolled_back_log_weight, wasserstein2

        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        target = module.sampler.target
        reference, reference_x = self._reference(module)
        generator = module.new_generator("metrics")  # one for both: draws must not share their noise with the walk back
        drawn, exact = self._draws_of_the_target(target, min(NUM_COMPARED, len(x)), reference_x, generator)
        rolled_back, bounds, distance = None, {}, {}
        if drawn is not None:
            rolled_back = rolled_back_log_weight(module.sampler, drawn, generator)
            # Rounding moves a draw at an edge of the support out of it.
            finite = rolled_back[rolled_back.isfinite()]
            if len(finite):
                bounds = {"eubo" if exact else "eubo_approximate": float(finite.mean())}
        if exact:
            distance = {"wasserstein2": wasserstein2(x[: len(drawn)], drawn.to(x))}
        verdict = judge(estimate, reference, x, log_weight, reference_x, module.history, rolled_back)
        results = {
            **estimate.to_dict(),
            "true_log_z": target.log_z,
            "target": type(target).__name__,
            "num_invalid_evaluations": module.sampler.counter.num_invalid,
            "step": module.trained_steps,
            "checkpoint": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
            "diagnostics": {**target.diagnostics(x), **bounds, **distance},
            "reference": None if reference is None else reference.to_dict(),
            "verdict": asdict(verdict),
            "last_evaluations": summarise_history(module.history, target.log_z),
        }
        (folder / "results.json").write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
        if results["step"] == 0:
            print("  These are the weights before any training: give --ckpt_path to use a trained sampler.")
        print(format_table(estimate, target.log_z, reference))
        print(f"  verdict: {verdict.grade}")
        print("\n".join(f"    {reason}" for reason in verdict.reasons))
        for name, value in results["diagnostics"].items():
            print(f"  {name.replace('_', ' ')}: {value:.4g}")
        print(f"Results: {folder / 'results.json'}")
        if self.figures:
            from diffsampler.plotting import save_figures

            paths = save_figures(
                folder,
                module.sampler,
                x,
                log_weight,
                estimate,
                module.history,
                module.seed,
                self.coordinates,
                reference,
                {BOUND_NAMES[name]: value for name, value in bounds.items()},
            )
            print(f"Figures: {', '.join(str(path) for path in paths)}")


def format_table(estimate: LogZEstimate, true_log_z: float | None = None, reference: LogZEstimate | None = None) -> str:
    """The log Z table, in words: estimate, interval, bound, diagnostics, truth and reference where known, warnings."""
    rows = [
        ("log Z", f"{estimate.log_z:.4f}"),
        ("95 % interval", f"[{estimate.low:.4f}, {estimate.high:.4f}]"),
        ("ESS", f"{estimate.ess:.1%} of {estimate.num_samples} samples"),
        ("target evaluations", f"{estimate.num_target_evaluations:,}"),
    ]
    if estimate.elbo < estimate.log_z:  # SMC's own estimate is its bound
        rows.insert(2, ("ELBO", f"{estimate.elbo:.4f}"))
    if reference is not None:
        rows.insert(2, ("reference (SMC)", f"{reference.log_z:.4f} [{reference.low:.4f}, {reference.high:.4f}]"))
    if not math.isnan(estimate.khat):
        rows.insert(-1, ("Pareto khat", f"{estimate.khat:.2f}"))
    if true_log_z is not None:
        rows.insert(1, ("true log Z", f"{true_log_z:.4f}  (error {estimate.log_z - true_log_z:+.4f})"))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, *(f"  warning: {warning}" for warning in estimate.warnings)])


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
    """Writes what `predict` draws into `samples.npz`: `x` with shape (n, D) and `log_weight` with shape (n)."""

    def __init__(self) -> None:
        super().__init__("epoch")

    def write_on_epoch_end(
        self, trainer: L.Trainer, module: SamplerModule, predictions: list[dict[str, Tensor]], batch_indices: Any
    ) -> None:
        arrays = {
            key: module.gather_rows(torch.cat([part[key] for part in predictions]).to(module.device)).cpu().numpy()
            for key in ("x", "log_weight")
        }
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "samples.npz", **arrays)
        print(f"Samples: {folder / 'samples.npz'} (x {arrays['x'].shape}, log_weight {arrays['log_weight'].shape})")
