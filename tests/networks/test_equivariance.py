"""Networks that know a symmetry: equivariant to rounding, the same for one time and for a grid, nothing at first."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import randomise, seeded
from torch import Tensor

from diffsampler import InputError
from diffsampler.networks import Control, LatticeConvolutions, PairForces
from diffsampler.processes import PinnedBrownian, Process, Torus, Underdamped, VarianceExploding, VariancePreserving
from diffsampler.spaces import Circle, Euclidean, Lattice, Links, Particles, Product, Space

Make = Callable[[Space], Control]
VP = partial(VariancePreserving, sigma=1.4)
CLUSTERS = [Particles(2, 1), Particles(4, 2), Particles(5, 3)]
REALS = [Lattice((5,)), Lattice((4, 3)), Lattice((2, 3, 4)), Lattice((3, 4), Euclidean(3))]
ANGLES = [Lattice((6,), Circle(1)), Lattice((3, 4), Circle(2)), Links((3, 4)), Links((2, 3, 2)), Links((2, 2))]


def forces(space: Space, process: Callable[[Space], Process] = VP, **options: object) -> Control:
    return PairForces(process(space), **{"width": 16, "num_bumps": 12, **options})


def convolutions(space: Space, process: Callable[[Space], Process] | None = None, **options: object) -> Control:
    make = process or (Torus if space.is_periodic else VP)
    return LatticeConvolutions(make(space), **{"width": 8, **options})


CASES = [
    *((forces, space) for space in CLUSTERS),
    (partial(forces, depth=0, springs=3), Particles(4, 2)),
    (partial(forces, springs=None), Particles(5, 3)),
    (partial(forces, springs=0, use_score=False), Particles(3, 3)),
    (partial(forces, process=PinnedBrownian, reach=2.0), Particles(4, 2)),
    *((convolutions, space) for space in [*REALS, *ANGLES]),
    (partial(convolutions, depth=0, reach=2), Lattice((4, 5))),
    (partial(convolutions, reach=0), Lattice((3, 2))),
    (partial(convolutions, process=PinnedBrownian), Lattice((3, 2))),
]
every_case = pytest.mark.parametrize(
    ("make", "space"),
    CASES,
    ids=[f"{getattr(make, 'func', make).__name__}-{space!r}-{k}" for k, (make, space) in enumerate(CASES)],
)


def at_random(make: Make, space: Space, scale: float = 0.1) -> Control:
    network = make(space)
    randomise(network, scale)
    return network


def states(space: Space, n: int = 6, seed: int = 3) -> Tensor:
    return 1.5 * torch.randn(n, space.dim, generator=seeded(seed))


@every_case
def test_control_and_width_are_zero_at_first(make: Make, space: Space) -> None:
    network = make(space)
    for t in (0.0, 0.4, 0.99):
        assert network(network.embed(torch.tensor(t)), states(space)).abs().max() == 0
    assert network.learns_width and not network.uses_score


@every_case
def test_a_grid_at_once_is_its_times_one_by_one(make: Make, space: Space) -> None:
    network, x = at_random(make, space), states(space, 8).view(4, 2, -1)
    times = torch.tensor([0.0, 0.3, 0.7, 0.98])
    embedding = network.embed(times)
    together = network(embedding.unsqueeze(1), x)
    assert embedding.shape[0] == 4 and together.shape == (4, 2, 2 * space.dim)
    for k in range(4):
        torch.testing.assert_close(network.embed(times[k]), embedding[k])
        torch.testing.assert_close(network(embedding[k], x[k]), together[k])
        torch.testing.assert_close(network(embedding[k], x[k, 0]), together[k, 0])
    u, log_width = together.chunk(2, -1)
    # It depends on time and place, and widths are within their bound.
    assert u.std() > 1e-3 and log_width.std() > 1e-6 and log_width.abs().max() <= 3
    assert (together[0] - network(embedding[1], x[0])).abs().max() > 1e-4


@torch.no_grad()
def assert_moves(
    network: Control, x: Tensor, move: Callable[[Tensor], Tensor], of_control: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Assert that the control of what is moved is the control, moved; return the widths here and there."""
    embedding = network.embed(torch.tensor(0.6))
    control, log_width = network(embedding, x).chunk(2, -1)
    control_there, log_width_there = network(embedding, move(x)).chunk(2, -1)
    rounding = 1e-12 * (1 + float(control.abs().max()))
    torch.testing.assert_close(control_there, of_control(control), rtol=0, atol=rounding)
    return log_width, log_width_there


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("space", CLUSTERS, ids=repr)
def test_forces_of_particles_move_with_them(space: Particles, depth: int, generator: torch.Generator) -> None:
    network, x = at_random(partial(forces, depth=depth), space), states(space)
    for name in ("particles are exchanged", "all particles are rotated or reflected"):
        for _ in range(4):
            # One and the same map of all states: linear and orthogonal in z, so that it moves controls too.
            seed = int(torch.randint(1 << 30, (), generator=generator))

            def move(z: Tensor, name: str = name, seed: int = seed) -> Tensor:
                one_each = [space.symmetries[name](space.to_target(row[None]), seeded(seed)) for row in z]
                return space.from_target(torch.cat(one_each))

            log_width, there = assert_moves(network, x, move, move)
            torch.testing.assert_close(there, log_width, rtol=0, atol=1e-12)
    # One width for all coordinates of a state.
    assert (log_width == log_width[:, :1]).all() and log_width.std() > 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("space", CLUSTERS, ids=repr)
def test_own_forces_are_taken_and_come_to_an_end(space: Particles, dtype: torch.dtype) -> None:
    network = PairForces(VP(space), width=16, num_bumps=12, springs=None, use_score=True)
    assert network.uses_score
    network, x = network.to(dtype), states(space, 1).to(dtype)
    lengths = 10.0 ** torch.arange(-2, 31, dtype=dtype).unsqueeze(-1)
    score = lengths * torch.nn.functional.normalize(states(space, 1, seed=5).to(dtype), dim=-1)

    def control(score: Tensor, x: Tensor = x) -> Tensor:
        return network(network.embed(torch.tensor(0.9, dtype=dtype)), x.expand_as(score), score)[:, : space.dim]

    assert control(score).abs().max() == 0
    randomise(network, 0.1)
    taken = control(score) - control(torch.zeros_like(score))
    # Short ones as they are, with one factor for all; longer ones longer, up to a bound, and never back to nothing.
    factor = taken[0] / score[0]
    torch.testing.assert_close(factor, factor[:1].expand_as(factor), rtol=0.01, atol=0)
    norms = taken.norm(dim=-1)
    assert (norms[1:] > 0.999 * norms[:-1]).all() and 10 < norms[-1] / norms[0] < 1e5
    torch.testing.assert_close(norms[7:], norms[-1:].expand(len(norms) - 7), rtol=1e-2, atol=0)
    # Infinite is as good as very long, and no number is none.
    infinite, none = score[-1:].clone(), score[:1].clone()
    infinite[0, 0], none[0, 0] = math.inf, math.nan
    assert control(infinite).isfinite().all() and control(none).isfinite().all()
    rotated = partial(_rotated, space)
    there = control(rotated(score[5:6].double()).to(dtype), rotated(x.double()).to(dtype))
    torch.testing.assert_close(there.double(), rotated(control(score[5:6]).double()), rtol=0, atol=1e-4)


def _rotated(space: Particles, z: Tensor) -> Tensor:
    name = "all particles are rotated or reflected"
    return space.from_target(torch.cat([space.symmetries[name](space.to_target(row[None]), seeded(4)) for row in z]))


def test_without_forces_between_pairs_a_control_is_a_multiple_of_the_state() -> None:
    network, x = forces(Particles(4, 2)), states(Particles(4, 2))
    randomise(network.of_time, 0.3)
    control, log_width = network(network.embed(torch.tensor(0.6)), x).chunk(2, -1)
    ratio = control / x
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    assert ratio.abs().min() > 1e-3 and log_width.abs().max() > 1e-3


def test_particles_that_coincide_have_a_control_and_a_gradient() -> None:
    space = Particles(4, 2)
    network, z = at_random(forces, space), torch.zeros(2, 6, requires_grad=True)
    found = network(network.embed(torch.tensor(0.5)), z)
    (gradient,) = torch.autograd.grad(found.sum(), z)
    assert found.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("space", [*REALS, *ANGLES], ids=repr)
def test_controls_of_fields_shift_with_them(space: Lattice) -> None:
    network, x = at_random(convolutions, space), states(space)
    axes = tuple(range(-len(space.shape), 0))
    for shift in torch.cartesian_prod(*(torch.arange(size) for size in space.shape)).view(-1, len(axes)).tolist():

        def move(z: Tensor, shift: list[int] = shift) -> Tensor:
            return space.fields(z).roll(shift, axes).flatten(1)

        log_width, there = assert_moves(network, x, move, move)
        torch.testing.assert_close(there, move(log_width), rtol=0, atol=1e-12)


@pytest.mark.parametrize("space", ANGLES, ids=repr)
def test_whole_turns_change_nothing(space: Lattice, generator: torch.Generator) -> None:
    network, x = at_random(convolutions, space), states(space)
    turn = space.symmetries["angles go once around, by 2 pi"]
    log_width, there = assert_moves(network, x, lambda z: turn(z, generator), lambda u: u)
    torch.testing.assert_close(there, log_width, rtol=0, atol=1e-12)


@pytest.mark.parametrize("space", [space for space in ANGLES if isinstance(space, Links)], ids=repr)
def test_gauge_transformations_change_no_control(space: Links, generator: torch.Generator) -> None:
    network, x = at_random(convolutions, space), states(space)
    gauge = space.symmetries["links are gauge transformed"]
    log_width, there = assert_moves(network, x, lambda z: gauge(z, generator), lambda u: u)
    torch.testing.assert_close(there, log_width, rtol=0, atol=1e-12)
    # What it does is along no gauge transformation: that would move what the density does not know.
    control = network(network.embed(torch.tensor(0.6)), x)[:, : space.dim]
    k = len(space.shape)
    fields = space.fields(control)
    outflow = sum(fields[:, mu] - fields[:, mu].roll(1, mu - k) for mu in range(k))
    assert outflow.abs().max() < 1e-12 < control.abs().max()


def test_filters_reach_everywhere_and_kernels_do_not() -> None:
    # On a chain of nine sites without hidden layers a kernel sees three: site 4 hears of site 0 by filters alone.
    network, x = convolutions(Lattice((9,)), depth=0), torch.zeros(1, 9)
    randomise(network, 0.3)
    touched = x.clone()
    touched[0, 0] = 1.0

    def change() -> Tensor:
        embedding = network.embed(torch.tensor(0.5))
        return (network(embedding, touched) - network(embedding, x))[0, :9]

    assert change().abs().min() > 1e-6
    torch.nn.init.zeros_(network.of_means.weight)
    assert change().abs().min() > 1e-6
    new = convolutions(Lattice((9,)))
    network.into.data, network.out_of.data = new.into.data, new.out_of.data
    assert change().abs().min() > 1e-6
    for parameter in network.filters.parameters():
        torch.nn.init.zeros_(parameter)
    assert change().abs().min() > 1e-7  # what is passed on goes as far
    for parameter in network.passed.parameters():
        torch.nn.init.zeros_(parameter)
    network.alike.data = new.alike.data
    assert change()[2:8].abs().max() < 1e-12 < change()[[8, 0, 1]].abs().min()


def test_many_states_are_answered_as_few_are() -> None:
    """On a CPU in parts, where there is no gradient.

    A convolution of another size may be another algorithm: float64 agrees to 1e-10 of the largest, wrong parts to none.
    """
    network = at_random(convolutions, Lattice((64, 64)))
    x, embedding = states(network.space, 40).unflatten(0, (2, 20)), network.embed(torch.tensor([0.3, 0.7])).unsqueeze(1)
    expected = network(embedding, x)
    rounding = 1e-9 * float(expected.abs().max())
    with torch.no_grad():
        torch.testing.assert_close(network(embedding, x), expected, rtol=0, atol=rounding)
        torch.testing.assert_close(network(embedding[0, 0], x[0]), expected[0], rtol=0, atol=rounding)


def test_forces_go_on_nearer_than_pairs_have_been() -> None:
    """Of two particles that learned at a distance to be pushed apart, nearer ones are pushed apart too."""
    network = at_random(partial(forces, springs=None, depth=0, num_bumps=48), Particles(2, 1), 0.0)
    optimiser, embedding = torch.optim.Adam(network.radial_differences.parameters(), 1e-2), torch.tensor(0.5)
    far, near = (torch.linspace(*ends, 20).unsqueeze(-1) / math.sqrt(2) * network.scale for ends in [(2, 3), (1, 1.5)])
    for _ in range(300):
        optimiser.zero_grad()
        (network(network.embed(embedding), far)[..., 0] - 1.0).square().mean().backward()
        optimiser.step()
    found = network(network.embed(embedding), near)[..., 0]
    assert found.min() > 0.5, found


@every_case
def test_gradients_reach_every_parameter(make: Make, space: Space) -> None:
    network = at_random(make, space)
    embedding = network.embed(torch.tensor([0.2, 0.8])).unsqueeze(1)
    found = network(embedding, states(space, 10).view(2, 5, -1))
    (found * torch.randn(found.shape, generator=seeded(1))).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@every_case
def test_in_float32_too(make: Make, space: Space) -> None:
    network = at_random(make, space)
    exact = network(network.embed(torch.tensor(0.6)), states(space))
    network, x = network.float(), states(space).float()
    found = network(network.embed(torch.tensor(0.6).float()), x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [forces, convolutions])
def test_made_under_either_default_dtype(make: Make) -> None:
    space = Particles(3, 2) if make is forces else Lattice((3, 2))
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        network = make(space)
        assert network(network.embed(torch.tensor(0.6)), states(space)).dtype == dtype


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "forces in R^6": (
        lambda: forces(Euclidean(6)),
        r"PairForces is for particles, but VariancePreserving walks on Euc",
    ),
    "forces on angles": (lambda: PairForces(Circle(4)), r"PairForces is for particles, but Torus walks on Circle\(4\)"),
    "forces on a lattice": (lambda: forces(Lattice((2, 2))), "PairForces is for particles"),
    "forces beside an angle": (
        lambda: PairForces(Product([Circle(1), Particles(3, 2)])),
        "PairForces is for particles",
    ),
    "forces with momenta": (lambda: PairForces(Underdamped(Particles(3, 2))), "PairForces is for particles"),
    "forces of scales": (
        lambda: forces(Particles(3, 2), partial(VariancePreserving, sigma=[1.0, 1.0, 2.0, 2.0])),
        "PairForces treats all coordinates alike, but VariancePreserving has a scale for each",
    ),
    "forces of scales, exploding": (
        lambda: forces(Particles(3, 2), partial(VarianceExploding, sigma=[1.0, 1.0, 2.0, 2.0])),
        "PairForces treats all coordinates alike, but VarianceExploding",
    ),
    "convolutions in R^6": (lambda: convolutions(Euclidean(6)), "LatticeConvolutions is for fields on a lattice"),
    "convolutions of particles": (lambda: convolutions(Particles(3, 2)), "LatticeConvolutions is for fields on a lat"),
    "four dimensions": (lambda: convolutions(Lattice((2, 2, 2, 2))), "a lattice of one to three dimensions"),
    "convolutions of scales": (
        lambda: convolutions(Lattice((2,)), partial(VarianceExploding, sigma=[1.0, 2.0])),
        "LatticeConvolutions treats all coordinates alike",
    ),
    "a kernel around the lattice": (
        lambda: convolutions(Lattice((5, 2)), reach=3),
        r"reach must be at most 2 on Lattice",
    ),
    **{
        f"{make.__name__}, {name}={value}": (
            lambda make=make, space=space, name=name, value=value: make(space, **{name: value}),
            name,
        )
        for make, space, names in (
            (forces, Particles(3, 2), {"width": 0, "depth": -1, "num_bumps": 1, "reach": 0.0, "bound": -1.0}),
            (convolutions, Lattice((3,)), {"width": 0, "depth": -1, "reach": -1, "bound": math.inf}),
        )
        for name, value in names.items()
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        make()
