"""Along which lines a density has no end, in words: ends of sentences that begin with its name."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SLACK = 0.2  # nats: what a tail may fall, over many decades, and count as one that does not
ROUNDING = 1e-6  # nats
FLOOR = 10.0  # nats below the highest point: what a number that keeps a logarithm finite leaves
MAX_NAMED, MOST_CHANGED = 4, 6
ONES = {"1": "c", "-1": "1 / c"}


class Lines(NamedTuple):
    """C directions, with what is known of the density along them, from B points."""

    v: Tensor  # (C, D)
    ends: Tensor  # (C, 2): log10 of the first and the last t
    power: Tensor  # (C): the density must fall faster than t^-power
    log_t: Tensor  # (C, NUM_TIMES)
    log_prob: Tensor  # (C, B, NUM_TIMES)
    endless: Tensor  # (C, B): whether it does not

    def those(self, which: Tensor | list[int]) -> "Lines":
        """Some of them."""
        return Lines(*(part[which] for part in self))


class Reason(NamedTuple):
    """Why there is no integral."""

    what: str
    ways_out: str = "add a prior or a confining term, fix a coordinate, or return -inf outside of a region"
    rises: bool = False

    def with_way_out(self, first: str) -> "Reason":
        """The same, with a way out before all others, if there is one."""
        return self._replace(ways_out=f"{first}; or {self.ways_out}") if first else self

    def __str__(self) -> str:
        return f"{self.what}, so that exp(log_prob) has no integral: {self.ways_out}"


def along(lines: Lines, where: str, highest: Tensor) -> Reason:
    """What the density, whose highest value so far is given, does along the lines."""
    values = lines.log_prob[:, 0]
    change, steps = values[:, -1] - values[:, 0], values.diff(dim=-1)
    rises = (change > 1) & (steps > -ROUNDING).all(-1)
    if 2 * rises.sum() > len(rises) or values[:, -1].isposinf().any():
        found = Reason(f"rises without bound {where}, to {float(values.max()):.3g}")
        return found._replace(rises=True, ways_out=f"if it is an energy return minus that, else {found.ways_out}")
    if (steps > SLACK).any():
        return Reason(f"does not fall {where}, however far")
    if (change < -1).all():
        slope = float((change / (lines.log_t[:, -1] - lines.log_t[:, 0])).median())
        needed = -float(lines.power[0])
        return Reason(f"falls too slowly {where}, as {slope:.3g} log t where less than {needed:g} log t is needed")
    level = round(float(values[0, -1]), 3) + 0.0
    found = Reason(f"stays at {level:.6g} {where}, however far")
    if level >= float(highest) - FLOOR:
        return found
    return found._replace(ways_out=f"{found.ways_out}; what is added inside a logarithm does that too")


def scaled_at_will(w: Tensor) -> Reason:
    """Which coordinates may be multiplied by which powers w, with shape (D), of any number."""
    powers = (w[w.nonzero()[0]].sign() * w).tolist()
    shared = _by_value({i: f"{power:.3g}" for i, power in enumerate(powers) if power})
    factors = [f"{names} times {ONES.get(power, f'c^{power}')}" for power, names in shared.items()]
    return Reason(f"is the same at {' and '.join(factors)} for every c")


def repeats(periods: dict[int, float], declared: str) -> Reason:
    """The coordinates of each period, and how angles are declared."""
    shared = _by_value({index: f"{period:.4g}" for index, period in periods.items()})
    parts = [f"{names} {'have' if ' and ' in names else 'has'} period {size}" for size, names in shared.items()]
    scaled = any(abs(period - 2 * math.pi) > 0.01 for period in periods.values())
    ways_out = ("in a box of length L write log_prob for x * L / (2 pi); " if scaled else "") + (
        f"of angles in radians (period 2 pi) {declared}: log Z is then that of one period; or return -inf outside of "
        "one"
    )
    return Reason("repeats for ever", f"{' and '.join(parts)}; {ways_out}")


def _by_value(values: dict[int, str]) -> dict[str, str]:
    """The coordinates of each value."""
    shared: dict[str, list[str]] = {}
    for index, value in values.items():
        shared.setdefault(value, []).append(f"x[{index}]")
    return {value: _listed(names) for value, names in shared.items()}


def row_of_blocks(v: Tensor, size: int) -> int:
    """The first of directions, with shape (C, D), that moves every coordinate of this place in blocks alike, or 0."""
    place = torch.arange(v.shape[1], device=v.device) % size == 0
    moved = ((v != 0) == place).all(-1) & ((v == v[:, :1]) | ~place).all(-1)
    return int(moved.int().argmax())


def named_direction(v: Tensor, have_names: bool = False) -> str:
    """A direction, with shape (D), in few words, or by the coordinates that change most, where these have names."""
    dim = len(v)
    if (v != 0).sum() == 1:
        return f"x[{int(v.abs().argmax())}]"
    if have_names:
        changed = sorted(v.abs().argsort(descending=True)[: min(int((v != 0).sum()), MOST_CHANGED)].tolist())
        more = ", ..." if len(changed) < (v != 0).sum() else ""
        return "the direction with " + ", ".join(f"x[{i}]: {float(v[i]):.3g}" for i in changed) + more
    if bool((v == v[0]).all()):
        return "the translation of all coordinates alike"
    is_one = v == v.sum().sign()
    if bool(((v == 0) | is_one).all()) and dim % int(is_one.sum()) == 0:
        k = dim // int(is_one.sum())
        first, place = int(is_one.nonzero()[0]), torch.arange(dim, device=v.device)
        if torch.equal(is_one, place % k == first % k):
            return f"the translation of blocks of {k} coordinates (x[{first}], x[{first + k}] and so on)"
        k = int(is_one.sum())
        if torch.equal(is_one, place // k == first // k):
            return f"the translation of x[{first}] to x[{first + k - 1}] alike"
    entries = [f"{value:.3g}" for value in v.tolist()]
    if dim > 10:
        largest = v.abs().argsort(descending=True)[:MOST_CHANGED].sort().values.tolist()
        return "the direction with " + ", ".join(f"x[{i}]: {entries[i]}" for i in largest) + ", ..."
    return f"({', '.join(entries)})"


def named_axes(v: Tensor) -> str:
    """Coordinates and the sides to which they go."""
    sides: dict[int, set[float]] = {}
    for row in v:
        index = int(row.abs().argmax())
        sides.setdefault(index, set()).add(float(row[index]))
    one_sided = {index: next(iter(signs)) for index, signs in sides.items() if len(signs) == 1}
    if len(one_sided) < len(sides):
        return f"along {_listed([f'x[{index}]' for index in sides if index not in one_sided])}"
    parts = [f"x[{index}] goes to {'' if sign > 0 else '-'}infinity" for index, sign in one_sided.items()]
    return f"as {_listed(parts)}"


def by_names(text: str, names: Sequence[str]) -> str:
    """A sentence with x[0], x[1], ... called by names."""
    return re.sub(r"x\[(\d+)\]", lambda one: names[int(one[1])], text)


def _listed(names: list[str]) -> str:
    """In words, and cut where there are many."""
    if len(names) > MAX_NAMED:
        return f"{', '.join(names[:MAX_NAMED])} and {len(names) - MAX_NAMED} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
