"""Posteriors of the function, kept between predictions as far as memory allows."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from torch import Tensor, nn


class FunctionCache(MutableMapping[int, Any]):
    """What was computed at each posterior draw, by its row; nothing more is kept once the budget is full.

    New entries are dropped rather than old ones: predictions ask for the same draws in the same order, so that dropping
    the oldest would drop what is needed next.

    Args:
        budget: bytes of all tensors in it; of those of modules, which they share, none are counted.

    Example:
        >>> import torch
        >>> cache = FunctionCache(budget=1000)
        >>> cache[0] = torch.zeros(100, dtype=torch.float64)
        >>> cache[1] = torch.zeros(100, dtype=torch.float64)
        >>> sorted(cache), cache.nbytes
        ([0], 800)
    """

    def __init__(self, budget: int):
        self.budget = budget
        self.nbytes = 0
        self._entries: dict[int, tuple[Any, int]] = {}

    def of_rows(self, rows: Sequence[int]) -> MutableMapping[int, Any]:
        """The same by position among some draws, as ``InvarianceModel.predict`` counts them."""
        return _Rows(self, rows)

    def __getitem__(self, row: int) -> Any:
        return self._entries[row][0]

    def __setitem__(self, row: int, value: Any) -> None:
        self.pop(row, None)
        size = tensor_bytes(value)
        if self.nbytes + size <= self.budget:
            self._entries[row] = (value, size)
            self.nbytes += size

    def __delitem__(self, row: int) -> None:
        self.nbytes -= self._entries.pop(row)[1]

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class _Rows(MutableMapping[int, Any]):
    def __init__(self, cache: FunctionCache, rows: Sequence[int]):
        self._cache, self._rows = cache, list(rows)

    def __getitem__(self, j: int) -> Any:
        return self._cache[self._rows[j]]

    def __setitem__(self, j: int, value: Any) -> None:
        self._cache[self._rows[j]] = value

    def __delitem__(self, j: int) -> None:
        del self._cache[self._rows[j]]

    def __iter__(self) -> Iterator[int]:
        return (j for j, row in enumerate(self._rows) if row in self._cache)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def tensor_bytes(value: Any) -> int:
    """Memory of the tensors that an object holds, in attributes and lists too; modules are left out.

    Example:
        >>> import torch
        >>> x = torch.zeros(4, dtype=torch.float64)
        >>> tensor_bytes([x, x[:2], torch.zeros(1, dtype=torch.float64)])  # x[:2] is a view of x
        40
    """
    storages: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, nn.Module | str | bytes):
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            storage = part.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)
        elif hasattr(part, "__dict__"):
            waiting.extend(vars(part).values())
    return sum(storages.values())
