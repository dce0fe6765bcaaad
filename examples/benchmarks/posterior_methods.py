"""What is run on the posteriors of examples/posteriors: this library, NUTS, and samplers of others with their defaults.

Each method takes a model's name, the model and a seed, and gives `Found`. pocoMC, dynesty and nautilus walk in the unit
cube of prior quantiles (where pocoMC's probit makes the prior a standard normal one), and are given the likelihood of
whole batches where they take these: pocoMC and nautilus do, dynesty asks for one point at a time.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsampler import Sampler, fit, reference
from diffsampler.assessment import assess_draws
from diffsampler.baseline import Annealed
from diffsampler.log_z.estimate import NORMAL_97_5
from diffsampler.streams import new_generator
from examples.benchmarks.bridge import bridge
from examples.posteriors import CubedModel

MAX_STEPS, NUM_DRAWS, NUM_EVAL = 1000, 10_000, 1000
NUTS = {"num_draws": 10_000, "num_warmup": 2000, "num_chains": 4}
# Slow, and from NumPyro's own starts one chain of four stays where solutions explode, its R-hat at 38.
OWN_NUTS = {"lotka_volterra": {"num_draws": 3000, "num_warmup": 1000, "starts_at_medians": True}}
EDGE = 1e-15  # of the unit cube


@dataclass(frozen=True)
class Found:
    """What a method has found.

    Attributes:
        log_z: the log evidence, with a 95 % interval from `low` to `high`.
        x: draws as free numbers of the model, with shape (chains, n, D): one chain, unless they are of Markov chains.
        log_weight: of each draw, with shape (chains, n).
        num_target_evaluations: of the density or likelihood, one for each point.
        share: how many independent draws a draw is worth beside its weight, by what is known of it.
        more: figures by name.
        search: what `by_reference` finds, of a method that begins with it.
    """

    log_z: float
    low: float
    high: float
    x: Tensor
    log_weight: Tensor
    num_target_evaluations: int
    share: float = 1.0
    more: dict[str, Any] = field(default_factory=dict)
    search: "Found | None" = None


def by_diffsampler(name: str, model: CubedModel, seed: int) -> Found:
    """`fit(Sampler(model))` and 10 000 weighted draws."""
    sampler, start = Sampler(model), time.process_time()
    found = _of_search(sampler.search(seed), start)
    history = fit(sampler, MAX_STEPS, seed, num_eval_samples=NUM_EVAL, enable_progress_bar=False, accelerator="cpu")
    generator = new_generator("test", seed)
    x, log_weight = sampler.sample(NUM_DRAWS, return_log_weights=True, generator=generator)
    estimate = sampler.estimate_from(log_weight)
    verdict = assess_draws(sampler, x, log_weight, estimate, new_generator("metrics", seed), history).verdict
    more = {"grade": verdict.grade, "reasons": verdict.reasons, "khat": estimate.khat}
    more |= {"steps": history[-1]["step"], "ended": history[-1]["ended"], "ess": estimate.ess}
    cost = sampler.num_target_evaluations
    ends = estimate.low, estimate.high
    return Found(estimate.log_z, *ends, x[None], log_weight[None], cost, more=more, search=found)


def by_reference(name: str, model: CubedModel, seed: int) -> Found:
    """Searches, and importance weights or tempered SMC, without learning."""
    start = time.process_time()
    return _of_search(reference(model, seed=seed), start)


def _of_search(found: Annealed, start: float) -> Found:
    one = found.estimate
    more = {"ess": one.ess, "khat": one.khat, "unseen": one.unseen, "warnings": one.warnings}
    more["cpu_seconds"] = time.process_time() - start
    x, weight = found.x[None], found.log_weight[None]
    return Found(one.log_z, one.low, one.high, x, weight, one.num_target_evaluations, one.ess, more)


def by_nuts(name: str, model: CubedModel, seed: int) -> Found:
    """Four chains of NumPyro's NUTS, and bridge sampling of their draws."""
    from examples.benchmarks.posterior_oracles import run_nuts

    x, more = run_nuts(name, model, seed, **{**NUTS, **OWN_NUTS.get(name, {})})
    z = identified(model, x)
    share = min(1.0, min(effective_share(z), effective_share(z**2)))
    num_labels = labellings(model)

    def log_prob(x: Tensor) -> Tensor:
        """Of labels in their order only, where there are others: these have equal shares."""
        is_ordered = (identified(model, x) - x).abs().amax(-1) < 1e-9
        return torch.where(is_ordered, model.log_prob(x), -math.inf)

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        log_z, error = bridge(log_prob, z.flatten(0, 1), share, generator)
    log_z, half = log_z + math.log(num_labels), NORMAL_97_5 * error
    more |= {"ess": share, "rhat": rhat(z)}
    cost = more.pop("num_target_evaluations")
    return Found(log_z, log_z - half, log_z + half, x, torch.zeros(x.shape[:-1]), cost, more=more)


class Cube:
    """A model as likelihood and quantiles, which counts."""

    def __init__(self, model: CubedModel) -> None:
        self.model, self.count = model, 0

    @torch.no_grad()
    def log_likelihood(self, u: np.ndarray) -> np.ndarray:
        """With shape (n), for u with shape (n, D)."""
        self.count += len(u)
        found = self.model.log_likelihood_of(self.model.from_cube(self._inside(u))).numpy()
        return np.where(np.isnan(found), -np.inf, found)

    @torch.no_grad()
    def found(self, log_z: float, error: float, u: np.ndarray, log_weight: np.ndarray, **more: float) -> Found:
        x = self.model.free(self.model.from_cube(self._inside(u)))
        weight = torch.from_numpy(np.array(log_weight, dtype=np.float64))
        more["ess"] = float((2 * weight.logsumexp(0) - (2 * weight).logsumexp(0)).exp()) / len(weight)
        half = NORMAL_97_5 * error
        return Found(log_z, log_z - half, log_z + half, x[None], weight[None], self.count, more=more)

    @staticmethod
    def _inside(u: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(u, dtype=np.float64)).clamp(EDGE, 1 - EDGE)


def by_pocomc(name: str, model: CubedModel, seed: int) -> Found:
    import pocomc
    from scipy.stats import uniform

    cube = Cube(model)
    prior = pocomc.Prior([uniform(0, 1)] * model.dim)
    sampler = pocomc.Sampler(prior, cube.log_likelihood, vectorize=True, random_state=seed)
    sampler.run(progress=False)
    u, weight, _, _ = sampler.posterior()
    log_z, error = sampler.evidence()
    return cube.found(float(log_z), float(error), u, np.log(weight))


def by_dynesty(name: str, model: CubedModel, seed: int) -> Found:
    import dynesty

    cube = Cube(model)
    sampler = dynesty.NestedSampler(
        lambda u: float(cube.log_likelihood(u[None])[0]), lambda u: u, model.dim, rstate=np.random.default_rng(seed)
    )
    sampler.run_nested(print_progress=False)
    results = sampler.results
    return cube.found(
        float(results.logz[-1]), float(results.logzerr[-1]), results.samples, results.logwt - results.logz[-1]
    )


def by_nautilus(name: str, model: CubedModel, seed: int) -> Found:
    """Its error is one over the root of the effective draws, as its documentation says."""
    import nautilus

    cube = Cube(model)
    sampler = nautilus.Sampler(
        lambda u: u, cube.log_likelihood, n_dim=model.dim, vectorized=True, pass_dict=False, seed=seed
    )
    sampler.run(verbose=False)
    u, log_weight, _ = sampler.posterior()
    return cube.found(float(sampler.log_z), float(sampler.n_eff) ** -0.5, u, log_weight)


METHODS: dict[str, Callable[[str, CubedModel, int], Found]] = {
    "diffsampler": by_diffsampler,
    "reference": by_reference,
    "nuts": by_nuts,
    "pocomc": by_pocomc,
    "dynesty": by_dynesty,
    "nautilus": by_nautilus,
}


def identified(model: CubedModel, x: Tensor) -> Tensor:
    """The same points, with shape (*, D), with labels in their order, where the model has such."""
    return model.free(model.identified(model.constrain(x.double())))


def labellings(model: CubedModel) -> int:
    """In how many orders a point with three components is the same: 6, or 1 where labels have their meaning."""
    x = torch.randn(64, model.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 1 if torch.allclose(identified(model, x), x) else 6


def effective_share(x: Tensor, num_batches: int = 20) -> float:
    """How many independent draws a draw of chains, with shape (chains, n, D), is worth: the worst of D, by batches."""
    n = x.shape[1] // num_batches * num_batches
    means = x[:, :n].unflatten(1, (num_batches, -1)).mean(2).flatten(0, 1)
    a_batch = n // num_batches
    return float((x.flatten(0, 1).var(0) / (a_batch * means.var(0))).min())


def rhat(x: Tensor) -> float:
    """Of halves of chains with shape (chains, n, D), the worst of D (Gelman et al., 2013, section 11.4)."""
    halves = torch.cat(x.tensor_split(2, 1)) if x.shape[1] % 2 == 0 else torch.cat(x[:, 1:].tensor_split(2, 1))
    within, between = halves.var(1).mean(0), halves.mean(1).var(0)
    return float((1 + between / within).sqrt().max())
