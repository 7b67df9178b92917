"""Streams over examples that have an index: arrays in memory, and map-style data sets."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.data.items import Fetch, Key, Keys, pooled
from bayesinv.data.streams.base import Stream, checked_size, part_of
from bayesinv.errors import DataError
from bayesinv.numerics.processes import Processes
from bayesinv.numerics.randomness import derive_seed
from bayesinv.transforms import Transform

# Permutations that are kept: one for each purpose of a fit (weights, extents, evidence), and one to spare.
KEPT_PERMUTATIONS = 4


class IndexedStream(Stream):
    """What streams over indexed data share: which examples a batch holds."""

    _rows: Tensor | None = None  # the examples of the data set that are used; None: all

    def _indices(
        self, seed: int, purpose: str, step: int, size: int, group: Processes | None = None
    ) -> Int64[Tensor, " own"]:
        size = checked_size(size, self.num_total)
        batches = -(-self.num_total // size)
        epoch, position = divmod(step, batches)
        order = self._permutation(seed, purpose, epoch)
        chosen = order[position * size : (position + 1) * size]
        if len(chosen) < size:
            chosen = torch.cat([chosen, order[: size - len(chosen)]])
        chosen = chosen[part_of(size, group)]
        return chosen if self._rows is None else self._rows[chosen]

    def _permutation(self, seed: int, purpose: str, epoch: int) -> Tensor:
        kept: dict[Any, Tensor] = self.__dict__.setdefault("_kept", {})
        key = (seed, purpose, epoch)
        if key not in kept:
            while len(kept) >= KEPT_PERMUTATIONS:
                del kept[next(iter(kept))]
            generator = torch.Generator().manual_seed(derive_seed("permutation", seed, purpose, epoch))
            kept[key] = torch.randperm(self.num_total, generator=generator)
        return kept[key]

    def _subset_indices(self, num: int, seed: int) -> Tensor:
        if num >= self.num_total:
            return torch.arange(self.num_total) if self._rows is None else self._rows
        return self._indices(seed, "subset", 0, num)


class MemoryStream(IndexedStream):
    """Arrays that were checked once, as a whole."""

    def __init__(self, data: Data, transform: Transform | None):
        likelihood = "gaussian" if data.num_classes is None else "categorical"
        super().__init__(len(data), likelihood, transform, data.num_classes)
        self.data, self.classes = data, data.classes

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.data.event_shape

    def batch(self, seed: int, purpose: str, step: int, size: int, group: Processes | None = None) -> Data:
        return self.data.subset(self._indices(seed, purpose, step, size, group))

    def subset(self, num: int, seed: int) -> Data:
        return self.data if num >= self.num_total else self.data.subset(self._subset_indices(num, seed))

    def digest(self) -> str:
        whole = hashlib.blake2b(digest_size=16)
        groups = () if self.data.groups is None else (self.data.groups,)
        for part in (self.data.x, self.data.y, *groups):
            whole.update(repr((tuple(part.shape), str(part.dtype))).encode())
            for rows in part.split(4096):  # a copy of a part at a time
                whole.update(rows.cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()


class DatasetStream(IndexedStream):
    """A map-style data set, fetched by index; `rows` are the examples that are used (None: all)."""

    def __init__(
        self,
        dataset: Any,
        num_total: int,
        rows: Tensor | None,
        collate_fn: Callable[[list[Any]], Any] | None,
        options: dict[str, Any],
        likelihood: str,
        transform: Transform | None,
        groups: Sequence[str] | None = None,
    ):
        super().__init__(num_total, likelihood, transform, groups=groups)
        if num_total == 0:
            raise DataError("the sampler of the DataLoader serves no example; expected at least 1")
        self._rows = rows
        self._fetch = Fetch(dataset, collate_fn)
        self._options = options
        self._pools: dict[tuple[int, str, int], tuple[int, Iterator[Any]]] = {}
        first = 0 if rows is None else int(rows[0])
        item = self._fetch[0, [first]]
        self._event_shape = self.checked(item, f"example {first}", [first]).event_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self._event_shape

    def batch(self, seed: int, purpose: str, step: int, size: int, group: Processes | None = None) -> Data:
        key = self._key(seed, purpose, step, size, group)
        item = self._ahead(seed, purpose, step, size, group) if self._options.get("num_workers") else self._fetch[key]
        data = self.checked(item, f"batch {step} for {purpose}", key[1])
        if len(data) != len(key[1]) or data.event_shape != self.event_shape:
            raise DataError(
                f"batch {step} for {purpose} holds {len(data)} inputs of shape {data.event_shape}; expected "
                f"{len(key[1])} of shape {self.event_shape}, as the first example has"
            )
        return data

    def subset(self, num: int, seed: int) -> Data:
        indices = self._subset_indices(num, seed).tolist()
        return self.checked(self._fetch[derive_seed("subset", seed), indices], "the subset", indices)

    def close(self) -> None:
        self._pools.clear()

    def _key(self, seed: int, purpose: str, step: int, size: int, group: Processes | None) -> Key:
        indices = self._indices(seed, purpose, step, size, group).tolist()
        own = () if group is None else (group.rank, group.size)  # random items draw apart on every process
        return derive_seed("items", seed, purpose, step, *own), indices

    def _ahead(self, seed: int, purpose: str, step: int, size: int, group: Processes | None) -> Any:
        """The batch from a pool of workers, which goes on with those after it."""
        which = (seed, purpose, size)
        at, pool = self._pools.get(which, (-1, iter(())))
        if at != step:
            keys = Keys(lambda: (self._key(seed, purpose, s, size, group) for s in itertools.count(step)))
            pool = pooled(self._fetch, keys, self._options)
        item = next(pool)
        self._pools[which] = (step + 1, pool)
        return item
