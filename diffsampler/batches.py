"""Long work in pieces, with a progress bar."""

from collections.abc import Iterator

from tqdm import tqdm

__all__ = ["in_batches"]


def in_batches(total: int, size: int, progress_bar: bool = False, unit: str = "draws") -> Iterator[int]:
    """The sizes of the batches that `total` is made of; the bar moves on when a batch is done.

    Arguments:
        total: of all batches.
        size: of each but the last.
        progress_bar: whether to show how far it is, on stderr.
        unit: of what.
    """
    with tqdm(total=total, unit=f" {unit}", disable=not progress_bar) as bar:
        for start in range(0, total, size):
            count = min(size, total - start)
            yield count
            bar.update(count)
