"""The sampler: what a user trains, draws from, and asks for log Z."""

import os
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffsampler.assembly import assemble, check_score, check_target, density_of, guide_of
from diffsampler.baseline import Annealed
from diffsampler.checkpoints import WITHOUT_TRAINING, first_mismatch, read_checkpoint, was_trained
from diffsampler.contracts import check_periodic
from diffsampler.coordinates import (
    Coordinates,
    FamilyCoordinates,
    FoundCoordinates,
    MemberCoordinates,
    SupportCoordinates,
)
from diffsampler.counted import CountedTarget, NetworkCounter
from diffsampler.density import Density, or_zero_density
from diffsampler.errors import InputError, check_count, check_flag, check_instance
from diffsampler.estimation import METHODS, estimate_from
from diffsampler.families import Family, no_likelihood, size_of_context, walked_on
from diffsampler.families.contexts import log_mean_of_group
from diffsampler.files import check_file, write_atomically
from diffsampler.fingerprint import describe, differences
from diffsampler.log_z import WeightSummary
from diffsampler.log_z.estimate import LogZEstimate
from diffsampler.models.posterior import Posterior, posterior_of
from diffsampler.networks import Control, StateFlow
from diffsampler.parts import check_free, make_part, take_parts, twin
from diffsampler.paths import Dynamics, Path, PathMeasure, ProbabilityFlow, rollback, rollout, weighted_rollout
from diffsampler.paths.cuda_graph import GraphedRollout
from diffsampler.paths.records import groups_of
from diffsampler.paths.response import CompiledResponse, respond
from diffsampler.processes import Conditional, Process
from diffsampler.processes.grids import Grid
from diffsampler.progress import in_batches
from diffsampler.renamed import knows_old_names
from diffsampler.repeatable import naming_the_target
from diffsampler.rewards import Reward
from diffsampler.spaces import Space
from diffsampler.target import Target, space_of

STRUCTURE = {"target", "policy", "coordinates"}


class Sampler(nn.Module):
    """Samples an unnormalised density and estimates its normalising constant.

    References:
        A Theory of Continuous Generative Flow Networks, Lahlou et al., 2023, arXiv:2301.12594.
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679.

    Arguments:
        target: the density. Given alone, the rest is that of `SearchLearnCorrect` in `diffsampler.recipes`: `fit` then
            searches for place and scale first. Given with any other part, the rest is that of `Dgfs`. Every part is
            ready, or made here: by a class, or `functools.partial` of one, that takes what the part belongs to.
        process: forward and backward kernels, made from the space of z; by default `PinnedBrownian`, on angles
            `Torus`, on both `ProductProcess`.
        control: what steers the process, made from it; by default `LangevinControl`.
        flow: the state flow, made from the process; "auto" is `ForwardLookingFlow`, and none for a target
            alone; None leaves it out (losses that use one then refuse).
        grid: the time grid, or the number of steps of a uniform one; by default 100.
        coordinates: in which process and networks work, made from the target. `sample` and `rollback` speak the
            target's own coordinates either way; the states of a `Path` are in these, z. By default
            `SupportCoordinates` where the target declares a support, `MeanFreeCoordinates` where it declares
            `Particles`, else none.
        backward_control: the control of the backward kernel, of processes that learn one; by default made as the
            control is.
        measure: what importance weights compare a rollout with; by default the target and the process's own backward
            kernel. With another sampler's forward measure, the target is a reward on its draws (fine-tuning).
        compile: whether target and control are compiled by torch.compile for rollouts: the same numbers to rounding, a
            step no more than a few per cent faster on a CPU, after some 20 seconds. Where there is no
            compiler a warning says so. On a GPU training's own rollouts (those of `OnPolicy`) are CUDA graphs besides:
            what Python decides inside a target stays as it was when they were recorded.
        checkpoint_activations: whether training computes activations twice instead of keeping them, in a quarter more
            time, and memory for states alone; the same gradients to rounding. By default it does on a CPU where a
            batch has more than a quarter of a million states (trajectories times steps). Losses that do not take
            densities in one pass, path-wise reverse KL and maximum likelihood on some transitions, keep theirs.

    Attributes:
        policy: what is learned: process, networks, and the log Z of the balance losses. The estimate to report is
            `estimate_log_z`.
        density: the target as a density of z.
        counter: the same, counted.
        guide: of a fine-tuned sampler whose networks use the score, the pretrained one's density of z, counted: theirs
            is that one's score. Else None.
        grid: the time grid.
        recipe: where parts and training come from that nobody has chosen.
        was_trained: whether any step has been made on its weights, those of a file included.

    Example:
        >>> from targets import Gaussian
        >>> sampler = Sampler(Gaussian(mean=[1.0, -1.0], covariance=0.5), grid=20)
        >>> sampler.sample(3, seed=0).shape
        torch.Size([3, 2])
    """

    @knows_old_names
    def __init__(
        self,
        target: Target,
        process: Process | Callable[[Space], Process] | None = None,
        control: Control | Callable[[Process], Control] | None = None,
        flow: StateFlow | Callable[[Process], StateFlow] | Literal["auto"] | None = "auto",
        grid: Grid | int | None = None,
        coordinates: Coordinates | Callable[[Target], Coordinates] | None = None,
        backward_control: Control | Callable[[Process], Control] | None = None,
        measure: PathMeasure | None = None,
        compile: bool = False,
        checkpoint_activations: bool | None = None,
    ) -> None:
        super().__init__()
        ready = {"process": process, "control": control, "flow": flow, "backward_control": backward_control}
        check_free(**ready)
        parts = assemble(walked_on(target), process, control, flow, grid, coordinates, backward_control)
        self._given = target, parts.coordinates  # modules that the density holds already
        # What makes coordinates of another target; those that a search finds go there themselves.
        stay = isinstance(parts.coordinates, FoundCoordinates) or isinstance(coordinates, Coordinates)
        self._make_coordinates = None if stay else coordinates
        self._are_declared = not stay and coordinates is None and target.coordinates is not None
        self.recipe, self.density, self.policy, self.grid = parts.recipe, parts.density, parts.policy, parts.grid
        self.measure = None if measure is None else check_instance("measure", measure, PathMeasure, "one of your own")
        self.counter, self.network_counter = CountedTarget(self.density), NetworkCounter()
        self._guide_by(guide_of(target, parts.coordinates, self.policy))
        if self.guide is None and self.measure is not None and self.measure.uses_score:
            raise InputError(
                f"measure {type(self.measure).__name__} takes a score, and not that of the target: take "
                "fine_tuned(pretrained, reward), which knows of which density, and a control that uses the score too."
            )
        if self.coordinates is not None:
            self.counter.num_evaluations += self.coordinates.num_target_evaluations
        is_compiled = check_flag("compile", compile)
        self._respond = CompiledResponse() if is_compiled else respond
        self._graphed = GraphedRollout() if is_compiled else None
        if checkpoint_activations is not None:
            check_flag("checkpoint_activations", checkpoint_activations)
        self.checkpoint_activations = checkpoint_activations
        self.was_trained = self._is_checked = False
        take_parts(self, *ready.values())
        self.policy.walk_on(self.density)
        self._is_built = True

    def __setattr__(self, name: str, value: Any) -> None:
        # Counter, coordinates and what networks have learned of the process would go on with the old part.
        if name in STRUCTURE and self.__dict__.get("_is_built"):
            way = "fit(sampler, target=...)" if name == "target" else "make another Sampler"
            raise InputError(f"A sampler's {name} stays as it was made: {way} for another {name}.")
        super().__setattr__(name, value)

    def _guide_by(self, density: Density | None) -> None:
        self.guide_density = density  # which goes along to other devices
        self.guide = None if density is None else CountedTarget(density)

    @property
    def target(self) -> Target:
        """What the user gave."""
        return self._given[0]

    @property
    def coordinates(self) -> Coordinates | None:
        """From z to x; None where these are the same."""
        return self._given[1]

    def move_to(self, target: Target) -> None:
        """Make this the sampler of another target in the same space, with the networks that it has: a warm start.

        A fine-tuned sampler takes it for another reward on the draws of the same pretrained one.

        Counts begin anew. What a search has found of the target before is forgotten but for where to begin the next;
        `fit(sampler, target=...)` does this, searches and trains.

        Raises:
            InputError: if the target lives in another space, or lacks what the parts need.
        """
        check_target(target)
        if self.family is not None or self.is_member or isinstance(target, Family):
            raise InputError("A sampler of a family stays with that: make another Sampler for another family.")
        if type(self.target) is Reward:  # on draws of a measure, which stays
            target = Reward(target, self.target.prior)
        old, new = describe(space_of(self.target)), describe(space_of(target))
        if old != new:
            raise InputError(
                f"target must live where that of the sampler does, {old}, got {new}: make another Sampler."
            )
        check_score(target, self.policy)
        coordinates = self.coordinates
        make = target.coordinates if self._are_declared else self._make_coordinates
        if self._are_declared and make is None:
            raise InputError(
                f"{type(target).__name__} declares no coordinates, as the target before did: make another Sampler."
            )
        if make is not None:
            coordinates = make_part("coordinates", make, Coordinates, target)
        density = density_of(target, coordinates, self.policy.process)
        if coordinates is not None:
            coordinates.move_to(target)
        # On the same draws the score stays; else networks take the new one's, as in any warm start.
        self._guide_by(self.guide_density if type(target) is Reward else guide_of(target, coordinates, self.policy))
        self._given = target, coordinates
        self.density = density.to(self.device)
        if self.guide is not None:
            self.guide_density.to(self.device)
        self.policy.walk_on(self.density)
        self.counter, self.network_counter = CountedTarget(self.density), NetworkCounter()
        if coordinates is not None:
            self.counter.num_evaluations += coordinates.num_target_evaluations
        self._graphed = None if self._graphed is None else GraphedRollout()
        self._is_checked = False

    @property
    def family(self) -> Family | None:
        """What it samples, all at once, where that is no single density."""
        return self.target if isinstance(self.target, Family) else None

    @property
    def is_member(self) -> bool:
        """Whether it is one density's of a family, by `given`: with networks that are the family's."""
        return isinstance(self.policy.process, Conditional) and self.policy.process.context is not None

    def given(self, context: Tensor | Sequence[float] | float) -> "Sampler":
        """The sampler of one density of a family: it shares what has been learned, and counts on.

        Arguments:
            context: which, with shape (C); a number where C is 1.

        Raises:
            InputError: if this is no sampler of a family, or the context is none of its.
        """
        if self.family is None:
            raise InputError(f"given is for samplers of a Family; {type(self.target).__name__} is one density.")
        member = self.family.given(context)
        if (beyond := self.family.beyond_training(member.context)) is not None:
            warnings.warn(beyond, stacklevel=2)
        sampler, process = twin(self), self.policy.process
        coordinates, unit, asked = None, member.context, CountedTarget(member)
        if isinstance(self.coordinates, FamilyCoordinates):
            coordinates = MemberCoordinates(self.coordinates, member.context, asked)
            unit = coordinates.unit
        elif self.coordinates is not None:
            coordinates = SupportCoordinates(member)
        process = process.given(unit.to(self.device))
        sampler._modules["policy"] = self.policy.with_process(process)
        sampler._given = member, coordinates
        sampler._modules["density"] = density_of(member, coordinates, process).to(self.device)
        sampler.counter = CountedTarget(sampler.density)
        sampler.counter.num_evaluations = self.counter.num_evaluations + asked.num_evaluations
        sampler.network_counter = NetworkCounter()
        sampler._respond = respond if self._respond is respond else CompiledResponse()
        sampler._graphed = None if self._graphed is None else GraphedRollout()
        return sampler

    def log_z_curve(self, contexts: Tensor | Sequence[Any], **options: Any) -> Any:
        """log Z at several contexts of a family: `diffsampler.curves.log_z_curve`, whose options these are."""
        # That needs matplotlib, and assessments of samplers.
        return import_module("diffsampler.curves").log_z_curve(self, contexts, **options)

    def centred(self, x: Tensor, log_weight: Tensor) -> Tensor:
        """Log-weights of draws, with shapes (n, D) and (n); in a family, less the log of the mean of each context's.

        Weights of densities of different Z say nothing together. Those that are no number stay so, and count as zero
        in the mean of the others.
        """
        if self.family is None:
            return log_weight
        mean = log_mean_of_group(or_zero_density(log_weight), groups_of(x[:, self.family.dim :]))
        return log_weight - mean.where(mean.isfinite(), torch.zeros_like(mean))

    @property
    def dynamics(self) -> Dynamics:
        """What the functions of `diffsampler.paths` take: everything there is in z."""
        return Dynamics(
            self.policy,
            self.counter,
            self.grid,
            self.measure,
            self.guide,
            self._respond,
            self._graphed,
            self.checkpoint_activations,
            self.network_counter,
        )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of draws."""
        return self.policy.dtype

    @property
    def device(self) -> torch.device:
        """The device of draws."""
        return self.policy.device

    def check_angles(self) -> None:
        """Raise InputError, at the first time, where the process takes for angles what the target does not."""
        is_asked = self.coordinates is None and self.measure is None and self.target.has_density
        if self._is_checked or not is_asked:
            return
        counter = CountedTarget(walked_on(self.target))
        with naming_the_target(self.target, "A first look"):
            check_periodic(counter, self.policy.process)
        self.counter.num_evaluations += counter.num_evaluations
        self._is_checked = True

    def search(
        self, seed: int = 0, progress: Callable[[float], None] | None = None, max_evaluations: int | None = None
    ) -> Annealed:
        """Find place, scale and draws of the target, for a sampler in `FoundCoordinates`; `fit` does it first.

        Arguments:
            seed: of the search.
            progress: is told the fraction of the work that is done, now and then.
            max_evaluations: of the target, after which no further search begins.

        Raises:
            InputError: if this sampler's coordinates are others, or the density is zero wherever the search looks.
        """
        if not isinstance(self.coordinates, FoundCoordinates):
            raise InputError("search is for a sampler with coordinates=SearchedCoordinates, or SpaceCoordinates.")
        counter = CountedTarget(walked_on(self.target))
        with naming_the_target(self.target, "The search"):
            found = self.coordinates.search(counter, seed, progress, max_evaluations)
        self.counter.num_evaluations += counter.num_evaluations
        self.counter.num_invalid += counter.num_invalid
        return found

    def search_is_outdated(self) -> bool:
        """Whether there was a search, and the target gives other values now than it did then."""
        if not isinstance(self.coordinates, FoundCoordinates) or not self.coordinates.is_found:
            return False
        counter = CountedTarget(walked_on(self.target))
        is_outdated = self.coordinates.is_outdated(counter)
        self.counter.num_evaluations += counter.num_evaluations
        return is_outdated

    @property
    def reference(self) -> LogZEstimate | None:
        """What the search of `FoundCoordinates` estimated, None before and without one."""
        return self.coordinates.reference if isinstance(self.coordinates, FoundCoordinates) else None

    @property
    def search_cost(self) -> int:
        """Points at which the target was evaluated to find the coordinates."""
        return self.coordinates.num_target_evaluations if isinstance(self.coordinates, FoundCoordinates) else 0

    def rollback(self, x: Tensor, generator: torch.Generator | None = None) -> Path:
        """Trajectories that end in x, with shape (B, D), drawn backwards by P_B.

        Raises:
            InputError: if x has another shape, or points outside of a declared support.
        """
        self._check_is_one_density()
        x, dynamics, outside = self._checked(x), self.dynamics, self._outside(x)
        if outside.any():
            raise InputError(
                f"x must be within the support that {type(self.target).__name__} declares, got {int(outside.sum())} "
                "points that are not."
            )
        return rollback(dynamics, dynamics.states_at(x, generator), generator)

    @knows_old_names
    def sample(
        self,
        num_samples: int,
        seed: int | None = None,
        return_log_weights: bool = False,
        generator: torch.Generator | None = None,
        batch_size: int = 10_000,
        progress_bar: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Draws of the sampler, with shape (n, D), in working memory that does not grow with their number n.

        Arguments:
            num_samples: the number n of draws.
            seed: of a fresh generator; without one (and without `generator`) torch's global generator is used.
            return_log_weights: also return log importance weights, float64, with shape (n): weighted draws are draws
                of the target, and E[exp(log_w)] = Z.
            generator: the source of all noise, instead of a seed.
            batch_size: draws made at a time; with another one, the same seed gives other draws.
            progress_bar: whether to show how far it is.
        """
        self._check_is_one_density()
        if return_log_weights:
            self._check_has_density()
        generator = self._generator(seed, generator)
        check_count("batch_size", batch_size)
        self.check_angles()
        try:
            x = torch.empty(
                check_count("num_samples", num_samples), self.target.dim, dtype=self.dtype, device=self.device
            )
            log_weight = torch.empty(num_samples, dtype=torch.float64, device=self.device)
        except RuntimeError as error:  # torch's own word for a lack of memory
            raise InputError(
                f"num_samples = {num_samples:,} draws do not fit into memory: draw fewer at a time."
            ) from error
        done = 0
        for count in in_batches(num_samples, batch_size, progress_bar):
            part = slice(done, done + count)
            if self.target.has_density or return_log_weights:
                x[part], log_weight[part] = self.weighted_draws(count, generator)
            else:
                x[part] = self._positions(rollout(self.dynamics, count, generator).x[-1])
            done += count
        return (x, log_weight) if return_log_weights else x

    def posterior(
        self, num_draws: int = 2000, seed: int | None = 0, num_samples: int = 10_000, progress_bar: bool = False
    ) -> Posterior:
        """Equally weighted draws, named and within constraints where the target has names (`ModelTarget`, ...).

        Arguments:
            num_draws: of them.
            seed: of all noise.
            num_samples: weighted draws that they are chosen from, by which means, intervals and log Z are estimated.
            progress_bar: whether to show how far it is.

        Raises:
            InputError: if no draw has a usable density.
        """
        generator = self._generator(seed, None)
        x, log_weight = self.sample(
            num_samples, return_log_weights=True, generator=generator, progress_bar=progress_bar
        )
        return posterior_of(self.target, x, log_weight, self.estimate_from(log_weight), num_draws, generator)

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
        self._check_is_one_density()
        self._check_has_density()
        check_count("num_samples", num_samples)
        check_count("batch_size", batch_size)
        generator = self._generator(seed, generator)
        if method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
        self.check_angles()
        return METHODS[method](self.dynamics, num_samples, generator, batch_size, progress_bar)

    def log_prob(
        self,
        x: Tensor,
        seed: int | None = None,
        return_standard_error: bool = False,
        num_probes: int = 16,
        tolerance: float = 1e-6,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The normalised log-density of the sampler's probability flow at x, float64, with shape (n).

        -inf outside of a declared support.

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
        self._check_is_one_density()
        x = self._checked(x)
        z = self.density.from_user(x)
        state = self.policy.process.lift(z, None)
        density = ProbabilityFlow(self.dynamics, num_probes, tolerance).log_prob(state, self._generator(seed, None))
        log_prob = density.log_prob
        if self.coordinates is not None:
            log_prob = log_prob - self.coordinates.log_volume(z).to(log_prob)
        log_prob = torch.where(self._outside(x), -torch.inf, log_prob)
        return (log_prob, density.standard_error) if return_standard_error else log_prob

    def estimate_from(self, log_weight: Tensor | WeightSummary, draws_per_weight: int = 1) -> LogZEstimate:
        """The estimate that these log-weights support, with what the target has cost and how often it failed."""
        return estimate_from(self.counter, log_weight, draws_per_weight, self.guide)

    def describe(self) -> dict[str, str]:
        """What it is made of, in words: the parts that a checkpoint must agree with."""
        parts = {"target": self.target, "coordinates": self.coordinates, "grid": self.grid, "measure": self.measure}
        of_policy = {name: getattr(self.policy, name) for name in ("process", "control", "backward_control", "flow")}
        return {name: describe(part) for name, part in {**parts, **of_policy}.items()}

    def load_checkpoint(self, path: str | os.PathLike[str], strict: bool = True) -> None:
        """Take the weights and the counts of a file by `save` or training, for a sampler made of the same parts.

        Arguments:
            path: the checkpoint.
            strict: whether all that a sampler is made of must be the same, and not only the sizes of its networks.

        Raises:
            InputError: if the file is no checkpoint of diffsampler, or one of other parts.
        """
        checkpoint = read_checkpoint(path, "path")
        if strict and (found := differences(checkpoint["parts"], self.describe())):
            raise InputError(f"{path} is of a sampler made otherwise: {found}.")
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
        self.network_counter.num_evaluations = checkpoint.get("num_network_evaluations", 0)
        if self.guide is not None:
            self.guide.num_evaluations = checkpoint.get("num_score_evaluations", 0)
            self.guide.num_invalid = checkpoint.get("num_invalid_score_evaluations", 0)
        self.was_trained = was_trained(checkpoint)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights, counts and what a search has found to a file, for `load`: tensors and words, no code.

        Raises:
            InputError: if the path is no place for a file, or this is one member of a family: that of all is kept.
        """
        if self.is_member:
            raise InputError("One member of a family is not kept by itself: save the sampler that gave it.")
        check_file("path", path)
        content = {
            "state_dict": {f"sampler.{key}": value for key, value in self.state_dict().items()},
            "parts": self.describe(),
            "num_target_evaluations": self.counter.num_evaluations,
            "num_invalid_evaluations": self.counter.num_invalid,
            "num_network_evaluations": self.network_counter.num_evaluations,
            "num_score_evaluations": self.num_score_evaluations,
            "num_invalid_score_evaluations": 0 if self.guide is None else self.guide.num_invalid,
            "was_trained": self.was_trained,
            **WITHOUT_TRAINING,
        }
        write_atomically(path, lambda file: torch.save(content, file))

    @classmethod
    def load(cls, path: str | os.PathLike[str], target: Target, **parts: Any) -> "Sampler":
        """A sampler that `save` or training has written.

        Arguments:
            path: the file.
            target: the same target as then: a file holds no code.
            parts: other arguments of `Sampler`, as it was made with.

        Raises:
            InputError: if the file is no checkpoint of diffsampler, or of another target or other parts.
        """
        if isinstance(path, Target):
            raise InputError("path comes before target: write Sampler.load(path, target).")
        sampler = cls(target, **parts)
        sampler.load_checkpoint(path)
        return sampler

    @property
    def num_target_evaluations(self) -> int:
        """Points at which the target was evaluated so far, training included."""
        return self.counter.num_evaluations

    @property
    def num_score_evaluations(self) -> int:
        """Points at which a fine-tuned sampler's networks had the pretrained density's score so far: see `guide`."""
        return 0 if self.guide is None else self.guide.num_evaluations

    @property
    def num_network_evaluations(self) -> int:
        """States that its control networks have been asked at so far, training included."""
        return self.network_counter.num_evaluations

    def weighted_draws(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n draws and their log importance weights, with shapes (n, D) and (n), made in one batch."""
        state, log_weight = weighted_rollout(self.dynamics, n, generator)
        return self._positions(state), log_weight

    def _check_is_one_density(self) -> None:
        if self.family is not None:
            raise InputError(
                f"{type(self.target).__name__} is a family of densities: say which one, by "
                f"sampler.given(context), a context being {size_of_context(self.family)}."
            )

    def _check_has_density(self) -> None:
        if not self.target.has_density:
            raise no_likelihood(self.target.known_as)

    def _checked(self, x: Tensor) -> Tensor:
        """Points of the target."""
        if not isinstance(x, Tensor):
            raise InputError(f"x must be a tensor with shape (B, {self.target.dim}), got {type(x).__name__}.")
        if x.ndim != 2 or x.shape[1] != self.target.dim:
            raise InputError(f"x must be points with shape (B, {self.target.dim}), got shape {tuple(x.shape)}.")
        return x if x.is_floating_point() else x.to(self.dtype)

    def _outside(self, x: Tensor) -> Tensor:
        """Which points are outside of a declared support, with shape (n)."""
        onto = None if self.coordinates is None else self.coordinates.onto
        return torch.zeros_like(x[:, 0], dtype=torch.bool) if onto is None else ~onto.contains(x)

    def _positions(self, state: Tensor) -> Tensor:
        x = self.policy.process.position(state)
        return x if self.coordinates is None else self.coordinates(x)[0]

    def _generator(self, seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
        if generator is not None:
            check_instance("generator", generator, torch.Generator, "torch.Generator().manual_seed(0)")
        if seed is None:
            return generator
        if generator is not None:
            raise InputError("Give either seed or generator, not both.")
        return torch.Generator(self.device).manual_seed(check_count("seed", seed, minimum=0))
