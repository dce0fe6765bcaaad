"""How near two sets of configurations of particles are, whatever the order and the frame that these are given in."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffsampler.errors import InputError, check_count, check_instance
from diffsampler.observables import pair_distances
from diffsampler.spaces import Particles

NUM_BINS = 200


def pair_distance_total_variation(x: Tensor, y: Tensor, space: Particles, num_bins: int = NUM_BINS) -> float:
    """The total variation between the distributions of pair distances, 1/2 sum_b |p_b - q_b|, in [0, 1].

    Bins are of equal width from 0 to the largest distance of y, and one holds what lies beyond.

    Arguments:
        x, y: configurations, with shapes (n, N d) and (m, N d); y is the reference.
        space: how many particles there are, in which dimension.
        num_bins: between 0 and the largest distance of y.

    Raises:
        InputError: if they are no configurations of such particles.
    """
    (x, y), num_bins = _checked(x, y, space), check_count("num_bins", num_bins)
    of_x, of_y = (pair_distances(points, space).flatten() for points in (x, y))
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64, device=y.device)[1:] * of_y.max()
    counts = [torch.bucketize(one, edges).bincount(minlength=num_bins + 1).double() for one in (of_x, of_y)]
    return float((counts[0] / len(of_x) - counts[1] / len(of_y)).abs().sum() / 2)


def aligned_wasserstein2(x: Tensor, y: Tensor, space: Particles) -> float:
    """An upper bound on the 2-Wasserstein distance of two sets of configurations, up to what leaves these the same.

    The squared distance of two configurations is min |x_i - R y_perm(i)|^2 over rotations and reflections R, where the
    space is isotropic, and permutations, where its particles are identical. It is approximated from above: one optimal
    permutation in the frames that they are given in, then the optimal R for that one (Kabsch). The value depends on
    these frames therefore, and only ever exceeds the minimum. The sets are then matched by optimal assignment, which
    is exact: n^2 alignments and O(n^3).

    References:
        Equivariant flow matching, Klein et al., 2023, arXiv:2306.15030 (the alignment).
        A solution for the best rotation to relate two sets of vectors, Kabsch, 1976.

    Arguments:
        x, y: configurations, each with shape (n, N d).
        space: how many particles there are, in which dimension, and what leaves configurations the same.

    Raises:
        InputError: if they are no configurations of such particles, or of different numbers.
    """
    x, y = (points.cpu().unflatten(-1, (-1, space.dimension)) for points in _checked(x, y, space))
    if len(x) != len(y):
        raise InputError(f"x and y must be equally many configurations, got {len(x)} and {len(y)}.")
    x, y = (points - points.mean(-2, keepdim=True) for points in (x, y))
    cost = torch.stack([_squared_distances(one, y, space) for one in x]).numpy()
    return float(cost[linear_sum_assignment(cost)].mean() ** 0.5)


def _squared_distances(x: Tensor, y: Tensor, space: Particles) -> Tensor:
    """Of one configuration, with shape (N, d), to each of n, with shape (n, N, d), aligned: (n)."""
    if space.identical:
        overlaps = (x @ y.mT).numpy()  # the squared distance is a constant minus twice their sum
        order = torch.as_tensor([linear_sum_assignment(-one)[1].tolist() for one in overlaps])
        y = y.gather(1, order.unsqueeze(-1).expand_as(y))
    overlap = torch.linalg.svdvals(x.T @ y).sum(-1) if space.isotropic else (x * y).sum((-2, -1))
    return (x.square().sum() + y.square().sum((-2, -1)) - 2 * overlap).clamp(min=0.0)


def _checked(x: Tensor, y: Tensor, space: Particles) -> tuple[Tensor, Tensor]:
    check_instance("space", space, Particles, "Particles(13, 3)")
    for name, points in (("x", x), ("y", y)):
        if not isinstance(points, Tensor) or points.ndim != 2 or points.shape[1] != space.target_dim or not len(points):
            given = tuple(points.shape) if isinstance(points, Tensor) else repr(points)
            raise InputError(f"{name} must be configurations with shape (n, {space.target_dim}), got {given}.")
    return x.detach().double(), y.detach().to(x.device).double()
