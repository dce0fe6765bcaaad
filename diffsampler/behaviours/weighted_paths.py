"""A sampler's own paths, drawn again by their importance weights."""

import math
from typing import Any

import torch
from torch import Tensor

from diffsampler.behaviours.base import Behaviour
from diffsampler.density import or_zero_density
from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.log_z.resampling import independent
from diffsampler.log_z.trust_region import exponent_within
from diffsampler.paths import Dynamics, Path, evaluate, rollout

SHARE_RENEWED = 4  # of the paths of a step that are rolled out afresh: one in so many


class WeightedPaths(Behaviour):
    """Paths of the target's own measure: rollouts of the sampler and of what it was, drawn by their weights.

    Maximum likelihood on them is the forward Kullback-Leibler divergence of whole paths, for which no draws of the
    target are needed, but some rollouts that are near to it: at a small effective sample size few paths are drawn over
    and over. In fine-tuning the first of them are the pretrained sampler's, weighed by the reward.

    Within a trust region they are drawn by w^a, with the largest a <= 1 for which that is at most so many nats from
    the paths as they were rolled out: a step towards the target that many paths have a part in. With `Matching` that is
    proximal diffusion matching.

    References:
        Proximal diffusion neural sampler, Guo et al., 2025, arXiv:2510.03824 (tempered weights).
        Reweighted Wake-Sleep, Bornschein & Bengio, 2015, arXiv:1406.2751 (its update of the proposal).

    Arguments:
        size: paths that are kept, each with its weight when it was rolled out; the oldest go first. Every training
            begins with new ones. Where the control uses the score, that of every state is kept, too.
        trust_region: KL(w^a P | P) of draws by w^a, in nats; infinite where a is to be 1.
    """

    backward = True

    def __init__(self, size: int = 4096, trust_region: float = math.inf) -> None:
        self.size = check_count("size", size)
        if trust_region != math.inf:
            check_positive("trust_region", trust_region)
        self.trust_region = float(trust_region)
        self._forget()

    def _forget(self) -> None:
        self.times: Tensor | None = None
        self.x = self.log_prob = self.log_weight = torch.empty(0)
        self.score: Tensor | None = None
        self.oldest = 0

    def check(self, dynamics: Dynamics) -> None:
        self._forget()  # paths of an earlier training may be of another density; those of a checkpoint come later
        if dynamics.policy.is_of_family:
            raise InputError("WeightedPaths compares weights, which those of a family's densities cannot be.")
        if not torch.equal(*(dynamics.grid.times(torch.Generator().manual_seed(seed)) for seed in (0, 1))):
            raise InputError(
                f"WeightedPaths keeps paths of the same times, but grid {type(dynamics.grid).__name__} draws new ones: "
                "take UniformGrid."
            )

    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        del progress
        if self.times is None:
            self._begin(dynamics, generator)
        else:
            self._renew(dynamics, max(1, min(n // SHARE_RENEWED, self.size)), generator)
        if not self.log_weight.max().isfinite():
            raise InputError(f"WeightedPaths: the density is zero at all {self.size} paths that are kept.")
        exponent = 1.0 if self.trust_region == math.inf else exponent_within(self.log_weight, self.trust_region)
        rows = independent(exponent * self.log_weight, n, generator)
        score = None if self.score is None else self.score[:, rows]
        return Path(self.times, self.x[:, rows], self.log_prob[None, rows], score)

    def state_dict(self) -> dict[str, Any]:
        if self.times is None:
            return {}
        return {**{name: getattr(self, name).cpu() for name in self._kept()}, "oldest": self.oldest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.clone() if isinstance(value, Tensor) else value)

    def _kept(self) -> list[str]:
        return ["times", "x", "log_prob", "log_weight", *([] if self.score is None else ["score"])]

    def _begin(self, dynamics: Dynamics, generator: torch.Generator) -> None:
        self.times = dynamics.times(generator)
        path = dynamics.empty_path(self.times, self.size, dynamics.policy.uses_score)
        self.x, self.score, self.oldest = path.x, path.score, 0
        self.log_prob, self.log_weight = path.x.new_empty(2, self.size, dtype=torch.float64).unbind()
        self._renew(dynamics, self.size, generator)

    @torch.no_grad()
    def _renew(self, dynamics: Dynamics, n: int, generator: torch.Generator) -> None:
        device = dynamics.policy.device
        for name in self._kept():  # of a checkpoint, these are on the CPU
            setattr(self, name, getattr(self, name).to(device))
        path = rollout(dynamics, n, generator)
        trajectory = evaluate(dynamics, path, with_flow=False)
        rows = (torch.arange(n, device=device) + self.oldest) % self.size
        self.x[:, rows] = path.x
        if self.score is not None:
            self.score[:, rows] = path.score
        self.log_prob[rows] = trajectory.log_prob
        self.log_weight[rows] = or_zero_density(trajectory.log_weight)
        self.oldest = (self.oldest + n) % self.size
