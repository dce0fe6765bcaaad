"""What every function of this room is given: a policy, the density that it walks on, and the times at which it steps.

Everything in this room is in the sampler's own coordinates.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget, NetworkCounter
from diffsampler.paths.cuda_graph import GraphedRollout
from diffsampler.paths.measure import PathMeasure
from diffsampler.paths.records import Path
from diffsampler.paths.response import Respond, respond
from diffsampler.policy import Policy
from diffsampler.processes.grids import Grid

# Above this many rows a CPU does not keep activations: they are 4 to 9 KB a row in the default networks.
MAX_KEPT_ROWS = 1 << 18


class State(NamedTuple):
    """Where a step of a rollout has come to, and what is known there.

    Attributes:
        x: with shape (B, D).
        log_prob: log R(x), with shape (B), or None where nobody has asked.
        score: its gradient, or that of the guide, with shape (B, D), or None likewise.
        control: what steers the next step, or None where there is none.
    """

    x: Tensor
    log_prob: Tensor | None
    score: Tensor | None
    control: Tensor | None

    def take(self, rows: Tensor) -> "State":
        """Some of the trajectories."""
        return State(*(None if part is None else part[rows] for part in self))


@dataclass(frozen=True)
class Dynamics:
    """A policy that walks on a density.

    Attributes:
        policy: its kernels.
        target: the density, counted and checked.
        grid: the time grid.
        measure: what weights compare a rollout with; None for the density at the end and P_B.
        guide: the density whose score networks take, where that is not the target: of a reward, the one that it is on.
        respond: what a step asks of target and network; compiled, perhaps.
        graphed: rollouts as CUDA graphs, or None.
        checkpoint_activations: whether `evaluate` computes activations twice instead of keeping them; None for: on a
            CPU, where a batch has more than a quarter of a million states.
        network: the count of states that its control networks are asked at.
    """

    policy: Policy
    target: CountedTarget
    grid: Grid
    measure: PathMeasure | None = None
    guide: CountedTarget | None = None
    respond: Respond = respond
    graphed: GraphedRollout | None = None
    checkpoint_activations: bool | None = None
    network: NetworkCounter = field(default_factory=NetworkCounter)

    def uncounted(self) -> "Dynamics":
        """With counts of its own: what figures and metrics evaluate is no part of what a run costs."""
        guide = None if self.guide is None else CountedTarget(self.guide.density)
        return replace(self, target=CountedTarget(self.target.density), guide=guide, network=NetworkCounter())

    @property
    def scored(self) -> CountedTarget:
        """The density whose score networks take."""
        return self.target if self.guide is None else self.guide

    def count_network(self, num_states: int) -> None:
        """Add states that a control network was asked at, and the points that it has asked the target at for them."""
        self.network.num_evaluations += num_states
        self.target.num_evaluations += num_states * self.policy.evaluations_per_state

    def times(self, generator: torch.Generator | None) -> Tensor:
        """The times of one batch of trajectories, float64, with shape (T + 1)."""
        return self.grid.times(generator).to(self.policy.device, non_blocking=True)

    def empty_path(self, times: Tensor, n: int, with_score: bool) -> Path:
        """A path for n trajectories, whose states are yet to be written."""
        x = torch.empty(len(times), n, self.policy.dim, dtype=self.policy.dtype, device=self.policy.device)
        log_prob, score = None, None
        if with_score:
            score = torch.empty_like(x)
        if with_score and self.guide is None:
            log_prob = x.new_empty(x.shape[:2], dtype=torch.float64)
        return Path(times, x, log_prob, score)

    def is_checkpointed(self, num_rows: int) -> bool:
        """Whether `evaluate` computes activations of that many states twice."""
        if self.policy.evaluations_per_state:  # points that are asked for again would be counted once
            return False
        asked = self.checkpoint_activations
        return (self.policy.device.type == "cpu" and num_rows > MAX_KEPT_ROWS) if asked is None else asked

    def keeps_activations(self, num_rows: int) -> bool:
        """Whether a rollout of that many states may keep them: on a CPU, where nothing is compiled."""
        plain = self.respond is respond and self.graphed is None and not self.policy.process.shares_control
        plain = plain and not self.policy.evaluations_per_state  # which are made again
        return plain and self.policy.device.type == "cpu" and not self.is_checkpointed(num_rows)

    def states_at(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """States at points x of the user's target, with shape (B, D); what else there is of them is drawn."""
        z = self.target.density.from_user(x.to(self.policy.device))
        return self.policy.process.lift(z.to(self.policy.dtype), generator)

    def log_start(self, x: Tensor) -> Tensor:
        """The log prior density of x_0, over what the measure says of it, float64, with shape (*)."""
        log_prior = self.policy.process.prior.log_prob(x).double()
        return log_prior if self.measure is None else log_prior - self.measure.log_start(x)

    def arrive(self, embedding: Tensor, x: Tensor, with_control: bool = True) -> State:
        """Come to states x with shape (B, D), at the time of a control's embedding with shape (E)."""
        state = self.ask(embedding, x, with_control)
        if with_control:
            self.count_network(len(x))
        if state.log_prob is not None:
            self.target.count_values(state.log_prob, state.score)
        return state

    def ask(self, embedding: Tensor, x: Tensor, with_control: bool = True) -> State:
        """The same, for who counts evaluations of the target by himself: all at once, after a loop."""
        scored = self.scored if self.policy.uses_score else None
        if not with_control:
            state = State(x, *((None, None) if scored is None else scored.ask(x)), None)
        else:
            density = None if scored is None else scored.density
            try:
                state = State(x, *self.respond(density, self.policy.control, embedding, x))
            except ValueError as error:
                self.scored.explain(error)
                raise
        if self.guide is None or state.score is None:
            return state
        self.guide.count_values(state.log_prob, state.score)
        return state._replace(log_prob=None)

    def log_backward(self, s: Tensor, t: Tensor, embedding: Tensor, x: State, y: State) -> Tensor:
        """log P_B of a step from x at s to y at t, or what the measure says of it, with shape (B).

        Arguments:
            s, t: times with shape ().
            embedding: of t, for the backward control.
            x, y: the states.
        """
        if self.measure is not None:
            return self.log_measure(s, t, x.x, y.x, x.score)
        policy = self.policy
        shared = policy.process.shares_control
        if policy.backward_control is not None:
            self.count_network(len(y.x))
        control = y.control if shared else policy.backward_control_at(embedding, y.x, y.score)
        backward = policy.backward_kernel(s, t, y.x, control, policy.backward_score(x.score, y.score))
        return backward.log_prob(x.x)

    def log_measure(self, s: Tensor, t: Tensor, x: Tensor, y: Tensor, score: Tensor | None) -> Tensor:
        """What the measure says of steps, as in `PathMeasure.log_step`, by the score at x where it takes one."""
        return self.measure.log_step(s, t, x, y, *([score] if self.measure.uses_score else []))


def record(path: Path, k: int, state: State) -> None:
    """Write a state into a path, without its gradients."""
    path.x[k] = state.x.detach()
    if path.log_prob is not None:
        path.log_prob[k] = state.log_prob.detach()
    if path.score is not None:
        path.score[k] = state.score.detach()
