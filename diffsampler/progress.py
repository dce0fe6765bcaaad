"""Long work in pieces, and how far it is: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


def in_terminal() -> bool:
    """Whether a bar that paints over itself shows as one: in a terminal or a notebook, not in a file."""
    return "ipykernel" in sys.modules or (sys.stderr.isatty() and sys.stdout.isatty())


@contextmanager
def progress_of(what: str, total: int, unit: str, shown: bool, painted: bool | None = None) -> Iterator[Callable]:
    """Show on stderr how far work is, by the function that is to be told how much of it is done so far.

    Arguments:
        what: the work, in a word or two; may be empty.
        total: its amount.
        unit: of the amount.
        shown: whether to show anything.
        painted: as a bar, whatever stderr is; by default in a terminal only.
    """
    if not shown:
        yield lambda done: None
        return
    if in_terminal() if painted is None else painted:
        with tqdm(total=total, desc=what or None, unit=unit) as bar:
            yield lambda done: bar.update(done - bar.n)
        return
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if done < total and time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{what}: {done:,} of {total:,}{unit}".removeprefix(": "), file=sys.stderr, flush=True)

    yield tell


def in_batches(total: int, size: int, progress_bar: bool = False, unit: str = "draws") -> Iterator[int]:
    """The sizes of the batches that `total` is made of; progress moves on when a batch is done.

    Arguments:
        total: of all batches.
        size: of each but the last.
        progress_bar: whether to show how far it is, on stderr.
        unit: of what.
    """
    with progress_of("", total, f" {unit}", progress_bar) as tell:
        for start in range(0, total, size):
            count = min(size, total - start)
            yield count
            tell(start + count)
