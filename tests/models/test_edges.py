"""Where densities end: outside of supports, and where numbers do."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Beta,
    Categorical,
    Distribution,
    Exponential,
    Gamma,
    MixtureSameFamily,
    Normal,
    Pareto,
    TransformedDistribution,
    Uniform,
)

from diffsampler import InputError, Target, reference
from diffsampler.models import ModelTarget, greater_than, positive, real, unit_interval


def log_mass(target: Target, ends: tuple[float, float]) -> float:
    """Of one free number, by the midpoint rule."""
    x = torch.linspace(*ends, 400_001, dtype=torch.float64).unsqueeze(-1)
    return float(target.log_prob(x).logsumexp(0)) + math.log((ends[1] - ends[0]) / 400_000)


def near(values: dict[str, Tensor], data: Tensor) -> Tensor:
    return Normal(values["x"], 1.0).log_prob(data)


def normal_share(low: float, high: float) -> float:
    normal = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    return float(normal.cdf(torch.tensor(high).double()) - normal.cdf(torch.tensor(low).double()))


@pytest.mark.parametrize(
    ("prior", "sign", "edge"),
    [
        (TransformedDistribution(Exponential(1.0), [AffineTransform(3.0, 1.0)]), 1.0, 3.0),
        (TransformedDistribution(Exponential(1.0), [AffineTransform(0.0, -1.0)]), -1.0, 0.0),
    ],
    ids=["shifted", "turned"],
)
def test_a_transformed_prior_is_zero_where_its_base_is(prior: Distribution, sign: float, edge: float) -> None:
    # int exp(-sign (x - edge)) N(2; x, 1) over the side where sign (x - edge) > 0, by completing the square.
    data = 2.0
    mean = data - sign
    share = normal_share(edge - mean, math.inf) if sign > 0 else normal_share(-math.inf, edge - mean)
    exact = sign * edge - sign * data + 0.5 + math.log(share)
    target = ModelTarget(prior={"x": prior}, log_likelihood=near, data=torch.tensor(data))
    assert log_mass(target, (-30.0, 30.0)) == pytest.approx(exact, abs=1e-3)


def test_a_scaled_beta_is_zero_outside_of_its_interval() -> None:
    prior = TransformedDistribution(Beta(1.0, 1.0), [AffineTransform(0.0, 10.0)])
    target = ModelTarget(prior={"x": prior}, log_likelihood=near, data=torch.tensor(11.0))
    exact = math.log(normal_share(-11.0, -1.0) / 10)
    assert log_mass(target, (-30.0, 30.0)) == pytest.approx(exact, abs=1e-3)


def test_a_prior_within_wider_declared_values_keeps_its_edge() -> None:
    target = ModelTarget(
        prior={"x": Exponential(1.0)}, log_likelihood=near, data=torch.tensor(2.0), parameters={"x": real()}
    )
    exact = -1.5 + math.log(normal_share(-1.0, math.inf))
    assert log_mass(target, (-30.0, 30.0)) == pytest.approx(exact, abs=1e-3)


def test_a_component_of_a_mixture_is_zero_outside_of_its_own_support() -> None:
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), Pareto(torch.tensor([1.0, 2.0]), 3.0))
    target = ModelTarget(prior={"x": mixture}, parameters={"x": greater_than(1.0)})
    assert log_mass(target, (-36.0, 30.0)) == pytest.approx(0.0, abs=1e-3)


def test_a_likelihood_is_zero_where_a_parameter_does_not_allow_the_data() -> None:
    """Pareto's smallest value m ~ Gamma(2, 1): m^(9 + 1) exp(-m) on m < 2."""
    data = torch.tensor([2.0, 3.0, 5.0])
    target = ModelTarget(
        prior={"m": Gamma(2.0, 1.0)},
        log_likelihood=lambda p, y: Pareto(p["m"][:, None], 3.0).log_prob(y),
        data=data,
    )
    m = torch.linspace(0, 2, 200_001, dtype=torch.float64)[1:]
    log_density = 10 * m.log() - m + 3 * math.log(3.0) - 4 * float(data.log().sum())
    exact = float(log_density.logsumexp(0)) + math.log(1e-5)
    assert log_mass(target, (-20.0, 5.0)) == pytest.approx(exact, abs=1e-3)


def test_an_unknown_bound_is_no_mistake_in_the_data() -> None:
    def log_likelihood(values: dict[str, Tensor], data: Tensor) -> Tensor:
        return Uniform(torch.zeros_like(values["bound"])[:, None], values["bound"][:, None]).log_prob(data)

    target = ModelTarget(
        prior={"bound": Pareto(1.0, 1.0)}, log_likelihood=log_likelihood, data=torch.tensor([0.5, 3.0])
    )
    # int_3 b^-2 b^-2 db
    assert log_mass(target, (-36.0, 30.0)) == pytest.approx(-math.log(81.0), abs=1e-3)
    with pytest.raises(InputError, match="within the support"):
        ModelTarget(prior={"bound": Pareto(1.0, 1.0)}, log_likelihood=log_likelihood, data=torch.tensor([-0.5, 3.0]))


def test_torch_itself_is_as_it_was() -> None:
    ModelTarget(prior={"x": Exponential(1.0)}).log_prob(torch.zeros(3, 1))
    loose = Exponential(1.0, validate_args=False).log_prob(torch.tensor(-1.0))
    assert float(loose) == 1.0


def test_a_density_is_zero_where_its_numbers_end() -> None:
    """p = exp(x) is 5e-324 from x = -744 on, and its Jacobian goes on falling: log R would rise without end."""
    target = ModelTarget(prior={"p": Beta(0.01, 0.01)})
    found = target.log_prob(torch.tensor([[-700.0], [-710.0], [-800.0], [38.0]], dtype=torch.float64))
    assert found[0].isfinite() and found[1:].isneginf().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name"),
    [
        (ModelTarget(lambda p: -p["r"].log() - 3 * p["r"], {"r": positive()}), "r"),
        (ModelTarget(lambda p: -p["p"].log() + 4 * torch.log1p(-p["p"]), {"p": unit_interval()}), "p"),
        (ModelTarget(prior={"v": Gamma(0.001, 0.001)}), "v"),
    ],
    ids=["1 / rate", "Haldane", "vague Gamma"],
)
def test_mass_beyond_what_numbers_tell_is_refused(target: ModelTarget, name: str) -> None:
    with pytest.raises(InputError, match=f"lies where {name} is nearer to the edge"):
        reference(target, seed=0)


@pytest.mark.slow
def test_a_little_of_it_is_told() -> None:
    """Beta(0.1, 0.1): 1.4 % lie nearer to 1 than double precision tells."""
    estimate = reference(ModelTarget(prior={"p": Beta(0.1, 0.1)}), seed=0).estimate
    assert estimate.unseen > 0.003 and any("log Z is without it" in warning for warning in estimate.warnings)
