"""Families on spaces of their own: angles, links of a lattice, particles."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import Z_BOUND
from scipy.special import ive
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.behaviours import JointSamples
from diffsampler.coordinates import SearchedCoordinates
from diffsampler.families import Coupled, Family, Scalarised, Tempered
from diffsampler.losses import Matching
from diffsampler.networks import ConditionalControl, FourierMLP, LatticeConvolutions, PairForces
from diffsampler.paths import rollout
from diffsampler.processes import ProductProcess, Torus, VariancePreserving
from diffsampler.spaces import Circle, Particles
from targets import U1Gauge


def rotators() -> FunctionTarget:
    """2 cos x_0 + cos(x_1 - x_0), of two angles: Z = (2 pi)^2 I_0(2 beta) I_0(beta)."""
    return FunctionTarget(lambda x: 2 * x[..., 0].cos() + (x[..., 1] - x[..., 0]).cos(), 2, periodic=True)


def log_bessel(n: int, beta: float) -> float:
    return math.log(ive(n, beta)) + beta


def log_z_of_rotators(beta: float) -> float:
    return 2 * math.log(2 * math.pi) + log_bessel(0, 2 * beta) + log_bessel(0, beta)


def log_z_of_gauge(beta: float, num_plaquettes: int = 4) -> float:
    """(2 pi)^(2 V) sum_n I_n^V, for V plaquettes."""
    terms = torch.tensor([num_plaquettes * log_bessel(n, beta) for n in range(-20, 21)])
    return 2 * num_plaquettes * math.log(2 * math.pi) + float(terms.logsumexp(0))


def cluster(stiffness: float = 1.0) -> FunctionTarget:
    """Springs between all pairs of four particles in a plane: -stiffness / 2 sum_{i < j} |x_i - x_j|^2."""

    def log_prob(x: Tensor) -> Tensor:
        particles = x.unflatten(-1, (4, 2))
        apart = particles.unsqueeze(-2) - particles.unsqueeze(-3)
        return -0.25 * stiffness * apart.square().sum((-1, -2, -3))

    return FunctionTarget(log_prob, 8, mean_free=4)


def log_z_of_cluster(stiffness: float) -> float:
    """sum_{i < j} |x_i - x_j|^2 = 4 sum_i |x_i|^2 where the mean is 0: N(0, I / (4 stiffness)) in 6 dimensions."""
    return 3 * math.log(2 * math.pi / (4 * stiffness))


def in_a_trap() -> FunctionTarget:
    """cos x_0 - x_1^2 / 2, of an angle and a real: Z = 2 pi I_0(beta) (2 pi / beta)^(1/2)."""
    return FunctionTarget(lambda x: x[..., 0].cos() - 0.5 * x[..., 1] ** 2, 2, periodic=[0])


def log_z_in_a_trap(beta: float) -> float:
    return 1.5 * math.log(2 * math.pi) + log_bessel(0, beta) - 0.5 * math.log(beta)


FAMILIES = {
    "angles": (lambda: Tempered(rotators(), 0.5, 2.0), log_z_of_rotators, True, Torus, FourierMLP),
    "angle and real": (lambda: Tempered(in_a_trap(), 0.5, 2.0), log_z_in_a_trap, True, ProductProcess, FourierMLP),
    "links": (
        lambda: Coupled(U1Gauge, {"beta": (0.3, 1.0)}, shape=(2, 2)),
        log_z_of_gauge,
        False,
        Torus,
        partial(LatticeConvolutions, width=4, depth=0),
    ),
    "particles": (
        lambda: Coupled(cluster, {"stiffness": (0.4, 1.0)}),
        log_z_of_cluster,
        False,
        partial(VariancePreserving, sigma=0.5),
        partial(PairForces, width=8, depth=0, num_bumps=4),
    ),
}


def check_log_weights(log_weight: Tensor, log_z: float) -> None:
    """E[w] = Z: one figure, 1e-4."""
    weight = (log_weight - log_z).exp()
    assert abs(float(weight.mean()) - 1) < Z_BOUND * float(weight.std()) / math.sqrt(len(weight))


@pytest.mark.parametrize("value", [0.5, 0.9])
@pytest.mark.parametrize("case", FAMILIES.values(), ids=FAMILIES)
def test_weights_are_exact_before_any_training(case: tuple, value: float) -> None:
    make, log_z, is_log, process, control = case
    sampler = Sampler(make(), process=process, control=partial(ConditionalControl, network=control), grid=8)
    member = sampler.given(math.log(value) if is_log else value)
    x, log_weight = member.sample(4000, 1, return_log_weights=True)
    check_log_weights(log_weight, log_z(value))


class Internal(FunctionTarget):
    """With coordinates of its own."""

    def __init__(self) -> None:
        super().__init__(lambda x: -x.square().sum(-1), 2)
        self.coordinates = SearchedCoordinates


class Turned(Family):
    """exp(c_2 cos(x - c_1)), of one angle: Z = 2 pi I_0(c_2)."""

    space = Circle(1)

    def __init__(self) -> None:
        super().__init__(1, 2)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        return context[..., 1] * (x[..., 0] - context[..., 0]).cos()

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 2, generator=generator, dtype=torch.float64) * 2 + torch.tensor([-1.0, 0.5])

    def sample_jointly(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        context = self.sample_contexts(n, generator)
        grid = torch.linspace(-math.pi, math.pi, 2001, dtype=torch.float64)
        weight = (context[:, 1:] * (grid - context[:, :1]).cos()).exp()
        return grid[torch.multinomial(weight, 1, generator=generator)], context


class Springs(Family):
    """`cluster` of the stiffness exp(c)."""

    space = Particles(4, 2)

    def __init__(self) -> None:
        super().__init__(8, 1)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        return context[..., 0].exp() * cluster().log_prob(x)

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return 2 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 1

    def sample_jointly(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        context = self.sample_contexts(n, generator)
        z = torch.randn(n, 6, generator=generator, dtype=torch.float64)
        return self.space.to_target(0.5 * (-0.5 * context).exp() * z), context


@pytest.mark.parametrize(
    ("make", "process", "control"),
    [
        (Turned, Torus, FourierMLP),
        (Springs, partial(VariancePreserving, sigma=0.5), partial(PairForces, width=8, depth=0, num_bumps=4)),
    ],
    ids=["angle", "particles"],
)
def test_matching_leaves_contexts_alone(make: type[Family], process: Callable, control: Callable) -> None:
    sampler = Sampler(make(), process=process, control=partial(ConditionalControl, network=control), grid=8)
    loss = Matching(256)
    options = {"batch_size": 64, "num_eval_samples": 200, "enable_progress_bar": False}
    fit(sampler, 3, loss=loss, behaviour=JointSamples(), seed=0, **options)
    assert all(parameter.isfinite().all() for parameter in sampler.policy.parameters())
    path = rollout(sampler.dynamics, 8, torch.Generator().manual_seed(0))
    context = sampler.policy.process.context_of(path.x)
    assert torch.equal(context, context[:1].expand_as(context))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "steps", "contexts", "log_z"),
    [
        (Turned, 40, [[-0.9, 1.0], [0.5, 2.3]], lambda c: math.log(2 * math.pi) + log_bessel(0, c[1])),
        (Springs, 2, [[-0.8], [0.7]], lambda c: log_z_of_cluster(math.exp(c[0]))),
    ],
    ids=["angle", "particles"],
)
def test_a_family_with_exact_draws_is_learned_on_its_space(
    make: type[Family], steps: int, contexts: list, log_z: Callable[[list], float], tmp_path: Path
) -> None:
    sampler = Sampler(make())
    fit(sampler, max_steps=steps, seed=0, batch_size=128, num_eval_samples=200, enable_progress_bar=False)
    sampler.save(tmp_path / "family.ckpt")
    loaded = Sampler.load(tmp_path / "family.ckpt", make())
    for context in contexts:
        estimate = sampler.given(context).estimate_log_z(1000, seed=1)
        # Widths of particles follow the context before any step, so that few steps suffice. Four figures, 1e-4 each.
        assert estimate.ess > 0.5
        assert abs(estimate.log_z - log_z(context)) < Z_BOUND * (estimate.high - estimate.low) / 3.92
        draws = (one.given(context).sample(20, seed=3) for one in (sampler, loaded))
        assert torch.equal(*draws)


def test_widths_of_particles_follow_the_context_before_any_step() -> None:
    """Coordinates alone are those of every member: springs from 0.45 to 2.2 times as stiff."""
    control = partial(ConditionalControl, network=partial(PairForces, width=8, depth=0, num_bumps=4))
    sampler = Sampler(Springs(), process=VariancePreserving, control=control, grid=4)
    sampler.search(seed=0)
    for c in (-0.8, 0.8):
        estimate = sampler.given(c).estimate_log_z(500, seed=1)
        # 1e-4 for each of two.
        assert abs(estimate.log_z - log_z_of_cluster(math.exp(c))) < Z_BOUND * math.sqrt(estimate.variance)
        assert estimate.ess > 0.95


def stirred(control: ConditionalControl) -> ConditionalControl:
    """With weights that are not zero."""
    torch.manual_seed(0)
    for parameter in control.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return control


def test_a_control_keeps_its_symmetries_for_every_context() -> None:
    family = Coupled(U1Gauge, {"beta": (1.0, 4.0)}, shape=(3, 3))
    control = partial(ConditionalControl, network=partial(LatticeConvolutions, width=4, depth=0))
    sampler = Sampler(family, process=Torus, control=control, grid=4)
    network, space = stirred(sampler.policy.control), family.space
    theta = math.pi * torch.randn(5, space.dim, dtype=torch.float64)
    moved = space.symmetries["links are gauge transformed"](theta, torch.Generator().manual_seed(0))
    embedding, (cold, hot) = network.embed(torch.tensor([0.4]))[0], torch.tensor([[-1.0], [1.0]])
    first, again, other = (
        network(embedding, torch.cat([links, context.expand(5, 1)], -1))
        for links, context in ((theta, cold), (moved, cold), (theta, hot))
    )
    torch.testing.assert_close(first[:, : space.dim], again[:, : space.dim])
    assert (first - other)[:, : space.dim].abs().max() > 1e-3
    # A context has neither a control nor a width.
    assert first.shape == (5, 2 * (space.dim + 1)) and (first[:, space.dim] == 0).all() and (first[:, -1] == 0).all()


def test_what_has_no_place_in_a_family_is_refused() -> None:
    with pytest.raises(InputError, match="ConditionalControl is for samplers of a family"):
        Sampler(rotators(), control=ConditionalControl)
    with pytest.raises(InputError, match="for densities on one space, got Euclidean.* and Particles"):
        Scalarised([cluster(), FunctionTarget(lambda x: -x.square().sum(-1), 8)])
    with pytest.raises(InputError, match="but Internal declares coordinates of its own"):
        Tempered(Internal())
    for name, value, message in (
        ("coordinates", SearchedCoordinates, "Turned declares coordinates of its own"),
        ("space", Circle(2), "space of Turned must have its dimension 1"),
        ("support", (0, 1), "Turned declares both a support and the space"),
    ):
        family = Turned()
        setattr(family, name, value)
        with pytest.raises(InputError, match=message):
            Sampler(family)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "log_z", "values", "steps"),
    [
        (lambda: Tempered(rotators(), 0.5, 4.0), log_z_of_rotators, [0.5, 1.0, 4.0], 100),
        (lambda: Tempered(cluster(), 0.5, 2.0), log_z_of_cluster, [0.5, 1.0, 2.0], 50),
    ],
    ids=["angles", "particles"],
)
def test_a_family_on_a_space_is_searched_and_learned(
    family: Callable[[], Family], log_z: Callable[[float], float], values: list[float], steps: int
) -> None:
    sampler = Sampler(family())
    fit(sampler, max_steps=steps, seed=0, num_eval_samples=500, enable_progress_bar=False)
    curve = sampler.log_z_curve([math.log(value) for value in values], num_samples=2000, seed=1)
    for value, estimate, grade in zip(values, curve.estimates, curve.grades, strict=True):
        assert estimate.ess > 0.4 and grade == "trustworthy"
        # 1e-4 for each of three.
        assert abs(estimate.log_z - log_z(value)) < Z_BOUND * (estimate.high - estimate.low) / 3.92
