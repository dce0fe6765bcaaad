"""Where trajectories go and how probable that was: the part of a sampler that walks.

Everything here is in the sampler's own coordinates.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffsampler.grids import Grid
from diffsampler.kernels import Kernel
from diffsampler.networks import Drift, Flow
from diffsampler.policy import Policy
from diffsampler.processes import Process
from diffsampler.target import CountedTarget
from diffsampler.trajectory import ZERO_DENSITY_MARGIN, Path, Trajectory

__all__ = ["Dynamics"]

# Rows (steps x trajectories) of one piece of the batched pass: on a CPU, activations of this many stay in cache.
CPU_CHUNK_ROWS = 6400


class _Visit(NamedTuple):
    """A state of a rollout, the target there if it was evaluated, and the control and kernel that leave it, if any."""

    x: Tensor
    log_prob: Tensor | None
    score: Tensor | None
    control: Tensor | None
    kernel: Kernel | None


class Dynamics(Policy):
    """A process with its networks, against a target: rollouts, rollbacks and their densities.

    Arguments:
        counter: the target as the process sees it.
        process, drift, backward_drift: as in `Policy`.
        flow: makes the state flow, or is ready; None leaves it out.
        grid: the time grid.
    """

    def __init__(
        self,
        counter: CountedTarget,
        process: Process,
        drift: Drift | Callable[[int], Drift],
        backward_drift: Drift | Callable[[int], Drift] | None,
        flow: Flow | Callable[[int], Flow] | None,
        grid: Grid,
    ) -> None:
        super().__init__(counter.target.dim, process, drift, backward_drift)
        self.counter = counter
        self.flow = None if flow is None else self._make("flow", flow, Flow)
        self.grid = grid
        self.log_z = nn.Parameter(torch.zeros(()))

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
        path = self._empty_path(times, n, self.uses_score)
        for _ in self._recorded(self._walk(times, self._start(n, generator), generator, noise_scale), path):
            pass
        return path

    @torch.no_grad()
    def walk_back(self, x: Tensor, generator: torch.Generator | None = None, times: Tensor | None = None) -> Path:
        """Trajectories that end in x, with shape (B, D), drawn backwards by P_B.

        The path carries target values only where P_B needed them: `evaluate` adds them in one batch.

        Arguments:
            x: end points, in the coordinates that the sampler walks in.
            generator: the source of all noise.
            times: the grid, or its last part; by default a new one.
        """
        times = self._times(generator) if times is None else times
        path = self._empty_path(times, len(x), self._backward_uses_score)
        path.x[-1] = x
        embedding = self._backward_embedding(times)
        for k in reversed(range(len(times) - 1)):
            y, score = path.x[k + 1], None
            if path.score is not None:
                path.log_prob[k + 1], score = self.counter.log_prob_and_score(y)
                path.score[k + 1] = score
            control = self._backward_control(embedding[k + 1], y, score)
            if self.process.scores_destination:
                score = self.counter.log_prob_and_score(self.process.score_point(times[k], times[k + 1], y))[1]
            path.x[k] = self._backward_kernel(times[k], times[k + 1], y, control, score).rsample(generator)
        if path.score is not None:
            path.log_prob[0], path.score[0] = self.counter.log_prob_and_score(path.x[0])
        return path

    def evaluate(self, path: Path, with_flow: bool = True) -> Trajectory:
        """The densities of a path under the current model, with gradients to its parameters.

        Target values that the path does not carry are evaluated here, in one batch.

        Arguments:
            path: states, from anywhere.
            with_flow: whether to evaluate the flow too, and with it what it needs of the target.
        """
        with_flow = with_flow and self.flow is not None
        log_prob, score = self._target_values(path, with_flow and self.flow.uses_interpolation)
        s, t = path.times[:-1, None, None], path.times[1:, None, None]
        x, y = path.x[:-1], path.x[1:]
        score_x, score_y = (None, None) if score is None else (score[:-1], score[1:])
        score_b = score_x if self.process.scores_destination else score_y
        times = path.times.to(self.dtype)
        if self.process.shares_control:
            control = self._in_chunks(self.drift, self.drift.embed(times), path.x, score)
            forward, backward = control[:-1], control[1:]
        else:
            forward = self._in_chunks(self.drift, self.drift.embed(times[:-1]), x, score_x)
            backward = None
            if self.backward_drift is not None:
                embedding = self.backward_drift.embed(times[1:])
                backward = self._in_chunks(self.backward_drift, embedding, y, score_y)
        return Trajectory(
            log_pf=self._forward_kernel(s, t, x, forward, score_x).log_prob(y).double(),
            log_pb=self._backward_kernel(s, t, y, backward, score_b).log_prob(x).double(),
            log_prior=self.process.log_prior(path.x[0]).double(),
            log_prob=log_prob[-1].double(),
            log_z=self.log_z.double(),
            log_flow=self._log_flow(path, log_prob).double() if with_flow else None,
            path=path,
        )

    def log_pf_of(self, path: Path, step: Tensor, row: Tensor) -> Tensor:
        """log P_F of single transitions of a path, with shape (n) and gradients to the parameters.

        Arguments:
            path: states, from anywhere.
            step: the transitions' steps, in [0, T), with shape (n).
            row: their trajectories, in [0, B), with shape (n).
        """
        s, t = path.times[step, None, None], path.times[step + 1, None, None]
        # As n times of one trajectory each: what kernels and networks take.
        x, y = path.x[step, row].unsqueeze(1), path.x[step + 1, row].unsqueeze(1)
        score = None
        if self.uses_score:
            with torch.no_grad():
                score = self.counter.log_prob_and_score(x)[1] if path.score is None else path.score[step, row, None]
        embedding = self.drift.embed(path.times[:-1].to(self.dtype))[step].unsqueeze(1)
        kernel = self._forward_kernel(s, t, x, self.drift(embedding, x, score), score)
        return kernel.log_prob(y).double().squeeze(1)

    def log_uncontrolled_backward(self, path: Path) -> Tensor:
        """log P_B of every step without its control, float64, with shape (T, B)."""
        s, t = path.times[:-1, None, None], path.times[1:, None, None]
        y, score = path.x[1:], None
        if self.process.uses_score:
            _, score = self._target_values(path, everywhere=False)
            score = score[:-1] if self.process.scores_destination else score[1:]
        return self.process.backward_kernel(s, t, y, torch.zeros_like(y), score).log_prob(path.x[:-1]).double()

    @torch.no_grad()
    def weighted_rollout(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """End points and their log-weights, float64, with shapes (n, D) and (n); no path is kept."""
        times = self._times(generator)
        return self._weigh(times, self._walk(times, self._start(n, generator), generator))

    @torch.no_grad()
    def back_and_forth(
        self, x: Tensor, num_steps: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Walk end points back by P_B and forth by P_F: new end points with shape (B, D), and log R with shape (B)."""
        times = self._times(generator)[-num_steps - 1 :]
        start = self.walk_back(x, generator, times).x[0]
        *_, last = self._walk(times, start, generator)
        return last.x, self.counter.log_prob(last.x) if last.log_prob is None else last.log_prob

    def differentiable_rollout(self, n: int, generator: torch.Generator | None = None) -> tuple[Path, Tensor]:
        """A rollout that carries gradients: its path, without them, and its log-weights with shape (n), with them.

        Scores inside drifts are held fixed; scores inside the process's kernels are differentiated.
        """
        times = self._times(generator)
        path = self._empty_path(times, n, self.uses_score)
        walk = self._walk(times, self._start(n, generator), generator, differentiable=True)
        return path, self._weigh(times, self._recorded(walk, path))[1]

    @torch.no_grad()
    def initialise_log_z(self, log_weight: Tensor) -> None:
        """Set the parameter log_z to the logmeanexp of log-weights with shape (n).

        Adam would take thousands of steps to walk there.
        """
        usable = log_weight[log_weight.isfinite()]
        if len(usable):
            self.log_z.copy_(usable.logsumexp(0) - math.log(len(log_weight)))

    # --- walking

    def _start(self, n: int, generator: torch.Generator | None) -> Tensor:
        return self.process.sample_prior(n, self.dim, generator, self.dtype, self.device)

    def _walk(
        self,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None,
        noise_scale: float = 1.0,
        differentiable: bool = False,
    ) -> Iterator[_Visit]:
        """The states of a rollout from x, one after the other, with what was computed there."""
        embedding = self.drift.embed(times.to(self.dtype))
        for k in range(len(times)):
            log_prob, score = self._target_at(x, differentiable) if self.uses_score else (None, None)
            last = k == len(times) - 1
            control = None
            if not last or self.process.shares_control:
                control = self.drift(embedding[k], x, None if score is None else score.detach())
            if last:
                yield _Visit(x, log_prob, score, control, None)
                return
            kernel = self._forward_kernel(times[k], times[k + 1], x, control, score)
            yield _Visit(x, log_prob, score, control, kernel)
            x = kernel.rsample(generator, noise_scale)

    def _recorded(self, walk: Iterator[_Visit], path: Path) -> Iterator[_Visit]:
        """The same walk, written into a path on the way, without its gradients."""
        for k, visit in enumerate(walk):
            path.x[k] = visit.x.detach()
            if path.score is not None:
                path.log_prob[k], path.score[k] = visit.log_prob.detach(), visit.score.detach()
            yield visit

    def _target_at(self, x: Tensor, differentiable: bool) -> tuple[Tensor, Tensor]:
        if not differentiable:
            return self.counter.log_prob_and_score(x)
        if self.process.uses_score:
            return self.counter.differentiable_log_prob_and_score(x)
        log_prob, score = self.counter.log_prob_and_score(x)
        # The same value, with the derivative that is known already.
        return log_prob + ((x - x.detach()) * score).sum(-1), score

    def _weigh(self, times: Tensor, walk: Iterator[_Visit]) -> tuple[Tensor, Tensor]:
        """The end points of a walk and their log-weights, summed on the way."""
        embedding = self._backward_embedding(times)
        last = next(walk)
        log_prior = self.process.log_prior(last.x).double()
        log_ratio = torch.zeros_like(log_prior)
        for k, visit in enumerate(walk):
            shared = self.process.shares_control
            control = visit.control if shared else self._backward_control(embedding[k + 1], visit.x, visit.score)
            score = last.score if self.process.scores_destination else visit.score
            backward = self._backward_kernel(times[k], times[k + 1], visit.x, control, score)
            log_ratio = log_ratio + (last.kernel.log_prob(visit.x).double() - backward.log_prob(last.x))
            last = visit
        log_prob = self.counter.log_prob(last.x) if last.log_prob is None else last.log_prob
        return last.x, log_prob.double() - log_prior - log_ratio

    def _empty_path(self, times: Tensor, n: int, with_score: bool) -> Path:
        x = torch.empty(len(times), n, self.dim, dtype=self.dtype, device=self.device)
        log_prob, score = (x.new_empty(x.shape[:2]), torch.empty_like(x)) if with_score else (None, None)
        return Path(times, x, log_prob, score)

    def _times(self, generator: torch.Generator | None) -> Tensor:
        return self.grid.times(generator).to(self.device)

    # --- the batched pass

    def _target_values(self, path: Path, everywhere: bool) -> tuple[Tensor, Tensor | None]:
        """log R, with shape (T + 1, B) or, unless it is wanted everywhere, (1, B), and the score if it is used."""
        if self.uses_score:
            if path.score is not None:
                return path.log_prob, path.score
            with torch.no_grad():
                return self.counter.log_prob_and_score(path.x)
        if path.log_prob is not None and (len(path.log_prob) > 1 or not everywhere):
            return path.log_prob, None
        with torch.no_grad():
            return self.counter.log_prob(path.x if everywhere else path.x[-1:]), None

    def _in_chunks(self, network: nn.Module, embedding: Tensor, x: Tensor, more: Tensor | None) -> Tensor:
        """The network at all states, with shape (K, B, *), for an embedding with shape (K, E)."""
        size = len(x) if x.device.type != "cpu" else max(1, CPU_CHUNK_ROWS // x.shape[1])
        parts = [slice(start, start + size) for start in range(0, len(x), size)]
        embedding = embedding.unsqueeze(1)
        return torch.cat([network(embedding[part], x[part], None if more is None else more[part]) for part in parts])

    def _log_flow(self, path: Path, log_prob: Tensor) -> Tensor:
        """log F at interior times, with shape (T - 1, B)."""
        x, t = path.x[1:-1], path.times[1:-1, None]
        if not len(x):
            return x.new_empty(0, x.shape[1])
        embedding = self.flow.embed(path.times[1:-1].to(self.dtype))
        if not self.flow.uses_interpolation:
            return self._in_chunks(self.flow, embedding, x, None)
        log_prior_side = self.log_z + self.process.log_reference(t[..., None], x)
        # The flow is free to be anything where the density is zero; it only has to be finite there.
        log_prob = log_prob[1:-1].to(log_prior_side.dtype)
        log_prob = torch.where(log_prob.isfinite(), log_prob, log_prior_side.detach() - ZERO_DENSITY_MARGIN)
        return self._in_chunks(self.flow, embedding, x, (1 - t) * log_prior_side + t * log_prob)
