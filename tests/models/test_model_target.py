"""Models as targets: log joints and priors, data, and what is said where they do not fit together."""

import copy
import math
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Distribution,
    Gamma,
    GeneralizedPareto,
    Gumbel,
    HalfCauchy,
    Independent,
    LKJCholesky,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Poisson,
    TransformedDistribution,
    Uniform,
    VonMises,
    Wishart,
    constraints,
)
from torch.distributions.transforms import AffineTransform, SigmoidTransform

from diffsampler import InputError, Sampler, Target, reference
from diffsampler.baseline.propriety import check_proper
from diffsampler.counted import CountedTarget
from diffsampler.models import ModelTarget, bounded, covariance, ordered, positive, real, unit_interval
from examples.models import CONJUGATE, DirichletMultinomial, LinearRegression, NormalInverseWishart

Y, S = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12]), torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18])
SCHOOLS = {"y": Y, "s": S}


def non_centred(p: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
    theta = p["mu"][..., None] + p["tau"][..., None] * p["z"]
    prior = Normal(0, 5).log_prob(p["mu"]) + HalfCauchy(5).log_prob(p["tau"]) + Normal(0, 1).log_prob(p["z"]).sum(-1)
    return prior + Normal(theta, data["s"]).log_prob(data["y"]).sum(-1)


def eight_schools(**options: object) -> ModelTarget:
    return ModelTarget(non_centred, {"mu": real(), "tau": positive(), "z": real(8)}, SCHOOLS, **options)


def eight_schools_of(y: object) -> ModelTarget:
    return ModelTarget(non_centred, {"mu": real(), "tau": positive(), "z": real(8)}, {"y": y, "s": S})


@pytest.mark.parametrize(
    "given",
    [
        *(np.array([4, 0, 7], kind) for kind in ("u1", "u2", "u4", "u8", "Q", "i1", ">i4", "q", "f2", ">f8", "g")),
        *(np.array([7, 0, 4], kind)[::-1] for kind in ("i8", "f8", ">u2")),
        *(torch.tensor([4, 0, 7]).to(dtype) for dtype in (torch.uint8, torch.uint16, torch.int32, torch.bfloat16)),
        torch.tensor([[4.0, 4.0], [0.0, 0.0], [7.0, 7.0]])[:, 0],
    ],
    ids=lambda given: f"{given.dtype}",
)
def test_numbers_of_all_kinds_are_data(given: np.ndarray | Tensor) -> None:
    """Contiguous copies, of int64 or float64: a difference of counts does not wrap around."""
    seen = []

    def log_likelihood(p: dict[str, Tensor], y: Tensor) -> Tensor:
        seen.append((y - 1).tolist())
        return Poisson(p["rate"][:, None]).log_prob(y)

    target = ModelTarget(prior={"rate": Gamma(2.0, 1.0)}, log_likelihood=log_likelihood, data=given)
    plain = ModelTarget(prior={"rate": Gamma(2.0, 1.0)}, log_likelihood=log_likelihood, data=[4.0, 0.0, 7.0])
    given[0] = 1  # which the target does not see
    torch.testing.assert_close(target.log_prob(torch.zeros(2, 1)), plain.log_prob(torch.zeros(2, 1)))
    assert seen and all(one == [3, -1, 6] for one in seen)
    data = target.observed_data["data"]
    assert data.is_contiguous() and data.dtype in (torch.int64, torch.float64)


def test_a_joint_density_with_its_jacobian(generator: torch.Generator) -> None:
    target, x = eight_schools(), torch.randn(3, 5, 10, generator=generator)
    mu, tau, z = x[..., 0], x[..., 1].exp(), x[..., 2:]
    expected = non_centred({"mu": mu, "tau": tau, "z": z}, SCHOOLS) + x[..., 1]
    assert target.dim == 10
    torch.testing.assert_close(target.log_prob(x), expected)
    values = target.constrain(x)
    assert {name: tuple(value.shape) for name, value in values.items()} == {"mu": (3, 5), "tau": (3, 5), "z": (3, 5, 8)}
    torch.testing.assert_close(target.free(values), x)


def test_priors_and_a_likelihood_are_the_same_model(generator: torch.Generator) -> None:
    def log_likelihood(p: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
        return Normal(p["mu"][..., None] + p["tau"][..., None] * p["z"], data["s"]).log_prob(data["y"])

    prior = {"mu": Normal(0.0, 5.0), "tau": HalfCauchy(5.0), "z": Normal(torch.zeros(8), 1.0)}
    target = ModelTarget(prior=prior, log_likelihood=log_likelihood, data=SCHOOLS)
    x = torch.randn(6, 10, generator=generator)
    torch.testing.assert_close(target.log_prob(x), eight_schools().log_prob(x))
    terms = target.log_likelihoods(x)
    assert terms.shape == (6, 8)
    torch.testing.assert_close(terms, log_likelihood(target.constrain(x), SCHOOLS))
    points = target.starting_points(50, generator)
    assert points.shape == (50, 10) and eight_schools().starting_points(5) is None
    # Draws of the prior: of z, the largest of 400 is beyond 5 with a chance of 2e-4 over 400 draws, less at one seed.
    assert points[:, 2:].abs().max() < 5 and points[:, 0].std() > 2


def test_functions_of_one_draw_are_mapped() -> None:
    def of_one(p: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
        theta = p["mu"] + p["tau"] * p["z"]
        prior = Normal(0, 5).log_prob(p["mu"]) + HalfCauchy(5).log_prob(p["tau"]) + Normal(0, 1).log_prob(p["z"]).sum()
        return prior + Normal(theta, data["s"]).log_prob(data["y"]).sum()

    parameters = {"mu": real(), "tau": positive(), "z": real(8)}
    target, x = ModelTarget(of_one, parameters, SCHOOLS, batched=False), torch.randn(2, 3, 10)
    torch.testing.assert_close(target.log_prob(x), eight_schools().log_prob(x))
    torch.testing.assert_close(target.score(x), eight_schools().score(x))
    with pytest.raises(InputError, match="batched=False"):
        ModelTarget(of_one, parameters, SCHOOLS)


def test_everything_is_float64_whatever_the_states_are() -> None:
    torch.set_default_dtype(torch.float32)
    covariance = torch.eye(2) + 0.1
    prior = {"beta": MultivariateNormal(torch.zeros(2), covariance), "S": Wishart(torch.tensor(4.0), torch.eye(2))}
    target = ModelTarget(prior=prior)
    x = torch.randn(4, 5)
    log_prob = target.log_prob(x)
    assert log_prob.dtype == torch.float64
    torch.testing.assert_close(log_prob, target.log_prob(x.double()), rtol=0, atol=1e-12)
    assert torch.get_default_dtype() == torch.float32 and torch.distributions.Distribution._validate_args


# The others take half a minute each.
SLOW = [NormalInverseWishart, LinearRegression, DirichletMultinomial]


@pytest.mark.parametrize(
    "make", [pytest.param(make, marks=pytest.mark.slow if make in SLOW else ()) for make in CONJUGATE]
)
def test_evidence_of_conjugate_models(make: Callable[[], ModelTarget]) -> None:
    target = make()
    estimate = reference(target, 500, seed=0).estimate
    # 4.5 standard errors, 7e-6; the standard error is a few thousandths.
    assert abs(estimate.log_z - target.log_z) < 4.5 / 1.96 * (estimate.high - estimate.log_z) < 0.2


@pytest.mark.slow
def test_priors_alone_have_the_evidence_one() -> None:
    prior = {
        "L": LKJCholesky(3, 2.0),
        "w": Dirichlet(torch.tensor([0.5, 3.0, 1.0])),
        "u": Uniform(torch.tensor([-1.0, 0.0]), 3.0),
    }
    estimate = reference(ModelTarget(prior=prior), 500, seed=0).estimate
    assert abs(estimate.log_z) < 4.5 / 1.96 * (estimate.high - estimate.log_z) < 0.2


def mixture_of(components: Distribution) -> MixtureSameFamily:
    """A quarter of the first, the rest of the second."""
    return MixtureSameFamily(Categorical(torch.tensor([0.25, 0.75])), components)


class Unknown(Distribution):
    """Of one's own, N(0, 1): no support, no draws."""

    def __init__(self) -> None:
        super().__init__(validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return -0.5 * value.square() - 0.5 * math.log(2 * math.pi)


MIXTURES = {
    "normal": Normal(torch.tensor([-1.0, 2.0]), 1.0),
    "positive": Gamma(torch.tensor([1.0, 3.0]), 2.0),
    "in a box": Independent(Uniform(torch.zeros(2, 3), torch.tensor([1.0, 2.0, 3.0])), 1),
    "vectors": MultivariateNormal(torch.zeros(2, 3), torch.eye(3)),
    "three at once": Normal(torch.zeros(3, 2), torch.tensor([1.0, 2.0])),
    "shares": Dirichlet(torch.tensor([[1.0, 1.0, 1.0], [5.0, 1.0, 2.0]])),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_priors_that_are_mixtures(name: str, generator: torch.Generator) -> None:
    prior = mixture_of(MIXTURES[name])
    target = ModelTarget(prior={"x": prior})
    points = target.starting_points(20, generator)
    values, weight = target.constrain(points)["x"], torch.tensor([0.25, 0.75]).log()
    event = values.unsqueeze(values.ndim - len(prior.event_shape))
    terms = torch.logsumexp(MIXTURES[name].log_prob(event) + weight, -1)
    _, log_det = target.declared["x"].constrain(points)
    # Numbers of float32, which the target doubles.
    torch.testing.assert_close(target.log_prob(points), terms.reshape(20, -1).sum(-1) + log_det, rtol=1e-5, atol=1e-5)


def test_parameters_that_are_given_say_where_priors_are() -> None:
    prior = {"x": mixture_of(Uniform(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]))), "y": Unknown()}
    target = ModelTarget(prior=prior, parameters={"y": real(), "x": bounded(0.0, 3.0)})
    assert list(target.declared) == ["x", "y"] and target.starting_points(5) is None
    x = target.free({"x": torch.tensor([0.5, 1.5, 2.5]), "y": 0.0})
    log_det = target.declared["x"].constrain(x[:, :1])[1]
    density = torch.tensor([0.125, 0.5, 0.375]).log() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(target.log_prob(x) - log_det, density, check_dtype=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gumbel(0.0, 1.0),
        lambda: TransformedDistribution(Uniform(0.0, 1.0), [SigmoidTransform().inv, AffineTransform(1.0, 2.0)]),
        lambda: GeneralizedPareto(0.0, 1.0, 0.2),
    ],
    ids=["Gumbel", "logistic", "Pareto"],
)
def test_priors_by_inverse_transforms_and_on_half_lines(
    make: Callable[[], Distribution], generator: torch.Generator
) -> None:
    prior = make()
    target, value = ModelTarget(prior={"a": prior}), torch.tensor([0.1, 2.0])
    x = target.free({"a": value})
    log_det = target.declared["a"].constrain(x)[1]
    torch.testing.assert_close(target.log_prob(x) - log_det, prior.log_prob(value))
    copied = copy.deepcopy(target)  # as calibrate and fits that go on make them
    assert torch.equal(copied.log_prob(x), target.log_prob(x))
    assert copied.starting_points(20, generator).shape == (20, 1)


def test_an_angle_has_one_period() -> None:
    target = ModelTarget(prior={"a": VonMises(0.0, 2.0)}, parameters={"a": bounded(-math.pi, math.pi)})
    x = torch.linspace(-40, 40, 4001).unsqueeze(-1)
    assert float(torch.trapezoid(target.log_prob(x).exp(), x[:, 0])) == pytest.approx(1.0, abs=1e-5)


def misspelled(p: dict[str, Tensor]) -> Tensor:
    return -p["mew"].square()


def mixes(p: dict[str, Tensor]) -> Tensor:
    return -p["mu"].square() - p["mu"].mean().square()


def of_mean(log_likelihood: Callable[..., Tensor], data: object = (1.0, 2.0)) -> ModelTarget:
    return ModelTarget(prior={"mu": Normal(0.0, 1.0)}, log_likelihood=log_likelihood, data=data)


def normal(p: dict[str, Tensor], y: Tensor) -> Tensor:
    return Normal(p["mu"][:, None], 1.0).log_prob(y)


class Frame:
    """What tells a data frame of pandas."""

    columns = ("a", "b")

    def to_numpy(self) -> np.ndarray:
        return np.ones((2, 2))


REFUSED = {
    "a name that log_joint does not know": (lambda: ModelTarget(misspelled, {"mu": real()}), "'mew'.*mu"),
    "a parameter that is never read": (
        lambda: ModelTarget(lambda p: -p["mu"].square(), {"mu": real(), "tau": positive()}),
        "never reads tau",
    ),
    "a sum over all": (lambda: ModelTarget(lambda p: -p["mu"].square().sum(), {"mu": real()}), r"shape \(2,\)"),
    "a sum left out": (lambda: ModelTarget(lambda p: -p["mu"].square(), {"mu": real(3)}), r"\.sum\(-1\)"),
    "draws that are mixed": (lambda: ModelTarget(mixes, {"mu": real()}), "mixes draws"),
    "data of the wrong shape": (
        lambda: ModelTarget(non_centred, eight_schools().declared, {"y": Y[:5], "s": S}),
        r"y \(5,\), s \(8,\)",
    ),
    "data that are missing": (lambda: ModelTarget(non_centred, eight_schools().declared, {"y": Y}), "'s'"),
    "a mixture of pieces with edges": (
        lambda: ModelTarget(prior={"x": mixture_of(Uniform(torch.tensor([0.0, 1.0]), 3.0))}),
        r"Parameter x: components .* different supports, with bounds \[0.0, 1.0\]: give parameters too",
    ),
    "an angle that repeats": (
        lambda: ModelTarget(prior={"a": VonMises(0.0, 2.0)}),
        r"Parameter a: VonMises repeats .*give parameters too, with bounded\(-math.pi, math.pi\)",
    ),
    "a mixture of counts": (lambda: ModelTarget(prior={"x": mixture_of(Poisson(torch.ones(2)))}), "discrete"),
    "a discrete prior of a parameter": (
        lambda: ModelTarget(prior={"k": Bernoulli(0.3)}, parameters={"k": unit_interval()}),
        "Parameter k:.*discrete",
    ),
    "a prior of another shape": (
        lambda: ModelTarget(prior={"x": Unknown()}, parameters={"x": real(2)}),
        r"Parameter x: it has the shape \(2,\), its prior \(\)",
    ),
    "a prior that says nothing": (lambda: ModelTarget(prior={"x": Unknown()}), "Parameter x: Unknown says nothing"),
    "a prior of other parameters": (
        lambda: ModelTarget(prior={"mu": Normal(0.0, 1.0), "x": lambda p: Normal(p["mu"], 1.0)}),
        "where it depends on other parameters, write log_joint",
    ),
    "no numbers": (lambda: ModelTarget(non_centred, eight_schools().declared, {"y": "abc"}), "data y"),
    "a discrete prior": (lambda: ModelTarget(prior={"k": Bernoulli(0.3)}), "Parameter k:.*discrete"),
    "a prior that is none": (lambda: ModelTarget(prior={"k": 3.0}), "prior of k"),
    "both ways": (lambda: ModelTarget(misspelled, {"mu": real()}, prior={"mu": Normal(0, 1)}), "either log_joint"),
    "neither": (lambda: ModelTarget(), "either log_joint"),
    "no parameters": (lambda: ModelTarget(misspelled, {}), "needs parameters"),
    "not a tensor": (lambda: ModelTarget(lambda p: 3.0, {"mu": real()}), "must return a tensor"),
    "nothing of a likelihood": (
        lambda: of_mean(lambda p, y: None),
        "log_likelihood of ModelTarget must return a tensor, got NoneType",
    ),
    "a prior without names": (
        lambda: ModelTarget(prior=Normal(0.0, 1.0)),
        'prior must be a dictionary by name, such as {"mu": Normal',
    ),
    "parameters without names": (
        lambda: ModelTarget(misspelled, [real()]),
        'parameters must be a dictionary by name, such as {"mu": real',
    ),
    "an attribute for a key": (
        lambda: of_mean(lambda p, y: normal({"mu": p.mu}, y)),
        r"log_likelihood of ModelTarget fails .* write p\['mu'\] where it says p.mu",
    ),
    "a name of Python's that is not there": (
        lambda: of_mean(lambda p, y: nope(p["mu"])),  # noqa: F821
        "log_likelihood of ModelTarget fails .*: NameError: name 'nope' is not defined",
    ),
    "a division by zero": (
        lambda: ModelTarget(lambda p: p["mu"] / (1 // 0), {"mu": real()}),
        "log_joint of ModelTarget fails .*: ZeroDivisionError",
    ),
    "a data frame": (lambda: of_mean(normal, Frame()), r"data are a Frame, .* give a dictionary .*\.to_numpy\(\)"),
    "data that are infinite": (
        lambda: of_mean(normal, [1.0, math.inf, 2.0]),
        r"^data is infinite at \[1\] \(1 of 3 numbers\), and log_likelihood of ModelTarget is not finite",
    ),
    "infinite counts": (
        lambda: of_mean(lambda p, y: Poisson(p["mu"].exp()[:, None]).log_prob(y), [1.0, math.inf]),
        r"^data is infinite at \[1\] .* and log_likelihood of ModelTarget fails",
    ),
    "a density outside of its support": (
        lambda: ModelTarget(lambda p: Dirichlet(torch.ones(3)).log_prob(p["w"]), {"w": unit_interval(3)}),
        "Simplex",
    ),
    "data outside of a support": (
        lambda: ModelTarget(
            prior={"p": Beta(1.0, 1.0)},
            log_likelihood=lambda p, y: Bernoulli(p["p"][:, None]).log_prob(y),
            data=[1.0, 2.0],
        ),
        "Boolean",
    ),
    "counts beyond int64": (
        lambda: ModelTarget(lambda p, y: -p["mu"].square(), {"mu": real()}, np.array([2**63], np.uint64)),
        r"data has whole numbers above 2\^63 - 1: give them as float64",
    ),
    "data that are missing among others": (
        lambda: eight_schools_of([28.0, math.nan, -3, 7, -1, math.nan, 18, 12]),
        r"data y is NaN at \[1\] \(2 of 8 numbers\), and log_joint .* Leave missing observations out",
    ),
    "a missing number in one's own formula": (
        lambda: ModelTarget(lambda p, y: -(p["mu"][:, None] - y).square().sum(-1), {"mu": real()}, [[0.0, math.nan]]),
        r"data is NaN at \[0, 1\] \(1 of 2 numbers\), and log_joint of ModelTarget is NaN: data must be numbers",
    ),
    "a missing number in terms for model comparison": (
        lambda: ModelTarget(
            lambda p, y: -p["mu"].square(), {"mu": real()}, math.nan, log_likelihood=lambda p, y: p["mu"] - y
        ),
        "data is NaN, and log_likelihood",
    ),
    "no number among others": (
        lambda: eight_schools_of([28.0, None]),
        r"data y must be .*, got list with None at \[1\]",
    ),
    "rows of different lengths": (lambda: eight_schools_of([[1.0, 2.0], [3.0]]), "data y .* rows of different lengths"),
    "a mask, which a tensor has not": (
        lambda: eight_schools_of(np.ma.masked_array(Y, Y < 0)),
        "data y is a masked array, with 2 of 8 numbers missing",
    ),
    "data without a likelihood": (lambda: ModelTarget(prior={"mu": Normal(0.0, 1.0)}, data=3.0), "no log_likelihood"),
    "dimensions of no parameter": (lambda: eight_schools(dims={"x": ["a"]}), "dims are of x"),
    "too many dimensions": (lambda: eight_schools(dims={"z": ["a", "b"]}), "1 names"),
    "too few labels": (lambda: eight_schools(dims={"z": ["a"]}, coords={"a": ["A"]}), "8 labels"),
    "a likelihood that fails beside a joint": (
        lambda: eight_schools(log_likelihood=lambda p, data: p["nope"]),
        "log_likelihood.*'nope'",
    ),
    "a parameter that is never read, one draw at a time": (
        lambda: ModelTarget(lambda p: -p["mu"].square(), {"mu": real(), "tau": positive()}, batched=False),
        "never reads tau",
    ),
    "rows that are taken for observations": (
        lambda: ModelTarget(
            prior={"mu": Normal(0.0, 1.0)},
            log_likelihood=lambda p, y: Normal(p["mu"], 1.0).log_prob(y),
            data=[1.0, 1.0],
        ),
        "of one draw it makes 2",
    ),
    "a parameter of another kind": (lambda: ModelTarget(misspelled, {"mu": 3}), "Parameter mu:"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_infinite_data_that_do_no_harm_are_kept() -> None:
    """Bounds of what is censored; and a density that is zero near the origin for another reason."""

    def below(shift: float) -> ModelTarget:
        def log_joint(p: dict[str, Tensor], bounds: Tensor) -> Tensor:
            return torch.where((p["mu"][:, None] + shift < bounds).all(-1), -p["mu"].square(), -math.inf)

        return ModelTarget(log_joint, {"mu": real()}, [math.inf, 1.0])

    x = torch.tensor([[0.1]])
    assert float(below(0.0).log_prob(x)) == pytest.approx(-0.01) and float(below(100.0).log_prob(x)) == -math.inf


def test_a_parameter_with_a_prior_that_no_likelihood_reads_is_named() -> None:
    prior = {"mu": Normal(0.0, 1.0), "nu": Normal(0.0, 1.0)}
    with pytest.warns(UserWarning, match="log_likelihood of ModelTarget never reads nu") as caught:
        ModelTarget(prior=prior, log_likelihood=normal, data=[1.0, 2.0])
    assert caught[0].filename == __file__ and len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ModelTarget(prior=prior, log_likelihood=lambda p, y: normal({"mu": p["mu"] + p["nu"]}, y), data=[1.0, 2.0])
        ModelTarget(prior=prior)


def test_data_are_exact_copies() -> None:
    array = np.ones(2)
    data = {"time": [1700000001.0, 0.1], "n": [3, 4], "a.b": 1.0, "a_b": 2.0, "array": array}
    target = ModelTarget(lambda p, data: -p["mu"].square() - data["array"].sum(), {"mu": real()}, data)
    given = target.data.given
    assert given["time"].tolist() == [1700000001.0, 0.1] and given["n"].dtype == torch.int64
    assert (float(given["a.b"]), float(given["a_b"])) == (1.0, 2.0)
    array[:] = 100.0
    assert float(target.log_prob(torch.zeros(1, 1))) == -2.0
    assert len(list(target.parameters())) == 0  # torch's own, of a module without any


def test_missing_numbers_that_are_left_out_are_no_mistake() -> None:
    def log_joint(p: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
        return -p["mu"].square() - (p["mu"][:, None] - data["y"][~data["y"].isnan()]).square().sum(-1)

    target = ModelTarget(log_joint, {"mu": real()}, {"y": [1.0, math.nan]})
    assert float(target.log_prob(torch.zeros(1, 1))) == -1.0
    # What fails for another reason says so.
    with pytest.raises(InputError, match="^log_joint of ModelTarget fails at values of shapes mu .*size"):
        ModelTarget(lambda p, data: log_joint(p, data) + torch.zeros(3), {"mu": real()}, {"y": [1.0, math.nan]})


IMPROPER = {
    "single numbers": (
        lambda p: -p["a"].square() - p["c"].square().sum(-1) + torch.zeros_like(p["b"]).sum(-1),
        r"stays at .* along b\[0\] and b\[1\], however far",
    ),
    "numbers within": (
        lambda p: -p["a"].square() - p["b"].square().sum(-1) - p["c"][:, 0].square(),
        r"rises without bound as the free number of c\[1\] goes to infinity",
    ),
    "a difference": (
        lambda p: -(p["a"] - p["b"][:, 0]).square() - p["b"][:, 1].square() - p["c"].square().sum(-1),
        r"along the direction with a: -?1, b\[0\]: -?1, however far",
    ),
    "an angle": (
        lambda p: p["a"].cos() - p["b"].square().sum(-1) - p["c"].square().sum(-1),
        r": a has period 6.283; .* let its parameter live in one period, as in bounded\(-math.pi, math.pi\)",
    ),
}


@pytest.mark.parametrize("name", IMPROPER)
def test_what_has_no_integral_is_said_of_parameters(name: str) -> None:
    log_joint, said = IMPROPER[name]
    target = ModelTarget(log_joint, {"a": real(), "b": real(2), "c": ordered(2)})
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=said) as caught:
        check_proper(CountedTarget(target), x)
    assert "x[" not in str(caught.value) and "particles" not in str(caught.value)


def test_values_that_are_not_within_are_refused() -> None:
    target = eight_schools()
    values = {"mu": 0.0, "tau": torch.ones(5), "z": torch.zeros(8)}
    assert target.free(values).shape == (5, 10)
    for name, value in (("tau", -1.0), ("z", torch.zeros(7))):
        with pytest.raises(InputError, match=f"values of {name}"):
            target.free({**values, name: value})
    with pytest.raises(InputError, match="values must be of mu, tau, z"):
        target.free({"mu": 0.0})


def test_batches_of_none_and_matrices_that_rounding_makes_singular() -> None:
    target = ModelTarget(
        lambda p: -torch.linalg.cholesky(p["S"]).diagonal(dim1=-2, dim2=-1).sum(-1), {"S": covariance(2)}
    )
    assert target.log_prob(torch.zeros(0, 3)).shape == (0,)
    x = torch.tensor([[0.0, 0.0, 0.0], [-300.0, -300.0, 50.0], [1.0, 0.5, 0.2]])
    found = target.log_prob(x)
    assert found.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(found[[0, 2]], target.log_prob(x[[0, 2]]))

    def not_a_parameter(p: dict[str, Tensor]) -> Tensor:
        matrix = torch.eye(2) * p["mu"][:, None, None]
        return torch.linalg.cholesky(matrix).diagonal(dim1=-2, dim2=-1).sum(-1) - p["mu"].square()

    target = ModelTarget(not_a_parameter, {"mu": positive()})
    assert target.log_prob(torch.tensor([[0.0], [1.0]])).isfinite().all()


def test_threads_leave_defaults_as_they_were() -> None:
    target, x = eight_schools(), torch.zeros(50, 10)
    torch.set_default_dtype(torch.float32)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(target.log_prob, [x] * 40))
    assert all(torch.equal(one, found[0]) for one in found)
    assert torch.get_default_dtype() == torch.float32 and Distribution._validate_args


class OneIsFar(Target):
    """Half of the mass in N(0, 1), half within 0.01 of (40, -40, 40, ...): no path from elsewhere leads there."""

    def log_prob(self, x: Tensor) -> Tensor:
        centre = 40 * torch.tensor([1.0, -1.0]).repeat(4).to(x)
        wide = -0.5 * x.square().sum(-1)
        narrow = -0.5 * ((x - centre) / 0.01).square().sum(-1) - 8 * math.log(0.01)
        return torch.logaddexp(wide, narrow) - 4 * math.log(2 * math.pi) - math.log(2)


@pytest.mark.slow
def test_searches_begin_where_targets_say() -> None:
    target = OneIsFar(8)
    assert reference(target, 200, seed=0).estimate.log_z == pytest.approx(-math.log(2), abs=0.1)
    target.starting_points = lambda n, generator: 39.99 * torch.tensor([1.0, -1.0]).repeat(n, 4)
    assert reference(target, 200, seed=0).estimate.log_z == pytest.approx(0.0, abs=0.1)


def test_points_to_start_from_have_the_shape_of_states() -> None:
    target = OneIsFar(8)
    target.starting_points = lambda n, generator: torch.zeros(n, 5)
    with pytest.raises(InputError, match=r"starting_points must return .*\(m, 8\), got"):
        reference(target, 200, seed=0)


def test_constraints_are_parameters() -> None:
    target = ModelTarget(lambda p: -p["tau"], {"tau": constraints.positive})
    torch.testing.assert_close(target.log_prob(torch.zeros(1, 1)), torch.tensor([-1.0]))


def test_samplers_of_models_train_and_have_a_posterior() -> None:
    sampler = Sampler(eight_schools(), grid=10)
    posterior = sampler.posterior(200, seed=1, num_samples=300)
    assert posterior.values["z"].shape == (200, 8) and (posterior.values["tau"] > 0).all()
