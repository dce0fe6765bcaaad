"""Several objectives at once, by how much each is preferred."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from diffsampler.density import check_values
from diffsampler.errors import InputError, check_positive, in_one_line
from diffsampler.families.family import Family
from diffsampler.families.places import check_places, settle
from diffsampler.target import Target

KINDS = {
    "sum": lambda log_rewards, weights: (log_rewards + weights.log()).logsumexp(-1),
    "log-linear": lambda log_rewards, weights: torch.where(weights > 0, weights * log_rewards, 0.0).sum(-1),
}


class Scalarised(Family):
    """Rewards R_1 ... R_K, with preferences w on the simplex for a context: all trade-offs from one training.

    (sum_k w_k R_k)^(1 / temperature), or (prod_k R_k^w_k)^(1 / temperature).

    References:
        Multi-objective GFlowNets, Jain et al., 2023, arXiv:2210.12765.

    Arguments:
        targets: the rewards, on the same R^D, or with the same support.
        kind: "sum" or "log-linear".
        temperature: of the whole; below 1 it is sharper.
        concentration: of the Dirichlet distribution that preferences are trained on.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        kind: Literal["sum", "log-linear"] = "log-linear",
        temperature: float = 1.0,
        concentration: float = 1.0,
    ) -> None:
        if not isinstance(targets, Sequence | nn.ModuleList) or len(targets) < 2:
            raise InputError(f"targets must be a list of two at least, got {in_one_line(targets)}.")
        check_places(type(self).__name__, targets)
        if kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
        super().__init__(targets[0].dim, len(targets))
        settle(self, targets[0])
        self.targets = nn.ModuleList(targets)
        self.kind, self.temperature = kind, check_positive("temperature", temperature)
        self.concentration = check_positive("concentration", concentration)
        self.context_names = tuple(f"preference {k}" for k in range(1, len(targets) + 1))
        self.differentiable = all(target.differentiable for target in targets)

    def check_context(self, context: Tensor) -> None:
        if (context < 0).any() or abs(float(context.sum()) - 1) > 1e-6:
            raise InputError(f"context must be preferences, at least 0 and 1 in all, got {context.tolist()}.")

    def fingerprint(self) -> dict[str, object]:
        """What tells it from others, for checkpoints."""
        kept = {name: getattr(self, name) for name in ("kind", "temperature", "concentration")}
        return {"targets": list(self.targets), **kept}

    def log_rewards(self, x: Tensor) -> Tensor:
        """log R_k, with shape (*, K), for x with shape (*, D)."""
        return torch.stack([check_values(target, x, target.log_prob(x)) for target in self.targets], -1)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        return self.log_prob_of(self.log_rewards(x), context)

    def statistics(self, x: Tensor) -> Tensor:
        return self.log_rewards(x)

    def log_prob_of(self, statistics: Tensor, context: Tensor) -> Tensor:
        return KINDS[self.kind](statistics, context.clamp(min=0)) / self.temperature

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        shape = torch.full((n, self.context_dim), self.concentration, dtype=torch.float64)
        drawn = torch._standard_gamma(shape, generator=generator)
        return drawn / drawn.sum(-1, keepdim=True)
