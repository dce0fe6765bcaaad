"""Fits of one target after the other, each from what was learned of an earlier one."""

import copy
from glob import escape
from pathlib import Path
from typing import Any

from diffsampler.errors import InputError, warn_of
from diffsampler.models import ModelTarget
from diffsampler.sampler import Sampler
from diffsampler.training.fit import fit


class WarmStarts:
    """Fits samplers, and keeps the one that the next begins from: in a file too, from where all goes on as it was.

    Arguments:
        options: of `fit`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self._start: Sampler | None = None
        self._number = 0
        self._number_in_file: int | None = None
        self._has_served = False

    def fit(self, target: ModelTarget, seed: int, number: int | None) -> tuple[Sampler, list[dict[str, Any]]]:
        """A sampler of the target, and what training said.

        Arguments:
            target: to fit.
            seed: of the fit.
            number: of the data set; None for one that no other is to begin from.
        """
        # Losses and behaviours remember: none of another fit, which may have been made before an interruption.
        fresh = {name: copy.deepcopy(self.options[name]) for name in ("loss", "behaviour") if name in self.options}
        options = {**self.options, **fresh}
        if self._start is None:
            sampler = Sampler(target)
            history = fit(sampler, seed=seed, **options)
        else:
            sampler = copy.deepcopy(self._start)
            history = fit(sampler, seed=seed, target=target, **options)
        is_warm = sampler.coordinates.is_warm
        # Data far from all others are no start for the next, unless none has been one yet.
        if number is not None and (is_warm or not self._has_served):
            self._start, self._number = sampler, number
            self._has_served = self._has_served or is_warm
        return sampler, history

    def to_dict(self) -> dict[str, Any] | None:
        """What JSON keeps of the start; None without one."""
        return None if self._start is None else {"number": self._number, "has_served": self._has_served}

    def save(self, beside: Path) -> None:
        """Write the start beside a file, under a name of its own: what the file tells of stays until it is written."""
        if self._start is not None and self._number_in_file != self._number:
            self._start.save(_path_of(beside, self._number))
            self._number_in_file = self._number

    def remove_others(self, beside: Path) -> None:
        """Remove starts that no file tells of any more, once there is a newer one."""
        if self._start is None:
            return
        for path in beside.parent.glob(f"{escape(beside.name)}.start_*.pt"):
            if path != _path_of(beside, self._number):
                path.unlink()

    def restore(self, beside: Path, start: dict[str, Any], target: ModelTarget) -> None:
        """Take back what `to_dict` gave and `save` wrote; without that, a warning says that the next fit is a first.

        Arguments:
            beside: which file.
            start: by `to_dict`.
            target: of the data set of that number.
        """
        try:
            self._start = Sampler.load(_path_of(beside, start["number"]), target)
        except InputError as error:
            warn_of("The next fit of the calibration begins from nothing", error)
            return
        self._number = self._number_in_file = start["number"]
        self._has_served = start["has_served"]


def _path_of(beside: Path, number: int) -> Path:
    return beside.with_name(f"{beside.name}.start_{number}.pt")
