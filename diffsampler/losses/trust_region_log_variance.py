"""Log-variance in steps of bounded size, on paths that serve many training steps."""

from typing import Any

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
    which gives a. When a set of paths has served, the sampler is the next P_i. A sampler far from its target is never
    pulled towards the one path that is nearest. Each path asks the target once, at its end, or all along where the
    control uses the score.

    Checkpoints hold the set, so that training goes on within it: 4 (T + 1) D bytes a path, and as many again where the
    control uses the score.

    References:
        Trust region constrained measure transport in path space for stochastic optimal control and inference, Blessing
            et al., 2025, arXiv:2508.12511.

    Arguments:
        num_paths: of a set.
        steps_per_set: training steps that it serves, each on a batch of it.
        trust_region: KL(w_i^a P_i | P_i), in nats.

    Attributes:
        exponent: a of the set, which is 1 where the target is within the trust region.
        num_done: training steps so far.
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
        self._forget()

    def _forget(self) -> None:
        self.num_done, self.exponent = 0, 1.0
        self._set: dict[str, Tensor] = {}

    def get_extra_state(self) -> dict[str, Any]:
        # Not buffers: those are averaged, copied and shared between ranks as weights are.
        kept = {name: value.cpu() for name, value in self._set.items()}
        return {"num_done": self.num_done, "exponent": self.exponent, "set": kept}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.num_done, self.exponent, self._set = state["num_done"], state["exponent"], dict(state["set"])

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        super().check(dynamics, behaviour)
        if dynamics.policy.is_of_family:
            raise InputError("loss TrustRegionLogVariance is for one density, and this is a family: take LogVariance.")

    def check_batch_size(self, batch_size: int) -> None:
        super().check_batch_size(batch_size)
        if batch_size > self.num_paths:
            raise InputError(
                f"batch_size must be at most num_paths of TrustRegionLogVariance, {self.num_paths}, got {batch_size}."
            )

    def adapt(self, dynamics: Dynamics) -> None:
        del dynamics
        self._forget()  # paths of an earlier training may be of another density

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        if self.num_done % self.steps_per_set == 0:
            self._begin_set(dynamics, behaviour, generator, progress)
        self.num_done += 1
        device = dynamics.policy.device
        kept = self._set = {name: value.to(device) for name, value in self._set.items()}  # of a checkpoint, on the CPU
        rows = torch.randperm(self.num_paths, generator=generator, device=device)[:n]
        score = kept["score"][:, rows] if "score" in kept else None
        path = Path(kept["times"], kept["x"][:, rows], kept["log_prob"][None, rows], score)
        trajectory = evaluate(dynamics, path, with_flow=False)
        log_ratio = trajectory.log_prior + trajectory.log_pf.sum(0) - kept["log_pf"][rows]
        return (log_ratio - self.exponent * kept["log_weight"][rows]).var(correction=0)

    @torch.no_grad()
    def _begin_set(self, dynamics: Dynamics, behaviour: Behaviour, generator: torch.Generator, progress: float) -> None:
        path = behaviour.paths(dynamics, self.num_paths, generator, progress)
        found = evaluate(dynamics, path, with_flow=False)
        usable = found.log_weight.isfinite()
        if not usable.any():
            raise InputError(f"TrustRegionLogVariance: the density is zero at the ends of all {self.num_paths} paths.")
        # Where the density is zero a weight counts as the least of the others: the loss stays finite.
        log_weight = torch.where(usable, found.log_weight, found.log_weight[usable].min())
        self.exponent = exponent_within(log_weight, self.trust_region)
        self._set = {
            "times": path.times,
            "x": path.x,
            "log_prob": found.log_prob.clone(),  # not a view of all times: checkpoints would hold these
            "log_pf": found.log_prior + found.log_pf.sum(0),
            "log_weight": log_weight,
        }
        if path.score is not None:
            self._set["score"] = path.score
