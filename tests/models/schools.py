"""Eight schools in two forms, as every package writes them. log Z is -31.311, by quadrature over mu and tau.

Rubin, Estimation in parallel randomized experiments, 1981, https://doi.org/10.3102/10769986006004377.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.stats import halfcauchy, norm
from torch.distributions import HalfCauchy, Normal

from diffsampler.models import ModelTarget, NumPyroTarget, PyMCTarget, PyroTarget, StanModel, positive, real

LOG_Z = -31.311
FORMS = {"noncentred": "eta", "centred": "theta"}  # and what the effects are called
EFFECTS = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
ERRORS = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]
DATA = {"J": 8, "y": EFFECTS, "sigma": ERRORS}
NAMES = list("ABCDEFGH")

PROGRAMS = {
    "noncentred": """
data { int<lower=0> J; vector[J] y; vector<lower=0>[J] sigma; }
parameters { real mu; real<lower=0> tau; vector[J] eta; }
transformed parameters { vector[J] theta = mu + tau * eta; }
model {
  mu ~ normal(0, 5);
  target += cauchy_lpdf(tau | 0, 5) + log(2);
  eta ~ std_normal();
  y ~ normal(theta, sigma);
}
generated quantities {
  vector[J] log_lik;
  for (j in 1:J) log_lik[j] = normal_lpdf(y[j] | theta[j], sigma[j]);
}
""",
    "centred": """
data { int<lower=0> J; vector[J] y; vector<lower=0>[J] sigma; }
parameters { real mu; real<lower=0> tau; vector[J] theta; }
model {
  mu ~ normal(0, 5);
  target += cauchy_lpdf(tau | 0, 5) + log(2);
  theta ~ normal(mu, tau);
  y ~ normal(theta, sigma);
}
""",
}


def by_torch(form: str) -> ModelTarget:
    """The reference: mu, tau and effects in this order."""
    is_centred, name = form == "centred", FORMS[form]

    def log_joint(p: dict, data: dict) -> torch.Tensor:
        mu, tau, effect = p["mu"], p["tau"], p[name]
        prior = Normal(0, 5).log_prob(mu) + HalfCauchy(5).log_prob(tau)
        theta = effect if is_centred else mu[:, None] + tau[:, None] * effect
        of_effects = Normal(mu[:, None], tau[:, None]) if is_centred else Normal(0, 1)
        likelihood = Normal(theta, data["sigma"]).log_prob(data["y"]).sum(-1)
        return prior + of_effects.log_prob(effect).sum(-1) + likelihood

    return ModelTarget(log_joint, {"mu": real(), "tau": positive(), name: real(8)}, DATA)


def by_pymc(form: str, **options: Any) -> PyMCTarget:
    import pymc

    with pymc.Model(coords={"school": NAMES}) as model:
        mu = pymc.Normal("mu", 0, 5)
        tau = pymc.HalfCauchy("tau", 5)
        if form == "centred":
            theta = pymc.Normal("theta", mu, tau, dims="school")
        else:
            theta = pymc.Deterministic("theta", mu + tau * pymc.Normal("eta", 0, 1, dims="school"), dims="school")
        pymc.Normal("obs", theta, ERRORS, observed=EFFECTS, dims="school")
    return PyMCTarget(model, **options)


def by_numpyro(form: str, **options: Any) -> NumPyroTarget:
    import numpyro
    from numpyro.distributions import HalfCauchy, Normal

    def model(errors: np.ndarray, effects: np.ndarray | None = None) -> None:
        mu, tau = numpyro.sample("mu", Normal(0, 5)), numpyro.sample("tau", HalfCauchy(5))
        with numpyro.plate("school", 8):
            if form == "centred":
                theta = numpyro.sample("theta", Normal(mu, tau))
            else:
                theta = numpyro.deterministic("theta", mu + tau * numpyro.sample("eta", Normal(0, 1)))
            numpyro.sample("obs", Normal(theta, errors), obs=effects)

    return NumPyroTarget(model, (np.array(ERRORS),), {"effects": np.array(EFFECTS)}, **options)


def by_pyro(form: str, **options: Any) -> PyroTarget:
    import pyro
    from pyro.distributions import HalfCauchy, Normal

    def model(errors: torch.Tensor, effects: torch.Tensor | None = None) -> None:
        mu, tau = pyro.sample("mu", Normal(0, 5)), pyro.sample("tau", HalfCauchy(5))
        with pyro.plate("school", 8):
            if form == "centred":
                theta = pyro.sample("theta", Normal(mu, tau))
            else:
                theta = pyro.deterministic("theta", mu + tau * pyro.sample("eta", Normal(0, 1)), event_dim=0)
            pyro.sample("obs", Normal(theta, errors), obs=effects)

    return PyroTarget(model, (torch.tensor(ERRORS),), {"effects": torch.tensor(EFFECTS)}, **options)


def by_stan(form: str, **options: Any) -> StanModel:
    """By an object with BridgeStan's interface."""
    return StanModel(model=LikeBridgeStan(form), **options)


class LikeBridgeStan:
    """What BridgeStan makes of the programs above, as far as the adapter asks for it; in SciPy.

    As Stan does, it says theta counted from 1, drops constants where it is told to, and rejects infinite scales.
    """

    def __init__(self, form: str) -> None:
        self.form = form

    def param_unc_num(self) -> int:
        return 10

    def param_unc_names(self) -> list[str]:
        return self.param_names()

    def param_names(self, *, include_tp: bool = False, include_gq: bool = False) -> list[str]:
        is_centred = self.form == "centred"
        later = [] if is_centred else ["theta"] * include_tp + ["log_lik"] * include_gq
        return ["mu", "tau", *(f"{name}.{k}" for name in [FORMS[self.form], *later] for k in range(1, 9))]

    def new_rng(self, seed: int) -> SimpleNamespace:
        return SimpleNamespace(seed=seed)

    def param_constrain(
        self, theta_unc: np.ndarray, *, include_tp: bool = False, include_gq: bool = False, rng: Any = None
    ) -> np.ndarray:
        if include_gq and rng is None:
            raise ValueError("Error: must specify rng when including generated quantities")
        mu, tau, effect, theta = self._parts(theta_unc)
        parts = [[mu, tau], effect]
        if self.form != "centred":
            parts += [theta] * include_tp + [norm.logpdf(EFFECTS, theta, ERRORS)] * include_gq
        return np.concatenate(parts)

    def log_density(self, theta_unc: np.ndarray, *, propto: bool = True, jacobian: bool = True) -> float:
        mu, tau, effect, theta = self._parts(theta_unc)
        if not np.isfinite(tau):
            raise RuntimeError("log_density() failed with exception: Exception: normal_lpdf: Scale parameter is inf")
        of_effects = norm.logpdf(effect, mu, tau) if self.form == "centred" else norm.logpdf(effect)
        terms = norm.logpdf(mu, 0, 5), halfcauchy.logpdf(tau, 0, 5), of_effects, norm.logpdf(EFFECTS, theta, ERRORS)
        constants = 17 * 0.5 * np.log(2 * np.pi) if propto else 0.0
        return float(sum(map(np.sum, terms)) + constants + (np.log(tau) if jacobian else 0.0))

    def log_density_gradient(
        self, theta_unc: np.ndarray, *, propto: bool = True, jacobian: bool = True
    ) -> tuple[float, np.ndarray]:
        value = self.log_density(theta_unc, propto=propto, jacobian=jacobian)
        mu, tau, effect, theta = self._parts(theta_unc)
        of_theta = (np.array(EFFECTS) - theta) / np.square(ERRORS)
        of_tau = -2 * tau / (25 + tau**2)
        if self.form == "centred":
            away = (effect - mu) / tau**2
            of_mu, of_tau, of_effect = away.sum(), of_tau + (tau * away**2 - 1 / tau).sum(), of_theta - away
        else:
            of_mu, of_tau, of_effect = of_theta.sum(), of_tau + of_theta @ effect, tau * of_theta - effect
        return value, np.array([of_mu - mu / 25, tau * of_tau + jacobian, *of_effect])

    def _parts(self, x: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
        mu, effect = x[0], x[2:]
        with np.errstate(over="ignore"):
            tau = np.exp(x[1])
        return mu, tau, effect, effect if self.form == "centred" else mu + tau * effect
