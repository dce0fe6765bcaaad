"""The posteriors of examples/posteriors in NumPyro, sampled for long by NUTS: what other methods are compared with."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import torch
from jax import Array
from torch import Tensor

from examples.posteriors import CubedModel
from examples.posteriors.regressions import Horseshoe
from examples.posteriors.series import Garch, LotkaVolterra

numpyro.enable_x64()
Data = Mapping[str, Array] | Array


def schools_noncentred(data: Data) -> None:
    mu, tau = numpyro.sample("mu", dist.Normal(0.0, 5.0)), numpyro.sample("tau", dist.HalfCauchy(5.0))
    z = numpyro.sample("z", dist.Normal(jnp.zeros(8), 1.0))
    numpyro.sample("y", dist.Normal(mu + tau * z, data["s"]), obs=data["y"])


def schools_centred(data: Data) -> None:
    mu, tau = numpyro.sample("mu", dist.Normal(0.0, 5.0)), numpyro.sample("tau", dist.HalfCauchy(5.0))
    theta = numpyro.sample("theta", dist.Normal(mu * jnp.ones(8), tau))
    numpyro.sample("y", dist.Normal(theta, data["s"]), obs=data["y"])


def interaction(data: Data) -> None:
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(4), 5.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.sample("y", dist.Normal(data["design"] @ beta, sigma), obs=data["y"])


def varying_intercept(data: Data) -> None:
    mu, slope = (numpyro.sample(name, dist.Normal(0.0, 10.0)) for name in ("mu", "slope"))
    tau, sigma = (numpyro.sample(name, dist.HalfCauchy(1.0)) for name in ("tau", "sigma"))
    z = numpyro.sample("z", dist.Normal(jnp.zeros(data["member"].shape[-1]), 1.0))
    mean = data["member"] @ (mu + tau * z) + slope * data["mass"]
    numpyro.sample("y", dist.Normal(mean, sigma), obs=data["y"])


def garch(y: Array) -> None:
    mu, alpha0 = numpyro.sample("mu", dist.Normal(0.0, 10.0)), numpyro.sample("alpha0", dist.HalfNormal(5.0))
    alpha1, share = (numpyro.sample(name, dist.Uniform(0.0, 1.0)) for name in ("alpha1", "share"))
    beta1 = share * (1 - alpha1)

    def step(variance: Array, shock: Array) -> tuple[Array, Array]:
        return alpha0 + alpha1 * shock**2 + beta1 * variance, variance

    _, variance = jax.lax.scan(step, jnp.array(Garch.first_scale**2), y - mu)
    numpyro.sample("y", dist.Normal(mu, jnp.sqrt(variance)), obs=y)


def gaussian_process(data: Data) -> None:
    length, x = numpyro.sample("length", dist.Gamma(25.0, 4.0)), data["x"]
    amplitude, noise = (
        numpyro.sample(name, dist.HalfNormal(scale)) for name, scale in (("amplitude", 2.0), ("noise", 1.0))
    )
    smooth = amplitude**2 * jnp.exp(-((x[:, None] - x) ** 2) / (2 * length**2))
    covariance = smooth + noise**2 * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance), obs=data["y"])


def logistic(data: Data) -> None:
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(data["design"].shape[-1]), 1.0))
    numpyro.sample("y", dist.Bernoulli(logits=data["design"] @ beta), obs=data["y"])


def horseshoe(data: Data) -> None:
    n, num_features = data["features"].shape
    z = numpyro.sample("z", dist.Normal(jnp.zeros(num_features), 1.0))
    lamda = numpyro.sample("lamda", dist.HalfCauchy(jnp.ones(num_features)))
    tau = numpyro.sample("tau", dist.HalfCauchy(3 / 7 / n**0.5))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1.0))
    beta = z / jnp.sqrt(1 / (tau * lamda) ** 2 + 1 / Horseshoe.slab**2)
    numpyro.sample("y", dist.Normal(data["features"] @ beta, sigma), obs=data["y"])


def mixture(y: Array) -> None:
    w = numpyro.sample("w", dist.Dirichlet(jnp.ones(3)))
    mu = numpyro.sample("mu", dist.Normal(jnp.zeros(3), 5.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0 * jnp.ones(3)))
    numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(probs=w), dist.Normal(mu, sigma)), obs=y)


def galaxies(y: Array) -> None:
    w = numpyro.sample("w", dist.Dirichlet(jnp.ones(3)))
    mu = numpyro.sample("mu", dist.Normal(20 * jnp.ones(3), 10.0))
    variance = numpyro.sample("variance", dist.InverseGamma(3 * jnp.ones(3), 20.0))
    each = dist.Normal(mu, jnp.sqrt(variance))
    numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(probs=w), each), obs=y)


def lotka_volterra(data: Data) -> None:
    rates = numpyro.sample("rates", dist.TruncatedNormal(jnp.ones(2), 0.5, low=0.0))
    losses = numpyro.sample("losses", dist.TruncatedNormal(0.05 * jnp.ones(2), 0.05, low=0.0))
    start = numpyro.sample("start", dist.LogNormal(jnp.full(2, jnp.log(10.0)), 1.0))
    sigma = numpyro.sample("sigma", dist.LogNormal(-jnp.ones(2), 1.0))
    sign, h = jnp.array([1.0, -1.0]), LotkaVolterra.step_size

    def change(logs: Array) -> Array:
        return sign * (rates - losses * jnp.exp(jnp.minimum(logs[::-1], LotkaVolterra.largest)))

    def step(logs: Array, _: Any) -> tuple[Array, Array]:
        """Kutta's 3/8 rule, which is what torchdiffeq's "rk4" is."""
        k1 = change(logs)
        k2 = change(logs + h * k1 / 3)
        k3 = change(logs + h * (k2 - k1 / 3))
        k4 = change(logs + h * (k1 - k2 + k3))
        logs = logs + h * (k1 + 3 * k2 + 3 * k3 + k4) / 8
        return logs, logs

    a_year = round(1 / h)
    _, path = jax.lax.scan(step, jnp.log(start), None, a_year * (len(data["pelts"]) - 1))
    path = jnp.concatenate([jnp.log(start)[None], path[a_year - 1 :: a_year]])
    numpyro.sample("y", dist.LogNormal(path, sigma), obs=data["pelts"])


TWINS: dict[str, Callable[..., None]] = {
    twin.__name__: twin
    for twin in (
        schools_noncentred,
        schools_centred,
        interaction,
        varying_intercept,
        garch,
        gaussian_process,
        logistic,
        horseshoe,
        mixture,
        galaxies,
        lotka_volterra,
    )
}


def observed(model: CubedModel) -> Data:
    """The model's data as arrays."""
    given = {name: jnp.asarray(value.numpy()) for name, value in model.data.given.items()}
    return given if isinstance(model.data.for_functions(), dict) else next(iter(given.values()))


def run_nuts(
    name: str,
    model: CubedModel,
    seed: int,
    num_draws: int,
    num_warmup: int,
    num_chains: int,
    starts_at_medians: bool = False,
) -> tuple[Tensor, dict[str, Any]]:
    """Draws as free numbers of the model, with shape (chains, draws, D), and what they have cost.

    Chains start at medians of a few draws of the prior, or at uniform free numbers as NumPyro has it.
    """
    is_funnel = name == "schools_centred"  # in which NUTS misses the neck; the other form is the same posterior
    twin = TWINS["schools_noncentred" if is_funnel else name]
    start = numpyro.infer.init_to_median if starts_at_medians else numpyro.infer.init_to_uniform
    kernel = numpyro.infer.NUTS(twin, target_accept_prob=0.95, init_strategy=start)
    sampler = numpyro.infer.MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_draws,
        num_chains=num_chains,
        chain_method="sequential",
        progress_bar=False,
    )
    sampler.run(jax.random.PRNGKey(seed), observed(model), extra_fields=("num_steps", "diverging"))
    values = sampler.get_samples(group_by_chain=True)
    if is_funnel:
        values["theta"] = values["mu"][..., None] + values["tau"][..., None] * values["z"]
    extra = sampler.get_extra_fields()
    x = model.free({key: torch.from_numpy(jax.device_get(values[key]).copy()) for key in model.declared})
    # Warm-up is not counted by NumPyro: as many leapfrog steps a draw as later is what it takes at least.
    steps = float(extra["num_steps"].mean()) * num_chains * (num_draws + num_warmup)
    return x, {"num_target_evaluations": int(steps), "divergent": int(extra["diverging"].sum())}
