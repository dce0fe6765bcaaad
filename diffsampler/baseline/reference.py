"""The plain reference: independent searches that agree, then importance weights or tempered SMC, without learning."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.moves import AnnealedPath, PriorMove, Rung, default_move
from diffsampler.baseline.proposal import Proposal
from diffsampler.baseline.propriety import check_proper
from diffsampler.baseline.refine import GOOD_ESS, NUM_DRAWS, USEFUL_KHAT, Round, refine, together, weigh
from diffsampler.baseline.replicate import replicate
from diffsampler.baseline.search_kinds import KINDS
from diffsampler.baseline.tempering import Annealed, smc
from diffsampler.baseline.unbounded import back_in_x, unbounded
from diffsampler.baseline.wander import wander
from diffsampler.counted import CountedTarget
from diffsampler.density import Density, or_zero_density
from diffsampler.errors import check_count, check_instance
from diffsampler.log_z.estimate import NORMAL_97_5, UNSEEN_MASS, estimate_log_z
from diffsampler.log_z.resampling import systematic
from diffsampler.log_z.weights import share_of_heavy
from diffsampler.repeatable import check_repeatable, points_of_all_sizes
from diffsampler.target import Target

__all__ = ["Replicates", "more_draws", "reference"]

MAX_SEARCHES = 6
SEARCHES_OF_PIECES = 3  # at least, where there are several modes or pieces
SEARCHES_OF_UNLIKE, MUCH = 5, 0.05  # at least, where one kind of search misses so much of what the other has found
MANY_EVALUATIONS = 1_500_000  # beyond, no search is added
COVERED = math.log(100.0)  # how much less often than its mass a search may draw what it has found
USEFUL_ESS = 0.05
DRAWS_A_PARTICLE = 5
NUM_FINAL = 3  # independent runs of SMC, where weights are of no use
DISAGREE = 3.0  # standard errors between two searches
NEGLIGIBLE = 0.02  # nats
MOST = 0.8  # of the mass
NUM_CHECKED = 16
MAX_POOLED = 5
NUM_WANDERING = 1000


@dataclass(frozen=True)
class Replicates(Annealed):
    """What several independent searches have found together.

    Attributes:
        log_prob: of the target at the points, with shape (n).
        log_zs: what each search by itself estimates, with its standard error.
    """

    log_prob: Tensor | None = None
    log_zs: tuple[tuple[float, float], ...] = ()


@torch.no_grad()
def reference(
    target: Target | CountedTarget,
    num_particles: int = 2000,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[float], None] | None = None,
    max_evaluations: int | None = None,
) -> Replicates:
    """log Z and draws of a density of which nothing is known, by searches that know nothing of each other.

    Each search finds Gaussians around modes, in a way of its own (`KINDS`), explores from them by tempered SMC, and
    fits bent Gaussians to what it has drawn, weighs, fits and draws again. Searches are added until none finds what no
    other has. What all have found is the proposal of a last round: importance weights, or, where they are too uneven,
    three runs of SMC.

    References:
        Bayesian stopping rules for multistart global optimization methods, Boender & Rinnooy Kan, 1987.

    Arguments:
        target: the density.
        num_particles: of each SMC run; importance weights take five times as many draws.
        seed: of a fresh generator.
        generator: the source of all noise, instead of a seed.
        progress: is told the fraction of the work that is done, now and then.
        max_evaluations: of the target, after which no further search begins; by default a million, and then two
            searches at least. With one alone nothing is known of what it has missed.

    Raises:
        InputError: if the density is zero, or no number, wherever the search looks, or has no integral.
    """
    check_count("num_particles", num_particles, minimum=100)
    if not isinstance(target, CountedTarget):
        target = CountedTarget(check_instance("target", target, Target, "FunctionTarget(log_prob, dim=2)"))
    counter = target
    if generator is None:
        generator = torch.Generator(_device_of(counter.density))
        generator.seed() if seed is None else generator.manual_seed(seed)
    inner = unbounded(counter)
    if inner is counter:
        return _reference(counter, num_particles, generator, progress, max_evaluations)
    try:
        found = _reference(inner, num_particles, generator, progress, max_evaluations)
    finally:
        counter.num_evaluations, counter.num_invalid = inner.num_evaluations, inner.num_invalid
    return back_in_x(found, inner.density.onto)


def _reference(
    counter: CountedTarget,
    num_particles: int,
    generator: torch.Generator,
    progress: Callable[[float], None] | None,
    max_evaluations: int | None,
) -> Replicates:
    """The same, in the coordinates of the target as it is."""
    check_repeatable(counter, points_of_all_sizes(counter.dim, generator.device))
    tell = (lambda done: None) if progress is None else progress
    rounds: list[Round] = []
    unseen = 1.0
    limit = MANY_EVALUATIONS if max_evaluations is None else max_evaluations
    while len(rounds) < MAX_SEARCHES:
        k, kind = len(rounds), KINDS[len(rounds) % len(KINDS)]
        # Two are expected; of more, none takes the bar back.
        start, end = (0.4 * k, 0.4 * (k + 1)) if k < 2 else (0.8, 0.8)
        found = kind(counter, generator)
        if not rounds:
            check_proper(counter, torch.cat([found.loc, found.sample(NUM_CHECKED, generator.clone_state())]))
        rounds.append(replicate(counter, found, generator, lambda done, a=start, b=end: tell(a + done * (b - a))))
        if len(rounds) >= 2:
            pool = _Pool(rounds)
            unseen = pool.unseen
            enough = 2 if all(len(one.proposal.parts) == 1 for one in rounds) else SEARCHES_OF_PIECES
            if pool.missed_by_one_kind > MUCH:
                enough = SEARCHES_OF_UNLIKE
            if len(rounds) >= enough and unseen < UNSEEN_MASS and pool.agrees:
                break
        if counter.num_evaluations > limit and (len(rounds) >= 2 or max_evaluations is not None):
            break
    pooled = rounds[0].proposal
    for k, one in enumerate(rounds[1:], start=2):
        pooled = pooled.mixed_with(one.proposal, 1 / k)
    last = weigh(counter, pooled, NUM_DRAWS, generator)
    if not (last.ess >= GOOD_ESS and last.khat <= USEFUL_KHAT):
        last = refine(counter, pooled, generator, max_rounds=MAX_POOLED)
    tell(0.9)
    found = _by_weights(counter, last, num_particles, generator)
    if found is None:
        found = _by_smc(counter, last.proposal, num_particles, generator)
    tell(1.0)
    estimate = replace(found.estimate, num_target_evaluations=counter.num_evaluations)
    return _with_spread(replace(found, estimate=estimate), rounds, min(unseen + estimate.unseen, 1.0))


@torch.no_grad()
def more_draws(target: CountedTarget, found: Annealed, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n points: the draws of an annealed estimate, and where further moves take them, with shape (n, D)."""
    x = found.resampled(min(n, len(found.x)), generator)
    move, _ = default_move(target)
    path = AnnealedPath(target, found.prior, move)
    particles, points = path.at(x), []
    rung = found.ladder[-1] if found.ladder else Rung(1.0, GaussianComponents.fitted_to(x).factor[0], 0.5)
    while len(points) * len(x) < n:
        particles, _ = PriorMove().apply(path, particles, rung, generator)
        particles, _ = move.apply(path, particles, rung, generator)
        points.append(particles.x)
    return torch.cat(points)[-n:]


class _Pool:
    """The draws of all searches as weighted draws of the target, and which searches cover which.

    A search covers a point that its proposal draws not much less often than the target would.
    """

    def __init__(self, rounds: list[Round]) -> None:
        self.rounds = rounds
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
        num_kinds = min(len(KINDS), len(self.rounds))
        return max(float(self.missed[k :: len(KINDS)].mean()) for k in range(num_kinds))

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


def _by_weights(
    target: CountedTarget, last: Round, num_particles: int, generator: torch.Generator | None
) -> Replicates | None:
    """An estimate, with the share of the mass that may lie beyond its draws, unless weights are of no use."""
    if not (last.ess >= USEFUL_ESS and last.khat <= USEFUL_KHAT):
        return None
    final = weigh(target, last.proposal, DRAWS_A_PARTICLE * num_particles, generator)
    estimate = estimate_log_z(final.log_weight, target.num_evaluations, target.num_invalid, rounding=target.rounding)
    if estimate.ess < USEFUL_ESS or not math.isfinite(estimate.high):
        return None
    rows = systematic(final.log_weight, len(final.x), generator)
    rows = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]
    equal = torch.zeros_like(final.log_weight)
    estimate = replace(estimate, unseen=_beyond(target, final, generator))
    return Replicates(estimate, final.x[rows], equal, last.proposal, [], math.nan, final.log_prob[rows])


def _beyond(target: CountedTarget, final: Round, generator: torch.Generator | None) -> float:
    """The share of the mass that moves from the draws find where these are all but absent.

    Moved draws of the target weigh more than the heaviest of the draws as often as these say.
    """
    x, log_prob = wander(target, final.proposal, final.x, final.log_weight, NUM_WANDERING, generator)
    share, expected, error = share_of_heavy(log_prob - final.proposal.log_prob(x), final.log_weight)
    excess = share - expected
    return excess if excess > max(UNSEEN_MASS, DISAGREE * error) else 0.0


def _by_smc(
    target: CountedTarget, proposal: Proposal, num_particles: int, generator: torch.Generator | None
) -> Replicates:
    move, num_moves = default_move(target)
    runs = [smc(target, proposal, num_particles, num_moves, move, generator=generator) for _ in range(NUM_FINAL)]
    x = torch.cat([run.x for run in runs])
    log_prob = or_zero_density(target.log_prob(x))
    log_z = torch.tensor([run.estimate.log_z for run in runs], dtype=torch.float64)
    claimed = torch.tensor([run.estimate.variance for run in runs])
    # Between and within: three runs are too few for the one, and each may be blind to the other.
    variance = float(claimed.mean() + log_z.var()) / len(runs)
    mean = float(log_z.logsumexp(0)) - math.log(len(runs))
    half = NORMAL_97_5 * math.sqrt(variance)
    n = num_particles * len(runs)
    estimate = replace(
        runs[-1].estimate,
        log_z=mean,
        low=mean - (half if math.isfinite(half) else math.log(20)),
        high=mean + half,
        elbo=mean,
        ess=1 / (1 + (n - 1) * variance),
        num_samples=n,
        num_target_evaluations=target.num_evaluations,
        warnings=list(dict.fromkeys(warning for run in runs for warning in run.estimate.warnings)),
    )
    return Replicates(estimate, x, torch.zeros_like(log_prob), proposal, runs[-1].ladder, runs[-1].acceptance, log_prob)


def _with_spread(found: Replicates, rounds: list[Round], unseen: float) -> Replicates:
    """The same, with an interval that knows of what searches disagree about."""
    estimate, warnings = found.estimate, list(found.estimate.warnings)
    between = _spread(found, rounds)
    half = NORMAL_97_5 * math.sqrt(estimate.variance + between**2)
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
    return replace(found, estimate=estimate, log_zs=tuple((one.log_z, one.standard_error) for one in rounds))


def _spread(found: Replicates, rounds: list[Round]) -> float:
    """The standard error that the searches' own estimates suggest, beyond what they claim themselves.

    Of those that cover most of what was found: what others have missed is in the share that may be unseen.
    """
    log_z, excess, num = found.estimate.log_z, 0.0, 0
    log_density = found.log_prob - log_z
    for one in rounds:
        covered = float((log_density - one.proposal.log_prob(found.x) < COVERED).double().mean())
        if covered < MOST or not math.isfinite(one.log_z):
            continue
        difference, num = one.log_z - log_z - math.log(covered), num + 1
        # Each by itself: one that knows little must not hide what the others disagree about.
        excess += max(difference**2 - one.standard_error**2, 0.0)
    return math.sqrt(excess) / max(num, 1)


def _device_of(density: Density) -> torch.device:
    tensor = next(density.buffers(), next(density.parameters(), torch.empty(0)))
    return tensor.device
