"""The difference of two independent estimates of log Z: a log Bayes factor, where these are evidences."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LogZDifference:
    """One log Z minus another, in nats, with a 95 % interval (of 90 % at least, where an end is infinite).

    Attributes:
        value: the difference.
        low: lower end of the interval; -inf where there is none.
        high: upper end of the interval; inf where there is none.
    """

    value: float
    low: float
    high: float

    def __neg__(self) -> "LogZDifference":
        return LogZDifference(-self.value, -self.high, -self.low)

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def difference(first: tuple[float, float, float], second: tuple[float, float, float]) -> LogZDifference:
    """Of independent estimates, each a log Z with the ends of its 95 % interval.

    Half-widths add in quadrature. An interval that has an end only on one side is no normal one: then ends are
    subtracted from ends, which holds at 90 % at least.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    value = a - b
    if not all(map(math.isfinite, (a_low, a_high, b_low, b_high))):
        return LogZDifference(value, a_low - b_high, a_high - b_low)
    return LogZDifference(value, value - math.hypot(a - a_low, b_high - b), value + math.hypot(a_high - a, b - b_low))
