"""Weighted points into equally weighted ones."""

import math

import torch
from torch import Tensor

MIN_STEP = 1e-24  # singular cores: of the first temperatures most pairs overlap


def independent(log_weight: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows drawn with replacement, each in proportion to exp(log_weight), with shape (n), for log-weights (m).

    By the inverse of the cumulative distribution: torch.multinomial stops at 2^24 rows.
    """
    edges = (log_weight.double() - log_weight.max()).exp().cumsum(0)
    uniform = torch.rand(n, generator=generator, dtype=torch.float64, device=edges.device)
    return torch.searchsorted(edges, uniform * edges[-1]).clamp(max=len(edges) - 1)


def systematic(log_weight: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows drawn in proportion to exp(log_weight), with shape (*, n) for log-weights with shape (*, m).

    One uniform number serves n draws: each row comes up as often as it should, rounded up or down.
    """
    weight = (log_weight - log_weight.amax(-1, keepdim=True)).exp()
    edges = weight.cumsum(-1) / weight.sum(-1, keepdim=True)
    offset = torch.rand((*edges.shape[:-1], 1), generator=generator, dtype=edges.dtype, device=edges.device)
    points = (torch.arange(n, device=edges.device) + offset) / n
    return torch.searchsorted(edges, points).clamp(max=edges.shape[-1] - 1)


def resample_groups(
    log_weight: Tensor, num_groups: int, ess_threshold: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Resample those groups whose effective sample size is below a share, `ess_threshold`, of their size.

    Of log-weights with shape (n), consecutive n / num_groups make a group. What is returned are the rows to go on with,
    and their log-weights, each with shape (n). Mean weights of groups stay what they were.
    """
    groups = log_weight.view(num_groups, -1)
    size = groups.shape[1]
    start = torch.arange(num_groups, device=groups.device).unsqueeze(-1) * size
    uneven = 1 / groups.softmax(-1).square().sum(-1, keepdim=True) < ess_threshold * size
    rows = torch.where(uneven, systematic(groups, size, generator), torch.arange(size, device=groups.device))
    mean = (groups.logsumexp(-1, keepdim=True) - math.log(size)).expand_as(groups)
    return (start + rows).flatten(), torch.where(uneven, mean, groups).flatten()


def step_at_ess(ratio: Tensor, left: float, ess_threshold: float) -> float:
    """The step in beta at which the effective sample size falls to the threshold, by bisection."""
    ratio = ratio[~ratio.isneginf()]  # any step at all loses those
    ratio = ratio - ratio.max()

    def ess(step: float) -> float:
        weight = (step * ratio).exp()
        return float(weight.sum().square() / weight.square().sum()) / len(ratio)

    if ess(left) >= ess_threshold:
        return left
    low, high = math.log(MIN_STEP), math.log(left)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if ess(math.exp(middle)) >= ess_threshold else (low, middle)
    return math.exp(low)
