"""A process that carries a context along: one for every member of a family."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.density import Density, DerivedDensity
from diffsampler.priors import Prior
from diffsampler.processes.base import Process
from diffsampler.spaces import Euclidean, Product
from diffsampler.spaces.kernels import GaussianKernel, Kernel, ProductKernel

Contexts = Callable[[int, torch.Generator | None], Tensor]


class Conditional(Process):
    """States (z, c): z as another process walks, c as it is.

    Networks see both. Of contexts there is no density: priors and kernels are those of z given c.

    Arguments:
        process: of z.
        contexts: n contexts in the units of states, with shape (n, C), for n trajectories; or the one, with shape (C),
            of the member that this is a process of.
        context_dim: C.
    """

    def __init__(self, process: Process, contexts: Contexts | Tensor, context_dim: int) -> None:
        super().__init__(
            Product([process.space, Euclidean(context_dim)]), ContextPrior(process.prior, contexts, context_dim)
        )
        self.process = process
        self.context_dim = context_dim
        for name in ("uses_score", "shares_control", "learns_backward", "scores_destination"):
            setattr(self, name, getattr(process, name))

    def given(self, context: Tensor) -> "Conditional":
        """The process of one context, in the units of states, with shape (C)."""
        return Conditional(self.process, context, self.context_dim)

    @property
    def context(self) -> Tensor | None:
        """Of the member; None for a process of all."""
        return self.prior.context

    def context_of(self, state: Tensor) -> Tensor:
        """With shape (*, C), of states with shape (*, d + C)."""
        return state[..., -self.context_dim :]

    @property
    def scale(self) -> Tensor:
        return _beside(self.process.scale, self.process.space.dim, self.context_dim, 1.0)

    def extend(self, density: Density) -> Density:
        return density if self.context is None else BesideContext(density, self.context_dim)

    def position(self, state: Tensor) -> Tensor:
        return state if self.context is None else state[..., : -self.context_dim]

    def lift(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x if self.context is None else torch.cat([x, self.context.to(x).expand(*x.shape[:-1], -1)], -1)

    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None) -> Kernel:
        return self._beside_context(self.process.forward_kernel(s, t, *self._of_z(x, u, score)), x)

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> Kernel:
        return self._beside_context(self.process.backward_kernel(s, t, *self._of_z(y, v, score)), y)

    def score_point(self, s: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([self.process.score_point(s, t, *self._of_z(y)), self.context_of(y)], -1)

    def gaussian_control(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._beside_all(self.process.gaussian_control(t), 0.0, 0.0)

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor] | None:
        marginal = self.process.marginal(t)
        return None if marginal is None else self._beside_all(marginal, 1.0, 0.0)

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return self.process.log_reference(t, *self._of_z(x))

    def inverse_temperature(self, t: Tensor) -> Tensor:
        return self.process.inverse_temperature(t)

    def _beside_context(self, kernel: Kernel, state: Tensor) -> ProductKernel:
        context = self.context_of(state)
        return ProductKernel([kernel, GaussianKernel(context, torch.zeros_like(context[..., :1], dtype=torch.float64))])

    def _of_z(self, *states: Tensor | None) -> list[Tensor | None]:
        return [None if state is None else state[..., : -self.context_dim] for state in states]

    def _beside_all(self, values: tuple[Tensor, Tensor], *of_context: float) -> tuple[Tensor, Tensor]:
        pairs = zip(values, of_context, strict=True)
        return tuple(_beside(value, self.process.space.dim, self.context_dim, number) for value, number in pairs)


class ContextPrior(Prior):
    """z from a prior, beside contexts.

    Arguments:
        prior: of z.
        contexts, context_dim: as in `Conditional`.
    """

    context: Tensor | None

    def __init__(self, prior: Prior, contexts: Contexts | Tensor, context_dim: int) -> None:
        super().__init__(Product([prior.space, Euclidean(context_dim)]))
        self.of_z = prior
        self._contexts = contexts
        self.register_buffer("context", contexts if isinstance(contexts, Tensor) else None, persistent=False)
        self.reparametrised, self.is_point = prior.reparametrised, prior.is_point
        self.is_partly_point = prior.is_partly_point

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        z = self.of_z.draw(like[:, : self.of_z.space.dim], generator)
        drawn = self._contexts(len(z), generator) if self.context is None else self.context.expand(len(z), -1)
        return torch.cat([z, drawn.to(z)], -1)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.of_z.log_prob(x[..., : self.of_z.space.dim])

    def score(self, x: Tensor) -> Tensor:
        z, context = x.split([self.of_z.space.dim, x.shape[-1] - self.of_z.space.dim], -1)
        return torch.cat([self.of_z.score(z), torch.zeros_like(context)], -1)

    @property
    def std(self) -> Tensor:
        return _beside(self.of_z.std, self.of_z.space.dim, self.space.dim - self.of_z.space.dim, 1.0)


class BesideContext(DerivedDensity):
    """A density of z, one member's, as one of states (z, c)."""

    def __init__(self, inner: Density, context_dim: int) -> None:
        super().__init__(inner, inner.dim + context_dim)
        self.context_dim = context_dim

    def value(self, x: Tensor) -> Tensor:
        return self.inner.value(x[..., : -self.context_dim])

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, score = self.inner.value_and_score(x[..., : -self.context_dim])
        return log_prob, torch.cat([score, torch.zeros_like(x[..., -self.context_dim :]).to(score)], -1)


def _beside(value: Tensor, dim: int, context_dim: int, of_context: float) -> Tensor:
    """Values of z, with shape (), (*, 1) or (*, d), and a number for each of a context: (*, d + C)."""
    value = value.expand(*value.shape[:-1], dim) if value.ndim else value.expand(dim)
    return torch.cat([value, value.new_full((*value.shape[:-1], context_dim), of_context)], -1)
