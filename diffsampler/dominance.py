"""Which points no other is better than in everything, and the volume that they dominate."""

import torch
from torch import Tensor


def non_dominated(objectives: Tensor) -> Tensor:
    """Which points no other is as good as in all objectives and better in one, with shape (n), for shape (n, K).

    More is better. Equal points stay together.
    """
    objectives = torch.as_tensor(objectives)
    kept = torch.zeros(len(objectives), dtype=torch.bool, device=objectives.device)
    order = torch.arange(len(objectives), device=objectives.device)
    for column in reversed(objectives.unbind(-1)):  # the first objective decides, then the next: a stable sort
        order = order[column[order].argsort(descending=True, stable=True)]
    while len(order):  # whatever dominates a point comes before it in this order, so that the first is on the front
        first, others = objectives[order[0]], objectives[order]
        kept[order[0]] = True
        is_dominated = (others <= first).all(-1) & (others < first).any(-1)
        is_dominated[0] = True
        order = order[~is_dominated]
    return kept


def hypervolume(objectives: Tensor, reference: Tensor) -> float:
    """The volume between a reference point and the points, with shapes (K) and (n, K), exactly, in any K.

    Points that are not better than the reference in everything add nothing. Slices along the last objective: the cost
    grows as n^(K - 1).

    References:
        A faster algorithm for calculating hypervolume, While et al., 2006: hypervolume by slicing objectives.
    """
    objectives = torch.as_tensor(objectives, dtype=torch.float64)
    above = objectives - torch.as_tensor(reference, dtype=torch.float64, device=objectives.device)
    return _volume(above[(above > 0).all(-1)])


def _volume(above: Tensor) -> float:
    """Of the union of boxes from 0 to each of the points, with shape (n, K), all positive."""
    if not len(above):
        return 0.0
    if above.shape[-1] == 1:
        return float(above.max())
    above = above[above[:, -1].argsort(descending=True)]
    thickness = above[:, -1] - torch.cat([above[1:, -1], above.new_zeros(1)])
    if above.shape[-1] == 2:
        return float((above[:, 0].cummax(0).values * thickness).sum())
    slices = (k for k in range(len(above)) if thickness[k] > 0)
    return sum(float(thickness[k]) * _volume(_front(above[: k + 1, :-1])) for k in slices)


def _front(points: Tensor) -> Tensor:
    """Without those that add no volume, where that saves slices."""
    return points if points.shape[-1] == 2 else points[non_dominated(points)]
