"""Regressions on data that scikit-learn ships: an interaction, varying intercepts, a logistic one, the horseshoe."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli, HalfCauchy, Normal

from diffsampler.errors import InputError
from examples.posteriors.base import CubedModel, Values


class Interaction(CubedModel):
    """Progression of diabetes by sex, body mass and both, as `kidscore_interaction` of posteriordb is written.

    Data Analysis Using Regression and Multilevel/Hierarchical Models, Gelman & Hill, 2007, chapter 3. There
    coefficients are flat; here they have priors, for an evidence.
    """

    def __init__(self) -> None:
        features, y = diabetes()
        sex, mass = features[:, 1], features[:, 2]
        design = torch.stack([torch.ones_like(y), sex, mass, sex * mass], -1)

        def log_likelihood(p: Values, data: Values) -> Tensor:
            return Normal(p["beta"] @ data["design"].T, p["sigma"][:, None]).log_prob(data["y"])

        super().__init__(
            prior={"beta": Normal(torch.zeros(4), 5.0), "sigma": HalfCauchy(2.5)},
            log_likelihood=log_likelihood,
            data={"design": design, "y": y},
            log_z=-554.6577,  # by quadrature over sigma
        )


class VaryingIntercept(CubedModel):
    """Progression of diabetes by body mass, with an intercept for each decade of age: the radon model, non-centred.

    Gelman & Hill, 2007, chapter 12, with decades for counties and body mass for floors.
    """

    def __init__(self) -> None:
        features, y = diabetes()
        age = diabetes(scaled=False)[0][:, 0]
        member = torch.nn.functional.one_hot((age / 10).floor().long() - 1).double()  # (N, decades)

        def log_likelihood(p: Values, data: Values) -> Tensor:
            intercept = p["mu"][:, None] + p["tau"][:, None] * p["z"]
            mean = intercept @ data["member"].T + p["slope"][:, None] * data["mass"]
            return Normal(mean, p["sigma"][:, None]).log_prob(data["y"])

        super().__init__(
            prior={
                "mu": Normal(0.0, 10.0),
                "slope": Normal(0.0, 10.0),
                "tau": HalfCauchy(1.0),
                "sigma": HalfCauchy(1.0),
                "z": Normal(torch.zeros(member.shape[-1]), 1.0),
            },
            log_likelihood=log_likelihood,
            data={"member": member, "mass": features[:, 2], "y": y},
            log_z=-549.2797,  # by quadrature over tau and sigma
        )


class BreastCancerLogistic(CubedModel):
    """Malignancy of 569 tumours by 30 features and an intercept, all with N(0, 1) priors: 31-d.

    The evidence is audited, +- 0.01: `targets.BreastCancer`, which is this by hand.
    """

    def __init__(self) -> None:
        features, labels = _shipped("load_breast_cancer")
        design = torch.cat([torch.ones(len(features), 1).double(), standardised(features)], -1)

        def log_likelihood(p: Values, data: Values) -> Tensor:
            return Bernoulli(logits=p["beta"] @ data["design"].T).log_prob(data["y"])

        super().__init__(
            prior={"beta": Normal(torch.zeros(31), 1.0)},
            log_likelihood=log_likelihood,
            data={"design": design, "y": labels},
            log_z=-55.23,
        )


class Horseshoe(CubedModel):
    """Progression of diabetes in 60 patients by ten features, with the regularised horseshoe: 22-d.

    Sparsity information and regularization in the horseshoe and other shrinkage priors, Piironen & Vehtari, 2017:
    about three of ten coefficients matter, hence the scale of tau, and slabs have the width 2.
    """

    slab = 2.0

    def __init__(self) -> None:
        features, y = diabetes()
        rows = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:60]
        features, y = standardised(features[rows]), standardised(y[rows])
        scale = 3 / (10 - 3) / len(y) ** 0.5

        def log_likelihood(p: Values, data: Values) -> Tensor:
            widths = p["tau"][:, None] * p["lamda"]
            beta = p["z"] * widths * self.slab / (self.slab**2 + widths**2).sqrt()
            return Normal(beta @ data["features"].T, p["sigma"][:, None]).log_prob(data["y"])

        super().__init__(
            prior={
                "z": Normal(torch.zeros(10), 1.0),
                "lamda": HalfCauchy(torch.ones(10)),
                "tau": HalfCauchy(scale),
                "sigma": HalfCauchy(1.0),
            },
            log_likelihood=log_likelihood,
            data={"features": features, "y": y},
        )


def diabetes(scaled: bool = True) -> tuple[Tensor, Tensor]:
    """Ten features of 442 patients and the progression of their disease after a year (Efron et al., 2004).

    Standardised, float64, with shapes (442, 10) and (442); or as they are.
    """
    features, y = _shipped("load_diabetes", scaled=False)
    return (standardised(features), standardised(y)) if scaled else (features, y)


def standardised(values: Tensor) -> Tensor:
    """With mean 0 and standard deviation 1 along the first dimension."""
    return (values - values.mean(0)) / values.std(0, correction=0)


def _shipped(name: str, **options: bool) -> tuple[Tensor, Tensor]:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError('This model needs scikit-learn for its data: pip install "diffsampler[data]".') from error
    features, y = getattr(datasets, name)(return_X_y=True, **options)
    return torch.as_tensor(features, dtype=torch.float64), torch.as_tensor(y, dtype=torch.float64)
