"""What a step of a rollout asks at every state, target and control together, and the same compiled."""

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsampler.density import Density
from diffsampler.errors import warn_of
from diffsampler.networks import Control


class Response(NamedTuple):
    """log R and its score, with shapes (B) and (B, D), None where nobody asks the target, and the control."""

    log_prob: Tensor | None
    score: Tensor | None
    control: Tensor


Respond = Callable[[Density | None, Control, Tensor, Tensor], Response]


def respond(density: Density | None, control: Control, embedding: Tensor, x: Tensor) -> Response:
    """What target and control say at states x with shape (B, D), at the time of an embedding with shape (E)."""
    if density is None:
        return Response(None, None, control(embedding, x, None))
    log_prob, score = density.log_prob_and_score(x)
    return Response(log_prob, score, control(embedding, x, score))


class CompiledResponse:
    """`respond` by torch.compile, for batches of any size; eager where that fails, after a warning.

    It compiles at the second call, for some 10 to 20 seconds, and once more for batches of other sizes, devices or
    dtypes. Copies start anew.
    """

    def __init__(self) -> None:
        self._chosen: Callable[..., Response] | None = None

    def __call__(self, density: Density | None, control: Control, embedding: Tensor, x: Tensor) -> Response:
        """As `respond`."""
        if self._chosen is None:  # what is wrong with the target raises now, in its own words
            self._chosen = self._compile
            return respond(density, control, embedding, x)
        return self._chosen(density, control, embedding, x)

    @property
    def is_compiled(self) -> bool:
        """Whether there was a compiler, and it has done its work."""
        return self._chosen not in (None, respond, self._compile)

    def _compile(self, *args: Any) -> Response:
        # torch counts compilations for each code object, and gives up at eight: samplers must not share one.
        compiled = torch.compile(FunctionType(respond.__code__.replace(), respond.__globals__))
        try:
            response = compiled(*args)
        except Exception as error:
            warn_of("compile=True has failed, and the run goes on without", error)
            response, compiled = respond(*args), respond
        self._chosen = compiled
        return response

    def __getstate__(self) -> dict[str, Any]:
        return {"_chosen": None}
