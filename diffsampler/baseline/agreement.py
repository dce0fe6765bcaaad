"""What independent searches say together: how much they may all have missed, and how far they differ."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffsampler.baseline.refine import Round, together
from diffsampler.baseline.tempering import Annealed
from diffsampler.log_z.estimate import NORMAL_97_5, UNSEEN_MASS
from diffsampler.support import Support

COVERED = math.log(100.0)  # how much less often than its mass a search may draw what it has found
DISAGREE = 3.0  # standard errors between two searches
NEGLIGIBLE = 0.02  # nats
MOST = 0.8  # of the mass


@dataclass(frozen=True)
class Replicates(Annealed):
    """What several independent searches have found together.

    Attributes:
        log_prob: of the target at the points, with shape (n).
        log_zs: what each search by itself estimates, with its standard error.
        is_warm: whether searches began from what another density's have found.
    """

    log_prob: Tensor | None = None
    log_zs: tuple[tuple[float, float], ...] = ()
    is_warm: bool = False

    def in_x(self, onto: Support | None) -> "Replicates":
        """The same with points and log-densities of x, where those are of y; prior and ladder stay those of y."""
        if onto is None:
            return self
        x, log_det = onto.forward(self.x)
        return replace(self, x=x, log_prob=self.log_prob - log_det)

    def split(self, share: float, generator: torch.Generator) -> tuple["Replicates", "Replicates"]:
        """The same with a share of the points, and with the rest: at random, but copies of one stay together."""
        copy_of = self.x.unique(dim=0, return_inverse=True)[1]
        shuffled = torch.randperm(len(self.x), generator=generator, device=self.x.device)
        order, num = shuffled[copy_of].argsort(), round(share * len(self.x))
        kept = {name: getattr(self, name)[order] for name in ("x", "log_weight", "log_prob")}
        first = replace(self, **{name: value[:num] for name, value in kept.items()})
        return first, replace(self, **{name: value[num:] for name, value in kept.items()})

    def with_spread(self, rounds: list[Round], unseen: float) -> "Replicates":
        """The same, with an interval that knows of what searches disagree about, and of the mass that may be unseen."""
        estimate, warnings = self.estimate, list(self.estimate.warnings)
        half = NORMAL_97_5 * math.sqrt(estimate.variance + self._spread(rounds) ** 2)
        if unseen >= UNSEEN_MASS:
            warnings.append(
                f"By what single ones of {len(rounds)} searches have missed, {unseen:.1%} of the mass may be unseen."
            )
        # What one search alone has found may have a counterpart that none has.
        missing = -math.log1p(-min(unseen, 0.9))
        low, high = estimate.log_z - half - missing, estimate.log_z + half + missing
        if not math.isfinite(estimate.high):
            low, high = estimate.low - missing, estimate.high
        estimate = replace(estimate, low=low, high=high, unseen=unseen, warnings=warnings)
        return replace(self, estimate=estimate, log_zs=tuple((one.log_z, one.standard_error) for one in rounds))

    def _spread(self, rounds: list[Round]) -> float:
        """The standard error that the searches' own estimates suggest, beyond what they claim themselves.

        Of those that cover most of what was found: what others have missed is in the share that may be unseen.
        """
        log_z, excess, num = self.estimate.log_z, 0.0, 0
        for one in rounds:
            covered = float((self.log_prob - log_z - one.proposal.log_prob(self.x) < COVERED).double().mean())
            if covered < MOST or not math.isfinite(one.log_z):
                continue
            difference, num = one.log_z - log_z - math.log(covered), num + 1
            # Each by itself: one that knows little must not hide what the others disagree about.
            excess += max(difference**2 - one.standard_error**2, 0.0)
        return math.sqrt(excess) / max(num, 1)


class Pool:
    """The draws of all searches as weighted draws of the target, and which searches cover which.

    A search covers a point that its proposal draws not much less often than the target would.
    """

    def __init__(self, rounds: list[Round], num_kinds: int) -> None:
        self.rounds, self.num_kinds = rounds, num_kinds
        x, log_prob, log_q = together(rounds)
        log_mixture = log_q.logsumexp(0) - math.log(len(rounds))
        log_weight = torch.where(log_prob.isneginf(), -math.inf, log_prob - log_mixture)
        log_z = float(log_weight.logsumexp(0)) - math.log(len(x))
        self.weight = log_weight.softmax(0)
        self.covered = log_prob - log_z - log_q < COVERED
        self.missed = 1 - self.covered.to(self.weight) @ self.weight  # by each search, of the mass

    @property
    def unseen(self) -> float:
        """The share of the mass that none of the searches may have found, by what single ones have missed.

        That which one search alone covers, as Good and Turing have it, or what all but one of them would miss together
        if they failed independently, and as often as these did in the mean: whichever is larger.
        """
        found_once = float(self.weight[self.covered.sum(0) <= 1].sum())
        return min(max(found_once, float(self.missed.mean()) ** (len(self.rounds) - 1)), 1.0)

    @property
    def missed_by_one_kind(self) -> float:
        """The share of the mass that the searches of one kind have missed, in the mean; of that which missed more."""
        return max(float(self.missed[k :: self.num_kinds].mean()) for k in range(min(self.num_kinds, len(self.rounds))))

    @property
    def agrees(self) -> bool:
        """Whether estimates of single searches, of the mass that each covers, differ by no more than their errors.

        The two most precise ones are compared.
        """
        usable = [k for k, one in enumerate(self.rounds) if math.isfinite(one.log_z)]
        best = sorted(usable, key=lambda k: self.rounds[k].standard_error)[:2]
        if len(best) < 2:
            return False
        mass = [float(self.weight[self.covered[k]].sum()) for k in best]
        first, second = (self.rounds[k].log_z - math.log(max(m, 1e-9)) for k, m in zip(best, mass, strict=True))
        error = math.hypot(*(self.rounds[k].standard_error for k in best))
        return abs(first - second) < DISAGREE * error + NEGLIGIBLE
