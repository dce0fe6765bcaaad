"""Weighted points into equally weighted ones."""

import math

import torch
from torch import Tensor

__all__ = ["resample_groups", "systematic"]


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
    """Resample those groups whose effective sample size is below a share of their size.

    Arguments:
        log_weight: with shape (n); consecutive n / num_groups make a group.
        num_groups: divides n.
        ess_threshold: the share.
        generator: the source of noise.

    Returns:
        The rows to go on with, and their log-weights, each with shape (n). Mean weights of groups stay what they were.
    """
    groups = log_weight.view(num_groups, -1)
    size = groups.shape[1]
    start = torch.arange(num_groups, device=groups.device).unsqueeze(-1) * size
    uneven = 1 / groups.softmax(-1).square().sum(-1, keepdim=True) < ess_threshold * size
    rows = torch.where(uneven, systematic(groups, size, generator), torch.arange(size, device=groups.device))
    mean = (groups.logsumexp(-1, keepdim=True) - math.log(size)).expand_as(groups)
    return (start + rows).flatten(), torch.where(uneven, mean, groups).flatten()
