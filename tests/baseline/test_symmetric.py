"""A density without a symmetry of the space that it declares is refused by the name of that; rounding breaks none."""

import math
from collections.abc import Callable

import pytest
import torch
from on_spaces import angles_beside_a_real, centred, pair_distances, springs, two_angles, two_fields
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target
from diffsampler.baseline import reference
from diffsampler.baseline.symmetric import check_symmetric
from diffsampler.counted import CountedTarget
from diffsampler.spaces import Circle, Lattice, Links, Particles, Product, Space
from targets import DoubleWell4, LennardJones, Phi4, U1Gauge, XYModel

LogProb = Callable[[Tensor], Tensor]
SEEDS = range(5)


def cluster(x: Tensor) -> Tensor:
    """Three particles in the plane with cores and a trap around their mean."""
    sixth = pair_distances(x, 3) ** -6
    return -(sixth * (sixth - 2)).sum(-1) - 0.5 * centred(x, 3).square().sum((-1, -2))


def labelled(x: Tensor) -> Tensor:
    weight = x.new_tensor([1.0, 1.05, 1.0])
    return cluster(x) - (weight * centred(x, 3).square().sum(-1)).sum(-1)


def action(x: Tensor, shape: tuple[int, ...], kappa: float = 0.3) -> Tensor:
    """Of angles, summed over links, in each direction."""
    angles = x.unflatten(-1, shape)
    axes = range(-len(shape), 0)
    return kappa * sum((angles - angles.roll(1, axis)).cos().flatten(-len(shape)).sum(-1) for axis in axes)


def with_defect(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    mass = torch.ones(shape).flatten().to(x)
    mass[-1] = 1.1
    return -(mass * x.square()).sum(-1)


PLAQUETTES = U1Gauge((3, 3), 2.0)
MOVE, EXCHANGE = "all particles move alike", "particles are exchanged"
ROTATE, SHIFT = "all particles are rotated or reflected", "all fields are shifted along the lattice"
TURN, GAUGE = "angles go once around, by 2 pi", "links are gauge transformed"
THREE = Particles(3, 2)
BROKEN: dict[str, tuple[LogProb, Space, str, str]] = {
    "particles with names": (labelled, THREE, EXCHANGE, r"give space=Particles\(n, d, identical=False\)"),
    "a field": (lambda x: cluster(x) + 0.05 * centred(x, 3)[..., 0].square().sum(-1), THREE, ROTATE, "isotropic=False"),
    "a hand": (
        # The area that three named particles span, with its sign.
        lambda x: cluster(x) + 0.1 * torch.linalg.det(centred(x, 3)[..., :2, :]),
        Particles(3, 2, identical=False),
        ROTATE,
        "isotropic=False",
    ),
    "a trap at a point": (
        lambda x: cluster(x) - 0.01 * x.square().sum(-1),
        THREE,
        MOVE,
        "leave it out, or take the mean",
    ),
    "a weak trap of a wide cluster": (
        lambda x: springs(scale=1e3).log_prob(x) - 1e-7 * x.square().sum(-1),
        THREE,
        MOVE,
        "take the mean of the particles off",
    ),
    "a trap at a point, narrow": (
        lambda x: springs(scale=1e-3).log_prob(x) - 1e5 * x.square().sum(-1),
        THREE,
        MOVE,
        "take the mean of the particles off",
    ),
    "degrees": (lambda x: (x * math.pi / 180).cos().sum(-1), Circle(2), TURN, "in radians"),
    "turns": (lambda x: (2 * math.pi * x).cos().sum(-1), Circle(2), TURN, "period 2 pi"),
    "half an angle": (lambda x: (x / 2).cos().sum(-1), Circle(2), TURN, "period 2 pi"),
    "no angle": (lambda x: -x.square().sum(-1), Circle(2), TURN, "period 2 pi: give those alone"),
    "one of five": (
        lambda x: x[..., :4].cos().sum(-1) - 0.01 * x[..., 4] ** 2,
        Circle(5),
        TURN,
        "period 2 pi: give those alone",
    ),
    "no angle beside one": (
        lambda x: x[..., 0].cos() - x[..., 1:].square().sum(-1),
        Product([Circle(2), Lattice((2,))]),
        TURN,
        "period 2 pi",
    ),
    "a defect": (lambda x: with_defect(x, (4, 3)), Lattice((4, 3)), SHIFT, "declare a space without this symmetry"),
    "a defect of four sites": (lambda x: with_defect(x, (2, 2)), Lattice((2, 2)), SHIFT, "declare a space"),
    "open ends": (lambda x: -x.diff(dim=-1).square().sum(-1) - x.square().sum(-1), Lattice((6,)), SHIFT, "declare"),
    "angles with open ends": (lambda x: x.diff(dim=-1).cos().sum(-1), Lattice((6,), Circle(1)), SHIFT, "declare"),
    "a gauge field that is fixed": (
        lambda x: PLAQUETTES.log_prob(x) + 0.05 * x.cos().sum(-1),
        Links((3, 3)),
        GAUGE,
        "declare a space without",
    ),
    "rotators as links": (lambda x: action(x, (2, 3, 3)), Links((3, 3)), GAUGE, "declare a space without"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_names_the_symmetry_that_is_broken(name: str) -> None:
    log_prob, space, symmetry, way_out = BROKEN[name]
    target = FunctionTarget(log_prob, space.target_dim, space=space)
    for seed in SEEDS:
        with pytest.raises(InputError, match=f"FunctionTarget declares .* changes when {symmetry}: from .*{way_out}"):
            reference(target, 100, seed=seed, max_evaluations=1000)


def test_says_which_numbers_of_particles_would_fit() -> None:
    for n, dim, fits in (
        (2, 8, "4 in the dimension 2"),
        (8, 8, "4 in the dimension 2"),
        (3, 12, "4 in the dimension 3"),
    ):
        target = FunctionTarget(lambda x: -(pair_distances(x, 4) - 1).square().sum(-1), dim, mean_free=n)
        with pytest.raises(InputError, match=rf"is the number of particles, of which {fits} would fit\.$"):
            reference(target, 100, seed=0)


def test_says_that_coordinates_are_in_another_order() -> None:
    def by_axis(x: Tensor) -> Tensor:
        return cluster(x.unflatten(-1, (2, 3)).mT.flatten(-2))

    with pytest.raises(InputError, match=rf"changes when {MOVE}: .* x must hold one particle after the other, not all"):
        reference(FunctionTarget(by_axis, 6, mean_free=3), 100, seed=0)


def test_a_nan_is_no_value_that_has_changed() -> None:
    def fails_on_one_side(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] > 0, math.nan, cluster(x))

    def fails_now_and_then(x: Tensor) -> Tensor:
        return torch.where((1e3 * x[..., 0]).remainder(1.0) < 0.05, math.nan, cluster(x))

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator).double()
    x = x[(x[:, 0] < 0) & ((1e3 * x[:, 0]).remainder(1.0) > 0.05)]
    with pytest.raises(InputError, match=r"log_prob is NaN at \d+ of 16 points when all .* Return -inf"):
        check_symmetric(CountedTarget(FunctionTarget(fails_on_one_side, 6)), THREE, x, generator)
    check_symmetric(CountedTarget(FunctionTarget(fails_now_and_then, 6)), THREE, x, generator)


def test_it_is_the_search_that_says_so() -> None:
    sampler = Sampler(FunctionTarget(labelled, 6, mean_free=3))
    with pytest.raises(InputError, match="changes when particles are exchanged"):
        sampler.search(seed=0)


def in_float32(target: Target, back: bool) -> FunctionTarget:
    """The same energy, known to single precision, and handed back in it or not."""

    def log_prob(x: Tensor) -> Tensor:
        value = target.log_prob(x.float())
        return value.to(x.dtype) if back else value

    return FunctionTarget(log_prob, target.dim, space=target.space)


def stiff_bonds(x: Tensor) -> Tensor:
    return -0.5e6 * (pair_distances(x, 3) - 1.5).square().sum(-1)


def after_a_large_constant(x: Tensor) -> Tensor:
    return cluster(x) - 3e4


SYMMETRIC: dict[str, Callable[[], Target]] = {
    "springs": springs,
    "springs, 1e-3": lambda: springs(scale=1e-3),
    "springs, 1e3": lambda: springs(scale=1e3),
    "DW-4": DoubleWell4,
    "LJ": lambda: LennardJones(7),
    "stiff bonds": lambda: FunctionTarget(stiff_bonds, 6, mean_free=3),
    "a large constant": lambda: FunctionTarget(after_a_large_constant, 6, mean_free=3),
    "U(1)": lambda: PLAQUETTES,
    "XY": lambda: XYModel((3, 3)),
    "phi^4": lambda: Phi4((4, 4)),
    "two fields": two_fields,
    "two angles": two_angles,
    "angles and a real": angles_beside_a_real,
}


@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_rounding_breaks_no_symmetry(name: str, spread: float) -> None:
    target = SYMMETRIC[name]()
    scale = 1e-3 if "1e-3" in name else 1e3 if "1e3" in name else 1.0
    for density in (target, in_float32(target, back=False), in_float32(target, back=True)):
        for seed in SEEDS:
            generator = torch.Generator().manual_seed(seed)
            z = spread * scale * torch.randn(256, target.space.dim, generator=generator, dtype=torch.float64)
            counter = CountedTarget(density)
            check_symmetric(counter, target.space, target.space.to_target(z), generator)


def test_what_one_core_rounds_hides_no_broken_symmetry() -> None:
    # Of the points one is deep in a core, at 1e13: a millionth of that is no excuse for the others.
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)).double()
    x[0, :2] = x[0, 2:4] + 0.08
    assert cluster(x)[0] < -1e10
    with pytest.raises(InputError, match=EXCHANGE):
        check_symmetric(CountedTarget(FunctionTarget(labelled, 6)), THREE, x, torch.Generator().manual_seed(0))


def test_points_of_no_density_are_no_evidence() -> None:
    # A hole that all symmetries keep, and points in it.
    def log_prob(x: Tensor) -> Tensor:
        return torch.where((pair_distances(x, 3) > 1).all(-1), cluster(x), -math.inf)

    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)).double()
    assert log_prob(x).isneginf().any()
    for points in (x, 1e-3 * x):
        check_symmetric(CountedTarget(FunctionTarget(log_prob, 6)), THREE, points, torch.Generator().manual_seed(0))
