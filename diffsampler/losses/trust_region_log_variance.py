"""Log-variance in steps of bounded size, on paths that serve many training steps."""

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.log_z.trust_region import exponent_within
from diffsampler.losses.base import Objective
from diffsampler.paths import Dynamics, Path, evaluate


class TrustRegionLogVariance(Objective):
    """The variance of log P - log P_i - a log w_i over paths of an earlier self P_i, of which w_i are the weights.

    It is least where the sampler P is w_i^a P_i: the nearest to the target among those within `trust_region` of P_i,
    which gives a. When a set of paths has served, the sampler is the next P_i. The target is asked at their ends alone,
    once, and a sampler far from its target is never pulled towards the one path that is nearest.

    References:
        Trust region constrained measure transport in path space for stochastic optimal control and inference, Blessing
            et al., 2025, arXiv:2508.12511.

    Arguments:
        num_paths: of a set.
        steps_per_set: training steps that it serves, each on a batch of it.
        trust_region: KL(w_i^a P_i | P_i), in nats.

    Attributes:
        exponent: a, which is 1 where the target is within the trust region.
    """

    uses_log_z = False
    on_policy = True
    min_batch_size = 2

    def __init__(self, num_paths: int = 2048, steps_per_set: int = 50, trust_region: float = 0.5) -> None:
        super().__init__()
        self.num_paths = check_count("num_paths", num_paths, minimum=2)
        self.steps_per_set = check_count("steps_per_set", steps_per_set)
        check_positive("trust_region", trust_region)
        self.trust_region = float(trust_region)
        for name in ("x", "times", "log_prob", "log_pf", "log_weight"):
            self.register_buffer(name, torch.zeros(0))
        self.register_buffer("num_done", torch.zeros((), dtype=torch.int64))
        self.register_buffer("exponent", torch.ones((), dtype=torch.float64))

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        super().check(dynamics, behaviour)
        if dynamics.policy.is_of_family:
            raise InputError("loss TrustRegionLogVariance is for one density, and this is a family: take LogVariance.")

    def adapt(self, dynamics: Dynamics) -> None:
        policy = dynamics.policy
        like, num_times = policy.log_z.detach(), dynamics.grid.num_steps + 1
        self.x = like.new_zeros(num_times, self.num_paths, policy.dim, dtype=policy.dtype)
        self.times = like.new_zeros(num_times)
        self.log_prob, self.log_pf, self.log_weight = like.new_zeros(3, self.num_paths).unbind()

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        if int(self.num_done) % self.steps_per_set == 0:
            self._begin_set(dynamics, behaviour, generator, progress)
        self.num_done += 1
        rows = torch.randperm(self.num_paths, generator=generator, device=self.x.device)[:n]
        path = Path(self.times, self.x[:, rows], self.log_prob[None, rows])
        trajectory = evaluate(dynamics, path, with_flow=False)
        log_ratio = trajectory.log_prior + trajectory.log_pf.sum(0) - self.log_pf[rows]
        return (log_ratio - self.exponent * self.log_weight[rows]).var(correction=0)

    @torch.no_grad()
    def _begin_set(self, dynamics: Dynamics, behaviour: Behaviour, generator: torch.Generator, progress: float) -> None:
        path = behaviour.paths(dynamics, self.num_paths, generator, progress)
        found = evaluate(dynamics, path, with_flow=False)
        self.x, self.times, self.log_prob = path.x, path.times, found.log_prob
        self.log_pf = found.log_prior + found.log_pf.sum(0)
        usable = found.log_weight.isfinite()
        if not usable.any():
            raise InputError(f"TrustRegionLogVariance: the density is zero at the ends of all {self.num_paths} paths.")
        # Where the density is zero a weight counts as the least of the others: the loss stays finite.
        self.log_weight = torch.where(usable, found.log_weight, found.log_weight[usable].min())
        self.exponent.fill_(exponent_within(self.log_weight, self.trust_region))
