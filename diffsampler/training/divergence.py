"""Training that goes wrong: gradients that are not finite, and samplers that were good and are not any more."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.log_z.verdict import TOO_FEW

CHECK_EVERY = 50
MAX_LOST, FEW_LOST = 0.1, 2
COLLAPSE = 100.0  # times the gap at the best ELBO, or nats where that gap is below 1


class Divergence:
    """Watches a run; raises where it has diverged, and warns of what may be that."""

    def __init__(self) -> None:
        self.start(0)
        self._has_collapsed = False

    def start(self, step: int) -> None:
        """Count from this step on."""
        self._num_lost: Tensor | int = 0
        self._since = step

    def leave_out(self, gradients: Sequence[Tensor]) -> None:
        """Set gradients to zero where one of them is not finite: one bad trajectory must not end a run.

        Such a step goes on by the optimiser's momentum alone; to tell it apart here would make a GPU wait.
        """
        finite = torch.stack([gradient.isfinite().all() for gradient in gradients]).all()
        for gradient in gradients:
            gradient.copy_(torch.where(finite, gradient, 0.0))
        self._num_lost = self._num_lost + ~finite

    def check_now_and_then(self, step: int) -> None:
        """`check`, but on a GPU reading waits for the step."""
        if step - self._since >= CHECK_EVERY:
            self.check(step)

    def check(self, step: int) -> None:
        """Raise InputError where too many gradients were left out, warn where some were."""
        num_lost, num_steps = int(self._num_lost), step - self._since
        if num_lost > max(FEW_LOST, MAX_LOST * num_steps):
            raise InputError(
                f"Training diverged: of the {num_steps} steps before step {step}, {num_lost} had a gradient that is "
                "not finite. Checkpoints, where they are kept, are from before. Lower lr, or the trainer's "
                "gradient_clip_val."
            )
        if num_steps < CHECK_EVERY:
            return  # an epoch has ended: the count goes on
        self.start(step)
        if num_lost:
            rank_zero_warn(
                f"Step {step}: {num_lost} of the last {num_steps} steps had a gradient that is not finite, which was "
                "left out."
            )

    def warn_of_collapse(self, history: Sequence[dict[str, Any]]) -> None:
        """Say when a sampler that was good has become useless, though every number is finite."""
        entries = [entry for entry in history if entry["elbo"] is not None]
        if self._has_collapsed or not entries:
            return
        best, last = max(entries, key=lambda entry: entry["elbo"]), entries[-1]
        has_fallen = best["elbo"] - last["elbo"] > COLLAPSE * max(best["log_z"] - best["elbo"], 1.0)
        # One draw within a singular core brings the ELBO down as far, and leaves the weights of the others.
        if has_fallen and last["ess"] * last["num_samples"] < TOO_FEW:
            self._has_collapsed = True
            rank_zero_warn(
                f"Step {last['step']}: the ELBO has fallen from {best['elbo']:.4g}, at step {best['step']}, to "
                f"{last['elbo']:.4g}: training has diverged. best.ckpt, where checkpoints are kept, is from before. "
                "Lower lr."
            )
