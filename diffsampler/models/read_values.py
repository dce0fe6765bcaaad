"""Which values a function has read."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from diffsampler.models.named_target import Values


class ReadValues(dict[str, Tensor]):
    """Values that remember which of them were asked for."""

    def __init__(self, values: Values, keys_read: set[str]) -> None:
        super().__init__(values)
        self.keys_read = keys_read

    def __getitem__(self, key: str) -> Tensor:
        self.keys_read.add(key)
        return super().__getitem__(key)

    def __getattr__(self, name: str) -> Tensor:
        if name in self:
            raise AttributeError(f"values are a dictionary: write p[{name!r}] where it says p.{name}")
        raise AttributeError(f"'dict' object has no attribute {name!r}")

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().keys()))

    def values(self) -> list[Tensor]:
        return [self[key] for key in self]

    def items(self) -> list[tuple[str, Tensor]]:
        return [(key, self[key]) for key in self]
