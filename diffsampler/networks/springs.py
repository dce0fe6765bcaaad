"""Springs between pairs of particles: how forces answer to each other."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

SOFT_AT_FIRST = -4.0  # softplus of it: nearly no springs
STIFFEST = 1e3  # which takes all but a thousandth of a force; beyond it float32 loses what all particles do together


class Springs(nn.Module):
    """Forces through (1 + K)^(-1), K the stiffness of springs between all pairs, then passed on along others.

    Near a minimum of an energy with Hessian H, the score of states that noise has moved by s is
    -(1 + s^2 H)^(-1) H x. H is a sum over pairs, each stiff along its direction and across it; what the inverse does to
    forces is a product of vectors, which messages, of numbers, make by way of all distances only.

    K has strengths from 0 to `STIFFEST`, so that the inverse exists, in single precision too. What is passed on,
    u_i <- u_i + sum_j K'_ij (u_i - u_j), has strengths of either sign.

    Arguments:
        differences: the incidence of pairs, 1 and -1 where a pair begins and ends, with shape (n, P).
        rounds: how often forces are passed on.
    """

    def __init__(self, differences: Tensor, rounds: int) -> None:
        super().__init__()
        self.num_strengths = 2 + 2 * rounds
        self.register_buffer("differences", differences, persistent=False)
        n = len(differences)
        first, second = differences.argmax(0), differences.argmin(0)
        # Where in the stiffness the pairs stand, above and below the diagonal, and then the particles.
        places = torch.cat([first * n + second, second * n + first, torch.arange(n) * (n + 1)])
        self.register_buffer("order", places.argsort(), persistent=False)

    def forward(self, forces: Tensor, strengths: Tensor, direction: Tensor) -> Tensor:
        """Forces, (*, n, k), by strengths, (*, P, num_strengths), and unit vectors of pairs, (*, P, k)."""
        first, *then = strengths.split(2, -1)
        forces = self._balanced(forces, softplus(first + SOFT_AT_FIRST).clamp(max=STIFFEST), direction)
        for one in then:
            apart = self.differences.T @ forces
            forces = forces + self.differences @ _pulled(apart, one, direction)
        return forces

    def _balanced(self, forces: Tensor, strengths: Tensor, direction: Tensor) -> Tensor:
        n, k = forces.shape[-2:]
        with torch.autocast(forces.device.type, enabled=False):  # no solver is in bfloat16
            forces, strengths, direction = (one.to(self.differences.dtype) for one in (forces, strengths, direction))
            along, across = strengths.unsqueeze(-1).split(1, -2)
            unit = torch.eye(k, dtype=forces.dtype, device=forces.device)
            springs = (along - across) * direction.unsqueeze(-1) * direction.unsqueeze(-2) + across * unit
            springs = springs.flatten(-2)
            of_particles = self.differences.abs() @ springs + unit.flatten()
            blocks = torch.cat([-springs, -springs, of_particles], -2).index_select(-2, self.order)
            matrix = blocks.unflatten(-2, (n, n)).unflatten(-1, (k, k)).transpose(-3, -2).flatten(-4, -3).flatten(-2)
            return torch.linalg.solve_ex(matrix, forces.flatten(-2))[0].unflatten(-1, (n, k))


def _pulled(apart: Tensor, strengths: Tensor, direction: Tensor) -> Tensor:
    along, across = strengths.split(1, -1)
    return (along - across) * (apart * direction).sum(-1, keepdim=True) * direction + across * apart
