"""One battery for all losses, over the list in helpers.py: each against its definition, pair by pair."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import (
    LOSSES,
    ConstantControl,
    ExactFlow,
    LossCase,
    by_name,
    centred_gaussian,
    correlated_gaussian,
    randomise,
    seeded,
    two_modes,
)
from torch import Tensor

from diffsampler import InputError, Sampler
from diffsampler.behaviours import OnPolicy
from diffsampler.losses import (
    DetailedBalance,
    LogVariance,
    Objective,
    PathwiseReverseKL,
    SubTrajectoryBalance,
    TrajectoryBalance,
    laplacian,
)
from diffsampler.networks import FourierFlow, FourierMLP
from diffsampler.paths import Trajectory, evaluate, rollout
from diffsampler.processes import AnnealedLangevin, PinnedBrownian, Underdamped

every_loss = pytest.mark.parametrize("case", LOSSES, ids=by_name)


def random_trajectory(num_steps: int, generator: torch.Generator, batch: int = 6, offset: float = 0.0) -> Trajectory:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    return Trajectory(
        log_pf=draw(num_steps, batch),
        log_pb=draw(num_steps, batch),
        log_prior=draw(batch),
        log_prob=torch.randn(batch, generator=generator) + offset,
        log_z=torch.tensor(0.6 + offset, requires_grad=True),
        log_flow=(torch.randn(num_steps - 1, batch, generator=generator) + offset).requires_grad_(),
    )


def leaves(trajectory: Trajectory) -> list[Tensor]:
    return [trajectory.log_pf, trajectory.log_pb, trajectory.log_prior, trajectory.log_z, trajectory.log_flow]


def gradients(value: Tensor, trajectory: Trajectory) -> list[Tensor]:
    return list(torch.autograd.grad(value, leaves(trajectory), allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@every_loss
def test_equals_its_definition(case: LossCase, num_steps: int, generator: torch.Generator) -> None:
    trajectory = random_trajectory(num_steps, generator)
    loss, expected = case.make()(trajectory), case.definition(trajectory)
    assert loss.shape == () and loss > 0.01, case.name
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0, msg=case.name)
    for value, by_hand in zip(gradients(loss, trajectory), gradients(expected, trajectory), strict=True):
        torch.testing.assert_close(value, by_hand, rtol=1e-11, atol=1e-13, msg=case.name)


@every_loss
def test_survives_large_log_densities(case: LossCase, generator: torch.Generator) -> None:
    # Log-densities near 1e8 that differ by 1: float64 leaves 8 digits of each difference, provided that differences
    # are taken before squares.
    trajectory = random_trajectory(7, generator, offset=1e8)
    torch.testing.assert_close(case.make()(trajectory), case.definition(trajectory), rtol=1e-6, atol=0, msg=case.name)


@every_loss
def test_ignores_the_order_of_trajectories(case: LossCase, generator: torch.Generator) -> None:
    trajectory = random_trajectory(5, generator)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    fields = ("log_pf", "log_pb", "log_prior", "log_prob", "log_flow")
    shuffled = replace(trajectory, **{name: getattr(trajectory, name)[..., order] for name in fields})
    torch.testing.assert_close(case.make()(shuffled), case.make()(trajectory), rtol=1e-13, atol=0, msg=case.name)


@every_loss
def test_averages_over_the_batch(case: LossCase, generator: torch.Generator) -> None:
    trajectory = random_trajectory(5, generator)
    fields = ("log_pf", "log_pb", "log_prior", "log_prob", "log_flow")
    twice = replace(trajectory, **{name: torch.cat([getattr(trajectory, name)] * 2, -1) for name in fields})
    torch.testing.assert_close(case.make()(twice), case.make()(trajectory), rtol=1e-13, atol=0, msg=case.name)


@pytest.mark.parametrize("num_steps", [1, 2, 9])
@every_loss
def test_vanishes_at_the_optimum_and_only_there(case: LossCase, num_steps: int, generator: torch.Generator) -> None:
    # For exp(0.7) N(0, sigma^2) the uncontrolled process is exact and its marginals are the flows.
    sigma = torch.tensor([0.7, 1.6])
    process, control = PinnedBrownian(2, sigma.tolist()), ConstantControl([0.0, 0.0])
    sampler = Sampler(centred_gaussian(sigma, 0.7), process, control, ExactFlow(process.log_reference, 0.7), num_steps)
    sampler.policy.log_z.data.fill_(0.7)
    loss = case.make()

    def value() -> Tensor:
        # Off the policy too: any path will do.
        path = rollout(sampler.dynamics, 64, generator, noise_scale=1.5)
        return loss(evaluate(sampler.dynamics, path))

    def gradient() -> float:
        parts = torch.autograd.grad(value(), list(sampler.parameters()), allow_unused=True)
        return max(float(part.abs().max()) for part in parts if part is not None)

    assert value() < 1e-20 and gradient() < 1e-10, case.name
    control.control.data[0] = 0.3
    assert value() > 1e-3 and gradient() > 1e-3, f"{case.name}: blind to the control"
    control.control.data[0] = 0.0
    sampler.policy.log_z.data.fill_(0.9)
    assert loss.uses_log_z == bool(value() > 1e-4), f"{case.name}: log Z"
    sampler.policy.log_z.data.fill_(0.7)
    sampler.policy.flow.log_z = 0.9
    assert (loss.uses_flow and num_steps > 1) == bool(value() > 1e-4), f"{case.name}: flow"


@every_loss
def test_needs_a_flow_only_if_it_says_so(case: LossCase, generator: torch.Generator) -> None:
    trajectory, loss = replace(random_trajectory(4, generator), log_flow=None), case.make()
    with_flow, without = (Sampler(correlated_gaussian(), flow=flow, grid=2) for flow in (FourierFlow, None))
    loss.check(with_flow.dynamics, OnPolicy())
    if loss.uses_flow:
        name = type(loss).__name__
        with pytest.raises(InputError, match=f"{name} needs a flow network.*flow=None.*Pass flow="):
            loss.check(without.dynamics, OnPolicy())
        with pytest.raises(InputError, match="uses_flow"):
            loss(trajectory)
    else:
        loss.check(without.dynamics, OnPolicy())
        assert loss(trajectory).isfinite(), case.name


@every_loss
def test_pushes_away_from_zero_density(case: LossCase, generator: torch.Generator) -> None:
    """Where R(x_T) is zero or no number the loss is finite and descent lowers the path's probability."""
    dead = torch.tensor([True, False, True, False, True, False])
    trajectory = random_trajectory(4, generator)
    trajectory.log_prob[dead] = torch.tensor([-math.inf, math.nan, -math.inf])
    # Interior flows in balance with the start: what is left is the end's residual.
    ratio = (trajectory.log_pf - trajectory.log_pb).cumsum(0)
    balanced = (trajectory.log_z + trajectory.log_prior + ratio[:-1]).detach()
    trajectory = replace(trajectory, log_flow=balanced.requires_grad_())
    loss = case.make()(trajectory)
    assert loss.isfinite(), case.name
    parts = gradients(loss, trajectory)
    assert all(part.isfinite().all() for part in parts), case.name
    assert (parts[0][-1, dead] > 0).all(), f"{case.name}: log P_F of the last step"
    assert (parts[0][:, dead] > -1e-14).all(), f"{case.name}: log P_F"


@every_loss
def test_finite_where_every_end_has_zero_density(case: LossCase, generator: torch.Generator) -> None:
    trajectory = random_trajectory(3, generator)
    trajectory.log_prob.fill_(-math.inf)
    loss = case.make()(trajectory)
    assert loss.isfinite() and all(part.isfinite().all() for part in gradients(loss, trajectory)), case.name


# --- members


def test_laplacian_identities(generator: torch.Generator) -> None:
    weights, u = torch.rand(6, 6, generator=generator), torch.randn(6, 4, generator=generator)
    matrix = laplacian(weights)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix.sum(1), torch.zeros(6))
    assert torch.linalg.eigvalsh(matrix).min() > -1e-12
    double_loop = sum(weights[i, j] * (u[i] - u[j]) ** 2 for i in range(6) for j in range(i + 1, 6))
    torch.testing.assert_close((u * (matrix @ u)).sum(0), double_loop, rtol=1e-12, atol=0)
    # Only i < j is read.
    assert torch.equal(laplacian(weights.triu(1)), matrix)


@pytest.mark.parametrize("num_steps", [1, 2, 100, 400, 1000])
@pytest.mark.parametrize("lamda", [0.01, 0.5, 1, 1.0, 2.0, 50.0])
def test_weights_are_normalised(lamda: float, num_steps: int) -> None:
    weights = SubTrajectoryBalance(lamda).weights(num_steps)
    assert weights.shape == (num_steps + 1, num_steps + 1) and weights.isfinite().all() and (weights >= 0).all()
    assert abs(weights.sum() - 1) < 1e-12 and torch.equal(weights, weights.triu(1))
    # The ratio of neighbours is lambda, away from underflow at the far end.
    near = weights[0, -1] / weights[0, -2] if lamda > 1 else weights[0, 2 % (num_steps + 1)] / weights[0, 1]
    if num_steps > 1:
        assert abs(near / lamda - 1) < 1e-12


def test_weights_by_hand() -> None:
    expected = torch.tensor([[0, 3, 9, 27.0], [0, 0, 3, 9], [0, 0, 0, 3], [0, 0, 0, 0]]) / 54
    torch.testing.assert_close(SubTrajectoryBalance(3.0).weights(3), expected)


def test_limits_of_sub_trajectory_balance(generator: torch.Generator) -> None:
    trajectory = random_trajectory(6, generator)
    # One length less costs a factor lambda = 1e9 in weight.
    whole, steps = SubTrajectoryBalance(1e9)(trajectory), SubTrajectoryBalance(1e-9)(trajectory)
    torch.testing.assert_close(whole, TrajectoryBalance()(trajectory), rtol=1e-7, atol=0)
    torch.testing.assert_close(steps, DetailedBalance()(trajectory), rtol=1e-7, atol=0)


def test_one_loss_serves_grids_of_every_length(generator: torch.Generator) -> None:
    loss = SubTrajectoryBalance(2.0)
    for num_steps in (5, 3, 5):
        trajectory = random_trajectory(num_steps, generator)
        torch.testing.assert_close(loss(trajectory), SubTrajectoryBalance(2.0)(trajectory), rtol=0, atol=0)


def test_trajectory_balance_reads_the_weight(generator: torch.Generator) -> None:
    trajectory = random_trajectory(5, generator)
    expected = (trajectory.log_weight - trajectory.log_z).square().mean()
    torch.testing.assert_close(TrajectoryBalance()(trajectory), expected)
    expected = trajectory.log_weight.var(correction=0)
    torch.testing.assert_close(LogVariance()(trajectory), expected)


@pytest.mark.parametrize("lamda", [0.0, -1.0, float("nan"), float("inf"), "1"])
def test_refuses_bad_lamda(lamda: object) -> None:
    with pytest.raises(InputError, match="lamda"):
        SubTrajectoryBalance(lamda)


@pytest.mark.parametrize("case", LOSSES, ids=by_name)
def test_descent_lowers_the_loss(case: LossCase, generator: torch.Generator) -> None:
    sampler = Sampler(correlated_gaussian(), control=FourierMLP, grid=5)
    randomise(sampler, scale=0.05)
    path, loss = rollout(sampler.dynamics, 256, generator), case.make()
    before = loss(evaluate(sampler.dynamics, path))
    before.backward()
    with torch.no_grad():
        for parameter in sampler.parameters():
            if parameter.grad is not None:
                parameter -= 1e-4 * parameter.grad
    assert loss(evaluate(sampler.dynamics, path)) < before, case.name
    assert isinstance(loss, Objective)


class Watching(FourierMLP):
    """A control that remembers whether its score would carry gradients."""

    uses_score = True

    def __init__(self, process):
        super().__init__(process)
        self.seen = set()

    def forward(self, embedding, x, score=None):
        self.seen.add(score.requires_grad)
        return super().forward(embedding, x)


@pytest.mark.parametrize(
    "process", [PinnedBrownian, AnnealedLangevin, Underdamped], ids=lambda process: process.__name__
)
def test_pathwise_gradients_hold_the_scores_in_controls_fixed(process) -> None:
    sampler = Sampler(two_modes(), process=process, control=Watching, grid=4, flow=None)
    loss = PathwiseReverseKL().step(sampler.dynamics, OnPolicy(), 8, seeded(0), 0.0)
    loss.backward()
    controls = [sampler.policy.control, sampler.policy.backward_control]
    assert [control.seen for control in controls if control is not None] == [{False}] * (1 + (process is Underdamped))
