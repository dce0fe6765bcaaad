"""Distances, angles and dihedral angles of positions with shape (*, n, 3)."""

import torch
from torch import Tensor


def distance(positions: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Between atoms i and j, both with shape (m): with shape (*, m)."""
    return torch.linalg.vector_norm(positions[..., i, :] - positions[..., j, :], dim=-1)


def angle(positions: Tensor, i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    """At atom j, in radians, in [0, pi]: with shape (*, m)."""
    a, b = positions[..., i, :] - positions[..., j, :], positions[..., k, :] - positions[..., j, :]
    # acos loses half of the digits near 0 and pi.
    return torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1), (a * b).sum(-1))


def dihedral(positions: Tensor, i: Tensor, j: Tensor, k: Tensor, l: Tensor) -> Tensor:
    """Around the bond from j to k, in radians, in [-pi, pi], 0 where i and l are on one side: with shape (*, m).

    IUPAC's sign: positive where, along the bond, l is clockwise of i.
    """
    a = positions[..., j, :] - positions[..., i, :]
    b = positions[..., k, :] - positions[..., j, :]
    c = positions[..., l, :] - positions[..., k, :]
    normal, next_normal = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    sine = torch.linalg.vector_norm(b, dim=-1) * (a * next_normal).sum(-1)
    return torch.atan2(sine, (normal * next_normal).sum(-1))
