"""Targets: unnormalised densities `R(x) = exp(log_prob(x))` on R^D.

A target is all that a user has to write. `log_prob` is enough; `score` comes from autograd unless a closed form is
cheaper, `log_z` and `sample` exist where they are known exactly.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from diffsampler.energies import BoltzmannWeight, TorchBoltzmannWeight, read_energy
from diffsampler.errors import InputError, check_count, check_flag
from diffsampler.spaces import Euclidean, Space
from diffsampler.spaces.declared import angles_among, particles_of
from diffsampler.support import Support, read_support


class Target(nn.Module, ABC):
    """An unnormalised density on R^D, or on a part of it.

    Where the density is not zero may be declared as `support`; `log_prob` is then asked there only, and remains the
    log-density of x: the library walks in coordinates y that go anywhere, adds the Jacobian, and returns x. That makes
    edges easy, at which the density does not fall to zero or has a pole.

    Tensors that a subclass needs are registered with `register_buffer(..., persistent=False)`: they follow the
    sampler to its device and dtype and stay out of checkpoints.

    Arguments:
        dim: the dimension D, at least 1.

    Attributes:
        log_z: the exact or audited log normalising constant, or None where it is not known.
        plot_range: (low, high) of the figures' axes, or None to take it from samples.
        plot_coordinates: the pair of coordinates that two-dimensional figures show.
        differentiable: whether the score says anything: False for a simulator, or a density of flat steps.
        has_density: whether `log_prob` says anything: False for a model that can be simulated and nothing else.
        support: None, which leaves it to `log_prob` to return -inf; a pair (low, high), of numbers or of D numbers
            each, infinite where there is no bound; or a constraint of `torch.distributions.constraints` that keeps the
            dimension, such as `positive`, `cat([positive, real], lengths=[1, 2])` or
            `diffsampler.support.declared.ordered_vector`.
        space: None, which is R^D, or where x lives and under what `log_prob` stays the same: one of
            `diffsampler.spaces`, such as `Circle(D)` for angles, `Particles(n, d)`, `Lattice((8, 8))`.
        limits: None, or between which coordinates, each with shape (D), numbers tell points apart: beyond, `log_prob`
            is -inf, and a search asks how much of the mass may be there.
        coordinates: None, or what makes those of `diffsampler.coordinates` that it is best sampled in from the target,
            such as `functools.partial(InternalCoordinates, z_matrix=..., reference=...)`. log Z is then what they say.
    """

    differentiable: bool = True
    has_density: bool = True
    support: Constraint | tuple[Any, Any] | None = None
    space: Space | None = None
    coordinates: Callable[["Target"], nn.Module] | None = None
    limits: tuple[Tensor, Tensor] | None = None
    log_z: float | None = None
    plot_range: tuple[float, float] | None = None
    plot_coordinates: tuple[int, int] = (0, 1)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log R(x), with shape (*), for x with shape (*, D), a copy. -inf where the density is zero."""

    @property
    def known_as(self) -> str:
        """What messages call it: the name of its class."""
        return type(self).__name__

    def score(self, x: Tensor) -> Tensor:
        """The gradient of `log_prob`, with shape (*, D)."""
        return self.log_prob_and_score(x)[1]

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`log_prob` and `score` in one pass, both detached, by autograd unless a subclass has a closed form.

        Works under `torch.no_grad` and `torch.inference_mode`.
        """
        return by_autograd(self.known_as, self.log_prob, x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n exact samples, with shape (n, D); NotImplementedError where there are none."""
        raise NotImplementedError(f"{type(self).__name__} has no exact samples.")

    @property
    def has_exact_samples(self) -> bool:
        """Whether `sample` is implemented."""
        return type(self).sample is not Target.sample

    def starting_points(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """At most n points that a search begins from too, with shape (m, D); None where none are known.

        Of a prior, say, or where a simulation ended.
        """
        return None

    @property
    def observables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Functions of x whose means are of interest, by name: (n) or (n, k) for x with shape (n, D).

        Those of `diffsampler.observables` are functions too: `Variance`, `Histogram`, ...
        """
        return {}

    @property
    def exact_observables(self) -> dict[str, float | Sequence[float]]:
        """The means of observables that are known exactly, by name: reports then state errors."""
        return {}

    @property
    def points_of(self) -> "Target | None":
        """The target whose points these are, with the names that they have there; None for its own."""
        return None

    @property
    def coordinate_names(self) -> list[str] | None:
        """What messages call the D coordinates; None for x[0], x[1], ..."""
        return None

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Figures of merit of samples x, with shape (n, D), that make sense for this target only (mode masses, say)."""
        return {}


class FunctionTarget(Target):
    """The density `exp(fn(x))` of a function written in torch.

    Arguments:
        fn: maps a tensor with shape (*, D) to log-densities with shape (*).
        dim: the dimension D.
        log_z: its log normalising constant, if known.
        plot_range: (low, high) of the figures' axes.
        plot_coordinates: the pair of coordinates that two-dimensional figures show.
        differentiable: False for a function that autograd cannot follow, of arrays for one.
        support: where the density is not zero, as in `Target`: (0, 1) for a box, `constraints.positive`.
        periodic: which coordinates are angles, of period 2 pi: True for all, or their numbers. log Z is that of one
            period, [-pi, pi).
        mean_free: the number n of particles, where x holds one after the other and `fn` does not know where their
            centre is: log Z is then that of configurations of mean 0. They are taken to be identical, and `fn` to stay
            the same when all are rotated or reflected; else give space=Particles(n, d, identical=False).
        space: any other, as in `Target`.

    Example:
        >>> target = FunctionTarget(lambda x: -(x - 1).abs().sum(-1), dim=3)
        >>> target.log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        fn: Callable[[Tensor], Tensor],
        dim: int,
        log_z: float | None = None,
        plot_range: tuple[float, float] | None = None,
        plot_coordinates: tuple[int, int] = (0, 1),
        differentiable: bool = True,
        support: Constraint | tuple[Any, Any] | None = None,
        periodic: bool | Sequence[int] = False,
        mean_free: int | None = None,
        space: Space | None = None,
    ) -> None:
        super().__init__(dim)
        if not callable(fn):
            raise InputError(f"fn must be a function of a tensor, got {fn!r}.")
        self.fn = fn
        self.log_z = check_log_z(type(self).__name__, log_z)
        self.plot_range = plot_range
        self.plot_coordinates = plot_coordinates
        self.differentiable = check_flag("differentiable", differentiable)
        self.support = support
        support_of(self)
        self.space = _declared_space(self.dim, periodic, mean_free, space)
        space_of(self)

    @classmethod
    def from_energy(
        cls,
        energy: Callable[[Any], Any],
        dim: int,
        forces: Callable[[Any], Any] | bool | None = None,
        temperature: float = 1.0,
        batched: bool = True,
        workers: int = 0,
        points: Any = None,
        **declarations: Any,
    ) -> "FunctionTarget":
        """The density `exp(-energy(x) / temperature)` of a function of NumPy arrays or of tensors, float64.

        Which of the two it takes is found out by asking it. Scores are the forces, autograd's if there are none and it
        is written in torch; else the target is not differentiable. Forces are compared once with differences.

        Arguments:
            energy: maps configurations, with shape (n, D), to energies, with shape (n).
            dim: the dimension D.
            forces: maps them to -dE/dx, with shape (n, D), or as many numbers in another; True where `energy` returns
                (energy, forces) itself.
            temperature: kT, in units of the energy.
            batched: False for functions of one configuration, with shape (D), at a time. One that raises is NaN:
                counted, and of zero density. With True, what is raised ends the run.
            workers: in how many processes to evaluate it, which stay; 0 for this one.
            points: a few configurations, with shape (n, D), to try it and its forces with; made up by default.
            declarations: other arguments of `FunctionTarget`, such as periodic, mean_free, space, support.

        Raises:
            InputError: if forces differ from differences of the energy, or the energy is of another kind than said.
            Exception: what the energy raises, if it does at all points that it is tried with.

        Example:
            >>> target = FunctionTarget.from_energy(lambda x: x @ x, 3, forces=lambda x: -2 * x, batched=False)
            >>> target.score(torch.ones(2, 3))[0].tolist()
            [-2.0, -2.0, -2.0]
        """
        if not callable(energy):
            raise InputError(f"energy must be a function of configurations, got {energy!r}.")
        target = cls(energy, dim, **declarations)
        tried = points_within(target) if points is None else torch.as_tensor(points, dtype=torch.float64, device="cpu")
        if tried.ndim != 2 or tried.shape[-1] != target.dim or not len(tried):
            raise InputError(f"points must have shape (n, {target.dim}), got {tuple(tried.shape)}.")
        found, by_autograd = read_energy(energy, forces, check_flag("batched", batched), tried.numpy())
        weight = BoltzmannWeight(found, temperature, workers)
        weight.check_at(tried.numpy())
        target.fn = TorchBoltzmannWeight(energy, temperature, batched) if by_autograd and not workers else weight
        target.differentiable = target.differentiable and found.has_forces
        return target

    def log_prob(self, x: Tensor) -> Tensor:
        return self.fn(x)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        known = isinstance(self.fn, BoltzmannWeight) and self.differentiable
        return self.fn.log_prob_and_score(x) if known else super().log_prob_and_score(x)


def by_autograd(name: str, function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A log-density and its gradient at x, both detached, of a target of this name.

    Raises:
        InputError: if it is no tensor, or autograd cannot follow.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # Outside of inference mode its tensors cannot require gradients, copies can.
        x = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
        # A copy, which may be changed in place, as x itself may not.
        log_prob = function(x.clone())
        if not isinstance(log_prob, Tensor):
            raise InputError(
                f"{name}.log_prob must return a tensor, got {type(log_prob).__name__}. Write it in "
                "torch, or wrap what it returns in torch.as_tensor and say differentiable=False."
            )
        if log_prob.is_complex():
            raise InputError(f"{name}.log_prob must return floating-point values, got dtype {log_prob.dtype}.")
        if not log_prob.requires_grad:
            raise InputError(
                f"{name}.log_prob is not differentiable by autograd (was x detached or made an "
                "array, or is the value the same wherever it is finite?). Write it in torch, override "
                "log_prob_and_score, or say differentiable=False; a control of your choice is then one without "
                "score, such as FourierMLP."
            )
        (score,) = torch.autograd.grad(log_prob.sum(), x)
    return log_prob.detach(), score


def points_within(target: Target, n: int = 8) -> Tensor:
    """Points near the origin and far from it, where a target may be asked, float64, with shape (n, D)."""
    noise = torch.randn(
        n, target.dim, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float64, device="cpu"
    )
    z = torch.logspace(-1, 1, n, dtype=torch.float64, device="cpu").unsqueeze(-1) * noise
    support, space = support_of(target), space_of(target)
    return support.forward(z)[0] if support is not None else space.to_target(space.wrap(space.from_target(z)))


def _declared_space(
    dim: int, periodic: bool | Sequence[int], mean_free: int | None, space: Space | None
) -> Space | None:
    declared = {"periodic": periodic is not False, "mean_free": mean_free is not None, "space": space is not None}
    given = [name for name, is_given in declared.items() if is_given]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} say the same thing in different ways: give one of them.")
    if mean_free is not None:
        return particles_of(mean_free, dim)
    return angles_among(periodic, dim) if declared["periodic"] else space


def space_of(target: Target) -> Space:
    """Where a target lives, R^D unless it declares another space.

    Raises:
        InputError: if that is no space, or not one of D coordinates, or a support is declared beside it.
    """
    space, name = target.space, type(target).__name__
    if space is None:
        return Euclidean(target.dim)
    if not isinstance(space, Space):
        raise InputError(
            f"space of {name} must be one of diffsampler.spaces, such as Circle({target.dim}), got {space!r}."
        )
    if space.target_dim != target.dim:
        raise InputError(f"space of {name} must have its dimension {target.dim}, got {space!r} of {space.target_dim}.")
    if target.support is not None:
        raise InputError(
            f"{name} declares both a support and the space {space!r}: only one of them can be had. Return -inf "
            "outside of the support from log_prob, and leave it out."
        )
    return space


def support_of(target: Target) -> Support | None:
    """What a target declares as its support; None where that is nothing, or all of R^D.

    Raises:
        InputError: if it is no support of D coordinates, or one that no map of R^D is known for.
    """
    return read_support(target.support, target.dim, type(target).__name__)


def check_log_z(name: str, log_z: float | None) -> float | None:
    """Return `log_z` as a float if it is a finite number, or None."""
    if isinstance(log_z, Tensor) and log_z.numel() == 1:
        log_z = log_z.item()
    if log_z is None:
        return None
    if isinstance(log_z, bool) or not isinstance(log_z, Real) or not math.isfinite(log_z):
        raise InputError(f"log_z of {name} must be a finite number, or None where it is not known, got {log_z!r}.")
    return float(log_z)
