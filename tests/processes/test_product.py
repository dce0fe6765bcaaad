"""Independent processes of blocks of coordinates under one control: kernels, exact weights, what is refused."""

import math
from functools import partial

import pytest
import torch
from helpers import MILD, assert_mean, random_sampler, seeded
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target
from diffsampler.behaviours import OnPolicy
from diffsampler.coordinates import AffineCoordinates
from diffsampler.losses import PathwiseReverseKL, TrajectoryBalance
from diffsampler.networks import ForwardLookingFlow, FourierFlow, FourierMLP, LangevinControl, LearnedVariance
from diffsampler.paths import evaluate, rollout
from diffsampler.priors import GaussianPrior
from diffsampler.processes import (
    AnnealedLangevin,
    Bridge,
    PinnedBrownian,
    Process,
    ProductProcess,
    Torus,
    Underdamped,
    VarianceExploding,
    VariancePreserving,
)
from diffsampler.spaces import Circle, Euclidean, Product

SPACE = Product([Euclidean(2), Circle(1), Euclidean(1)])
# Of an angle with a von Mises density and reals N(., 1) that follow it.
LOG_Z = math.log(2 * math.pi * float(torch.special.i0(torch.tensor(0.8).double()))) + 1.5 * math.log(2 * math.pi)


def hanging_together(x: Tensor) -> Tensor:
    a, b, angle, c = x.unbind(-1)
    return 0.8 * angle.cos() - 0.5 * (a - angle.sin()) ** 2 - 0.5 * b**2 - 0.5 * (c - 0.3 * a) ** 2


def target() -> Target:
    return FunctionTarget(hanging_together, dim=4, log_z=LOG_Z, space=SPACE)


REALS = {
    "VariancePreserving": partial(VariancePreserving, sigma=1.3),
    "VarianceExploding": partial(VarianceExploding, sigma=1.3, noise_max=4.0),
    "PinnedBrownian": partial(PinnedBrownian, sigma=1.4),
    "AnnealedLangevin": partial(AnnealedLangevin, sigma=0.7, prior=partial(GaussianPrior, scale=1.4)),
    "Bridge": partial(Bridge, sigma=0.7, prior=partial(GaussianPrior, scale=1.5)),
}
every_process = pytest.mark.parametrize("reals", REALS.values(), ids=REALS)


def learned_variance(process: Process) -> LearnedVariance:
    return LearnedVariance(process, FourierMLP)


def mixed_sampler(**parts: object) -> Sampler:
    options = {"process": partial(ProductProcess, reals=REALS["VariancePreserving"]), "control": FourierMLP, "grid": 5}
    return random_sampler(target(), MILD, **{"flow": FourierFlow, **options, **parts})


def test_kernels_and_reference_are_products(generator: torch.Generator) -> None:
    process = ProductProcess(SPACE, partial(Torus, sigma=1.4), partial(VariancePreserving, sigma=1.3))
    parts = [VariancePreserving(2, 1.3), Torus(1, 1.4), VariancePreserving(1, 1.3)]
    x, y, u = torch.randn(3, 3, 5, 4, generator=generator)
    times = torch.tensor([0.0, 0.15, 0.4, 1.0]).double()[:, None, None]
    s, t = times[:-1], times[1:]
    found = (
        process.forward_kernel(s, t, x, u).log_prob(y),
        process.backward_kernel(s, t, y).log_prob(x),
        process.log_reference(t, x),
        process.prior.log_prob(x),
    )
    expected: list[Tensor] = [0.0, 0.0, 0.0, 0.0]
    for part, one, other, control in zip(parts, *(v.split([2, 1, 1], -1) for v in (x, y, u)), strict=True):
        expected[0] = expected[0] + part.forward_kernel(s, t, one, control).log_prob(other)
        expected[1] = expected[1] + part.backward_kernel(s, t, other).log_prob(one)
        expected[2] = expected[2] + part.log_reference(t, one)
        expected[3] = expected[3] + part.prior.log_prob(one)
    for whole, by_parts in zip(found, expected, strict=True):
        torch.testing.assert_close(whole, by_parts)
    # A reversible process of each part: without control the whole is reversible.
    forward = process.forward_kernel(s, t, x, 0 * u).log_prob(y) + process.log_reference(s, x)
    torch.testing.assert_close(forward, found[1] + process.log_reference(t, y))
    p, q = process.gaussian_control(torch.tensor([[0.3]]))
    assert p.shape == q.shape == (1, 4) and process.scale.tolist() == [1.3, 1.3, 1.0, 1.3]


@pytest.mark.parametrize(
    ("reals", "control"),
    [*((reals, FourierMLP) for reals in REALS.values()), (REALS["VariancePreserving"], learned_variance)],
    ids=[*REALS, "learned widths"],
)
def test_weights_are_unbiased_untrained(reals: object, control: object, generator: torch.Generator) -> None:
    # n = 20000 weights of random networks; |z| < 4.5, 7e-6 each.
    sampler = mixed_sampler(process=partial(ProductProcess, reals=reals), control=control, flow=None)
    x, log_weight = sampler.sample(20_000, generator=generator, return_log_weights=True)
    weight = (log_weight - LOG_Z).exp()
    assert 0.01 < weight.var() < 8, weight.var()
    assert_mean(weight, 1.0, "E[w] / Z")
    assert x[:, 2].abs().max() <= math.pi < x[:, 1].abs().max()


def test_rollout_rollback_and_evaluate_agree(generator: torch.Generator) -> None:
    sampler = mixed_sampler(control=learned_variance)
    path = rollout(sampler.dynamics, 9, seeded(1))
    log_weight = sampler.weighted_draws(9, seeded(1))[1]
    torch.testing.assert_close(evaluate(sampler.dynamics, path).log_weight, log_weight)
    turned = type(path)(path.times, path.x + 2 * math.pi * SPACE.angles)
    torch.testing.assert_close(evaluate(sampler.dynamics, turned).u, evaluate(sampler.dynamics, path).u)
    back = sampler.rollback(path.x[-1], generator)
    assert torch.equal(back.x[-1], path.x[-1]) and evaluate(sampler.dynamics, back).u.isfinite().all()


@every_process
def test_gradients_reach_every_parameter(reals: object, generator: torch.Generator) -> None:
    sampler = mixed_sampler(process=partial(ProductProcess, reals=reals), flow=None, grid=3)
    TrajectoryBalance()(evaluate(sampler.dynamics, rollout(sampler.dynamics, 16, generator))).backward()
    for name, parameter in sampler.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    objective = PathwiseReverseKL()
    objective.check(sampler.dynamics, OnPolicy())
    assert objective.step(sampler.dynamics, OnPolicy(), 8, generator, 0.0).isfinite()


def test_smc_along_the_flow_is_unbiased() -> None:
    # 400 groups of 20 draws, whose means are independent weights; |z| < 4.5, 7e-6.
    sampler = mixed_sampler(flow=lambda process: ForwardLookingFlow(process, FourierFlow))
    from diffsampler.paths import sequential_rollout

    log_weight = sequential_rollout(sampler.dynamics, 8000, 400, generator=seeded(3))[1]
    assert_mean((log_weight.view(400, 20) - LOG_Z).exp().mean(1), 1.0, "E[mean w] / Z")


def test_probability_flow() -> None:
    both = FunctionTarget(lambda x: x[..., 1].cos() - 0.5 * (x[..., 0] - x[..., 1].sin()) ** 2, dim=2, periodic=[1])
    options = {"control": FourierMLP, "flow": None, "grid": 4}
    sampler = random_sampler(both, 0.1, process=ProductProcess, **options)
    line, angles = torch.arange(-7, 7, 0.4), torch.linspace(-math.pi, math.pi, 25)[:-1]
    density = sampler.log_prob(torch.cartesian_prod(line, angles)).exp()
    # Both rules converge exponentially; the solver's tolerance is 1e-6.
    assert density.std() > 1e-3 and abs(float(density.sum()) * 0.4 * 2 * math.pi / 24 - 1) < 2e-3
    pinned = random_sampler(both, 0.1, process=partial(ProductProcess, reals=PinnedBrownian), **options)
    with pytest.raises(InputError, match="starts in one point in some coordinates and not in others"):
        pinned.estimate_log_z(100, seed=0, method="ode")


def test_a_declared_space_chooses_process_and_networks() -> None:
    sampler = Sampler(target(), grid=3)
    process = sampler.policy.process
    assert isinstance(process, ProductProcess) and repr(process.space) == repr(SPACE)
    assert isinstance(sampler.policy.control, LangevinControl) and sampler.sample(5, seed=0).shape == (5, 4)
    angles = FunctionTarget(lambda x: x.cos().sum(-1), dim=3, periodic=True)
    assert isinstance(Sampler(angles, grid=3).policy.process, Torus)
    assert "sigma=1.3" in mixed_sampler().describe()["process"]


def test_refuses_what_does_not_fit() -> None:
    for process in (PinnedBrownian, VariancePreserving, VarianceExploding, AnnealedLangevin, Bridge, Underdamped):
        with pytest.raises(InputError, match=rf"{process.__name__} is for states in R\^D, but .* take Torus"):
            Sampler(target(), process, FourierMLP)
    with pytest.raises(
        InputError, match=r"Torus walks on Circle\(4\), but FunctionTarget is of Product.*leave process"
    ):
        Sampler(target(), Torus, FourierMLP)
    with pytest.raises(InputError, match="angles AffineCoordinates would change: leave coordinates out"):
        Sampler(target(), coordinates=AffineCoordinates(torch.zeros(4), torch.eye(4)))
    with pytest.raises(InputError, match="reals must make a process of positions alone, 2 coordinates here"):
        ProductProcess(SPACE, reals=Underdamped)
    with pytest.raises(InputError, match="space must be a Product of angles and of reals"):
        ProductProcess(Product([Product([Circle(1), Euclidean(1)]), Circle(1)]))
    with pytest.raises(InputError, match="angles must be a Process"):
        ProductProcess(SPACE, angles=FourierMLP)
