"""Molecules in bonds, angles and torsions: maps both ways, the measure, chirality, Z-matrices from bonds."""

import math
from functools import partial

import pytest
import torch
from helpers import MILD, assert_mean, random_sampler
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target
from diffsampler.coordinates import (
    InternalCoordinates,
    ZMatrix,
    chiral_atoms,
    z_matrix_from_bonds,
)
from diffsampler.coordinates.z_matrix import Internal
from diffsampler.frames import DensityInCoordinates
from diffsampler.networks import FourierMLP, LangevinControl, LearnedVariance
from diffsampler.processes import ProductProcess
from diffsampler.spaces import Particles

# Alanine dipeptide: ACE (CH3-CO), ALA, NME (NH-CH3), in the order of its usual PDB.
ELEMENTS = [*"HCHHCO", *"NHCHCHHHCO", *"NHCHHH"]
BONDS = [(0, 1), (1, 2), (1, 3), (1, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9), (8, 10), (10, 11), (10, 12)]
BONDS += [(10, 13), (8, 14), (14, 15), (14, 16), (16, 17), (16, 18), (18, 19), (18, 20), (18, 21)]
CHAIN = [(0, -1, -1, -1), (1, 0, -1, -1), (2, 1, 0, -1), (3, 2, 1, 0)]


def nothing(num_atoms: int, **options: object) -> Target:
    return FunctionTarget(lambda x: 0.0 * x.sum(-1), dim=3 * num_atoms, **options)


def dipeptide(generator: torch.Generator, **options: object) -> InternalCoordinates:
    """Around a shape that no molecule has, but without atoms in a line."""
    rows = z_matrix_from_bonds(22, BONDS)
    internal = Internal(
        1 + 0.3 * torch.rand(21, generator=generator),
        1.6 + 0.5 * torch.rand(20, generator=generator),
        math.pi * (2 * torch.rand(19, generator=generator) - 1),
    )
    reference = ZMatrix(rows).to_cartesian(internal).flatten()
    return InternalCoordinates(nothing(22), rows, reference, **options)


def random_z(coordinates: InternalCoordinates, n: int, generator: torch.Generator) -> Tensor:
    z = torch.randn(n, coordinates.dim, generator=generator)
    angles = math.pi * (2 * torch.rand(z.shape, generator=generator) - 1)
    return torch.where(coordinates.space.angles, angles, z)


def positions(coordinates: InternalCoordinates, z: Tensor) -> Tensor:
    return coordinates(z)[0]


def test_torsions_by_hand() -> None:
    # From k, on the second axis, to j at the origin; l forwards along the first axis, i turned from there.
    for turn in (0.0, 0.5 * math.pi, -0.5 * math.pi, 2.0):
        i = [math.cos(turn), 0.0, math.sin(turn)]
        x = torch.tensor([i, [0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [3.0, 2.0, 0.0]])
        matrix = ZMatrix([(3, -1, -1, -1), (2, 3, -1, -1), (1, 2, 3, -1), (0, 1, 2, 3)])
        found = matrix.to_internal(x)
        torch.testing.assert_close(found.bonds, torch.tensor([3.0, 2.0, 1.0]))
        torch.testing.assert_close(found.angles, torch.tensor([0.5 * math.pi, 0.5 * math.pi]))
        # Looking from j to k, along the second axis, the first axis is clockwise of the third.
        torch.testing.assert_close(found.torsions, torch.tensor([turn]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_round_trips(dtype: torch.dtype, tolerance: float, generator: torch.Generator) -> None:
    coordinates = dipeptide(generator)
    z = random_z(coordinates, 50, generator).to(dtype)
    x, log_det = coordinates(z)
    assert x.shape == (50, 66) and x.dtype == dtype and log_det.dtype == torch.float64
    assert x.unflatten(-1, (22, 3)).mean(-2).abs().max() < tolerance
    # z is in units of a scale, 0.03 of a length at the least: errors of x are that much larger.
    assert (coordinates.inverse(x) - z).abs().max() < 100 * tolerance
    again, _ = coordinates(coordinates.inverse(x))
    assert (again - x).abs().max() < tolerance
    # However a molecule is moved and turned.
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q.to(dtype)
    turn = turn * torch.linalg.det(turn)
    moved = (x.unflatten(-1, (22, 3)) @ turn.T + 2.0).flatten(-2)
    assert (coordinates.inverse(moved) - z).abs().max() < 1000 * tolerance
    assert coordinates.inverse(x[0]).shape == (60,) and coordinates(z.view(5, 10, 60))[0].shape == (5, 10, 66)


@pytest.mark.parametrize("free", [None, [3, 4], []], ids=["relative ones", "all", "none"])
def test_log_det_is_the_volume_of_all_coordinates(free: list[int] | None, generator: torch.Generator) -> None:
    """With three translations and three small rotations x fills R^(3n), and their volumes are 1 and that of SO(3)."""
    rows = [(1, -1, -1, -1), (0, 1, -1, -1), (2, 1, 0, -1), (3, 1, 0, 2), (4, 3, 1, 2)]
    reference = torch.randn(15, generator=generator)
    for target, log_orbit in (
        (nothing(5), 0.0),
        (nothing(5, space=Particles(5, 3)), math.log(8 * math.pi**2) - 1.5 * math.log(5)),
    ):
        coordinates = InternalCoordinates(target, rows, reference, free=free)
        for z in random_z(coordinates, 4, generator):
            x, log_det = coordinates(z)
            inner = torch.autograd.functional.jacobian(partial(positions, coordinates), z)
            axes = torch.eye(3)
            moves = axes.repeat(5, 1)
            turns = torch.cat([torch.linalg.cross(axes, at.expand(3, 3)).T for at in x.view(5, 3)])
            volume = torch.linalg.slogdet(torch.cat([inner, moves, turns], 1)).logabsdet
            torch.testing.assert_close(log_det, volume + log_orbit)


def springs(x: Tensor, bonds: list[tuple[int, int]], stiffness: float = 1.0) -> Tensor:
    at = x.unflatten(-1, (-1, 3))
    first, second = torch.tensor(bonds).T
    return -0.5 * stiffness * (at[..., first, :] - at[..., second, :]).square().sum((-1, -2))


def test_log_z_is_that_of_configurations_of_mean_zero(generator: torch.Generator) -> None:
    """Springs of length 0 between neighbours: r_1, r_2, r_3 are normal, over n^(3/2) of the mean-free space."""
    log_z = 4.5 * math.log(2 * math.pi) - 1.5 * math.log(4)
    target = FunctionTarget(partial(springs, bonds=[(0, 1), (1, 2), (2, 3)]), dim=12, mean_free=4)
    # |r| of a normal r in R^3 is 1.6 +- 0.67; cosines and torsions are uniform.
    reference = ZMatrix(CHAIN).to_cartesian(Internal(torch.full((3,), 1.6), torch.full((2,), 1.57), torch.zeros(1)))
    coordinates = InternalCoordinates(target, CHAIN, reference.flatten(), bond_scale=0.5, angle_scale=0.9)
    # Reals from the logistic distribution, which is as wide at the ends as the density in z is.
    uniform = torch.rand(20_000, 6, generator=generator)
    z = torch.cat([uniform[:, :5].logit(), math.pi * (2 * uniform[:, 5:] - 1)], -1)
    log_proposal = (uniform[:, :5] * (1 - uniform[:, :5])).log().sum(-1) - math.log(2 * math.pi)
    weight = (DensityInCoordinates(target, coordinates).log_prob(z) - log_proposal - log_z).exp()
    # n = 20000, |z| < 4.5: a false alarm of 7e-6 for each figure, 3e-5 together.
    assert 0.01 < weight.var() < 8, weight.var()
    assert_mean(weight, 1.0, "E[w] / Z")
    x = coordinates(z)[0].unflatten(-1, (4, 3))
    for bond in range(3):
        assert_mean(weight * ((x[:, bond] - x[:, bond + 1]).square().sum(-1) - 3), 0.0, f"<|r|^2> of bond {bond}")


def stiff(x: Tensor) -> Tensor:
    bonds, angles, torsions = ZMatrix([row for row in CHAIN if row[0] < x.shape[-1] // 3]).to_internal(
        x.unflatten(-1, (-1, 3))
    )
    log_prob = -0.5 * K * (bonds - B).square().sum(-1) - 0.5 * C * (angles - THETA).square().sum(-1)
    return log_prob + 0.8 * torsions.cos().sum(-1)


K, B, C, THETA = 300.0, 1.1, 60.0, 1.9


def log_integrals() -> tuple[Tensor, Tensor, Tensor]:
    """Of b^2 exp(-K (b - B)^2 / 2), of sin(theta) exp(-C (theta - THETA)^2 / 2), and of exp(0.8 cos phi)."""
    lengths, angles = torch.linspace(0, 3, 20_001), torch.linspace(0, math.pi, 20_001)
    of_bond = torch.trapezoid(lengths**2 * (-0.5 * K * (lengths - B) ** 2).exp(), lengths)
    of_angle = torch.trapezoid(angles.sin() * (-0.5 * C * (angles - THETA) ** 2).exp(), angles)
    return of_bond.log(), of_angle.log(), (2 * math.pi * torch.special.i0(torch.tensor(0.8))).log()


def test_log_z_of_four_stiff_atoms_by_a_sampler(generator: torch.Generator) -> None:
    of_bond, of_angle, of_torsion = log_integrals()
    log_z = 3 * of_bond + 2 * of_angle + of_torsion
    internal = Internal(torch.tensor([1.05, 1.15, 1.1]), torch.tensor([1.95, 1.87]), torch.zeros(1))
    reference = ZMatrix(CHAIN).to_cartesian(internal).flatten()
    coordinates = partial(InternalCoordinates, z_matrix=CHAIN, reference=reference, bond_scale=0.08, angle_scale=0.17)
    options = {"control": FourierMLP, "flow": None, "grid": 4, "coordinates": coordinates}
    sampler = random_sampler(FunctionTarget(stiff, dim=12), MILD, process=ProductProcess, **options)
    x, log_weight = sampler.sample(20_000, generator=generator, return_log_weights=True)
    weight = (log_weight - log_z).exp()
    # n = 20000, |z| < 4.5: a false alarm of 7e-6 for each figure.
    assert 0.01 < weight.var() < 8, weight.var()
    assert_mean(weight, 1.0, "E[w] / Z")
    cosine = ZMatrix(CHAIN).to_internal(x.unflatten(-1, (4, 3))).torsions[:, 0].cos()
    expected = float(torch.special.i1(torch.tensor(0.8)) / torch.special.i0(torch.tensor(0.8)))
    assert_mean(weight * (cosine - expected), 0.0, "weighted mean of cos phi")


def test_log_z_of_three_stiff_atoms_by_quadrature() -> None:
    reference = ZMatrix(CHAIN[:3]).to_cartesian(Internal(torch.tensor([1.0, 1.2]), torch.tensor([2.0]), torch.zeros(0)))
    target = FunctionTarget(stiff, dim=9)
    coordinates = InternalCoordinates(target, CHAIN[:3], reference.flatten(), bond_scale=0.06, angle_scale=0.13)
    line = torch.arange(-12, 12, 0.3)
    z = torch.cartesian_prod(line, line, line)
    found = DensityInCoordinates(target, coordinates).log_prob(z).logsumexp(0) + 3 * math.log(0.3)
    of_bond, of_angle, _ = log_integrals()
    torch.testing.assert_close(found, 2 * of_bond + of_angle, rtol=0, atol=1e-8)


def test_score_is_that_of_autograd(generator: torch.Generator) -> None:
    target = FunctionTarget(partial(springs, bonds=BONDS), dim=66, mean_free=22)
    known = dipeptide(generator)
    reference = known(torch.zeros(60))[0]
    density = DensityInCoordinates(target, InternalCoordinates(target, z_matrix_from_bonds(22, BONDS), reference))
    z = random_z(known, 5, generator)
    score = density.log_prob_and_score(z)[1]
    torch.testing.assert_close(
        score, torch.autograd.functional.jacobian(lambda one: density.log_prob(one).sum(), z), rtol=1e-8, atol=1e-8
    )


def test_a_z_matrix_from_bonds_has_one_free_torsion_for_every_bond_that_turns() -> None:
    rows = z_matrix_from_bonds(22, BONDS)
    matrix = ZMatrix(rows)
    named = {frozenset(row[:2]) for row in rows[1:]}
    assert named == {frozenset(bond) for bond in BONDS}
    free = [row for index, row in enumerate(rows) if index > 2 and not matrix.is_relative(index)]
    # phi and psi, as they are defined, omega twice, and three methyl groups.
    assert {(4, 6, 8, 14), (16, 14, 8, 6)} <= set(free)
    assert sorted(tuple(sorted(row[1:3])) for row in free) == [
        (1, 4),
        (4, 6),
        (6, 8),
        (8, 10),
        (8, 14),
        (14, 16),
        (16, 18),
    ]
    # All others are relative to another atom on the same one.
    near = {atom: {b if a == atom else a for a, b in BONDS if atom in (a, b)} for atom in range(22)}
    for i, j, k, last in rows[3:]:
        assert {i, k} <= near[j] and last in (near[k] - {j} if (i, j, k, last) in free else near[j] - {i, k})
    assert chiral_atoms(rows, BONDS, ELEMENTS) == [10]
    assert z_matrix_from_bonds(4, [(0, 1), (1, 2), (2, 3)], root=0) == CHAIN
    ring = z_matrix_from_bonds(6, [(k, (k + 1) % 6) for k in range(6)])
    assert ZMatrix(ring).num_atoms == 6


def test_chirality_is_kept(generator: torch.Generator) -> None:
    coordinates = dipeptide(generator, chiral=[10])
    assert coordinates.space.angles.sum() == 7 and coordinates.dim == 60
    x, log_det = coordinates(3 * random_z(coordinates, 200, generator))
    at = x.unflatten(-1, (22, 3)) - x.unflatten(-1, (22, 3))[:, 8:9]
    hand = (at[:, 6] * torch.linalg.cross(at[:, 14], at[:, 10])).sum(-1).sign()
    assert log_det.isfinite().all() and len(hand.unique()) == 1
    mirrored = (x.unflatten(-1, (22, 3)) * torch.tensor([1.0, 1.0, -1.0])).flatten(-2)
    assert coordinates.inverse(x).isfinite().all() and coordinates.inverse(mirrored).isnan().any(-1).all()
    # Without it both hands have coordinates.
    assert dipeptide(generator).inverse(mirrored).isfinite().all()


def test_scales_of_several_configurations(generator: torch.Generator) -> None:
    known = dipeptide(generator, chiral=[10])
    z = random_z(known, 4000, generator)
    rows = z_matrix_from_bonds(22, BONDS)
    fitted = InternalCoordinates(nothing(22), rows, known(0.3 * z)[0], chiral=[10])
    found = fitted.inverse(known(0.3 * z)[0])[:, ~fitted.space.angles]
    # Standardised, but for the bend of the maps: 4000 draws know a mean to 0.016 and a standard deviation to 0.011.
    assert found.mean(0).abs().max() < 0.1 and (found.std(0) - 1).abs().max() < 0.06


def test_a_sampler_in_internal_coordinates_learns_widths(generator: torch.Generator) -> None:
    target = FunctionTarget(partial(springs, bonds=BONDS, stiffness=30.0), dim=66, mean_free=22)
    reference = dipeptide(generator)(torch.zeros(60))[0]
    coordinates = partial(InternalCoordinates, z_matrix=z_matrix_from_bonds(22, BONDS), reference=reference)
    sampler = Sampler(target, grid=3, coordinates=coordinates)
    assert isinstance(sampler.policy.process, ProductProcess) and isinstance(sampler.policy.control, LangevinControl)
    learned = partial(LearnedVariance, network=FourierMLP)
    for parts in ({}, {"control": learned, "flow": None}):
        sampler = Sampler(target, grid=3, coordinates=coordinates, **parts).float()
        x, log_weight = sampler.sample(10, seed=0, return_log_weights=True)
        assert x.shape == (10, 66) and log_weight.isfinite().all()
        path = sampler.rollback(x, generator)
        torch.testing.assert_close(sampler.coordinates(path.x[-1])[0], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, -1, -1, -1), (1, 0, -1, -1)], "at least three rows"),
        ([(0, -1, -1, -1), (1, 0, -1, -1), (2, 1, 0)], "rows of four atoms"),
        ([(0, -1, -1, -1), (1, 0, -1, -1), (1, 0, -1, -1)], "each of the atoms 0 to 2 in one row"),
        ([*CHAIN[:3], (3, 2, 2, 1)], r"row 3 of z_matrix must name 3 different atoms .* got \(3, 2, 2, 1\)"),
        ([CHAIN[0], (1, 2, -1, -1), (2, 1, 0, -1)], r"row 1 of z_matrix must name 1 different atoms"),
        ([CHAIN[0], (1, 0, 2, -1), (2, 1, 0, -1)], r"row 1 of z_matrix .* and -1 for the rest"),
    ],
)
def test_refuses_rows_that_place_no_atom(rows: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ZMatrix(rows)


def test_refuses_what_does_not_belong_together(generator: torch.Generator) -> None:
    x = torch.randn(12, generator=generator)
    with pytest.raises(InputError, match="is of 4 atoms, in 3 x 4 = 12 coordinates, but FunctionTarget has 15"):
        InternalCoordinates(nothing(5), CHAIN, x)
    with pytest.raises(InputError, match="z_matrix is of 4 atoms in R.3, but FunctionTarget lives on Particles.6, 2."):
        InternalCoordinates(nothing(4, space=Particles(6, 2)), CHAIN, x)
    with pytest.raises(InputError, match=r"shape \(12\), or \(m, 12\), got shape \(4, 3\)"):
        InternalCoordinates(nothing(4), CHAIN, x.view(4, 3))
    with pytest.raises(InputError, match=r"atoms \(2, 1, 0\) in a line"):
        InternalCoordinates(nothing(4), CHAIN, [0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 1, 0])
    with pytest.raises(InputError, match="chiral must be atoms whose torsion is relative"):
        InternalCoordinates(nothing(4), CHAIN, x, chiral=[3])
    with pytest.raises(InputError, match=r"must be atoms that have a torsion, \[3\]"):
        InternalCoordinates(nothing(4), CHAIN, x, free=[2])
    with pytest.raises(InputError, match="angle_scale must be positive"):
        InternalCoordinates(nothing(4), CHAIN, x, angle_scale=0.0)
    with pytest.raises(InputError, match="has a bond that is the same in all"):
        InternalCoordinates(nothing(4), CHAIN, torch.stack([x, x]))
    with pytest.raises(InputError, match=r"from atom 0 none lead to \[2, 3\]"):
        z_matrix_from_bonds(4, [(0, 1), (2, 3)])
    with pytest.raises(InputError, match="bonds must be pairs of different atoms"):
        z_matrix_from_bonds(3, [(0, 1), (1, 3)])
