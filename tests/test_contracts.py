"""What users get wrong in parts of their own is named before training: the class, and what was expected of it."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch

import diffsampler.losses
from diffsampler import InputError, Sampler, fit
from diffsampler.behaviours import Behaviour, OnPolicy
from diffsampler.losses import TrajectoryLoss
from diffsampler.networks import Control, FourierFlow, FourierMLP, StateFlow
from diffsampler.priors import GaussianPrior, Prior
from diffsampler.processes import AnnealedLangevin, PinnedBrownian
from targets import Gaussian

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"max_steps": 2, "steps_per_epoch": 2, "num_eval_samples": 20, "batch_size": 4, **QUIET}


class OwnPrior(GaussianPrior):
    """A prior whose methods may be replaced."""


class OwnProcess(PinnedBrownian):
    """A process whose methods may be replaced."""


def replaced(cls: type, **methods: Callable) -> type:
    """The same class with other methods."""
    return type(f"Mistaken{cls.__name__}", (cls,), methods)


class Uninitialised(Control):
    def __init__(self, process):
        self.width = 3

    def forward(self, embedding, x, score=None):
        return x


class ByOther(StateFlow):
    def forward(self, embedding, x, interpolation=None):
        return x


def gaussian(**parts) -> Sampler:
    return Sampler(Gaussian([0.5, -1.0]), **{"grid": 3, **parts})


def with_prior(**methods) -> Sampler:
    return gaussian(process=partial(AnnealedLangevin, prior=replaced(OwnPrior, **methods)))


def with_process(**methods) -> Sampler:
    return gaussian(process=replaced(OwnProcess, **methods))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gaussian(control=PinnedBrownian), "control must be a Control, one of diffsampler.networks"),
        (lambda: gaussian(control=PinnedBrownian), "got the class PinnedBrownian"),
        (lambda: gaussian(process=FourierMLP), "process must be a Process, one of diffsampler.processes"),
        (lambda: gaussian(process=partial(FourierMLP, width=3)), "got the class FourierMLP"),
        (lambda: gaussian(flow=FourierMLP), "flow must be a StateFlow"),
        (lambda: gaussian(control=lambda: FourierMLP(2)), "control must be made from one PinnedBrownian"),
        (lambda: Sampler(Gaussian), "target must be a Target, got the class Gaussian: make one, Gaussian(...)"),
        (lambda: gaussian(control=Uninitialised), "control Uninitialised must call super().__init__"),
        (lambda: gaussian(drift=FourierMLP), "Sampler has no argument 'drift': it is called control now"),
        (lambda: gaussian().sample(n=3), "Sampler.sample has no argument 'n': it is called num_samples now"),
        (lambda: GaussianPrior(2, width=2.0), "GaussianPrior has no argument 'width': it is called scale now"),
        (
            lambda: with_prior(draw=lambda self, like, generator: like[:, 0]),
            "prior MistakenOwnPrior.draw must return shape (*, 2) for states of shape (*, 2), here two of them: it "
            "returns shape (2,)",
        ),
        (
            lambda: with_prior(log_prob=lambda self, x: -x.square()),
            "prior MistakenOwnPrior.log_prob must return shape (*) for",
        ),
        (lambda: with_prior(score=lambda self, x: x.sum(-1)), "prior MistakenOwnPrior.score must return shape (*, 2)"),
        (
            lambda: with_process(forward_kernel=lambda self, s, t, x, u, score: x),
            "process MistakenOwnProcess.forward_kernel must return a Kernel",
        ),
        (
            lambda: with_process(backward_kernel=lambda self, s, t, y, v, score: 1 / 0),
            "process MistakenOwnProcess.backward_kernel must return a Kernel for states of shape (*, 2), here two of "
            "them: it raises ZeroDivisionError",
        ),
        (
            lambda: gaussian(control=replaced(FourierMLP, forward=lambda self, embedding, x, score: x.sum(-1))),
            "control MistakenFourierMLP must return shape (*, 2), or twice that with widths, for states",
        ),
        (lambda: gaussian(flow=lambda process: ByOther()), "flow ByOther must return shape (*) for states"),
    ],
)
def test_a_mistaken_part_is_named(make: Callable, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_parts_are_asked_without_drawing_from_the_global_generator() -> None:
    torch.manual_seed(3)
    with_prior()
    assert torch.equal(torch.randn(3), torch.randn(3, generator=torch.Generator().manual_seed(3)))


class OwnLoss(TrajectoryLoss):
    def __init__(self, returned: Callable) -> None:
        super().__init__()
        self.returned = returned

    def forward(self, trajectory):
        return self.returned(trajectory.log_weight)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda log_weight: log_weight.square(), "loss OwnLoss must return one number, a tensor with shape (), got"),
        (lambda log_weight: log_weight.square().mean().item(), "with shape (), got float"),
        (lambda log_weight: None, "with shape (), got NoneType"),
        (lambda log_weight: log_weight.detach().square().mean(), "loss OwnLoss must return a tensor with a gradient"),
    ],
)
def test_a_mistaken_loss_is_named(returned: Callable, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        fit(gaussian(), loss=OwnLoss(returned), **SMALL)


class OwnBehaviour(Behaviour):
    def __init__(self, returned: Callable) -> None:
        self.returned = returned

    def paths(self, dynamics, n, generator, progress):
        return self.returned(OnPolicy().paths(dynamics, n + 1, generator, progress))


@pytest.mark.parametrize(
    ("returned", "got"), [(lambda path: path.x, "got Tensor"), (lambda path: path, "got (4, 5, 2)")]
)
def test_a_mistaken_behaviour_is_named(returned: Callable, got: str) -> None:
    message = "behaviour OwnBehaviour.paths must return a Path of states with shape (T + 1, 4, 2), "
    with pytest.raises(InputError, match=re.escape(message + got)):
        fit(gaussian(), behaviour=OwnBehaviour(returned), **SMALL)


def test_old_names_lead_to_new_ones() -> None:
    with pytest.raises(ImportError, match="LangevinDrift: it is called LangevinControl now"):
        from diffsampler.networks import LangevinDrift  # noqa: F401
    with pytest.raises(ImportError, match="Loss: it is called Objective now"):
        _ = diffsampler.losses.Loss
    with pytest.raises(AttributeError, match="no attribute 'Absent'"):
        _ = diffsampler.losses.Absent
    assert FourierFlow and Prior  # what has kept its name
