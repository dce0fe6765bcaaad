"""log Z without learning: adaptive tempered SMC, and annealed importance sampling in both directions.

All three move particles along pi_b = prior^(1 - b) R^b, from b = 0 to b = 1, in float64. They are the independent
references beside a trained sampler.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.independent import Independent
from diffsampler.baseline.moves import AnnealedPath, HamiltonianMove, Move, PriorMove, Rung
from diffsampler.baseline.proposal import Proposal
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.log_z.estimate import NORMAL_97_5, LogZEstimate, estimate_log_z, invalid_warnings, rounding_warnings
from diffsampler.log_z.resampling import step_at_ess, systematic
from diffsampler.target import Target

MAX_RUNGS = 500
MIN_FAMILIES = 20


@dataclass(frozen=True)
class Annealed(Independent):
    """What an annealed estimate leaves.

    Attributes:
        estimate: of log Z.
        x: points with shape (n, D).
        log_weight: of the points, with shape (n): weighted, they are draws of the target.
        prior: where they started.
        ladder: the rungs they went along.
        acceptance: the mean acceptance rate at the last rung.
    """

    log_weight: Tensor
    prior: GaussianComponents | Proposal
    ladder: list[Rung]
    acceptance: float

    def resampled(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n equally weighted points, with shape (n, D)."""
        return self.x[systematic(self.log_weight, n, generator)]


@torch.no_grad()
def smc(
    target: Target | CountedTarget,
    prior: GaussianComponents | Proposal,
    num_particles: int = 1000,
    num_moves: int = 2,
    move: Move | None = None,
    ess_threshold: float = 0.8,
    ladder: list[Rung] | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[float], None] | None = None,
) -> Annealed:
    """Sequential Monte Carlo along a tempered path, resampled at every rung.

    Without a ladder, temperatures, covariances and step sizes adapt to the particles, which biases log Z by O(1/n);
    with the ladder of an earlier run, and noise of its own, E[exp(log_z)] = Z. The interval knows of neither that bias
    nor of tails that no particle has seen.

    References:
        Sequential Monte Carlo samplers, Del Moral, Doucet & Jasra, 2006.
        Variance estimation in the particle filter, Lee & Whiteley, 2018: the interval, from one run's genealogy.

    Arguments:
        target: the density.
        prior: where particles start.
        num_particles: n.
        num_moves: moves of every particle at every rung.
        move: by default `HamiltonianMove()`.
        ess_threshold: the effective sample size at which the next temperature is set, as a fraction of n.
        ladder: rungs to go along, instead of adaptive ones.
        seed: of a fresh generator.
        generator: the source of all noise, instead of a seed.
        progress: is told the inverse temperature, from 0 to 1, at every rung.

    Raises:
        InputError: if the density is zero at all particles.
    """
    check_count("num_particles", num_particles, minimum=2)
    if not 0 < check_positive("ess_threshold", ess_threshold) < 1:
        raise InputError(f"ess_threshold must be above 0 and below 1, got {ess_threshold!r}.")
    climb = _Climb(target, prior, num_moves, move, seed, generator, ladder)
    climb.start(prior.sample(num_particles, climb.generator))
    ancestor = torch.arange(num_particles, device=climb.particles.x.device)
    num_resamplings, log_z = 0, 0.0
    mixed = 0.0  # the relative variance if particles forgot their past at every rung
    while climb.beta < 1:
        increment = climb.advance(None if ladder is None else ladder[len(climb.rungs)], ess_threshold)
        log_z += float(increment.logsumexp(0)) - math.log(num_particles)
        weight = increment.softmax(0)
        mixed += float(weight.square().sum()) - 1 / num_particles
        variance = max(mixed, _genealogy_variance(ancestor, weight, num_resamplings))
        # Multinomial, not systematic: what the variance estimate is made for.
        rows = torch.multinomial(weight, num_particles, replacement=True, generator=climb.generator)
        climb.particles, ancestor = climb.particles[rows], ancestor[rows]
        num_resamplings += 1
        climb.move(adapt=ladder is None)
        if progress is not None:
            progress(climb.beta)
    few, warnings = len(ancestor.unique()), []
    if few < MIN_FAMILIES:
        warnings = [
            f"All particles descend from {few} of {num_particles}: too few for an interval. Use more particles."
        ]
    estimate = estimate_of_variance(log_z, variance, num_particles, climb.path.target, warnings, few < MIN_FAMILIES)
    return climb.result(estimate, torch.zeros_like(increment))


@torch.no_grad()
def ais(
    target: Target | CountedTarget,
    prior: GaussianComponents | Proposal,
    ladder: list[Rung],
    num_particles: int = 1000,
    num_moves: int = 1,
    move: Move | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Annealed:
    """Annealed importance sampling: independent particles up a fixed ladder, E[w] = Z.

    References:
        Annealed importance sampling, Neal, 2001.

    Arguments are those of `smc`, with the ladder of an earlier run of it.
    """
    check_count("num_particles", num_particles, minimum=2)
    climb = _Climb(target, prior, num_moves, move, seed, generator, ladder)
    climb.start(prior.sample(num_particles, climb.generator))
    log_weight = torch.zeros_like(climb.particles.log_prob)
    for rung in ladder:
        log_weight = log_weight + climb.advance(rung)
        climb.move(adapt=False)
    target = climb.path.target
    estimate = estimate_log_z(log_weight, target.num_evaluations, target.num_invalid, rounding=target.rounding)
    return climb.result(estimate, log_weight)


@torch.no_grad()
def reverse_ais(
    target: Target | CountedTarget,
    prior: GaussianComponents | Proposal,
    ladder: list[Rung],
    x: Tensor,
    num_moves: int = 1,
    move: Move | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Log-weights of draws of the target that walk down the ladder: E[log w] >= log Z.

    Where prior and target are zero at the same places, E[1 / w] = 1 / Z too; elsewhere it is less.

    With points that are not exact draws all this is approximate.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo, Grosse, Ghahramani & Adams, 2015,
        arXiv:1511.02543.

    Arguments are those of `ais`, but for draws x of the target, with shape (n, D).

    Returns:
        log w, with shape (n).
    """
    climb = _Climb(target, prior, num_moves, move, seed, generator, ladder)
    climb.start(x.double())
    log_weight = torch.zeros_like(climb.particles.log_prob)
    betas = [0.0, *(rung.beta for rung in ladder)]
    for rung, below in zip(reversed(ladder), reversed(betas[:-1]), strict=True):
        climb.rungs.append(rung)
        climb.move(adapt=False)
        log_weight = log_weight + (rung.beta - below) * climb.particles.log_ratio
    return log_weight


class _Climb:
    """Particles on their way up a ladder."""

    def __init__(
        self,
        target: Target | CountedTarget,
        prior: GaussianComponents | Proposal,
        num_moves: int,
        move: Move | None,
        seed: int | None,
        generator: torch.Generator | None,
        ladder: list[Rung] | None,
    ) -> None:
        betas = [0.0, *(rung.beta for rung in ladder)] if ladder is not None else [0.0, 1.0]
        if betas[-1] != 1 or any(above <= below for below, above in zip(betas, betas[1:], strict=False)):
            raise InputError(
                f"ladder must rise from above 0 to 1, as that of an earlier smc run does, got {betas[1:]}."
            )
        self.num_moves = check_count("num_moves", num_moves)
        self.generator = generator_of(seed, generator, prior.centre.device)
        counter = target if isinstance(target, CountedTarget) else CountedTarget(target)
        self.path = AnnealedPath(counter, prior, HamiltonianMove() if move is None else move)
        self.rungs: list[Rung] = []
        self.walk_size, self.acceptance = 1.0, 0.0

    def start(self, x: Tensor) -> None:
        """Put particles where x is, with shape (n, D)."""
        self.particles, self.step_size = self.path.at(x), self.path.move.initial_step_size(x.shape[1])

    @property
    def beta(self) -> float:
        return self.rungs[-1].beta if self.rungs else 0.0

    def advance(self, rung: Rung | None, ess_threshold: float = 0.8) -> Tensor:
        """Step to a rung, chosen if it is None, and return the log-weights of the step."""
        ratio = self.particles.log_ratio
        if ratio.isneginf().all():
            raise InputError(
                f"No log Z: the density is zero, or no number, at all {len(ratio)} particles. Start nearer to it."
            )
        left = 1 - self.beta
        if rung is None:
            step = left if len(self.rungs) == MAX_RUNGS else step_at_ess(ratio, left, ess_threshold)
            weight = (step * (ratio - ratio.max())).exp()
            factor = self.path.prior.units(self.particles.x, weight)
            rung = Rung(1.0 if step == left else self.beta + step, factor, self.step_size, self.walk_size)
        step = rung.beta - self.beta
        self.rungs.append(rung)
        return torch.where(ratio.isneginf(), ratio, step * ratio)

    def move(self, adapt: bool) -> None:
        """Move all particles at the current rung."""
        move, walk = self.path.move, PriorMove()
        for _ in range(self.num_moves):
            rung = self.rungs[-1]
            self.particles, self.acceptance = move.apply(self.path, self.particles, rung, self.generator)
            self.particles, walked = walk.apply(self.path, self.particles, rung, self.generator)
            if adapt:
                self.step_size *= math.exp(self.acceptance - move.target_acceptance)
                self.walk_size = min(1.0, self.walk_size * math.exp(walked - walk.target_acceptance))
                self.rungs[-1] = replace(rung, step_size=self.step_size, walk_size=self.walk_size)

    def result(self, estimate: LogZEstimate, log_weight: Tensor) -> Annealed:
        """What is left at the top."""
        return Annealed(estimate, self.particles.x, log_weight, self.path.prior, self.rungs, self.acceptance)


def generator_of(seed: int | None, generator: torch.Generator | None, device: torch.device | str) -> torch.Generator:
    """The one given, or a fresh one with this seed; without either, with one that torch's global generator draws."""
    if generator is not None:
        return generator
    return torch.Generator(device).manual_seed(int(torch.randint(1 << 62, ())) if seed is None else seed)


def _genealogy_variance(ancestor: Tensor, weight: Tensor, num_resamplings: int) -> float:
    """The relative variance of the estimate of Z, from how much weight descends from each of the first particles.

    Lee & Whiteley, 2018, equation 5, for multinomial resampling.
    """
    n = len(ancestor)
    family = torch.zeros_like(weight).index_add_(0, ancestor, weight)
    return 1 - (n / (n - 1)) ** (num_resamplings + 1) * (1 - float(family.square().sum()))


def estimate_of_variance(
    log_z: float, variance: float, n: int, target: CountedTarget, warnings: list[str], no_interval: bool
) -> LogZEstimate:
    """An estimate by n particles whose error is normal with this variance; without an interval, Markov's inequality."""
    half = NORMAL_97_5 * math.sqrt(variance)
    low, high = (log_z - math.log(20), math.inf) if no_interval else (log_z - half, log_z + half)
    error, rounded = rounding_warnings(log_z, low, target.rounding)
    return LogZEstimate(
        log_z=log_z,
        low=low - error,
        high=high + error,
        elbo=log_z,
        ess=1 / (1 + (n - 1) * variance),
        khat=math.nan,
        num_samples=n,
        num_target_evaluations=target.num_evaluations,
        warnings=[*invalid_warnings(target.num_invalid, target.num_evaluations), *rounded, *warnings],
    )
