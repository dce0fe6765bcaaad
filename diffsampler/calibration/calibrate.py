"""Data from the prior, fits, and where the truth ranks among their draws."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from diffsampler.assessment import assess_draws
from diffsampler.calibration.kept import read_fits, write_fits
from diffsampler.calibration.result import Calibration, OneFit
from diffsampler.calibration.simulation import Model, first_of, posterior_target, seed_of, simulated
from diffsampler.calibration.warm_starts import WarmStarts
from diffsampler.errors import InputError, check_count
from diffsampler.fingerprint import describe
from diffsampler.log_z import LogZDifference, LogZEstimate
from diffsampler.models import ModelTarget
from diffsampler.models.declarations import read_parameters
from diffsampler.models.distributions import in_double
from diffsampler.models.named_target import Values
from diffsampler.models.names import labels_of, values_of
from diffsampler.models.summary import columns_of
from diffsampler.paths import rolled_back_log_weight
from diffsampler.progress import progress_of
from diffsampler.sampler import Sampler
from diffsampler.streams import new_generator
from diffsampler.training.fit import check_options


def calibrate(
    model: Model,
    prior: Mapping[str, Distribution],
    n: int = 100,
    log_evidence: Callable[[Any], float] | None = None,
    num_draws: int = 99,
    num_samples: int = 10_000,
    max_steps: int = 400,
    seed: int = 0,
    file: str | Path | None = None,
    progress_bar: bool = True,
    **options: Any,
) -> Calibration:
    """Simulation-based calibration of everything between a model and its posterior.

    Parameters are drawn from the prior, data from the model, and a sampler is fitted to these: the parameters are then
    a draw of the very posterior, so that among draws of the sampler each has a uniform rank. So has the
    log-likelihood, which is ranked too. Fits are warm starts where searches find that to be enough.

    References:
        Validating Bayesian inference algorithms with simulation-based calibration, Talts et al., 2018,
        arXiv:1804.06788.
        Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes
        sensitivity, Modrák et al., 2023, arXiv:2211.02383.

    Arguments:
        model: maps values by name, each with shape (B, *shape), to the distribution of the data (or to several, by
            name), with the draws first, as a likelihood of `ModelTarget` would.
        prior: a `torch.distributions` object for each parameter.
        n: how many data sets.
        log_evidence: the exact log evidence of data, where it is known; else that of the search, an independent
            estimate, stands in for it.
        num_draws: of each posterior, among which the truth is ranked.
        num_samples: weighted draws that these are chosen from.
        max_steps: of each fit, which ends by itself as soon as it may.
        seed: of all noise.
        file: keeps finished fits as JSON, and the sampler that the next one begins from beside it: a calibration that
            was cut off goes on from there, to what it would have come to. What has failed is tried once more.
        progress_bar: whether to show how far it is.
        options: any other argument of `fit`.

    Raises:
        InputError: if model and prior do not fit together, the file is of another calibration, or all fits fail.

    Example:
        >>> from torch.distributions import Normal
        >>> found = calibrate(
        ...     lambda p: Normal(p["mu"][:, None].expand(-1, 5), 1.0), {"mu": Normal(0.0, 2.0)}, n=20
        ... )  # doctest: +SKIP
        >>> print(found)  # doctest: +SKIP
    """
    check_count("n", n, minimum=2)
    check_count("num_draws", num_draws, minimum=9)
    check_count("num_samples", num_samples, minimum=10 * num_draws)
    check_count("max_steps", max_steps)
    check_count("seed", seed, minimum=0)
    if taken := sorted({"target", "sampler", "ckpt_path"} & options.keys()):
        raise InputError(f"calibrate makes the fits itself: leave {taken[0]} out.")
    check_options(options)
    for name, one in {"model": model, "log_evidence": log_evidence}.items():
        if not (callable(one) or (one is None and name == "log_evidence")):
            raise InputError(f"{name} must be a function, got {one!r:.80}.")
    read_parameters(None, prior)
    prior = {name: in_double(each) for name, each in prior.items()}
    made_of = {
        **{"prior": describe(prior), "num_draws": num_draws, "num_samples": num_samples, "seed": seed},
        **{"max_steps": max_steps, "options": describe(options), "is_exact": log_evidence is not None},
        "first data set": first_of(model, prior, seed),
    }
    finished, start = ([], None) if file is None else read_fits(Path(file), made_of)
    fits_before = WarmStarts({"max_steps": max_steps, "enable_progress_bar": False, **options})
    to_do = [k for k in range(n) if k >= len(finished) or isinstance(finished[k], str)]  # what has failed, again
    if start is not None and to_do:
        of_start = simulated(model, prior, seed, start["number"])
        fits_before.restore(Path(file), start, posterior_target(model, prior, of_start[1]))
    with progress_of("Calibration", n, " fits", progress_bar) as tell:
        for k in range(n):
            if k in to_do:
                try:
                    truth, data = simulated(model, prior, seed, k)
                    target = posterior_target(model, prior, data)
                    # What has failed is no start now: fits after it have begun from others.
                    sampler, history = fits_before.fit(target, seed_of(seed, k), k if k >= len(finished) else None)
                    exact = None if log_evidence is None else float(log_evidence(target.data.for_functions()))
                    found: OneFit | str = _judged(sampler, truth, history, exact, num_draws, num_samples, seed, k)
                except InputError as error:
                    found = str(error)
                finished[k:] = [found, *finished[k + 1 :]]
                if file is not None:
                    fits_before.save(Path(file))
                    write_fits(Path(file), made_of, finished, fits_before.to_dict() or start)
                    fits_before.remove_others(Path(file))
            tell(k + 1)
    finished = finished[:n]
    fits = [found for found in finished if isinstance(found, OneFit)]
    failed = {k: found for k, found in enumerate(finished) if isinstance(found, str)}
    if not fits:
        raise InputError(f"All {n} fits failed; the first: {failed[0]}")
    return Calibration(fits, failed, num_draws, is_exact=log_evidence is not None)


def _judged(
    sampler: Sampler,
    truth: Values,
    history: list[dict[str, Any]],
    exact: float | None,
    num_draws: int,
    num_samples: int,
    seed: int,
    k: int,
) -> OneFit:
    """Where the truth ranks, and how far the evidence is off."""
    target, generator = sampler.target, new_generator("calibrate", seed, step=k, device=sampler.device)
    x, log_weight = sampler.sample(num_samples, return_log_weights=True, generator=generator)
    estimate = sampler.estimate_from(log_weight)
    grade = assess_draws(sampler, x, log_weight, estimate, generator, history).verdict.grade
    rows = torch.multinomial(log_weight.softmax(0), num_draws, replacement=True, generator=generator)
    at_truth = target.free(truth).to(x)
    drawn, true = _quantities(target, x[rows]), _quantities(target, at_truth)
    ranks = {name: _rank(values, true[name], generator) for name, values in drawn.items()}
    back = float(rolled_back_log_weight(sampler.dynamics, at_truth, generator))
    return OneFit(
        ranks=ranks,
        log_z=(estimate.log_z, estimate.low, estimate.high),
        error=_error(estimate, exact, sampler.reference),
        log_ratio=estimate.log_z - back,
        grade=grade,
        evaluations=sampler.num_target_evaluations,
        reused=history[-1].get("reused", "") if history else "",
    )


def _rank(values: Tensor, true: Tensor, generator: torch.Generator) -> int:
    """How many of the values are below the true one; among equal ones its place is any, with equal chances."""
    num_equal = int((values == true).sum())
    among = int(torch.randint(num_equal + 1, (), generator=generator, device=values.device))
    return int((values < true).sum()) + among


def _error(estimate: LogZEstimate, exact: float | None, search: LogZEstimate) -> tuple[float, float, float]:
    if exact is not None:
        return tuple(end - exact for end in (estimate.log_z, estimate.low, estimate.high))
    found: LogZDifference = estimate - search
    return found.value, found.low, found.high


def _quantities(target: ModelTarget, x: Tensor) -> dict[str, Tensor]:
    """What is ranked, each with shape (n): every entry of every parameter, and the log-likelihood."""
    found = {}
    for name, values in values_of(target, x).items():
        found.update(columns_of(name, values, labels_of(target).get(name, [])))
    found["log-likelihood"] = target.log_likelihoods(x).flatten(1).sum(-1)
    return found
