"""Evidence from draws of a posterior: bridge sampling, an oracle that shares nothing with what it judges."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

MAX_ITERATIONS, TOLERANCE = 1000, 1e-10


def bridge(
    log_prob: Callable[[Tensor], Tensor], x: Tensor, effective: float, generator: torch.Generator
) -> tuple[float, float]:
    """log Z with its standard error, by a normal proposal that half of the draws choose.

    Simulating ratios of normalizing constants via a simple identity, Meng & Wong, 1996, equation 4.1; the error as in
    Estimating marginal likelihoods for mixture and Markov switching models, Frühwirth-Schnatter, 2004, section 3.

    Arguments:
        log_prob: the density, for x with shape (n, D).
        x: its draws, with shape (n, D), in any order.
        effective: how many independent draws they are worth, as a share.
        generator: of the proposal's draws.
    """
    x = x[torch.randperm(len(x), generator=generator)].double()
    chosen, x = x[::2], x[1::2]
    proposal = MultivariateNormal(chosen.mean(0), torch.cov(chosen.T))
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    drawn = proposal.loc + noise @ proposal.scale_tril.T
    of_x, of_drawn = log_prob(x) - proposal.log_prob(x), log_prob(drawn) - proposal.log_prob(drawn)
    n1, n2 = effective * len(x), len(drawn)
    log_s1, log_s2, log_z = math.log(n1 / (n1 + n2)), math.log(n2 / (n1 + n2)), float(of_x.median())

    def log_mixed(log_ratio: Tensor) -> Tensor:
        """Of s1 p + s2 q, over q, where p is the density over Z."""
        return torch.logaddexp(log_s1 + log_ratio - log_z, torch.full_like(log_ratio, log_s2))

    for _ in range(MAX_ITERATIONS):
        above = (of_drawn - log_mixed(of_drawn)).logsumexp(0) - math.log(n2)
        below = (-log_mixed(of_x)).logsumexp(0) - math.log(len(x))
        before, log_z = log_z, float(above - below)
        if abs(log_z - before) < TOLERANCE:
            break
    of_proposal, of_target = (of_drawn - log_z - log_mixed(of_drawn)).exp(), (-log_mixed(of_x)).exp()
    variance = sum(float(f.var() / f.mean() ** 2) / n for f, n in ((of_proposal, n2), (of_target, n1)))
    return log_z, variance**0.5
