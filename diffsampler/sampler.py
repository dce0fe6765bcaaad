"""The sampler: what a user trains, draws from, and asks for log Z."""

import os
from collections.abc import Callable
from copy import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffsampler.batches import in_batches
from diffsampler.checkpoints import first_mismatch, read_checkpoint
from diffsampler.coordinates import AffineCoordinates, SearchedCoordinates, SupportCoordinates, TargetInCoordinates
from diffsampler.dynamics import Dynamics
from diffsampler.errors import InputError, check_count, check_flag, check_instance
from diffsampler.estimation import METHODS
from diffsampler.estimators import Annealed, WeightSummary
from diffsampler.estimators.log_z import LogZEstimate, estimate_log_z
from diffsampler.grids import Grid, UniformGrid
from diffsampler.networks import Drift, Flow, ForwardLookingFlow, LangevinDrift
from diffsampler.probability_flow import ProbabilityFlow
from diffsampler.processes import PinnedBrownian, Process
from diffsampler.recipe import default_parts
from diffsampler.support import support_of
from diffsampler.target import CountedTarget, Target, check_log_z, naming_the_target
from diffsampler.trajectory import Path

__all__ = ["Sampler"]

STRUCTURE = {"target", "process", "coordinates"}


class Sampler(Dynamics):
    """Samples an unnormalised density and estimates its normalising constant.

    References:
        A Theory of Continuous Generative Flow Networks, Lahlou et al., 2023, arXiv:2301.12594.
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679.

    Arguments:
        target: the density. Given alone, the rest is chosen as in `diffsampler.recipe`: `fit` then searches for place
            and scale first. Given with any other part, the rest is that of DGFS.
        process: forward and backward kernels; by default `PinnedBrownian(sigma=1)`.
        drift: makes the control from the dimension; a ready drift is taken as it is. By default `LangevinDrift`.
        flow: makes the state flow from the dimension; a ready flow is taken as it is, "auto" is `ForwardLookingFlow`,
            None leaves it out (losses that use one then refuse).
        grid: the time grid, or the number of steps of a uniform one; by default 100.
        coordinates: in which process and networks work; made from the target, or ready. `sample` and `rollback` speak
            the target's own coordinates either way; the states of a `Path` are in these. By default
            `SupportCoordinates` where the target declares a support, else none.
        backward_drift: the control of the backward kernel, of processes that learn one; by default made as the drift
            is.
        compile: whether target and drift are compiled by torch.compile for rollouts: the same numbers to rounding, in
            two thirds of the time, after some 20 seconds. Where there is no compiler a warning says so. On a GPU
            training's own rollouts (those of `OnPolicy`) are CUDA graphs besides: what Python decides inside a target
            stays as it was when they were recorded.
        checkpoint_activations: whether training computes activations twice instead of keeping them, in a quarter more
            time, and memory for states alone; the same gradients to rounding. By default it does on a CPU where a
            batch has more than a quarter of a million states (trajectories times steps). Losses that do not take
            densities in one pass, path-wise reverse KL and maximum likelihood on some transitions, keep theirs.

    Attributes:
        self_chosen: whether the parts are the default ones for a target alone.
        was_trained: whether any step has been made on this object.
        log_z: the learned log Z of the balance losses, a scalar parameter. The estimate to report is
            `estimate_log_z`.

    Example:
        >>> from targets import Gaussian
        >>> sampler = Sampler(Gaussian(mean=[1.0, -1.0], covariance=0.5), grid=20)
        >>> sampler.sample(3, seed=0).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        target: Target,
        process: Process | None = None,
        drift: Drift | Callable[[int], Drift] | None = None,
        flow: Flow | Callable[[int], Flow] | Literal["auto"] | None = "auto",
        grid: Grid | int | None = None,
        coordinates: AffineCoordinates | Callable[[Target], AffineCoordinates] | None = None,
        backward_drift: Drift | Callable[[int], Drift] | None = None,
        compile: bool = False,
        checkpoint_activations: bool | None = None,
    ) -> None:
        if not isinstance(target, Target):
            raise InputError(
                f"target must be a Target, got {type(target).__name__}. Wrap a function as FunctionTarget(fn, dim=...)."
            )
        if not hasattr(target, "dim"):
            raise InputError(f"{type(target).__name__} must call super().__init__(dim) in its own __init__.")
        log_z = check_log_z(type(target).__name__, target.log_z)
        if type(log_z) is not type(target.log_z):  # a tensor of one number, say
            target.log_z = log_z
        given = (process, drift, grid, coordinates, backward_drift)
        self_chosen = isinstance(flow, str) and all(part is None for part in given)
        if isinstance(flow, str):
            if flow != "auto":
                raise InputError(
                    f"flow must be a Flow, such as ForwardLookingFlow, 'auto' for it, or None, got {flow!r}."
                )
            flow = ForwardLookingFlow
        if self_chosen:
            process, drift, grid, coordinates = default_parts()
        process = PinnedBrownian() if process is None else process
        drift = LangevinDrift if drift is None else drift
        grid = 100 if grid is None else grid
        check_instance("process", process, Process, "PinnedBrownian()")
        walked, spent = target, 0
        is_bounded = support_of(target) is not None
        if is_bounded and coordinates is None and not process.periodic:
            coordinates = SupportCoordinates
        if coordinates is not None and process.periodic:
            raise InputError(
                f"process {type(process).__name__} walks on angles of period 2 pi, which coordinates would change: "
                "leave them out."
            )
        if coordinates is not None:
            coordinates = coordinates if isinstance(coordinates, nn.Module) else coordinates(target)
            walked, spent = TargetInCoordinates(target, coordinates), coordinates.num_target_evaluations
        if is_bounded and not isinstance(coordinates, SupportCoordinates):
            part = f"process {type(process).__name__}" if coordinates is None else type(coordinates).__name__
            raise InputError(
                f"{type(target).__name__} declares a support, which {part} knows nothing of: leave support out and "
                "return -inf outside, or take coordinates=SupportCoordinates or the target alone."
            )
        counter = CountedTarget(process.extend(walked))
        counter.num_evaluations += spent
        grid = grid if isinstance(grid, Grid) else UniformGrid(grid)
        super().__init__(counter, process, drift, backward_drift, flow, grid, check_flag("compile", compile))
        if checkpoint_activations is not None:
            check_flag("checkpoint_activations", checkpoint_activations)
        self.checkpoint_activations = checkpoint_activations
        self.target = target
        self.coordinates = coordinates
        self.self_chosen = self_chosen
        self.was_trained = False
        if self.uses_score and not target.differentiable:
            raise InputError(
                f"{type(target).__name__} has differentiable=False, but drift or process use its score: take a drift "
                "without, such as FourierMLP, or give the target alone."
            )
        self._is_built = True

    def __setattr__(self, name: str, value: Any) -> None:
        # Counter, coordinates and what networks have learned of the process would go on with the old part.
        if name in STRUCTURE and self.__dict__.get("_is_built"):
            raise InputError(f"A sampler's {name} stays as it was made: make another Sampler for another {name}.")
        super().__setattr__(name, value)

    def search(
        self, seed: int = 0, progress: Callable[[float], None] | None = None, max_evaluations: int | None = None
    ) -> Annealed:
        """Find place, scale and draws of the target, for a sampler in `SearchedCoordinates`; `fit` does it first.

        Arguments:
            seed: of the search.
            progress: is told the fraction of the work that is done, now and then.
            max_evaluations: of the target, after which no further search begins.

        Raises:
            InputError: if this sampler's coordinates are others, or the density is zero wherever the search looks.
        """
        if not isinstance(self.coordinates, SearchedCoordinates):
            raise InputError("search is for a sampler with coordinates=SearchedCoordinates.")
        counter = CountedTarget(self.target)
        with naming_the_target(self.target, "The search"):
            found = self.coordinates.search(counter, seed, progress, max_evaluations)
        self.counter.num_evaluations += counter.num_evaluations
        self.counter.num_invalid += counter.num_invalid
        return found

    def search_is_outdated(self) -> bool:
        """Whether there was a search, and the target gives other values now than it did then."""
        if not isinstance(self.coordinates, SearchedCoordinates) or not self.coordinates.is_found:
            return False
        counter = CountedTarget(self.target)
        is_outdated = self.coordinates.is_outdated(counter)
        self.counter.num_evaluations += counter.num_evaluations
        return is_outdated

    @property
    def reference(self) -> LogZEstimate | None:
        """What the search of `SearchedCoordinates` estimated, None before and without one."""
        return self.coordinates.reference if isinstance(self.coordinates, SearchedCoordinates) else None

    @property
    def search_cost(self) -> int:
        """Points at which the target was evaluated to find `SearchedCoordinates`."""
        return self.coordinates.num_target_evaluations if isinstance(self.coordinates, SearchedCoordinates) else 0

    def rollback(self, x: Tensor, generator: torch.Generator | None = None) -> Path:
        """Trajectories that end in x, with shape (B, D), drawn backwards by P_B.

        Raises:
            InputError: if x has another shape.
        """
        return self.walk_back(self.process.lift(self._walked(x).to(self.device, self.dtype), generator), generator)

    def sample(
        self,
        n: int,
        seed: int | None = None,
        return_log_weights: bool = False,
        generator: torch.Generator | None = None,
        batch_size: int = 10_000,
        progress_bar: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """n draws of the sampler, with shape (n, D), in working memory that does not grow with n.

        Arguments:
            n: the number of draws.
            seed: of a fresh generator; without one (and without `generator`) torch's global generator is used.
            return_log_weights: also return log importance weights, float64, with shape (n): weighted draws are draws
                of the target, and E[exp(log_w)] = Z.
            generator: the source of all noise, instead of a seed.
            batch_size: draws made at a time.
            progress_bar: whether to show how far it is.
        """
        generator = self._generator(seed, generator)
        x = torch.empty(check_count("n", n), self.target.dim, dtype=self.dtype, device=self.device)
        log_weight = torch.empty(n, dtype=torch.float64, device=self.device)
        check_count("batch_size", batch_size)
        done = 0
        for count in in_batches(n, batch_size, progress_bar):
            part = slice(done, done + count)
            x[part], log_weight[part] = self.weighted_rollout(count, generator)
            done += count
        return (x, log_weight) if return_log_weights else x

    def estimate_log_z(
        self,
        num_samples: int = 2000,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 10_000,
        method: Literal["importance", "smc", "ode"] = "importance",
        progress_bar: bool = False,
    ) -> LogZEstimate:
        """log Z with its 95 % interval and diagnostics; by importance weights, in memory that does not grow with draws.

        Arguments:
            num_samples: draws of the sampler; "smc" rounds up to whole groups.
            seed: of a fresh generator.
            generator: the source of all noise, instead of a seed.
            batch_size: draws made at a time.
            method: "importance" weighs independent draws. "smc", for samplers with a flow, resamples them on the way
                (`sequential_rollout`), in 50 groups of at least 20 whose means are the weights of the estimate;
                its `elbo` is the groups' bound, which is tighter. "ode" weighs draws of the probability flow, which is
                another sampler made of the same networks.
            progress_bar: whether to show how far it is.

        Raises:
            InputError: if no draw has a usable density, or the method cannot be had.
        """
        check_count("num_samples", num_samples)
        check_count("batch_size", batch_size)
        generator = self._generator(seed, generator)
        if method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
        return METHODS[method](self, num_samples, generator, batch_size, progress_bar)

    def log_prob(
        self,
        x: Tensor,
        seed: int | None = None,
        return_standard_error: bool = False,
        num_probes: int = 16,
        tolerance: float = 1e-6,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The normalised log-density of the sampler's probability flow at x, float64, with shape (n).

        That is the density of `sample` as far as training has made the two kernels reversals of each other. Where D
        exceeds `num_probes` it is an estimate.

        References:
            Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2021,
            arXiv:2011.13456, section 4.3.

        Arguments:
            x: points with shape (n, D).
            seed: of the probes.
            return_standard_error: also return that of each value, with shape (n); 0 where the trace is exact.
            num_probes, tolerance: as in `ProbabilityFlow`.

        Raises:
            InputError: if x has another shape, or the process walks in momenta too.
        """
        z = self._walked(x)
        density = ProbabilityFlow(self, num_probes, tolerance).log_prob(z, self._generator(seed, None))
        log_prob = density.log_prob
        if self.coordinates is not None:
            log_prob = log_prob - self.coordinates.with_log_det(z)[1].to(log_prob)
        return (log_prob, density.standard_error) if return_standard_error else log_prob

    def estimate_from(self, log_weight: Tensor | WeightSummary, draws_per_weight: int = 1) -> LogZEstimate:
        """The estimate that these log-weights support, with what the target has cost and how often it failed."""
        counter = self.counter
        return estimate_log_z(
            log_weight, counter.num_evaluations, counter.num_invalid, draws_per_weight, counter.rounding
        )

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Take the weights and the counts of a checkpoint that training wrote, for a sampler made of the same parts.

        Raises:
            InputError: if the file is no checkpoint of diffsampler, or one of other parts.
        """
        checkpoint = read_checkpoint(path)
        state = {
            key.removeprefix("sampler."): value
            for key, value in checkpoint["state_dict"].items()
            if key.startswith("sampler.")
        }
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{path} is of another sampler: {first_mismatch(error)}") from error
        self.counter.num_evaluations = checkpoint["num_target_evaluations"]
        self.counter.num_invalid = checkpoint["num_invalid_evaluations"]

    def uncounted(self) -> "Sampler":
        """This sampler with a count of its own: what figures and metrics evaluate is no part of what a run costs."""
        walker = copy(self)
        walker.counter = CountedTarget(self.counter.target)
        return walker

    @property
    def num_target_evaluations(self) -> int:
        """Points at which the target was evaluated so far, training included."""
        return self.counter.num_evaluations

    def weighted_rollout(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """End points with shape (n, D) and their log importance weights, float64, with shape (n); no path is kept."""
        state, log_weight = super().weighted_rollout(n, generator)
        return self._positions(state), log_weight

    def sequential_rollout(
        self, n: int, num_groups: int = 1, ess_threshold: float = 0.5, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        state, log_weight = super().sequential_rollout(n, num_groups, ess_threshold, generator)
        return self._positions(state), log_weight

    def _walked(self, x: Tensor) -> Tensor:
        """Points of the target as points that the process walks to."""
        if not isinstance(x, Tensor):
            raise InputError(f"x must be a tensor with shape (B, {self.target.dim}), got {type(x).__name__}.")
        if x.ndim != 2 or x.shape[1] != self.target.dim:
            raise InputError(f"x must be points with shape (B, {self.target.dim}), got shape {tuple(x.shape)}.")
        x = x if x.is_floating_point() else x.to(self.dtype)
        return x if self.coordinates is None else self.coordinates.inverse(x)

    def _positions(self, state: Tensor) -> Tensor:
        x = self.process.position(state)
        return x if self.coordinates is None else self.coordinates(x)

    def _generator(self, seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
        if seed is None:
            return generator
        if generator is not None:
            raise InputError("Give either seed or generator, not both.")
        return torch.Generator(self.device).manual_seed(seed)
