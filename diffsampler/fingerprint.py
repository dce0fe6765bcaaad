"""What a sampler is made of, in words that a checkpoint keeps: tensors alone do not tell one grid from another."""

import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution
from torch.distributions.transforms import _InverseTransform
from torch.distributions.utils import lazy_property

from diffsampler.described_parts import MISSING, unlike_entries

PLAIN = (bool, int, float, str, type(None), torch.dtype)
NUM_SHOWN, NUM_DIGITS, MOST_NAMED = 16, 9, 4
NUM_OF_TEXT, NUM_BEFORE = 200, 60  # letters shown of a long text, and of them before the first difference
# What says nothing about a density, or is another object in every script.
LEFT_OUT = {"log_z", "plot_range", "plot_coordinates", "fn"}


def describe(part: Any) -> str:
    """A part by its class and what it was made with, as far as it keeps that under the same names."""
    if isinstance(part, PLAIN):
        return repr(part)
    if isinstance(part, list | tuple):
        return f"[{', '.join(map(describe, part))}]"
    if isinstance(part, Mapping):
        return f"{{{', '.join(f'{name}: {describe(value)}' for name, value in part.items())}}}"
    if isinstance(part, Tensor):
        few = part.numel() <= NUM_SHOWN
        return str(part.tolist()) if few else f"{tuple(part.shape)} of sums {sums_of(part)}"
    if isinstance(part, Distribution):
        kept = _of_distribution(part)
        return f"{type(part).__name__}({', '.join(f'{name}={describe(value)}' for name, value in kept.items())})"
    if isinstance(part, _InverseTransform):  # which has a name of its own, and keeps nothing under it
        return f"inverse of {describe(part.inv)}"
    if isinstance(part, type | Callable) and hasattr(part, "__qualname__"):
        return part.__qualname__
    if hasattr(part, "fingerprint"):
        kept = part.fingerprint()
    else:
        names = inspect.signature(type(part).__init__).parameters
        kept = {name: getattr(part, name) for name in names if name not in LEFT_OUT and hasattr(part, name)}
    return f"{type(part).__name__}({', '.join(f'{name}={describe(value)}' for name, value in kept.items())})"


def _of_distribution(part: Distribution) -> dict[str, Any]:
    """What tells it from others: what it keeps, perhaps under other names than it takes it, and what it takes.

    torch computes some of what it takes from the rest where it is asked for, and keeps that too, behind what was given:
    logits of probabilities, precisions of covariances.
    """
    taken = [name for name in inspect.signature(type(part).__init__).parameters if name in dir(type(part))]
    lazy = {name for name in dir(type(part)) if isinstance(inspect.getattr_static(type(part), name), lazy_property)}
    kept = {name: value for name, value in vars(part).items() if not name.startswith("_")}
    computed = [name for name in kept if name in lazy]
    for name in computed if not lazy & {*taken} else computed[1:]:
        del kept[name]
    if not isinstance(part, TransformedDistribution):  # which is told by its base and transforms
        kept |= {name: getattr(part, name) for name in taken if name not in lazy}
    return kept


def sums_of(values: Tensor) -> str:
    """Three numbers that tell lists apart, of the same numbers in another order too, and are alike on all machines.

    Whole numbers often agree in their sum and in that by place: hence weights without a common measure. What is summed
    in another order differs in digits that are not shown, those that cancel included.
    """
    values = values.detach().double().flatten()
    if not (finite := values.isfinite()).all():
        others = torch.where(values.isnan(), 3.0, values.sign()).masked_fill(finite, 0.0)
        return f"{sums_of(values.masked_fill(~finite, 0.0))} and of sums {sums_of(others)} where not finite"
    place = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    return ", ".join(_in_digits(values * weight) for weight in (torch.ones_like(place), place, (1 + place**2).sin()))


def _in_digits(terms: Tensor) -> str:
    """Their sum, to nine digits of that of their sizes."""
    total, size = float(terms.sum()), float(terms.abs().sum())
    if not 0 < size < math.inf:
        return f"{total:.{NUM_DIGITS}g}"
    # Decimals, within rounding, often lie where digits change: a size is never this multiple of a power of ten, and
    # no sum half a digit less this share of one.
    digits = NUM_DIGITS - math.ceil(math.log10(math.pi * size))
    return f"{round(total + math.pi / 30 * 10.0**-digits, digits) + 0.0:.{NUM_DIGITS}g}"


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which parts differ, in words; "" where none do."""
    found = []
    for name in [name for name in then if then[name] != now.get(name)]:
        was, is_now = then[name], now.get(name, MISSING)
        entries = unlike_entries(was, is_now) if name == "target" else None
        if entries is None:
            found.append(f"{name} was {_unlike(was, is_now)}")
        else:
            found += [f"{name}'s {entry} was {_unlike(*pair)}" for entry, pair in [*entries.items()][:MOST_NAMED]]
            found += [f"and {len(entries) - MOST_NAMED} more"] * (len(entries) > MOST_NAMED)
    return "; ".join(found)


def _unlike(then: str, now: str) -> str:
    """What was and what is, from shortly before they part."""
    is_long = max(len(then), len(now)) > NUM_OF_TEXT
    start = max(len(os.path.commonprefix([then, now])) - NUM_BEFORE, 0) if is_long else 0
    dots = "..." if start else ""
    was, now_is = (f"{dots}{text[start : start + NUM_OF_TEXT]}" for text in (then, now))
    return f"{was}, and is {now_is}"
