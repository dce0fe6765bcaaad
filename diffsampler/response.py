"""What a step of a rollout asks at every state, target and drift together, and the same compiled."""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsampler.networks import Drift
from diffsampler.target import Target, checked_log_prob_and_score

__all__ = ["CompiledResponse", "Response", "respond"]


class Response(NamedTuple):
    """log R and its score, with shapes (B) and (B, D), at how many points they are invalid, and the control.

    The first three are None where nobody asks the target.
    """

    log_prob: Tensor | None
    score: Tensor | None
    num_invalid: Tensor | None
    control: Tensor


def respond(target: Target | None, drift: Drift, embedding: Tensor, x: Tensor) -> Response:
    """What target and drift say at states x with shape (B, D), at the time of an embedding with shape (E)."""
    values = (None, None, None) if target is None else checked_log_prob_and_score(target, x)
    return Response(*values, drift(embedding, x, values[1]))


class CompiledResponse:
    """`respond` by torch.compile, for batches of any size; eager where that fails, after a warning.

    It compiles at the first call, for some 20 seconds, and once more where devices or dtypes change. Copies start
    anew.

    Arguments:
        target: the target, or None.
        drift: the drift.
    """

    def __init__(self, target: Target | None, drift: Drift) -> None:
        self.eager = partial(respond, target, drift)
        self._compiled: Callable[[Tensor, Tensor], Response] | None = None

    def __call__(self, embedding: Tensor, x: Tensor) -> Response:
        if self._compiled is not None:
            return self._compiled(embedding, x)
        response = self.eager(embedding, x)  # what is wrong with the target raises here, in its own words
        # Decided by the first call, so that a failure later on is an error and not a quiet change of speed.
        compiled = torch.compile(self.eager)
        try:
            compiled(embedding, x)
        except Exception as error:
            first_line = str(error).strip().partition("\n")[0]
            warnings.warn(f"compile=True has failed, and the run goes on without: {first_line[:300]}", stacklevel=2)
            logging.getLogger(__name__).debug("torch.compile failed", exc_info=error)
            compiled = self.eager
        self._compiled = compiled
        return response

    def __getstate__(self) -> dict[str, Any]:
        return {"eager": self.eager, "_compiled": None}
