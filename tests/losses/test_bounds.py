"""The losses that are bounds: values, and gradients against closed forms and finite differences."""

from functools import partial

import pytest
import torch
from helpers import (
    PROCESSES,
    ConstantControl,
    ProcessCase,
    assert_mean,
    by_name,
    centred_gaussian,
    random_sampler,
    seeded,
)
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler
from diffsampler.behaviours import ExpertSamples, Exploration, OnPolicy
from diffsampler.losses import (
    ChunkBalance,
    DetailedBalance,
    GuidedTrajectoryBalance,
    LearnedDecomposition,
    LengthBalance,
    MatrixBalance,
    MaximumLikelihood,
    PathwiseReverseKL,
    ScoreFunctionReverseKL,
    SubTrajectoryBalance,
    TrajectoryBalance,
)
from diffsampler.networks import FourierFlow, FourierMLP
from diffsampler.paths import Path, evaluate, log_uncontrolled_backward, rollout
from diffsampler.processes import Bridge, PinnedBrownian
from targets import Gaussian

SIGMA, CONTROL = 1.4, torch.tensor([0.3, -0.2])
MEAN, COVARIANCE = torch.tensor([0.4, -0.3]), torch.tensor([[0.9, 0.3], [0.3, 0.6]])


def constant_control_sampler() -> Sampler:
    target = Gaussian(MEAN.tolist(), COVARIANCE.tolist())
    return Sampler(target, partial(PinnedBrownian, sigma=SIGMA), ConstantControl(CONTROL.tolist()), flow=None, grid=4)


@pytest.mark.parametrize(
    "loss",
    [ScoreFunctionReverseKL(), PathwiseReverseKL(), PathwiseReverseKL(sticking_the_landing=True)],
    ids=["score-function", "path-wise", "sticking the landing"],
)
def test_gradient_of_the_reverse_kl_is_unbiased(loss: torch.nn.Module, generator: torch.Generator) -> None:
    # Under a constant control c Brownian motion ends in N(sigma c, sigma^2): the derivative of minus the ELBO is
    # sigma C^-1 (sigma c - m). 300 gradients of batches of 20; |z| < 4.5 for two coordinates, 1.4e-5.
    sampler = constant_control_sampler()
    expected = SIGMA * torch.linalg.solve(COVARIANCE, SIGMA * CONTROL - MEAN)
    gradients = []
    for _ in range(300):
        value = loss.step(sampler.dynamics, OnPolicy(), 20, generator, 0.0)
        gradients.append(torch.autograd.grad(value, sampler.policy.control.control)[0])
    for i in range(2):
        assert_mean(torch.stack(gradients)[:, i], float(expected[i]), f"coordinate {i}")


@pytest.mark.parametrize("loss", [ScoreFunctionReverseKL(), PathwiseReverseKL(), PathwiseReverseKL(True)])
def test_value_is_minus_the_elbo(loss: torch.nn.Module) -> None:
    sampler = random_sampler(process=partial(PinnedBrownian, sigma=1.2), grid=5)
    sampler.policy.log_z.data.fill_(0.7)
    value = loss.step(sampler.dynamics, OnPolicy(), 50, seeded(3), 0.0)
    _, log_weight = sampler.weighted_draws(50, seeded(3))
    torch.testing.assert_close(value.detach(), -log_weight.mean())


@pytest.mark.parametrize("case", PROCESSES, ids=by_name)
def test_path_wise_gradient_is_the_derivative(case: ProcessCase) -> None:
    """Against central differences under the same noise, scores inside the kernels included."""
    if case.name == "AnnealedLangevin-mixture":
        pytest.skip("its samples carry no gradient")
    sampler = random_sampler(process=case.make(), control=FourierMLP, flow=None, grid=3)

    def minus_elbo() -> Tensor:
        return -sampler.weighted_draws(6, seeded(1))[1].mean()

    value = PathwiseReverseKL().step(sampler.dynamics, OnPolicy(), 6, seeded(1), 0.0)
    parameters = [p for p in sampler.parameters() if p.requires_grad and p is not sampler.policy.log_z]
    gradients = torch.autograd.grad(value, parameters)
    direction = [torch.randn(p.shape, generator=seeded(2)) for p in parameters]
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += sign * step * d
            values.append(minus_elbo())
            for parameter, d in zip(parameters, direction, strict=True):
                parameter -= sign * step * d
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    expected = (values[0] - values[1]) / (2 * step)
    assert abs(expected) > 0.01
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7, msg=f"{case.name}: {slope} {expected}")


def test_sticking_the_landing_is_still_where_the_sampler_is_exact(generator: torch.Generator) -> None:
    sigma = torch.tensor([0.7, 1.6])
    sampler = Sampler(
        centred_gaussian(sigma),
        partial(PinnedBrownian, sigma=sigma.tolist()),
        ConstantControl([0.0, 0.0]),
        flow=None,
        grid=4,
    )

    def gradient(loss: PathwiseReverseKL) -> float:
        value = loss.step(sampler.dynamics, OnPolicy(), 8, generator, 0.0)
        return float(torch.autograd.grad(value, sampler.policy.control.control)[0].abs().max())

    assert gradient(PathwiseReverseKL(sticking_the_landing=True)) < 1e-12
    assert gradient(PathwiseReverseKL()) > 1e-3


@pytest.mark.parametrize("loss", [PathwiseReverseKL(), PathwiseReverseKL(True), ScoreFunctionReverseKL()])
def test_reverse_kl_stays_where_the_density_is(loss: torch.nn.Module, generator: torch.Generator) -> None:
    # Zero for x_0 < 0.3: half of the untrained trajectories end there, after 150 steps hardly any (a binomial share of
    # 500 draws has a standard error of 0.02, the bounds stand at more than ten of them).
    target = FunctionTarget(lambda x: torch.where(x[..., 0] > 0.3, -0.5 * (x - 1).square().sum(-1), -torch.inf), dim=2)
    sampler = Sampler(target, control=FourierMLP, flow=None, grid=10)
    optimizer = torch.optim.Adam(sampler.parameters(), 5e-3)

    def share() -> float:
        return float((sampler.sample(500, seed=1)[:, 0] > 0.3).double().mean())

    assert share() < 0.6
    for _ in range(150):
        optimizer.zero_grad()
        loss.step(sampler.dynamics, OnPolicy(), 64, generator, 0.0).backward()
        assert all(p.grad.isfinite().all() for p in sampler.policy.control.parameters())
        optimizer.step()
    assert share() > 0.85


def test_the_baseline_leaves_one_out(generator: torch.Generator) -> None:
    sampler = constant_control_sampler()
    trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 3, generator))
    (gradient,) = torch.autograd.grad(
        ScoreFunctionReverseKL()(trajectory), sampler.policy.control.control, retain_graph=True
    )
    value, log_pf = -trajectory.log_weight.detach(), trajectory.log_pf.sum(0)
    expected = torch.zeros(2)
    for i in range(3):
        others = [j for j in range(3) if j != i]
        score = torch.autograd.grad(log_pf[i], sampler.policy.control.control, retain_graph=True)[0]
        expected = expected + (value[i] - value[others].mean()) * score / 3
    torch.testing.assert_close(gradient, expected)


def test_maximum_likelihood_recovers_the_mean(generator: torch.Generator) -> None:
    # The bridge to x has increments of mean x h: the best constant control is mean / sigma, where the gradient's mean
    # is 0. 200 gradients of 50 exact samples; |z| < 4.5 for two coordinates, 1.4e-5.
    sampler = constant_control_sampler()
    gradients = []
    with torch.no_grad():
        sampler.policy.control.control.copy_(MEAN / SIGMA)
    for _ in range(200):
        value = MaximumLikelihood().step(sampler.dynamics, ExpertSamples(), 50, generator, 0.0)
        gradients.append(torch.autograd.grad(value, sampler.policy.control.control)[0])
    for i in range(2):
        assert_mean(torch.stack(gradients)[:, i], 0.0, f"coordinate {i}")


def test_refuses_paths_that_do_not_fit() -> None:
    sampler = constant_control_sampler()
    for loss in (ScoreFunctionReverseKL(), PathwiseReverseKL()):
        with pytest.raises(InputError, match="own rollouts.*Exploration.*OnPolicy"):
            loss.check(sampler.dynamics, Exploration())
    with pytest.raises(InputError, match="rolled back.*OnPolicy.*ExpertSamples"):
        MaximumLikelihood().check(sampler.dynamics, OnPolicy())


# --- chosen pairs


def test_weights_of_chosen_pairs() -> None:
    assert LengthBalance([1, 3]).weights(3).nonzero().tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]]
    assert ChunkBalance(2).weights(5).nonzero().tolist() == [[0, 2], [2, 4], [4, 5]]
    torch.testing.assert_close(ChunkBalance(2).weights(5).sum(), torch.tensor(1.0))
    torch.testing.assert_close(LengthBalance([7]).weights(7), ChunkBalance(9).weights(7))
    matrix = SubTrajectoryBalance(1.3).weights(4)
    torch.testing.assert_close(MatrixBalance((3 * matrix).tolist()).weights(4), matrix)


def test_chosen_pairs_equal_trajectory_balance(generator: torch.Generator) -> None:
    sampler = random_sampler(grid=4)
    trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 6, generator))
    torch.testing.assert_close(ChunkBalance(4)(trajectory), TrajectoryBalance()(trajectory))


def test_pairs_are_tried_on_the_grid_before_training() -> None:
    for loss in (LengthBalance([5]), MatrixBalance([[0.0, 1.0], [0.0, 0.0]])):
        with pytest.raises(InputError, match="3 steps"):
            loss.check(random_sampler(grid=3).dynamics, OnPolicy())


def test_refuses_bad_pairs() -> None:
    with pytest.raises(InputError, match="no usable pair.*3 steps"):
        LengthBalance([5]).weights(3)
    with pytest.raises(InputError, match=r"matrix must have shape \(4, 4\)"):
        MatrixBalance([[0.0, 1.0], [0.0, 0.0]]).weights(3)
    with pytest.raises(InputError, match="no usable pair"):
        MatrixBalance([[0.0, -1.0], [0.0, 0.0]]).weights(1)
    for make in (lambda: LengthBalance([0]), lambda: ChunkBalance(0)):
        with pytest.raises(InputError, match="length"):
            make()


# --- losses with a part of their own


def test_learned_decomposition_is_balance_with_shares(generator: torch.Generator) -> None:
    sampler = random_sampler(flow=FourierFlow, grid=4)
    loss = LearnedDecomposition(dropout=0.0, weight=0.0)
    loss.adapt(sampler.dynamics)
    trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 6, generator))
    # The shares start at zero: plain detailed balance.
    every = torch.ones_like(trajectory.log_pf)
    torch.testing.assert_close(loss(trajectory, every), DetailedBalance()(trajectory))
    loss.network.output.bias.data.fill_(0.3)
    lifted = trajectory.u + 0.3 * torch.tensor([0.0, 1.0, 2.0, 3.0, 0.0])[:, None]
    torch.testing.assert_close(loss(trajectory, every), lifted.diff(dim=0).square().mean())


def test_learned_decomposition_regresses_the_end(generator: torch.Generator) -> None:
    sampler = random_sampler(flow=FourierFlow, grid=4)
    loss = LearnedDecomposition(dropout=0.0, weight=2.0)
    loss.adapt(sampler.dynamics)
    loss.network.output.bias.data.fill_(0.3)
    trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 6, generator))
    every = torch.ones_like(trajectory.log_pf)
    alone = loss(trajectory, every) - 2 * (0.3 - trajectory.log_prob / 4).square().mean()
    loss.weight = 0.0
    torch.testing.assert_close(loss(trajectory, every), alone)
    loss.weight = 2.0
    loss(trajectory, every).backward()
    assert loss.network.output.bias.grad.abs() > 0
    assert sampler.policy.control.network.perceptron.output.weight.grad.abs().max() > 0
    with pytest.raises(InputError, match="flow=FourierFlow"):
        LearnedDecomposition().check(random_sampler(grid=2).dynamics, OnPolicy())
    with pytest.raises(InputError, match="dropout"):
        LearnedDecomposition(dropout=1.0)


def test_learned_decomposition_regresses_no_density_of_zero(generator: torch.Generator) -> None:
    sampler = random_sampler(flow=FourierFlow, grid=4)
    loss = LearnedDecomposition(dropout=0.0, weight=2.0)
    loss.adapt(sampler.dynamics)
    loss.network.output.bias.data.fill_(0.3)
    trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 6, generator))
    known = trajectory.log_prob[3:].clone()
    trajectory.log_prob[:3] = torch.tensor([-torch.inf, torch.nan, torch.inf])
    every = torch.ones_like(trajectory.log_pf)
    alone = loss(trajectory, every) - 2 * (0.3 - known / 4).square().sum() / 6
    loss.weight = 0.0
    torch.testing.assert_close(loss(trajectory, every), alone)


def test_guided_balance_pulls_towards_the_guide(generator: torch.Generator) -> None:
    sampler = random_sampler(process=partial(Bridge, sigma=0.8), flow=None, grid=4)
    loss, path = GuidedTrajectoryBalance(weight=3.0), rollout(sampler.dynamics, 6, generator)

    class Fixed(OnPolicy):
        def paths(self, *args: object) -> Path:
            return path

    trajectory = evaluate(sampler.dynamics, path)
    guide = log_uncontrolled_backward(sampler.dynamics, path)
    s, t = path.times[:-1, None, None], path.times[1:, None, None]
    y = path.x[1:]
    by_hand = sampler.policy.process.backward_kernel(s, t, y, torch.zeros_like(y)).log_prob(path.x[:-1])
    torch.testing.assert_close(guide, by_hand)
    ratio = trajectory.log_prob + guide.sum(0) - trajectory.log_prior - trajectory.log_pf.sum(0) - trajectory.log_z
    expected = ratio.square().mean() + 3 * (trajectory.log_pb - guide).sum(0).square().mean()
    torch.testing.assert_close(loss.step(sampler.dynamics, Fixed(), 6, generator, 0.0), expected)
    with pytest.raises(InputError, match="PinnedBrownian has no network of its own"):
        loss.check(random_sampler(grid=2).dynamics, OnPolicy())


def test_dropout_comes_from_the_generator() -> None:
    sampler = random_sampler(flow=FourierFlow, grid=4)
    loss = LearnedDecomposition(dropout=0.5)
    loss.adapt(sampler.dynamics)
    loss.network.output.bias.data.fill_(0.3)
    values = [float(loss.step(sampler.dynamics, OnPolicy(), 6, seeded(s), 0.0)) for s in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
    with pytest.raises(InputError, match="flow=FourierFlow"):
        loss.check(random_sampler(flow=None, grid=2).dynamics, OnPolicy())
