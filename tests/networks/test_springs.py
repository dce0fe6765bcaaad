"""Springs between pairs: forces through (1 + s^2 H)^(-1), with H the Hessian of an energy of the same springs."""

import pytest
import torch
from helpers import seeded
from torch import Tensor

from diffsampler.networks.springs import SOFT_AT_FIRST, Springs

N, K, STIFF = 5, 3, 40.0
FIRST, SECOND = torch.combinations(torch.arange(N)).T


def differences() -> Tensor:
    ends = torch.nn.functional.one_hot(torch.stack([FIRST, SECOND]), N).double()
    return (ends[0] - ends[1]).T.contiguous()


def of_softplus(value: Tensor) -> Tensor:
    """What is to be given for strengths of this value."""
    return torch.log(torch.expm1(value)) - SOFT_AT_FIRST


def test_balanced_forces_are_those_of_springs_that_noise_has_moved() -> None:
    x = torch.randn(N, K, generator=seeded(0), dtype=torch.float64)
    at_rest = (x[FIRST] - x[SECOND]).norm(dim=-1)

    def energy(x: Tensor) -> Tensor:
        # Straight springs at rest, which are stiff along pairs, and threads without length, which are stiff all around.
        apart = x.unflatten(-1, (N, K))[FIRST] - x.unflatten(-1, (N, K))[SECOND]
        return 0.5 * STIFF * (apart.norm(dim=-1) - at_rest).square().sum() + 0.5 * apart.square().sum()

    hessian = torch.autograd.functional.hessian(energy, x.flatten())
    forces = torch.randn(4, N, K, generator=seeded(1), dtype=torch.float64)
    variance = 0.3**2
    expected = torch.linalg.solve(torch.eye(N * K) + variance * hessian, forces.flatten(-2).T).T.unflatten(-1, (N, K))
    strengths = of_softplus(variance * torch.tensor([STIFF + 1, 1.0], dtype=torch.float64)).expand(4, len(FIRST), 2)
    direction = torch.nn.functional.normalize(x[FIRST] - x[SECOND], dim=-1).expand(4, -1, -1)
    found = Springs(differences(), rounds=0)(forces, strengths, direction)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (found - forces).abs().max() > 0.5


def test_forces_are_passed_on_along_pairs_and_across_them() -> None:
    # Two particles on the axis x, pulled by strengths -0.2 along it and 0.1 across.
    springs = Springs(torch.tensor([[1.0], [-1.0]]), rounds=1)
    nothing = of_softplus(torch.tensor(1e-12, dtype=torch.float64)).float()
    strengths = torch.tensor([[nothing, nothing, -0.2, 0.1]])
    forces = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
    found = springs(forces, strengths, torch.tensor([[1.0, 0.0]]))
    # Apart by (3, -1): (-0.6, -0.1) to the first, the opposite to the second.
    torch.testing.assert_close(found, torch.tensor([[1.4, -0.1], [-0.4, 1.1]]))


@pytest.mark.parametrize("value", [1e2, 1e4, 1e8, 1e30])
def test_single_precision_solves_whatever_a_network_asks_for(value: float) -> None:
    strengths = value * torch.rand(8, len(FIRST), 2, generator=seeded(2)).float()
    x, forces = (torch.randn(8, N, K, generator=seeded(seed)).float() for seed in (3, 4))
    direction = torch.nn.functional.normalize(x[:, FIRST] - x[:, SECOND], dim=-1)
    single = Springs(differences().float(), 0)(forces, strengths, direction)
    double = Springs(differences(), 0)(forces.double(), strengths.double(), direction.double())
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-3)
    # What all particles do together is left as it is.
    torch.testing.assert_close(single.mean(-2), forces.mean(-2), rtol=0, atol=1e-3)
