"""Where trajectories go: rollouts from prior to target, rollbacks, and populations that are resampled on the way.

Everything here is in the sampler's own coordinates.
"""

import math
from collections.abc import Callable, Generator
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from diffsampler.cuda_graph import GraphedRollout
from diffsampler.errors import InputError, check_count
from diffsampler.grids import Grid
from diffsampler.kernels import Kernel
from diffsampler.networks import Drift, Flow
from diffsampler.policy import Policy
from diffsampler.processes import Process
from diffsampler.resampling import resample_groups
from diffsampler.response import CompiledResponse, respond
from diffsampler.target import CountedTarget, Target, or_zero_density, raise_in_words
from diffsampler.trajectory import Path

__all__ = ["Walker"]

# glibc hands freed memory back to the system at once, and takes page faults for the next step's activations, until a
# block of tens of MB was freed. This one is never touched; without it 10 000 draws take half as long again.
torch.empty(31 << 20, dtype=torch.uint8)

_Walk = Generator["_Visit", Tensor | None, None]


class _Visit(NamedTuple):
    """A state of a rollout, the target there if it was evaluated, the control that leaves it, and how it was reached.

    The first was not reached by a kernel; the last has a control only where the backward kernel shares it.
    """

    x: Tensor
    log_prob: Tensor | None
    score: Tensor | None
    control: Tensor | None
    kernel: Kernel | None

    def take(self, rows: Tensor) -> "_Visit":
        """Some of the trajectories; how they came here is forgotten."""
        parts = (self.x, self.log_prob, self.score, self.control)
        return _Visit(*(None if part is None else part[rows] for part in parts), kernel=None)


class Walker(Policy):
    """A policy that walks on a target.

    Arguments:
        counter: the target as the process sees it.
        process, drift, backward_drift, flow: as in `Policy`.
        grid: the time grid.
        compile: whether target and drift are compiled for rollouts, and these are CUDA graphs on a GPU.
    """

    def __init__(
        self,
        counter: CountedTarget,
        process: Process,
        drift: Drift | Callable[[int], Drift],
        backward_drift: Drift | Callable[[int], Drift] | None,
        flow: Flow | Callable[[int], Flow] | None,
        grid: Grid,
        compile: bool,
    ) -> None:
        super().__init__(counter.target.dim, process, drift, backward_drift, flow)
        self.counter = counter
        self.grid = grid
        self._respond = CompiledResponse() if compile else respond
        self._graphed = GraphedRollout() if compile else None

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
        if self._graphed is None or noise_scale != 1.0:
            return self._roll_out(n, times, generator, noise_scale)
        tensors = chain(self.parameters(), self.buffers())  # walked on a GPU only
        kind = (n, len(times), self.training, self.counter.needs_float64)
        return self._graphed(partial(self._roll_out, n), tensors, self.counter, kind, times, generator)

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
            path.x[k] = self.backward_kernel(times[k], times[k + 1], y, control, score).rsample(generator)
        if path.score is not None:
            path.log_prob[0], path.score[0] = self.counter.log_prob_and_score(path.x[0])
        return path

    @torch.no_grad()
    def weighted_rollout(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """End points and their log-weights, float64, with shapes (n, D) and (n); no path is kept."""
        times = self._times(generator)
        return self._weigh(times, self._walk(times, self._start(n, generator), generator))

    @torch.no_grad()
    def sequential_rollout(
        self, n: int, num_groups: int = 1, ess_threshold: float = 0.5, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sequential Monte Carlo with the learned flows as intermediate targets: end points and their log-weights.

        Where weights become uneven, light trajectories are dropped and heavy ones go on twice. E[exp(log_weight)] = Z
        for any flow, as without; a good one makes the weights more even.

        References:
            Sequential Controlled Langevin Diffusions, Chen et al., 2025, arXiv:2412.07081.
            Sequential Monte Carlo samplers, Del Moral, Doucet & Jasra, 2006.

        Arguments:
            n: the number of trajectories, a multiple of `num_groups`.
            num_groups: groups that know nothing of each other: their mean weights are independent.
            ess_threshold: a group is resampled where its effective sample size falls below this share of it.
            generator: the source of all noise.

        Returns:
            States with shape (n, D) and log-weights, float64, with shape (n).
        """
        if n % check_count("num_groups", num_groups):
            raise InputError(f"n must be a multiple of num_groups, got {n} and {num_groups}.")
        times = self._times(generator)
        walk = self._walk(times, self._start(n, generator), generator)
        return self._weigh_and_resample(times, walk, num_groups, ess_threshold, generator)

    @torch.no_grad()
    def resampled_rollout(self, n: int, ess_threshold: float = 0.5, generator: torch.Generator | None = None) -> Path:
        """The paths that n trajectories have come by if they are resampled as in `sequential_rollout`, and at the end.

        Those of trajectories that were dropped are not among them.
        """
        times = self._times(generator)
        path, ancestors = self._empty_path(times, n, self.uses_score), []
        walk = self._recorded(self._walk(times, self._start(n, generator), generator), path)
        _, log_weight = self._weigh_and_resample(times, walk, 1, ess_threshold, generator, ancestors)
        rows, _ = resample_groups(log_weight, 1, ess_threshold, generator)
        for k in reversed(range(len(times))):
            for states in (path.x, path.log_prob, path.score):
                if states is not None:
                    states[k] = states[k, rows]
            if k > 1:  # from the states of step k to those of k - 1 that they came from
                rows = ancestors[k - 2][rows]
        return path

    @torch.no_grad()
    def back_and_forth(
        self, x: Tensor, num_steps: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Walk end points back by P_B and forth by P_F: new end points with shape (B, D), and log R with shape (B)."""
        times = self._times(generator)[-num_steps - 1 :]
        start = self.walk_back(x, generator, times).x[0]
        *_, last = self._walk(times, start, generator)
        return last.x, self._log_prob_at(last)

    def differentiable_rollout(self, n: int, generator: torch.Generator | None = None) -> tuple[Path, Tensor]:
        """A rollout that carries gradients: its path, without them, and its log-weights with shape (n), with them.

        Scores inside drifts are held fixed; scores inside the process's kernels are differentiated.
        """
        times = self._times(generator)
        path = self._empty_path(times, n, self.uses_score)
        walk = self._walk(times, self._start(n, generator), generator, differentiable=True)
        return path, self._weigh(times, self._recorded(walk, path), differentiable=True)[1]

    @torch.no_grad()
    def initialise_log_z(self, log_weight: Tensor) -> None:
        """Set the parameter log_z to the logmeanexp of log-weights with shape (n).

        Adam would take thousands of steps to walk there.
        """
        usable = log_weight[log_weight.isfinite()]
        if len(usable):
            self.log_z.copy_(usable.logsumexp(0) - math.log(len(log_weight)))

    # --- steps

    def _roll_out(
        self, n: int, times: Tensor, generator: torch.Generator | None = None, noise_scale: float = 1.0
    ) -> Path:
        path = self._empty_path(times, n, self.uses_score)
        for _ in self._recorded(self._walk(times, self._start(n, generator), generator, noise_scale), path):
            pass
        return path

    def _start(self, n: int, generator: torch.Generator | None) -> Tensor:
        return self.process.sample_prior(n, self.dim, generator, self.dtype, self.device)

    def _walk(
        self,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None,
        noise_scale: float = 1.0,
        differentiable: bool = False,
    ) -> _Walk:
        """The states of a rollout from x, one after the other, with what was computed there.

        Who sends rows back goes on with those trajectories instead.
        """
        embedding = self.drift.embed(times.to(self.dtype))
        asked = self.counter.target if self.uses_score else None
        kernel, last = None, len(times) - 1
        for k in range(len(times)):
            needs_control = k < last or self.process.shares_control
            visit = _Visit(x, *self._met_at(asked, embedding[k], x, needs_control, differentiable), kernel)
            rows = yield visit
            if k < last:
                visit = visit if rows is None else visit.take(rows)
                kernel = self.forward_kernel(times[k], times[k + 1], visit.x, visit.control, visit.score)
                x = kernel.rsample(generator, noise_scale)

    def _recorded(self, walk: _Walk, path: Path) -> _Walk:
        """The same walk, written into a path on the way, without its gradients."""
        rows = None
        for k in range(len(path.times)):
            visit = walk.send(rows)
            path.x[k] = visit.x.detach()
            if path.score is not None:
                path.log_prob[k], path.score[k] = visit.log_prob.detach(), visit.score.detach()
            rows = yield visit

    def _met_at(
        self, asked: Target | None, embedding: Tensor, x: Tensor, needs_control: bool, differentiable: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """log R, score and control at x, each as far as it is needed."""
        if needs_control and not differentiable:
            try:
                log_prob, score, num_invalid, control = self._respond(asked, self.drift, embedding, x)
            except ValueError as error:
                raise_in_words(self.counter.target, error)
                raise
            if num_invalid is not None:
                self.counter.count(log_prob.numel(), num_invalid)
            return log_prob, score, control
        log_prob, score = self._target_at(x, differentiable) if asked is not None else (None, None)
        if not needs_control:
            return log_prob, score, None
        return log_prob, score, self.drift(embedding, x, None if score is None else score.detach())

    def _target_at(self, x: Tensor, differentiable: bool) -> tuple[Tensor, Tensor]:
        if not differentiable:
            return self.counter.log_prob_and_score(x)
        if self.process.uses_score:
            return self.counter.differentiable_log_prob_and_score(x)
        log_prob, score = self.counter.log_prob_and_score(x)
        # The same value, with the derivative that is known already.
        return log_prob + ((x - x.detach()) * score).sum(-1), score

    def _weigh(self, times: Tensor, walk: _Walk, differentiable: bool = False) -> tuple[Tensor, Tensor]:
        """The end points of a walk and their log-weights, summed on the way."""
        embedding = self._backward_embedding(times)
        last = next(walk)
        log_prior = self.process.log_prior(last.x).double()
        log_ratio = torch.zeros_like(log_prior)
        for k, visit in enumerate(walk):
            log_ratio = log_ratio + self._step_log_ratio(times[k], times[k + 1], embedding[k + 1], last, visit)
            last = visit
        if differentiable:
            # By the target's own score, which a log_prob by hand may have without being differentiable itself.
            log_prob = self._target_at(last.x, True)[0] if last.log_prob is None else last.log_prob
        else:
            log_prob = self.counter.settled(last.x, self._log_prob_at(last))
        return last.x, log_prob - log_prior - log_ratio

    def _weigh_and_resample(
        self,
        times: Tensor,
        walk: _Walk,
        num_groups: int,
        ess_threshold: float,
        generator: torch.Generator | None,
        ancestors: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """End points and log-weights of a walk that is resampled within groups; its rows go into `ancestors`."""
        if self.flow is None:
            raise InputError(
                "Sequential Monte Carlo goes along the flow, but the sampler has flow=None. Use method='importance', "
                "or pass flow=ForwardLookingFlow and train it, with SubTrajectoryBalance for one."
            )
        embedding, flow_embedding = self._backward_embedding(times), self.flow.embed(times.to(self.dtype))
        last = next(walk)
        log_flow, rows = self.process.log_prior(last.x).double(), None
        log_weight = torch.zeros_like(log_flow)
        for k in range(1, len(times)):
            visit, at_end = walk.send(rows), k == len(times) - 1
            log_ratio = self._step_log_ratio(times[k - 1], times[k], embedding[k], last, visit)
            log_prob = self._log_prob_at(visit) if at_end or self.flow.uses_interpolation else None
            log_prob = self.counter.settled(visit.x, log_prob) if at_end else log_prob
            log_next = log_prob if at_end else self._flow_at(flow_embedding[k], times[k], visit.x, log_prob)
            log_weight = or_zero_density(log_weight + log_next.double() - log_flow - log_ratio)
            if at_end:
                break
            rows, log_weight = resample_groups(log_weight, num_groups, ess_threshold, generator)
            last, log_flow = visit.take(rows), log_next[rows].double()
            if ancestors is not None:
                ancestors.append(rows)
        return visit.x, log_weight

    def _step_log_ratio(self, s: Tensor, t: Tensor, embedding: Tensor, last: _Visit, visit: _Visit) -> Tensor:
        """log P_F - log P_B of the step that led to a visit, float64, with shape (B)."""
        shared = self.process.shares_control
        control = visit.control if shared else self._backward_control(embedding, visit.x, visit.score)
        score = last.score if self.process.scores_destination else visit.score
        backward = self.backward_kernel(s, t, visit.x, control, score)
        return visit.kernel.log_prob(visit.x).double() - backward.log_prob(last.x)

    def _log_prob_at(self, visit: _Visit) -> Tensor:
        return self.counter.log_prob(visit.x) if visit.log_prob is None else visit.log_prob

    def _empty_path(self, times: Tensor, n: int, with_score: bool) -> Path:
        x = torch.empty(len(times), n, self.dim, dtype=self.dtype, device=self.device)
        log_prob, score = None, None
        if with_score:
            log_prob, score = x.new_empty(x.shape[:2], dtype=torch.float64), torch.empty_like(x)
        return Path(times, x, log_prob, score)

    def _times(self, generator: torch.Generator | None) -> Tensor:
        return self.grid.times(generator).to(self.device, non_blocking=True)
