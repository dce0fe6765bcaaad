"""What the command lines of all benchmarks share: defaults in their help, one sentence for a number that is none."""

import argparse

import torch

__all__ = ["count", "device", "make_parser"]


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser that takes no abbreviations."""
    return argparse.ArgumentParser(description=description, formatter_class=_Formatter, allow_abbrev=False)


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def device(text: str) -> torch.device:
    """A device that is there."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"must be a device that is there, got {text!r}") from error
    return torch.device(text)
