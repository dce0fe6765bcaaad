"""Activations of perceptrons along a rollout, kept for training on its path.

A rollout asks the control at one time after another. The densities of the same path under the same parameters ask for
the same again: a tape gives them what is known, so that training makes no second forward pass.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Tape:
    """What one perceptron, with GELUs between its layers, computes for B states at each of K times.

    It records one call a time, and is then replayed, in pieces of any length. Calls that do not fit, or that ask for
    something else than was recorded, are left to the perceptron.

    Arguments:
        weights, biases: of the layers.
        num_times: K.
        num_states: B.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], num_times: int, num_states: int) -> None:
        self.parameters = [*weights, *biases]
        self._as_it_was = _state(self.parameters)
        self._layers = [(weight.detach().T, bias.detach()) for weight, bias in zip(weights, biases, strict=True)]
        self._place, self._is_replayed = 0, False
        new = weights[0].new_empty
        self._embedding = new(num_times, 1, len(biases[0]))
        self._inputs = new(num_times, num_states, weights[0].shape[1])
        self._before = [new(num_times, num_states, len(weight)) for weight in weights]  # a GELU; at last, the output
        self._after = [torch.empty_like(part) for part in self._before[:-1]]

    @property
    def is_whole(self) -> bool:
        """Whether every time is there."""
        return self._place == len(self._inputs)

    def rewind(self) -> None:
        """Replay from the first time on."""
        self._place, self._is_replayed = 0, True

    def __call__(self, perceptron: "Taped", embedding: Tensor, x: Tensor) -> Tensor | None:
        """The output, with shape (B, *) or (k, B, *); None where this call is left to the perceptron.

        Arguments:
            perceptron: whose tape it is.
            embedding: with shape (E), or (k, 1, E) of as many times.
            x: with shape (B, F) or (k, B, F).
        """
        place, end = self._place, self._place + (len(x) if self._is_replayed else 1)
        fits = x.shape[-2:] == self._inputs.shape[1:]
        fits = fits and (x.ndim, embedding.ndim) == ((3, 3) if self._is_replayed else (2, 1))
        fits = fits and x.dtype == self._inputs.dtype and not torch.is_autocast_enabled(x.device.type)
        if not fits or end > len(self._inputs):
            return None
        self._place = end
        if not self._is_replayed:
            return self._record(place, embedding, x)
        part = slice(place, end)
        # Times are embedded together, and rounded as it comes.
        same = _state(perceptron.parameters_of_layers()) == self._as_it_was and torch.equal(x, self._inputs[part])
        same = same and torch.allclose(embedding, self._embedding[part], 1e-4, 1e-5)
        return _Replay.apply(self, part, embedding, x, *self.parameters) if same else None

    def _record(self, place: int, embedding: Tensor, x: Tensor) -> Tensor:
        self._inputs[place], self._embedding[place] = x, embedding
        (weight, bias), *rest = self._layers
        before = torch.addmm(bias + embedding, x, weight, out=self._before[0][place])
        for layer, (weight, bias) in enumerate(rest):
            after = torch._C._nn.gelu(before, out=self._after[layer][place])
            before = torch.addmm(bias, after, weight, out=self._before[layer + 1][place])
        return before

    def output(self, part: slice) -> Tensor:
        """At some times."""
        return self._before[-1][part].clone()

    def kept(self, part: slice) -> list[Tensor]:
        """What each layer was given, and what came before each GELU, at some times."""
        return [kept[part] for kept in (self._inputs, *self._after, *self._before[:-1])]


def _state(parameters: Sequence[Tensor]) -> list[tuple[int, int, int]]:
    """What differs where a parameter is another one or has been changed."""
    return [(id(parameter), parameter._version, parameter.data_ptr()) for parameter in parameters]


class _Replay(torch.autograd.Function):
    """The output of a perceptron from its tape, with gradients."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, part: slice, embedding: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters, *tape.kept(part))
        ctx.depth = len(parameters) // 2
        return tape.output(part)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        depth, saved = ctx.depth, ctx.saved_tensors
        weights, given, before = saved[:depth], saved[2 * depth : 3 * depth], saved[3 * depth :]
        of_weights, of_biases = [], []
        rows = slope.flatten(0, 1)
        for layer in reversed(range(depth)):
            of_weights.insert(0, rows.T @ given[layer].flatten(0, 1))
            of_biases.insert(0, rows.sum(0))
            if layer:
                rows = torch.ops.aten.gelu_backward(rows @ weights[layer], before[layer - 1].flatten(0, 1))
        of_embedding = rows.unflatten(0, slope.shape[:2]).sum(1, keepdim=True)
        of_x = (rows @ weights[0]).view_as(given[0]) if ctx.needs_input_grad[3] else None
        return None, None, of_embedding, of_x, *of_weights, *of_biases


class Taped(nn.Module):
    """A perceptron whose calls a tape may take over.

    Attributes:
        tape: where its activations go, or come from; None outside of a rollout and its evaluation.
    """

    tape: Tape | None = None

    def parameters_of_layers(self) -> list[Tensor]:
        """Weights, then biases."""
        raise NotImplementedError

    def new_tape(self, num_times: int, num_states: int) -> Tape | None:
        """An empty one for its layers; None where they do more than a tape knows of."""
        raise NotImplementedError


Tapes = dict[Taped, Tape]


@contextmanager
def taped(network: nn.Module, num_times: int, num_states: int) -> Iterator[Tapes]:
    """Perceptrons of a network are recorded in this context, on the tapes that it yields."""
    made = {part: part.new_tape(num_times, num_states) for part in network.modules() if isinstance(part, Taped)}
    tapes = {part: tape for part, tape in made.items() if tape is not None}
    with _running(tapes):
        yield tapes


@contextmanager
def replayed(tapes: Tapes) -> Iterator[None]:
    """Perceptrons take from whole tapes what they would compute in this context.

    Once: the tapes are then gone, with their memory, since parameters may change in ways that leave no trace.
    """
    whole = {part: tape for part, tape in tapes.items() if tape.is_whole}
    tapes.clear()
    for tape in whole.values():
        tape.rewind()
    with _running(whole):
        yield


@contextmanager
def _running(tapes: Tapes) -> Iterator[None]:
    for part, tape in tapes.items():
        part.tape = tape
    try:
        yield
    finally:
        for part in tapes:
            part.tape = None
