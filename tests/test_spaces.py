"""Spaces: isometries onto the target's coordinates, symmetries, and how a target declares them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from on_spaces import pair_distances
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target
from diffsampler.spaces import Circle, Euclidean, Lattice, Links, Particles, Product, Space
from diffsampler.spaces.kernels import WrappedGaussianKernel, wrap

SPACES = [
    Euclidean(3),
    Circle(3),
    Particles(5, 3),
    Particles(2, 1),
    Particles(4, 2, identical=False),
    Lattice((3, 4)),
    Lattice((5,), Euclidean(2)),
    Lattice((2, 1, 3), Circle(2)),
    Links((3, 2)),
    Links((2, 3, 2)),
    Product([Circle(2), Euclidean(3), Circle(1)]),
    Product([Circle(1), Particles(3, 2), Euclidean(1)]),
]
SHIFTED = "all fields are shifted along the lattice"
every_space = pytest.mark.parametrize("space", SPACES, ids=repr)


def nothing(x: Tensor) -> Tensor:
    return 0 * x.sum(-1)


@every_space
def test_states_are_an_isometric_image_of_points(space: Space, generator: torch.Generator) -> None:
    z = torch.randn(2, 5, space.dim, generator=generator)
    x = space.to_target(z)
    assert x.shape == (2, 5, space.target_dim)
    torch.testing.assert_close(space.from_target(x), z)
    torch.testing.assert_close((x[0] - x[1]).norm(dim=-1), (z[0] - z[1]).norm(dim=-1))
    # What scores go through is the transpose.
    v = torch.randn(2, 5, space.target_dim, generator=generator)
    torch.testing.assert_close((space.from_target(v) * z).sum(-1), (v * x).sum(-1))
    assert space.features(z).shape == (2, 5, space.num_features) and space.angles.shape == (space.dim,)
    each = space.features_of_each(z, torch.ones(()))
    assert each.shape[:-1] == z.shape
    turned = z + 2 * math.pi * space.angles
    torch.testing.assert_close(space.features(turned), space.features(z))
    torch.testing.assert_close(space.features_of_each(turned, torch.ones(())), each)
    wrapped = space.wrap(turned)
    torch.testing.assert_close(wrapped[..., ~space.angles], z[..., ~space.angles])
    assert (wrapped[..., space.angles].abs() <= math.pi).all()


@every_space
def test_symmetries_move_each_point_by_itself_and_by_the_generator(space: Space) -> None:
    x = torch.randn(200, space.target_dim, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    moved = space.image(x, torch.Generator().manual_seed(5))
    torch.manual_seed(3)
    assert moved.shape == x.shape and torch.equal(moved, space.image(x, torch.Generator().manual_seed(5)))
    assert space.symmetries or type(space) is Euclidean
    for name, symmetry in space.symmetries.items():
        one = symmetry(x, torch.Generator().manual_seed(5))
        # A reflection of the line moves a half, all others more; of 200 fewer than a quarter: below 1e-12.
        assert ((one - x).abs().amax(-1) > 1e-6).double().mean() > 0.25, name
        if name in ("particles are exchanged", "all particles are rotated or reflected", SHIFTED):
            thrice = symmetry(3 * x, torch.Generator().manual_seed(5))
            torch.testing.assert_close(thrice, 3 * one)
            torch.testing.assert_close(one.norm(dim=-1), x.norm(dim=-1))


def test_basis_of_particles_by_hand() -> None:
    # z of two particles is their difference over 2^(1/2); of three the last against the middle of the first two.
    z = Particles(3, 1).from_target(torch.tensor([5.0, 1.0, -3.0]))
    torch.testing.assert_close(z, torch.tensor([4 / 2**0.5, (5 + 1 + 6) / 6**0.5]))
    assert Particles(3, 2).positions(torch.randn(7, 4)).mean(-2).abs().max() < 1e-12


@pytest.mark.parametrize(("n", "d"), [(2, 1), (4, 2), (7, 3)])
def test_particles_keep_their_distances(n: int, d: int, generator: torch.Generator) -> None:
    space = Particles(n, d)
    x = torch.randn(50, n * d, generator=generator)
    distances = pair_distances(x, n)
    for name in ("all particles move alike", "all particles are rotated or reflected"):
        torch.testing.assert_close(pair_distances(space.symmetries[name](x, generator), n), distances)
    exchanged = space.symmetries["particles are exchanged"](x, generator)
    torch.testing.assert_close(pair_distances(exchanged, n).sort().values, distances.sort().values)
    torch.testing.assert_close(exchanged.view(-1, n, d).sum(1), x.view(-1, n, d).sum(1))


def test_rotations_and_orders_are_uniform(generator: torch.Generator) -> None:
    # 20 000 rotations of e_1: means of components 0, of squares 1/d, of the determinant's sign 0. Orders of 3
    # particles: each of 6 is a sixth. 11 figures beyond 4.5 standard errors: 8e-5 in all.
    n, bound = 20_000, 4.5 / 20_000**0.5
    frame = torch.eye(3).flatten().expand(n, -1)
    rotated = Particles(3, 3).symmetries["all particles are rotated or reflected"](frame, generator).view(n, 3, 3)
    first = rotated[:, 0]
    assert (first.mean(0).abs() < bound * 3**-0.5).all()
    # The variance of a squared component of a unit vector in R^3 is 1/5 - 1/9.
    assert ((first.square().mean(0) - 1 / 3).abs() < bound * (1 / 5 - 1 / 9) ** 0.5).all()
    assert abs(float(torch.linalg.det(rotated).mean())) < bound
    names = torch.tensor([0.0, 1.0, 2.0]).expand(n, -1)
    orders = Particles(3, 1).symmetries["particles are exchanged"](names, generator)
    _, counts = orders.unique(dim=0, return_counts=True)
    assert len(counts) == 6 and ((counts / n - 1 / 6).abs() < bound * (5 / 36) ** 0.5).all()


def test_labelled_and_oriented_particles_keep_what_they_have(generator: torch.Generator) -> None:
    x = torch.randn(9, 6, generator=generator)
    assert set(Particles(3, 2, identical=False, isotropic=False).symmetries) == {"all particles move alike"}
    labelled = Particles(3, 2, identical=False).image(x, generator)
    torch.testing.assert_close(pair_distances(labelled, 3), pair_distances(x, 3))
    oriented = Particles(3, 2, isotropic=False).image(x, generator).view(9, 3, 2)
    vectors = (oriented.unsqueeze(1) - oriented.unsqueeze(2)).flatten(1, 2)
    before = (x.view(9, 3, 2).unsqueeze(1) - x.view(9, 3, 2).unsqueeze(2)).flatten(1, 2)
    torch.testing.assert_close(vectors[..., 0].sort().values, before[..., 0].sort().values)


@pytest.mark.parametrize("space", [Lattice((4, 3)), Lattice((2, 3, 2), Euclidean(2)), Lattice((4,))], ids=repr)
def test_shifts_are_rolls_and_each_point_has_its_own(space: Lattice, generator: torch.Generator) -> None:
    axes = tuple(range(-len(space.shape), 0))
    x = torch.randn(space.dim, generator=generator)
    moved = space.symmetries[SHIFTED](x.expand(400, -1), generator)
    shifts = torch.cartesian_prod(*(torch.arange(size) for size in space.shape)).view(-1, len(axes)).tolist()
    rolled = torch.stack([space.fields(x).roll(shift, axes).flatten() for shift in shifts])
    which = (moved.unsqueeze(1) == rolled).all(-1)
    assert (which.sum(1) == 1).all()
    # 400 draws of at most 12: one of them missing has a chance of at most 12 (11 / 12)^400 = 1e-14.
    assert which.any(0).all()


@pytest.mark.parametrize("space", [Links((3, 2)), Links((2, 3, 2)), Links((1, 2))], ids=repr)
def test_plaquettes_are_what_gauge_transformations_leave(space: Links, generator: torch.Generator) -> None:
    x = torch.randn(6, space.dim, generator=generator)
    moved = space.symmetries["links are gauge transformed"](x, generator)
    torch.testing.assert_close(space.plaquettes(moved), space.plaquettes(x))
    k = len(space.shape)
    assert space.plaquettes(x).shape == (6, k * (k - 1) // 2, *space.shape)
    loops = torch.randn(space.plaquettes(x).shape, generator=generator)
    torch.testing.assert_close((space.around(loops) * x).sum(-1), (space.plaquettes(x) * loops).flatten(1).sum(-1))


def test_plaquettes_by_hand() -> None:
    # theta_0 = [[1, 2], [3, 4]], theta_1 = [[10, 20], [30, 40]], at (0, 0): 1 + 30 - 2 - 10.
    x = torch.tensor([1.0, 2, 3, 4, 10, 20, 30, 40])
    torch.testing.assert_close(Links((2, 2)).plaquettes(x)[0, 0, 0], torch.tensor(19.0))


@pytest.mark.parametrize("std", [0.05, 0.9, 2.5])
def test_end_points_are_seen_in_the_mean_over_all_turns(std: float, generator: torch.Generator) -> None:
    # Tweedie's formula, on the circle: x + std^2 d log p(x | end) / dx.
    width, (x, end) = torch.tensor(std, dtype=torch.float64), 3 * torch.randn(2, 50, 2, generator=generator)
    x = wrap(end + std * torch.randn(50, 2, generator=generator)).requires_grad_()
    (score,) = torch.autograd.grad(WrappedGaussianKernel(end, width).log_prob(x).sum(), x)
    x = x.detach()
    expected = x + std**2 * score
    torch.testing.assert_close(Circle(2).seen_from(x, end, width), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(Links((1, 1)).seen_from(x, end, width), expected, rtol=0, atol=1e-6)
    both, stds = Product([Euclidean(1), Circle(2)]), width.expand(3)
    there, here = torch.cat([x[:, :1], end], -1), torch.cat([end[:, :1], x], -1)
    seen = both.seen_from(here, there, stds)
    torch.testing.assert_close(seen, torch.cat([there[:, :1], expected], -1), rtol=0, atol=1e-6)


def test_products_move_their_parts_together(generator: torch.Generator) -> None:
    # Both circles go around under one name, particles beside them keep their distances, reals stay.
    space = Product([Circle(1), Particles(3, 2), Euclidean(1), Circle(2)])
    assert space.dim == 8 and space.target_dim == 10
    x = torch.randn(200, 10, generator=generator)
    turned = space.symmetries["angles go once around, by 2 pi"](x, generator) - x
    is_angle = torch.tensor([True, *[False] * 7, True, True])
    assert (turned[:, ~is_angle] == 0).all() and (turned[:, is_angle] != 0).any(0).all()
    moved = space.image(x, generator)
    torch.testing.assert_close(moved[:, 7], x[:, 7])
    torch.testing.assert_close(
        pair_distances(moved[:, 1:7], 3).sort().values, pair_distances(x[:, 1:7], 3).sort().values
    )
    torch.testing.assert_close(moved[:, is_angle].cos(), x[:, is_angle].cos())


def test_a_sampler_of_particles_beside_an_angle_leaves_the_centre_out() -> None:
    space = Product([Circle(1), Particles(3, 2)])
    target = FunctionTarget(lambda x: x[..., 0].cos() - pair_distances(x[..., 1:], 3).square().sum(-1), 7, space=space)
    for parts in ({}, {"grid": 5}):
        sampler = Sampler(target, **parts)
        assert sampler.policy.dim == 5
        x = sampler.sample(4, seed=0)
        assert x.shape == (4, 7) and x[:, 1:].view(4, 3, 2).mean(1).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("periodic", "dim", "expected"),
    [
        (True, 3, "Circle(3)"),
        (False, 3, "None"),
        ([], 3, "Euclidean(3)"),
        ([0, 1, 2], 3, "Circle(3)"),
        ((2, 0), 3, "Product([Circle(1), Euclidean(1), Circle(1)])"),
        (range(1, 3), 4, "Product([Euclidean(1), Circle(2), Euclidean(1)])"),
        (np.array([3]), 4, "Product([Euclidean(3), Circle(1)])"),
        (torch.tensor([0]), 2, "Product([Circle(1), Euclidean(1)])"),
    ],
)
def test_periodic_names_angles(periodic: object, dim: int, expected: str) -> None:
    assert repr(FunctionTarget(nothing, dim, periodic=periodic).space) == expected


def test_mean_free_is_the_number_of_particles() -> None:
    assert repr(FunctionTarget(nothing, 12, mean_free=4).space) == "Particles(4, 3)"
    assert repr(FunctionTarget(nothing, 6, mean_free=np.int64(6)).space) == "Particles(6, 1)"


PERIODIC = "periodic must be True, False, or the numbers of those coordinates that are angles, 0 to 1, each once"
MEAN_FREE = "mean_free must be the number of particles, at least 2, of which dim = 12 is a multiple, got"
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    **{
        f"periodic={given!r}": (lambda given=given: FunctionTarget(nothing, 2, periodic=given), PERIODIC)
        for given in ([0, 7], [-1], [0, 0], [0.5], "01", None, 1, [True, False], [[0]], ["a"])
    },
    **{
        f"mean_free={given!r}": (lambda given=given: FunctionTarget(nothing, 12, mean_free=given), MEAN_FREE)
        for given in (5, 1, 0, -3, 24, 4.0, True, "4")
    },
    "two at once": (
        lambda: FunctionTarget(nothing, 12, periodic=True, mean_free=4),
        "periodic and mean_free say the same thing in different ways: give one of them",
    ),
    "three at once": (
        lambda: FunctionTarget(nothing, 12, periodic=[0], mean_free=4, space=Circle(12)),
        "periodic and mean_free and space say",
    ),
    "a class": (lambda: FunctionTarget(nothing, 2, space=Circle), r"must be one of diffsampler.spaces, such as Circle"),
    "a number": (lambda: FunctionTarget(nothing, 2, space=2), "must be one of diffsampler.spaces"),
    "another dimension": (
        lambda: FunctionTarget(nothing, 2, space=Circle(3)),
        r"space of FunctionTarget must have its dimension 2, got Circle\(3\) of 3",
    ),
    "the dimension of z": (
        lambda: FunctionTarget(nothing, 9, space=Particles(4, 3)),
        r"its dimension 9, got Particles\(4, 3\) of 12",
    ),
    "a support beside": (
        lambda: FunctionTarget(nothing, 2, periodic=True, support=(0.0, 1.0)),
        r"declares both a support and the space Circle\(2\): only one",
    ),
    "one particle": (lambda: Particles(1, 3), "num_particles must be a whole number of at least 2"),
    "no dimension": (lambda: Particles(3, 0), "dimension must be a whole number"),
    "identical": (lambda: Particles(3, 2, identical=1), "identical must be True or False"),
    "isotropic": (lambda: Particles(3, 2, isotropic="no"), "isotropic must be True or False"),
    "a size": (lambda: Lattice(4), r"shape must be the numbers of sites, such as \(6, 6\), got 4"),
    "no shape": (lambda: Lattice(None), "shape must be the numbers of sites"),
    "an empty shape": (lambda: Lattice(()), "shape must be the numbers of sites"),
    "no sites": (lambda: Lattice((3, 0)), "shape must be a whole number of at least 1, got 0"),
    "a site": (lambda: Lattice((3,), Particles(3, 2)), r"site must be Euclidean\(C\) or Circle\(C\)"),
    "links of a chain": (lambda: Links((4,)), "shape of links must have at least two dimensions"),
    "links of a number": (lambda: Links(4), "shape of links must have at least two dimensions"),
    "a part": (lambda: Product([Circle(1), 3]), "spaces must be a Space, such as .* got 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        make()


def test_a_class_that_declares_a_space_of_another_size_is_refused() -> None:
    class Rotor(Target):
        space = Circle(3)

        def log_prob(self, x: Tensor) -> Tensor:
            return x.cos().sum(-1)

    with pytest.raises(InputError, match=r"space of Rotor must have its dimension 2, got Circle\(3\) of 3"):
        Sampler(Rotor(2))
