"""Models as targets: log joints and priors, data, and what is said where they do not fit together."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Dirichlet,
    Gamma,
    HalfCauchy,
    LKJCholesky,
    Multinomial,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
    Wishart,
    constraints,
)

from diffsampler import InputError, Sampler, reference
from diffsampler.models import ModelTarget, positive, real, simplex

Y, S = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12]), torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18])
SCHOOLS = {"y": Y, "s": S}


def non_centred(p: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
    theta = p["mu"][..., None] + p["tau"][..., None] * p["z"]
    prior = Normal(0, 5).log_prob(p["mu"]) + HalfCauchy(5).log_prob(p["tau"]) + Normal(0, 1).log_prob(p["z"]).sum(-1)
    return prior + Normal(theta, data["s"]).log_prob(data["y"]).sum(-1)


def eight_schools(**options: object) -> ModelTarget:
    return ModelTarget(non_centred, {"mu": real(), "tau": positive(), "z": real(8)}, SCHOOLS, **options)


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


# Exact evidences in closed form; 30 is the sum of the counts.
def beta_binomial() -> tuple[ModelTarget, float]:
    target = ModelTarget(
        prior={"p": Beta(0.5, 2.0)},
        log_likelihood=lambda p, k: Binomial(20, p["p"]).log_prob(k),
        data=torch.tensor(3.0),
    )
    log_beta = lambda a, b: math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)  # noqa: E731
    choose = math.lgamma(21) - math.lgamma(4) - math.lgamma(18)
    return target, choose + log_beta(3.5, 19.0) - log_beta(0.5, 2.0)


def gamma_poisson() -> tuple[ModelTarget, float]:
    counts = torch.tensor([3.0, 0, 5, 2, 4])
    target = ModelTarget(
        prior={"rate": Gamma(2.0, 1.0)},
        log_likelihood=lambda p, n: Poisson(p["rate"][..., None]).log_prob(n),
        data=counts,
    )
    total = float(counts.sum())
    log_z = math.lgamma(2 + total) - (2 + total) * math.log(6) - sum(math.lgamma(n + 1) for n in counts.tolist())
    return target, log_z - math.lgamma(2)


def dirichlet_multinomial() -> tuple[ModelTarget, float]:
    counts, alpha = torch.tensor([9.0, 1, 20]), torch.tensor([0.5, 1.0, 2.0])
    target = ModelTarget(
        lambda p, n: Dirichlet(alpha.double()).log_prob(p["w"]) + Multinomial(30, p["w"]).log_prob(n),
        {"w": simplex(3)},
        counts,
    )
    log_b = lambda a: float(torch.lgamma(a).sum() - torch.lgamma(a.sum()))  # noqa: E731
    return target, math.lgamma(31) - float(torch.lgamma(counts + 1).sum()) + log_b(alpha + counts) - log_b(alpha)


def covariance_of_normals() -> tuple[ModelTarget, float]:
    """x_i ~ N(0, P^-1), P ~ Wishart(5, 1) of 2 x 2: a multivariate t in closed form."""
    x = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.7, -1.1]])
    target = ModelTarget(
        prior={"P": Wishart(torch.tensor(5.0), torch.eye(2))},
        log_likelihood=lambda p, x: MultivariateNormal(
            torch.zeros(2), precision_matrix=p["P"][..., None, :, :]
        ).log_prob(x),
        data=x,
    )
    log_gamma2 = lambda a: 0.5 * math.log(math.pi) + math.lgamma(a) + math.lgamma(a - 0.5)  # noqa: E731
    scatter = torch.linalg.slogdet(torch.eye(2) + x.T @ x).logabsdet
    return target, -3 * math.log(math.pi) + log_gamma2(4.0) - log_gamma2(2.5) - 4.0 * float(scatter)


CONJUGATE = [beta_binomial, gamma_poisson, dirichlet_multinomial, covariance_of_normals]


@pytest.mark.parametrize("make", CONJUGATE)
def test_evidence_of_conjugate_models(make: object) -> None:
    target, exact = make()
    estimate = reference(target, 500, seed=0).estimate
    # 4.5 standard errors, 7e-6; the standard error is a few thousandths.
    assert abs(estimate.log_z - exact) < 4.5 / 1.96 * (estimate.high - estimate.log_z) < 0.2


def test_priors_alone_have_the_evidence_one() -> None:
    prior = {
        "L": LKJCholesky(3, 2.0),
        "w": Dirichlet(torch.tensor([0.5, 3.0, 1.0])),
        "u": Uniform(torch.tensor([-1.0, 0.0]), 3.0),
    }
    estimate = reference(ModelTarget(prior=prior), 500, seed=0).estimate
    assert abs(estimate.log_z) < 4.5 / 1.96 * (estimate.high - estimate.log_z) < 0.2


def misspelled(p: dict[str, Tensor]) -> Tensor:
    return -p["mew"].square()


def mixes(p: dict[str, Tensor]) -> Tensor:
    return -p["mu"].square() - p["mu"].mean().square()


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
        lambda: ModelTarget(non_centred, eight_schools().parameters, {"y": Y[:5], "s": S}),
        r"y \(5,\), s \(8,\)",
    ),
    "data that are missing": (lambda: ModelTarget(non_centred, eight_schools().parameters, {"y": Y}), "'s'"),
    "no numbers": (lambda: ModelTarget(non_centred, eight_schools().parameters, {"y": "abc"}), "data y"),
    "a discrete prior": (lambda: ModelTarget(prior={"k": Bernoulli(0.3)}), "Parameter k:.*discrete"),
    "a prior that is none": (lambda: ModelTarget(prior={"k": 3.0}), "prior of k"),
    "both ways": (lambda: ModelTarget(misspelled, {"mu": real()}, prior={"mu": Normal(0, 1)}), "either log_joint"),
    "neither": (lambda: ModelTarget(), "either log_joint"),
    "no parameters": (lambda: ModelTarget(misspelled, {}), "needs parameters"),
    "not a tensor": (lambda: ModelTarget(lambda p: 3.0, {"mu": real()}), "must return a tensor"),
    "a parameter of another kind": (lambda: ModelTarget(misspelled, {"mu": 3}), "Parameter mu:"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_constraints_are_parameters() -> None:
    target = ModelTarget(lambda p: -p["tau"], {"tau": constraints.positive})
    torch.testing.assert_close(target.log_prob(torch.zeros(1, 1)), torch.tensor([-1.0]))


def test_samplers_of_models_train_and_have_a_posterior() -> None:
    sampler = Sampler(eight_schools(), grid=10)
    posterior = sampler.posterior(200, seed=1, num_samples=300)
    assert posterior.values["z"].shape == (200, 8) and (posterior.values["tau"] > 0).all()
