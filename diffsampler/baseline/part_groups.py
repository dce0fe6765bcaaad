"""Parts of one kind, evaluated together: a search asks for their densities more often than for the target's."""

import torch
from torch import Tensor

from diffsampler.baseline.components import rows_at_once
from diffsampler.baseline.heavy_tails import log_law, log_law_and_score
from diffsampler.baseline.part import Part


class Parts:
    """K parts, at least one, of any kind."""

    def __init__(self, parts: list[Part]) -> None:
        is_affine = torch.tensor([part.map.is_affine for part in parts])
        kinds = [(AffineParts, is_affine), (BentParts, ~is_affine)]
        groups = [(kind, rows.nonzero().squeeze(-1)) for kind, rows in kinds if rows.any()]
        device = parts[0].map.loc.device
        self._groups = [(kind([parts[k] for k in rows.tolist()]), rows.to(device)) for kind, rows in groups]
        self._order = torch.cat([rows for _, rows in groups]).argsort().to(device)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density of each, with shape (K, n), for x with shape (n, D)."""
        return torch.cat([group.log_prob(x) for group, _ in self._groups])[self._order]

    def mixture(self, x: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """log sum_k exp(log_weight_k) part_k(x), with shape (n), and its gradient, with shape (n, D).

        For log-weights with shape (K). The gradient is zero where no part reaches.
        """
        found = [group.mixture(x, log_weight[rows]) for group, rows in self._groups]
        if len(found) == 1:
            return found[0]
        (log_prob, score), (other, other_score) = found
        share = (other - log_prob).sigmoid().nan_to_num(0.0).unsqueeze(-1)  # where neither reaches, both scores are 0
        return torch.logaddexp(log_prob, other), torch.lerp(score, other_score, share)


class AffineParts:
    """Those with affine maps: all at once, with gradients in closed form."""

    def __init__(self, parts: list[Part]) -> None:
        self.loc = torch.stack([part.map.loc for part in parts]).unsqueeze(1)
        self.inverse = torch.stack([part.map.inverse_basis for part in parts])
        self.log_det = torch.stack([part.map.log_det_basis for part in parts]).unsqueeze(1)
        self.degrees = self.loc.new_tensor([[part.degrees] for part in parts])
        self.num_rows = rows_at_once(self.loc)

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.cat([self._finite(log_law(self._z(rows), self.degrees)) for rows in x.split(self.num_rows)], 1)

    def mixture(self, x: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, scores = zip(*(self._mixture(rows, log_weight) for rows in x.split(self.num_rows)), strict=True)
        return torch.cat(log_probs), torch.cat(scores)

    def _mixture(self, x: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        log_law, score = log_law_and_score(self._z(x), self.degrees)
        joint = self._finite(log_law) + log_weight.unsqueeze(1)
        score = score.nan_to_num(0.0, 0.0, 0.0) * joint.softmax(0).nan_to_num(0.0).unsqueeze(-1)
        return joint.logsumexp(0), score.movedim(0, 1).flatten(1) @ self.inverse.flatten(0, 1)

    def _z(self, x: Tensor) -> Tensor:
        return (x - self.loc) @ self.inverse.mT

    def _finite(self, log_law: Tensor) -> Tensor:
        """Where the map overflows the part is infinitely far."""
        return torch.where(log_law.isnan(), -torch.inf, log_law) - self.log_det


class BentParts:
    """All others: one after the other."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.stack([part.log_prob(x) for part in self.parts])

    def mixture(self, x: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_prob = (self.log_prob(x) + log_weight.unsqueeze(1)).logsumexp(0)
            (score,) = torch.autograd.grad(log_prob.sum(), x)
        return log_prob.detach(), score.nan_to_num(0.0, 0.0, 0.0)
