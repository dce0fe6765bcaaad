"""Models compared by their evidence: log Bayes factors and posterior probabilities, with intervals."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

from diffsampler.assessment import Assessment
from diffsampler.errors import InputError, in_one_line
from diffsampler.log_z import LogZDifference, LogZEstimate, Verdict, judge
from diffsampler.log_z.difference import difference
from diffsampler.log_z.estimate import NORMAL_97_5
from diffsampler.log_z.verdict import GRADES


@dataclass(frozen=True)
class Comparison:
    """Models by falling evidence; print it.

    Attributes:
        log_z: of each model, with its 95 % interval, by name.
        probability: the posterior one of each model, by name, with its 95 % interval.
        verdict: no better than the worst of the models' own.
    """

    log_z: dict[str, tuple[float, float, float]]
    probability: dict[str, tuple[float, float, float]]
    verdict: Verdict

    def log_bayes_factor(self, first: str, second: str) -> LogZDifference:
        """The log of how many times as probable the first model makes the data as the second, whatever their prior.

        Raises:
            InputError: if there is no model of that name.
        """
        for name in (first, second):
            if name not in self.log_z:
                raise InputError(f"there is no model {name!r}; there are {', '.join(self.log_z)}.")
        return difference(self.log_z[first], self.log_z[second])

    def plot(self) -> Any:
        """A figure of matplotlib: log Bayes factors to the best model, posterior probabilities, and their intervals."""
        from diffsampler.report.comparison_figure import plot_comparison  # as late as matplotlib is needed

        return plot_comparison(self.log_z, self.probability)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; ends of intervals that are not there become None."""
        best = next(iter(self.log_z))
        models = {}
        for name in self.log_z:
            to_best = self.log_bayes_factor(name, best)
            factor = (0.0, 0.0, 0.0) if name == best else (to_best.value, to_best.low, to_best.high)
            figures = {"log_z": self.log_z, "probability": self.probability, "log_bayes_factor": {name: factor}}
            models[name] = {key: _ends(value[name]) for key, value in figures.items()}
        return {"models": models, "best": best, "verdict": asdict(self.verdict)}

    def __str__(self) -> str:
        best, width = next(iter(self.log_z)), max(5, *map(len, self.log_z))
        lines = [f"{'model':<{width}}  {'log Z':>30}  {'log Bayes factor to the first':>34}  {'probability':>24}"]
        for name, (value, low, high) in self.log_z.items():
            factor = "0" if name == best else str(self.log_bayes_factor(name, best))
            share, least, most = self.probability[name]
            cells = f"{value:.4f} [{low:.4f}, {high:.4f}]", factor, f"{share:.4f} [{least:.4f}, {most:.4f}]"
            lines.append(f"{name:<{width}}  {cells[0]:>30}  {cells[1]:>34}  {cells[2]:>24}")
        reasons = "".join(f"\n    {reason}" for reason in self.verdict.reasons)
        return "\n".join(lines) + f"\n  verdict: {self.verdict.grade}{reasons}"


def compare(models: Mapping[str, Assessment | LogZEstimate], prior: Mapping[str, float] | None = None) -> Comparison:
    """Compare models of the same data by their evidence.

    Arguments:
        models: what `assess` returned for each, by name; or estimates alone, which are judged by their weights.
        prior: the probability of each model before the data, by name, up to a factor; by default all are equal.

    Raises:
        InputError: if there are fewer than two models, or one is something else, or a prior is missing.

    Example:
        >>> import torch
        >>> from diffsampler.log_z import estimate_log_z
        >>> weights = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10
        >>> found = compare({"a": estimate_log_z(weights), "b": estimate_log_z(weights - 3)})
        >>> round(found.log_bayes_factor("a", "b").value, 6)
        3.0
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        raise InputError('models must be two or more by name, such as {"linear": assess(a), "quadratic": assess(b)}.')
    estimates, verdicts = {}, {}
    for name, given in models.items():
        if not isinstance(given, Assessment | LogZEstimate):
            raise InputError(f"model {name!r} must be what assess(sampler) returns, got {type(given).__name__}.")
        estimates[name] = given.estimate if isinstance(given, Assessment) else given
        verdicts[name] = given.verdict if isinstance(given, Assessment) else judge(given)
    log_zs = {name: (one.log_z, one.low, one.high) for name, one in estimates.items()}
    return compare_log_z(log_zs, verdicts, prior)


def compare_log_z(
    log_z: Mapping[str, tuple[float, float, float]],
    verdicts: Mapping[str, Verdict],
    prior: Mapping[str, float] | None = None,
) -> Comparison:
    """The same of log Z with the ends of its interval, and verdicts, by name."""
    log_prior = _log_prior(list(log_z), prior)
    for name, (value, *_) in log_z.items():
        if not math.isfinite(value):
            raise InputError(f"log Z of {name} must be a finite number, got {value!r}.")
    ranked = dict(sorted(log_z.items(), key=lambda item: -item[1][0]))
    probability = {name: _probability(name, ranked, log_prior) for name in ranked}
    worst = max(verdicts.values(), key=lambda verdict: GRADES.index(verdict.grade))
    reasons = [f"{name}: {verdict.grade}. {verdict.reasons[0]}" for name, verdict in verdicts.items()]
    steps = [f"{name}: {step}" for name, verdict in verdicts.items() for step in verdict.next_steps]
    return Comparison(ranked, probability, Verdict(worst.grade, reasons, steps))


def _log_prior(names: list[str], prior: Mapping[str, float] | None) -> dict[str, float]:
    if prior is None:
        return dict.fromkeys(names, 0.0)
    if not isinstance(prior, Mapping):
        example = ", ".join(f'"{name}": {1 / len(names):.2g}' for name in names)
        raise InputError(f"prior must be of each model by its name, such as {{{example}}}, got {prior!r:.80}.")
    if prior.keys() != set(names):
        raise InputError(f"prior must be of {', '.join(names)}, got one of {', '.join(map(str, prior))}.")
    for name, value in prior.items():
        if isinstance(value, bool) or not (isinstance(value, Real) and 0 < value < math.inf):
            raise InputError(f"prior of {name} must be a number, positive and finite, got {in_one_line(value)}.")
    return {name: math.log(value) for name, value in prior.items()}


def _probability(
    name: str, log_z: Mapping[str, tuple[float, float, float]], log_prior: Mapping[str, float]
) -> tuple[float, float, float]:
    """Of a model, with the ends of an interval: that of its log odds against the rest, by the delta method."""
    log_weight = {key: log_prior[key] + value for key, (value, *_) in log_z.items()}
    rest = {key: value for key, value in log_weight.items() if key != name}
    log_rest = _log_sum(list(rest.values()))
    log_odds = log_weight[name] - log_rest
    variance = 0.0
    for key, (_, low, high) in log_z.items():
        share = 1.0 if key == name else math.exp(rest[key] - log_rest)
        variance += (share * (high - low) / (2 * NORMAL_97_5)) ** 2 if share else 0.0
    if not math.isfinite(variance):  # ends that are not there: from the least that it may be to the most
        lowest, highest = (
            log_prior[name] + log_z[name][end] - _log_sum([log_prior[key] + log_z[key][3 - end] for key in rest])
            for end in (1, 2)
        )
        return _logistic(log_odds), _logistic(lowest), _logistic(highest)
    error = NORMAL_97_5 * math.sqrt(variance)
    return _logistic(log_odds), _logistic(log_odds - error), _logistic(log_odds + error)


def _log_sum(values: list[float]) -> float:
    highest = max(values)
    return highest if math.isinf(highest) else highest + math.log(sum(math.exp(value - highest) for value in values))


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0  # where exp would overflow


def _ends(figures: tuple[float, float, float]) -> dict[str, float | None]:
    names = ("value", "low", "high")
    return {key: value if math.isfinite(value) else None for key, value in zip(names, figures, strict=True)}
