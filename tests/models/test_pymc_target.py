"""PyMC: parameters out of range, operations of the user's own, loops."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from diffsampler import InputError
from diffsampler.models import PyMCTarget


@pytest.fixture
def pymc() -> ModuleType:
    return pytest.importorskip("pymc")


@pytest.mark.adapters
def test_parameters_out_of_range_are_of_zero_density_alone(pymc: ModuleType) -> None:
    with pymc.Model() as model:
        mu = pymc.Normal("mu")
        pymc.Normal("x", 0, mu, observed=[1.0, 2.0])
    target, x = PyMCTarget(model), torch.tensor([[1.0], [-1.0], [0.5]])
    expected = [float(model.compile_logp()({"mu": np.array(each)})) for each in x[:, 0].tolist()]
    assert expected[1] == -np.inf and target.log_prob(x).tolist() == pytest.approx(expected)
    with pymc.Model() as model:
        pymc.Normal("mu")
        pymc.Poisson("k", 2.0)
    with pytest.raises(InputError, match=r"^PyMCTarget takes no discrete parameters, and k is discrete: .*\.$"):
        PyMCTarget(model)
    with pytest.raises(InputError, match="must be a pymc.Model, got str"):
        PyMCTarget("model")


@pytest.mark.adapters
def test_an_operation_of_the_users_may_fail_and_have_no_gradient(pymc: ModuleType) -> None:
    import pytensor.tensor
    from pytensor.graph import Apply, Op

    class Cubed(Op):
        def make_node(self, x: Any) -> Apply:
            return Apply(self, [x], [x.type()])

        def perform(self, node: Apply, inputs: list[Any], outputs: list[Any]) -> None:
            if inputs[0] > 5:
                raise FloatingPointError("too large")
            outputs[0][0] = np.asarray(inputs[0] ** 3)

    with pymc.Model() as model:
        x = pymc.Normal("x")
        pymc.Potential("p", -0.1 * pytensor.tensor.abs(Cubed()(x)))
        pymc.Deterministic("d", Cubed()(x))
    target, x = PyMCTarget(model), torch.tensor([[1.0], [6.0], [-2.0]])
    assert not target.differentiable
    with pytest.warns(UserWarning, match="The log-density at a point has raised FloatingPointError: too large"):
        log_prob = target.log_prob(x)
    expected = Normal(0, 1).log_prob(x[::2, 0]) - torch.tensor([0.1, 0.8])
    torch.testing.assert_close(log_prob[::2], expected)
    assert log_prob[1].isnan()
    assert target.constrain(x[::2])["d"].tolist() == [1.0, -8.0]


@pytest.mark.adapters
def test_a_loop_is_asked_one_by_one(pymc: ModuleType) -> None:
    import pytensor

    with pymc.Model() as model:
        growth = pymc.Normal("growth")
        sizes = pytensor.scan(
            lambda size, growth: size * growth,
            outputs_info=[np.array(1.0)],
            non_sequences=[growth],
            n_steps=3,
            return_updates=False,
        )
        pymc.Normal("y", sizes[-1], 1.0, observed=0.5)
    with pytest.warns(UserWarning, match="cannot vectorise this model, which is asked one point at a time"):
        target = PyMCTarget(model)
    x = torch.tensor([[0.3], [-1.2], [0.9], [1.4]])
    expected = Normal(0, 1).log_prob(x[:, 0]) + Normal(x[:, 0] ** 3, 1).log_prob(torch.tensor(0.5))
    torch.testing.assert_close(target.log_prob(x), expected)
    torch.testing.assert_close(PyMCTarget(model, workers=2).log_prob(x), expected)
    torch.testing.assert_close(target.score(x)[:, 0], -x[:, 0] + (0.5 - x[:, 0] ** 3) * 3 * x[:, 0] ** 2)
