"""The sampler: a target, a process and its networks, walked forwards, backwards, and weighed."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffsampler.coordinates import AffineCoordinates, TargetInCoordinates
from diffsampler.errors import InputError, check_count
from diffsampler.estimators.log_z import LogZEstimate, estimate_log_z
from diffsampler.grids import Grid, UniformGrid
from diffsampler.kernels import Kernel
from diffsampler.networks import Drift, Flow, ForwardLookingFlow, LangevinDrift
from diffsampler.processes import PinnedBrownian, Process
from diffsampler.target import CountedTarget, Target
from diffsampler.trajectory import ZERO_DENSITY_MARGIN, Path, Trajectory

__all__ = ["Sampler"]

# Rows (steps x trajectories) of one piece of the batched pass: on a CPU, activations of this many stay in cache.
CPU_CHUNK_ROWS = 6400


class _Visit(NamedTuple):
    """A state of a rollout, the target there if it was evaluated, and the kernel that leaves it (None at the end)."""

    x: Tensor
    log_prob: Tensor | None
    score: Tensor | None
    kernel: Kernel | None


class Sampler(nn.Module):
    """Samples an unnormalised density and estimates its normalising constant.

    References:
        A Theory of Continuous Generative Flow Networks, Lahlou et al., 2023, arXiv:2301.12594.
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679.

    Arguments:
        target: the density.
        process: forward and backward kernels; by default `PinnedBrownian(sigma=1)`.
        drift: makes the control from the dimension; a ready drift is taken as it is.
        flow: makes the state flow from the dimension; a ready flow is taken as it is, None leaves it out (losses that
            use one then refuse).
        grid: the time grid, or the number of steps of a uniform one.
        coordinates: in which process and networks work; made from the target, or ready. `sample` and `rollback` speak
            the target's own coordinates either way; the states of a `Path` are in these.

    Attributes:
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
        drift: Drift | Callable[[int], Drift] = LangevinDrift,
        flow: Flow | Callable[[int], Flow] | None = ForwardLookingFlow,
        grid: Grid | int = 100,
        coordinates: AffineCoordinates | Callable[[Target], AffineCoordinates] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(target, Target):
            raise InputError(
                f"target must be a Target, got {type(target).__name__}. Wrap a function as FunctionTarget(fn, dim=...)."
            )
        self.target = target
        self.process = PinnedBrownian() if process is None else process
        self.process.check_dim(target.dim)
        self.drift = drift if isinstance(drift, nn.Module) else drift(target.dim)
        self.drift.adapt(self.process)
        self.flow = flow if flow is None or isinstance(flow, nn.Module) else flow(target.dim)
        self.grid = grid if isinstance(grid, Grid) else UniformGrid(grid)
        self.log_z = nn.Parameter(torch.zeros(()))
        self.counter = CountedTarget(target)
        self.coordinates: AffineCoordinates | None = None
        if coordinates is not None:
            self.coordinates = coordinates if isinstance(coordinates, nn.Module) else coordinates(target)
            self.counter = CountedTarget(TargetInCoordinates(target, self.coordinates))
            self.counter.num_evaluations += self.coordinates.num_target_evaluations

    @property
    def dim(self) -> int:
        """D."""
        return self.target.dim

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of states."""
        return self.log_z.dtype

    @property
    def device(self) -> torch.device:
        """The device of states."""
        return self.log_z.device

    @torch.no_grad()
    def rollout(self, n: int, generator: torch.Generator | None = None, noise_scale: float = 1.0) -> Path:
        """n trajectories from prior to target.

        Arguments:
            n: the number B of trajectories.
            generator: the source of all noise.
            noise_scale: factor on the noise of every step, for exploration; `evaluate` gives their density under the
                model, not under this.
        """
        times = self._times(generator)
        x = torch.empty(len(times), n, self.dim, dtype=self.dtype, device=self.device)
        log_prob, score = (x.new_empty(x.shape[:2]), torch.empty_like(x)) if self.drift.uses_score else (None, None)
        for k, visit in enumerate(self._walk(times, n, generator, noise_scale)):
            x[k] = visit.x
            if score is not None:
                log_prob[k], score[k] = visit.log_prob, visit.score
        return Path(times, x, log_prob, score)

    @torch.no_grad()
    def rollback(self, x: Tensor, generator: torch.Generator | None = None) -> Path:
        """Trajectories that end in x, with shape (B, D), drawn backwards by P_B."""
        x = x if self.coordinates is None else self.coordinates.inverse(x)
        times = self._times(generator)
        states = x.new_empty(len(times), *x.shape)
        states[-1] = x
        for k in reversed(range(len(times) - 1)):
            states[k] = self.process.backward_kernel(times[k], times[k + 1], states[k + 1]).rsample(generator)
        return Path(times, states)

    def evaluate(self, path: Path) -> Trajectory:
        """The densities of a path under the current model, with gradients to its parameters.

        Target values that the path does not carry are evaluated here, in one batch.
        """
        log_prob, score = self._target_values(path)
        drift_embedding = self.drift.embed(path.times[:-1].to(self.dtype))
        flow_embedding = None if self.flow is None else self.flow.embed(path.times.to(self.dtype))
        log_pf, log_pb, log_flow = [], [], []
        for start, stop in self._chunks(path):
            s, t = path.times[start:stop, None, None], path.times[start + 1 : stop + 1, None, None]
            x, y = path.x[start:stop], path.x[start + 1 : stop + 1]
            control = self.drift(drift_embedding[start:stop, None], x, None if score is None else score[start:stop])
            log_pf.append(self.process.forward_kernel(s, t, x, control).log_prob(y))
            log_pb.append(self.process.backward_kernel(s, t, y).log_prob(x))
            first = max(start, 1)
            if self.flow is not None and first < stop:
                log_flow.append(self._log_flow(path, slice(first, stop), flow_embedding, log_prob))
        return Trajectory(
            log_pf=torch.cat(log_pf).double(),
            log_pb=torch.cat(log_pb).double(),
            log_prior=self.process.log_prior(path.x[0]).double(),
            log_prob=log_prob[-1].double(),
            log_z=self.log_z.double(),
            log_flow=self._join_log_flow(log_flow, path),
        )

    def sample(
        self,
        n: int,
        seed: int | None = None,
        return_log_weights: bool = False,
        generator: torch.Generator | None = None,
        batch_size: int = 10_000,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """n draws of the sampler, with shape (n, D), in bounded working memory.

        Arguments:
            n: the number of draws.
            seed: of a fresh generator; without one (and without `generator`) torch's global generator is used.
            return_log_weights: also return log importance weights, float64, with shape (n): weighted draws are draws
                of the target, and E[exp(log_w)] = Z.
            generator: the source of all noise, instead of a seed.
            batch_size: draws made at a time.
        """
        generator = self._generator(seed, generator)
        x = torch.empty(check_count("n", n), self.dim, dtype=self.dtype, device=self.device)
        log_weight = torch.empty(n, dtype=torch.float64, device=self.device)
        check_count("batch_size", batch_size)
        for start in range(0, n, batch_size):
            part = slice(start, min(start + batch_size, n))
            x[part], log_weight[part] = self.weighted_rollout(part.stop - part.start, generator)
        return (x, log_weight) if return_log_weights else x

    def estimate_log_z(
        self,
        num_samples: int = 2000,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 10_000,
    ) -> LogZEstimate:
        """Importance-weighted log Z with its 95 % interval and diagnostics.

        Arguments:
            num_samples: draws of the sampler.
            seed: of a fresh generator.
            generator: the source of all noise, instead of a seed.
            batch_size: draws made at a time.

        Raises:
            InputError: if no draw has a usable density.
        """
        check_count("num_samples", num_samples)
        _, log_weight = self.sample(num_samples, seed, True, generator, batch_size)
        return self.estimate_from(log_weight)

    def estimate_from(self, log_weight: Tensor) -> LogZEstimate:
        """The estimate that these log-weights support, with what the target has cost and how often it failed."""
        return estimate_log_z(log_weight, self.num_target_evaluations, self.counter.num_invalid)

    @property
    def num_target_evaluations(self) -> int:
        """Points at which the target was evaluated so far, training included."""
        return self.counter.num_evaluations

    @torch.no_grad()
    def weighted_rollout(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """End points with shape (n, D) and their log importance weights, float64, with shape (n); no path is kept."""
        times = self._times(generator)
        walk = self._walk(times, n, generator)
        last = next(walk)
        log_prior = self.process.log_prior(last.x).double()
        log_ratio = torch.zeros_like(log_prior)
        for k, visit in enumerate(walk):
            backward = self.process.backward_kernel(times[k], times[k + 1], visit.x)
            log_ratio += last.kernel.log_prob(visit.x) - backward.log_prob(last.x)
            last = visit
        log_prob = self.counter.log_prob(last.x) if last.log_prob is None else last.log_prob
        x = last.x if self.coordinates is None else self.coordinates(last.x)
        return x, log_prob.double() - log_prior - log_ratio

    @torch.no_grad()
    def initialise_log_z(self, n: int, generator: torch.Generator | None = None) -> None:
        """Set the parameter log_z to the logmeanexp of n log-weights.

        Adam would take thousands of steps to walk there.
        """
        _, log_weight = self.weighted_rollout(n, generator)
        log_weight = log_weight[log_weight.isfinite()]
        if len(log_weight):
            self.log_z.copy_(log_weight.logsumexp(0) - torch.tensor(float(n)).log())

    def _walk(
        self, times: Tensor, n: int, generator: torch.Generator | None, noise_scale: float = 1.0
    ) -> Iterator[_Visit]:
        """The T + 1 states of a rollout, one after the other, with what was computed there."""
        embedding = self.drift.embed(times[:-1].to(self.dtype))
        x = self.process.sample_prior(n, self.dim, generator, self.dtype, self.device)
        for k in range(len(times)):
            log_prob, score = self.counter.log_prob_and_score(x) if self.drift.uses_score else (None, None)
            if k == len(times) - 1:
                yield _Visit(x, log_prob, score, None)
                return
            kernel = self.process.forward_kernel(times[k], times[k + 1], x, self.drift(embedding[k], x, score))
            yield _Visit(x, log_prob, score, kernel)
            x = kernel.rsample(generator, noise_scale)

    def _times(self, generator: torch.Generator | None) -> Tensor:
        return self.grid.times(generator).to(self.device)

    def _generator(self, seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
        if seed is None:
            return generator
        if generator is not None:
            raise InputError("Give either seed or generator, not both.")
        return torch.Generator(self.device).manual_seed(seed)

    def _target_values(self, path: Path) -> tuple[Tensor, Tensor | None]:
        """log R, with shape (T + 1, B) or, where only the end counts, (1, B), and the score if the drift uses it."""
        if self.drift.uses_score:
            if path.score is not None:
                return path.log_prob, path.score
            with torch.no_grad():
                return self.counter.log_prob_and_score(path.x)
        if path.log_prob is not None:
            return path.log_prob, None
        with torch.no_grad():
            everywhere = self.flow is not None and self.flow.uses_interpolation
            return self.counter.log_prob(path.x if everywhere else path.x[-1:]), None

    def _chunks(self, path: Path) -> Iterator[tuple[int, int]]:
        size = path.num_steps
        if path.x.device.type == "cpu":
            size = max(1, CPU_CHUNK_ROWS // path.x.shape[1])
        for start in range(0, path.num_steps, size):
            yield start, min(start + size, path.num_steps)

    def _log_flow(self, path: Path, steps: slice, embedding: Tensor, log_prob: Tensor) -> Tensor:
        x = path.x[steps]
        if not self.flow.uses_interpolation:
            return self.flow(embedding[steps, None], x)
        t = path.times[steps, None]
        log_prior_side = self.log_z + self.process.log_reference(t[..., None], x)
        # The flow is free to be anything where the density is zero; it only has to be finite there.
        log_prob = log_prob[steps]
        log_prob = torch.where(log_prob.isfinite(), log_prob, log_prior_side.detach() - ZERO_DENSITY_MARGIN)
        t = t.to(x.dtype)
        return self.flow(embedding[steps, None], x, (1 - t) * log_prior_side + t * log_prob)

    def _join_log_flow(self, parts: list[Tensor], path: Path) -> Tensor | None:
        if self.flow is None:
            return None
        empty = path.x.new_empty(0, path.x.shape[1], dtype=torch.float64)
        return torch.cat([empty, *(part.double() for part in parts)])
