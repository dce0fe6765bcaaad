"""What an objective is, and the common case: a loss of trajectories."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError
from diffsampler.paths import Dynamics, Trajectory, evaluate


class Objective(nn.Module, ABC):
    """What a training step minimises.

    Attributes:
        uses_flow: whether it trains the state flow.
        uses_log_z: whether it trains the policy's `log_z`.
        on_policy: whether it is right for the sampler's own rollouts only.
        backward: whether it is right for paths rolled back from given points only.
        of_density: whether it takes the target for a density, whose paths P_B walks back, and not for a reward on
            paths of another sampler.
        min_batch_size: the trajectories that a step needs at least: 2 where they are compared with each other.
    """

    uses_flow: bool = False
    uses_log_z: bool = True
    on_policy: bool = False
    backward: bool = False
    of_density: bool = False
    min_batch_size: int = 1

    @abstractmethod
    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        """The scalar of one training step, with shape () and gradients to the parameters.

        Arguments:
            dynamics: the sampler in training, as it walks.
            behaviour: where states come from.
            n: trajectories of the step.
            generator: the source of all noise.
            progress: the fraction of training done, in [0, 1].
        """

    def adapt(self, dynamics: Dynamics) -> None:
        """Make what depends on the sampler; called once before training. Most need nothing."""

    def check_batch_size(self, batch_size: int) -> None:
        """Raise InputError if a step of so many trajectories says nothing."""
        if batch_size < self.min_batch_size:
            raise InputError(
                f"batch_size must be at least {self.min_batch_size} for loss {type(self).__name__}, which compares the "
                f"trajectories of a batch, got {batch_size}."
            )

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        """Raise InputError, with the fix, if this loss cannot train this sampler on these paths."""
        name, source = type(self).__name__, type(behaviour).__name__
        if self.uses_flow and dynamics.policy.flow is None:
            raise InputError(
                f"loss {name} needs a flow network, but the sampler has flow=None. "
                "Pass flow=ForwardLookingFlow, or use TrajectoryBalance or LogVariance."
            )
        if self.of_density and dynamics.measure is not None:
            raise InputError(
                f"loss {name} is of a density, and the target of a fine-tuned sampler is a reward on another's draws. "
                "Use LogVariance or TrajectoryBalance, or train diffsampler.fine_tuning.product_sampler(tuned)."
            )
        if self.on_policy and not behaviour.on_policy:
            raise InputError(
                f"loss {name} needs the sampler's own rollouts, but behaviour {source} brings others. "
                "Use OnPolicy, or a loss that takes any path, such as TrajectoryBalance."
            )
        if self.backward and not behaviour.backward:
            raise InputError(
                f"loss {name} needs paths rolled back from points of the target, but behaviour {source} rolls "
                "out. Use ExpertSamples, or a loss that takes any path, such as TrajectoryBalance."
            )


class TrajectoryLoss(Objective):
    """A scalar function of a `Trajectory`: paths from the behaviour, densities from the model, then `forward`."""

    @abstractmethod
    def forward(self, trajectory: Trajectory) -> Tensor:
        """The loss, with shape (), averaged over the batch."""

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        path = behaviour.paths(dynamics, n, generator, progress)
        return self(evaluate(dynamics, path, with_flow=self.uses_flow))
