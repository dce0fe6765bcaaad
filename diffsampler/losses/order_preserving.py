"""Learning from comparisons of end points: which is better, and no more."""

from dataclasses import replace

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.density import CheckedTarget
from diffsampler.errors import InputError, check_instance
from diffsampler.losses.base import Objective
from diffsampler.losses.labels import Alternatives, BradleyTerryLabels, Labels
from diffsampler.paths import Dynamics, Path, evaluate


class OrderPreserving(Objective):
    """The cross-entropy of labels with the softmax of log R^, which is what the sampler says of an end point.

    log R^ = log prior(x_0) + sum log P_F - log P_B of a trajectory that ends there, as trajectory balance has it, in
    the target's own coordinates; log Z is left out, since labels only compare. The labels are all that is learned
    from: the target is asked at end points, and only where these read it. With `BradleyTerryLabels` the sampler
    becomes R / Z; `HardLabels` and `ParetoLabels` know no such end: it concentrates on the best points, the more the
    longer it is trained.

    References:
        Order-Preserving GFlowNets, Chen & Mauch, 2024, arXiv:2310.00386, sections 3 and 4.

    Arguments:
        labels: what says which end point is better; by default `BradleyTerryLabels()`.
    """

    uses_log_z = False
    min_batch_size = 2

    def __init__(self, labels: Labels | None = None) -> None:
        super().__init__()
        labels = BradleyTerryLabels() if labels is None else labels
        self.labels = check_instance("labels", labels, Labels, "BradleyTerryLabels()")

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        super().check(dynamics, behaviour)
        if dynamics.policy.uses_score and dynamics.guide is None:  # a guide's score says nothing of the reward
            raise InputError(
                "loss OrderPreserving learns from comparisons alone, but the sampler reads the target's score. Pass "
                "control=FourierMLP, with a process that needs no score, such as PinnedBrownian or "
                "VariancePreserving."
            )
        if dynamics.policy.is_of_family:
            raise InputError(
                "loss OrderPreserving compares points of one density, and those of a family are of several. Train a "
                "sampler of one of them, or use LogVariance."
            )

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        path = behaviour.paths(dynamics, n, generator, progress)
        end = path.x[-1].double() if dynamics.target.needs_float64 else path.x[-1]
        with torch.no_grad():
            x, log_volume = dynamics.target.density.to_user(end)
        # With a value of its own at the end, no path has the target asked.
        trajectory = evaluate(dynamics, replace(path, log_prob=log_volume.unsqueeze(0)), with_flow=False)
        log_density = trajectory.log_prior + trajectory.log_ratio[-1] - trajectory.log_prob
        points = Alternatives(x, lambda x: _log_prob_of(dynamics, path, x))
        return self.labels.cross_entropy(log_density, points, generator)


def _log_prob_of(dynamics: Dynamics, path: Path, x: Tensor) -> Tensor:
    """log R(x) in the target's coordinates, of the end points of a path, which may know it already."""
    density = dynamics.target.density
    if path.log_prob is not None and isinstance(density, CheckedTarget):
        return path.log_prob[-1]
    with torch.no_grad(), dynamics.target.reading(density.of_user):
        return dynamics.target.log_prob(x)
