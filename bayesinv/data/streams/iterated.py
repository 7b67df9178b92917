"""A stream over what has an order of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from bayesinv.data.container import Data
from bayesinv.data.items import Fetch, Key, Keys, collate_of, fewer_than_promised, pooled
from bayesinv.data.streams.base import Stream, checked_size, part_of
from bayesinv.errors import DataError
from bayesinv.numerics.processes import Processes
from bayesinv.numerics.randomness import derive_seed, drawing
from bayesinv.transforms import Transform


class Served:
    """The batches of a loader over a map-style data set, in the order of its sampler; its empty ones hold no example.

    Args:
        loader: whose batch sampler says which examples a batch holds.
        options: for its workers.
    """

    def __init__(self, loader: DataLoader[Any], options: dict[str, Any]):
        self.batches: Any = loader.batch_sampler
        self.fetch = Fetch(loader.dataset, collate_of(loader))
        self.options = options

    def __iter__(self) -> Iterator[Any]:
        if self.options.get("num_workers"):
            return pooled(self.fetch, Keys(self._keys), self.options)
        return map(self.fetch.__getitem__, self._keys())

    def _keys(self) -> Iterator[Key]:
        """Seeds from the global generator, which whoever iterates has seeded: other ones on every pass."""
        for batch in self.batches:
            if len(batch):
                yield int(torch.randint(2**32, ())), list(batch)


class IterableStream(Stream):
    """What can only be iterated, over and over; the batches follow one another whatever they are for."""

    exact_resume = False

    def __init__(
        self,
        loader: Any,
        num_total: int,
        likelihood: str,
        transform: Transform | None,
        groups: Sequence[str] | None = None,
    ):
        super().__init__(num_total, likelihood, transform, groups=groups)
        self._loader = loader
        self._chunks: Iterator[Any] | None = None
        self._buffer: list[Data] = []
        self._count = 0
        self._passed = 0  # examples of this pass

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self._first(1, 0).event_shape

    def batch(self, seed: int, purpose: str, step: int, size: int, group: Processes | None = None) -> Data:
        size = checked_size(size, self.num_total)
        data = self._first(size, derive_seed(seed, "iterated", self._count))
        rest = self._buffer[0].subset(slice(size, None))
        self._buffer = [rest] if len(rest) else []
        return data if group is None else data.subset(part_of(size, group))

    def subset(self, num: int, seed: int) -> Data:
        """The first `num` examples, which stay in the stream."""
        return self._first(min(num, self.num_total), seed)

    def close(self) -> None:
        self._chunks = None

    def _first(self, num: int, seed: int) -> Data:
        with drawing(seed):
            held = sum(map(len, self._buffer))
            while held < num:
                self._buffer.append(self._next())
                held += len(self._buffer[-1])
        shapes = {data.event_shape for data in self._buffer}
        if len(shapes) > 1:
            raise DataError(f"the inputs differ in shape: {', '.join(map(str, sorted(shapes)))}; expected one shape")
        x, y = torch.cat([data.x for data in self._buffer]), torch.cat([data.y for data in self._buffer])
        classes = None if self.likelihood == "gaussian" else max(data.num_outputs for data in self._buffer)
        groups = None if self.groups is None else torch.cat([data.groups for data in self._buffer])
        flat = self._buffer[0].flat
        self._buffer = [Data(x, y, self.num_classes or classes, groups, classes=self.classes, flat=flat)]
        return self._buffer[0].subset(slice(0, num))

    def _next(self) -> Data:
        fresh = self._chunks is None
        if self._chunks is None:
            self._chunks = iter(self._loader)
        item = next(self._chunks, None)
        if item is None:
            self._chunks = None
            if fresh:
                raise DataError("a pass over the data gave no example; expected at least 1")
            self._check_pass()
            return self._next()
        self._passed = 0 if fresh else self._passed
        self._count += 1
        data = self.checked(item, f"chunk {self._count} of the iterated data", None)
        self._passed += len(data)
        return data

    def _check_pass(self) -> None:
        """Raise where an iterable data set ends before its length, which the evidence counts."""
        loader = self._loader
        if not isinstance(loader, DataLoader):
            return  # draws of a sampler, which meets the others in time
        dropped = max(1, loader.num_workers) * ((loader.batch_size or 1) - 1) if loader.drop_last else 0
        if self._passed + dropped < self.num_total:
            raise DataError(fewer_than_promised(loader.dataset, self._passed, self.num_total))
