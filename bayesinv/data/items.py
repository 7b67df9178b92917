"""The examples of a data set, fetched and put together: batch by batch for a stream, or all of them.

    (x, y)  =  stack of the items (x_i, y_i),   i among the indices of a batch

A batch is a function of its indices and a seed: what a data set draws at random does not depend on the generators of
the process, or on how many workers fetch. Items become tensors as `data.arrays.as_tensor` reads them, so that a data
set may give whatever `fit` takes as arrays.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from bayesinv.data.arrays import as_tensor
from bayesinv.data.samplers import chunks, known_indices, length_of, own_batches, sampler_of, served_batches
from bayesinv.errors import DataError
from bayesinv.numerics.randomness import derive_seed, drawing

__all__ = [
    "CHUNK",
    "Fetch",
    "Key",
    "Keys",
    "changing_item",
    "collate_of",
    "fewer_than_promised",
    "options_of",
    "pooled",
    "read_first",
    "read_items",
    "shown",
    "stack",
]

# Examples that are asked for at once where nothing says how many.
CHUNK = 64
# What is read at once has to fit into memory: 8 GB of inputs, which no Gaussian process takes.
LARGEST_WHOLE = 2**33
# An iterable data set without a __len__ may have no end.
MOST_WITHOUT_LENGTH = 10_000
LARGEST_WITHOUT_LENGTH = 2**30
# How often an item is read to see whether it changes, of which a random flip is noticed in 15 of 16, and for how long.
READS = 5
LONGEST_LOOK = 0.5  # seconds
_NO_EXAMPLE = "a pass over the data set gave no example; expected at least 1"

Key = tuple[int, list[Any]]  # the seed of a batch, and the indices in it


class Fetch(Dataset):
    """Batches of a map-style data set, by (seed, indices): what it draws at random depends on these alone.

    Args:
        dataset: of items (x, y) or (x, y, group).
        collate_fn: from a list of items to a batch; None puts them together with :func:`stack`.
    """

    def __init__(self, dataset: Any, collate_fn: Callable[[list[Any]], Any] | None = None):
        self.dataset = dataset
        self.collate_fn = collate_fn

    def __getitem__(self, key: Key) -> Any:
        seed, indices = key
        whole = getattr(self.dataset, "__getitems__", None)
        with drawing(seed):
            try:
                found: Any = whole(indices) if callable(whole) else [self.dataset[i] for i in indices]
                items = list(found) if isinstance(found, Iterable) else []
            except (StopIteration, IndexError) as error:  # which would end loops further out
                raise DataError(
                    f"the data set {type(self.dataset).__name__} raised {error!r} for the examples {shown(indices)} of "
                    f"{len(self.dataset)}; expected an item (x, y) for every index below its __len__"
                ) from error
            if len(items) != len(indices):
                raise DataError(
                    f"__getitems__ of the data set {type(self.dataset).__name__} returned {len(items)} items for the "
                    f"{len(indices)} examples {shown(indices)}; expected one for each, in their order"
                )
            if self.collate_fn is None:
                return stack(items, indices)
            try:
                return self.collate_fn(items)
            except RuntimeError as error:
                raise DataError(
                    f"the collate_fn failed on the items {shown(indices)} of the data set: {error}; expected a "
                    "batch (x, y)"
                ) from error


def collate_of(loader: DataLoader[Any]) -> Callable[[list[Any]], Any] | None:
    """The collate function of a loader; None where it is PyTorch's, which knows fewer arrays than :func:`stack`."""
    return None if loader.collate_fn is default_collate else loader.collate_fn


def stack(items: Sequence[Any], indices: Sequence[Any] | None = None) -> tuple[Any, ...]:
    """A batch (x, y) or (x, y, groups) of items; groups stay a list of names or numbers.

    Args:
        items: pairs (x, y), or triples with the group of each example.
        indices: what the items are called in messages; by default their positions.

    Raises:
        DataError: names the item that is no such pair or triple, or differs from the others.

    Example:
        >>> stack([(np.zeros(2), 1), (np.ones(2), 0)])[1]
        tensor([1, 0])
    """
    parts: list[tuple[Any, ...]] = []
    for i, item in zip(indices or range(len(items)), items, strict=True):
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            came = f" of {len(item)} parts" if isinstance(item, tuple | list) else ""
            raise DataError(
                f"example {i} is of type {type(item).__name__}{came}; expected a pair (x, y){_paired(item)}"
            )
        if parts and len(item) != len(parts[0]):
            raise DataError(f"example {i} has {len(item)} parts and those before it {len(parts[0])}; expected as many")
        try:
            parts.append((as_tensor(item[0], "x"), as_tensor(item[1], "y"), *item[2:]))
        except DataError as error:
            raise DataError(f"example {i}: {error}") from error
    x, y, *groups = zip(*parts, strict=True)
    return _joined(torch.stack, x, "inputs"), _joined(torch.stack, y, "targets"), *map(list, groups)


def _paired(item: Any) -> str:
    """How examples that are dictionaries become pairs, in a line."""
    if not isinstance(item, Mapping) or len(item) < 2:
        return ""
    x, y = list(item)[:2]
    return (
        f": DataLoader(dataset, batch_size=32, collate_fn=lambda items: (torch.stack([item[{x!r}] for item in items]), "
        f"torch.as_tensor([item[{y!r}] for item in items])))"
    )


class Keys:
    """What `keys` iterates over, made when it is asked for: an iterator itself cannot start over."""

    def __init__(self, keys: Callable[[], Iterator[Key]]):
        self.keys = keys

    def __iter__(self) -> Iterator[Key]:
        return self.keys()


def pooled(fetch: Fetch, keys: Iterable[Key], options: dict[str, Any]) -> Iterator[Any]:
    """The batches of the keys, by the workers that the options of a DataLoader ask for."""
    # A generator of its own: the loader seeds its workers from the global one otherwise.
    own = torch.Generator().manual_seed(0)
    return iter(DataLoader(fetch, batch_size=None, sampler=keys, collate_fn=_as_is, generator=own, **options))


def options_of(loader: DataLoader[Any], num_workers: int = 0) -> dict[str, Any]:
    """The options by which the workers of a loader are started; `num_workers` where it asks for none."""
    return {
        "num_workers": loader.num_workers or num_workers,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
    }


def read_items(data: Any, with_groups: bool, seed: int = 0) -> tuple[Tensor, Tensor, list[Any] | None]:
    """Every example of a data set or loader, once.

    Args:
        data: a map-style data set; an iterable one, of which as many are read as its ``__len__`` says; a loader of
            either, whose different examples are read, those of a shuffling one in the order of the data set.
        with_groups: whether items may be (x, y, group).
        seed: of what the data set draws at random.

    Returns:
        x (n, *event), y (n, ...), and the groups where there are some.

    Raises:
        DataError: no end, no example, fewer than an iterable data set promises, more than fits into memory, or items
            that do not fit together.
    """
    loader = data if isinstance(data, DataLoader) else None
    dataset: Any = data if loader is None else loader.dataset
    if loader is not None:
        own_batches(loader)  # which refuses a loader without batches
    iterated = isinstance(dataset, IterableDataset)
    n = None if iterated and not _has_length(dataset) else length_of(dataset, data)
    batches = _iterated(dataset, loader, n) if iterated else _fetched(dataset, loader, seed)
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    groups: list[Any] = []
    size = count = num_bytes = 0
    with drawing(derive_seed("read", seed)):
        for num, batch in batches:
            x, y, *group = _parts(batch, num, with_groups, f"examples {count} to {count + num - 1} of the data set")
            if xs and len(group) != size:
                raise DataError("some items of the data set have a group and others none; expected one in all of them")
            size, count, num_bytes = len(group), count + num, num_bytes + x.nbytes
            _check_size(n, count, num_bytes, dataset)
            xs.append(x)
            ys.append(y)
            groups += group[0] if group else []
    if not xs:
        raise DataError(_NO_EXAMPLE)
    if iterated and n is not None and count < n:
        raise DataError(fewer_than_promised(dataset, count, n))
    return _joined(torch.cat, xs, "inputs"), _joined(torch.cat, ys, "targets"), groups if size else None


def changing_item(data: Any) -> int | None:
    """The first of two items of a map-style data set that differs when it is read again; None where none does.

    What is read is a copy that shares arrays and lists, so that generators of its own stay where they are; data sets
    that cannot be copied, or are slow, are not looked at.

    Example:
        >>> class Noisy(Dataset):
        ...     def __len__(self):
        ...         return 9
        ...
        ...     def __getitem__(self, i):
        ...         return torch.rand(2), 0
        >>> changing_item(Noisy())
        0
    """
    loader = data if isinstance(data, DataLoader) else None
    dataset: Any = data if loader is None else loader.dataset
    if not isinstance(dataset, Dataset) or isinstance(dataset, IterableDataset | TensorDataset):
        return None
    began, first = time.perf_counter(), dict[int, Any]()
    try:
        fetch = Fetch(copy.deepcopy(dataset, _shared(dataset)), None if loader is None else collate_of(loader))
        for k, i in itertools.product(range(READS), range(min(2, length_of(dataset, dataset)))):
            batch = [as_tensor(part, "item").double().numpy() for part in fetch[derive_seed("again", k), [i]][:2]]
            if not all(map(partial(np.array_equal, equal_nan=True), batch, first.setdefault(i, batch))):
                return i
            if time.perf_counter() - began > LONGEST_LOOK:
                break
    except Exception:  # code of the caller's own, which fails again, with its message, where the data are read
        pass
    return None


def _shared(dataset: Any) -> dict[int, Any]:
    """What a copy of a data set, and of those it is made of, has in common with it, as `copy.deepcopy` wants it."""
    memo: dict[int, Any] = {}
    for part in vars(dataset).values():
        parts = part if isinstance(part, list | tuple) and part and isinstance(part[0], Dataset) else [part]
        for inner in parts:
            if isinstance(inner, Dataset):
                memo |= _shared(inner)
            elif hasattr(inner, "__len__"):
                memo[id(inner)] = inner
    return memo


def read_first(data: Any) -> tuple[Tensor, Tensor]:
    """x (1, *event) and y (1, ...) of the first example of a data set or loader, as `read_items` reads it.

    Raises:
        DataError: there is none, or it is no pair (x, y).
    """
    loader = data if isinstance(data, DataLoader) else None
    dataset: Any = data if loader is None else loader.dataset
    with drawing(0):
        if isinstance(dataset, IterableDataset):
            batch = next((batch for _, batch in _iterated(dataset, loader, 1)), None)
            if batch is None:
                raise DataError(_NO_EXAMPLE)
        else:
            n = length_of(dataset, data)
            sampler = None if loader is None or own_batches(loader) else sampler_of(loader)
            index = 0 if sampler is None or known_indices(sampler, n) is not None else next(iter(sampler), 0)
            batch = Fetch(dataset, None if loader is None else collate_of(loader))[0, [index]]
    x, y = _parts(batch, 1, with_groups=False, where="the first example of the data set")
    return x, y


def fewer_than_promised(dataset: Any, count: int, n: int) -> str:
    """What is wrong with an iterable data set that ends before its length."""
    return (
        f"a pass over the data gave {count} examples, and len() of {type(dataset).__name__}, for which the evidence "
        f"counts, is {n}; make its __len__ return how many there are"
    )


def _has_length(dataset: Any) -> bool:
    """Whether len() of it is known: a chain of data sets has a ``__len__`` whatever its parts have."""
    try:
        return len(dataset) >= 0
    except (TypeError, NotImplementedError):
        return False


def _fetched(dataset: Any, loader: DataLoader[Any] | None, seed: int) -> Iterator[tuple[int, Any]]:
    """Batches of a map-style data set, and how many examples each has to hold."""
    rows = chunks(range(length_of(dataset, dataset)), CHUNK) if loader is None else served_batches(loader, seed)
    keys = [(derive_seed("items", seed, k), indices) for k, indices in enumerate(rows)]
    fetch = Fetch(dataset, None if loader is None else collate_of(loader))
    batches: Any = map(fetch.__getitem__, keys)
    if loader is not None and loader.num_workers:
        batches = pooled(fetch, keys, options_of(loader))
    return zip(map(len, rows), batches, strict=True)


def _iterated(dataset: Any, loader: DataLoader[Any] | None, n: int | None) -> Iterator[tuple[int, Any]]:
    """Batches of the first n examples of an iterable data set, read here: workers might each read all of it."""
    size = CHUNK if loader is None else loader.batch_size or CHUNK
    collate = None if loader is None else collate_of(loader)
    examples = itertools.islice(iter(dataset), n)
    start = 0
    while items := list(itertools.islice(examples, size)):
        yield len(items), stack(items, range(start, start + len(items))) if collate is None else collate(items)
        start += len(items)


def _parts(batch: Any, num: int, with_groups: bool, where: str) -> tuple[Any, ...]:
    """x, y and, where there are some, groups of a batch of so many examples."""
    parts = len(batch) if isinstance(batch, tuple | list) else 1
    if parts != 2 and not (parts == 3 and with_groups):
        hint = "; groups of the examples go into bayesinv.Data(x, y, groups=names)" if parts == 3 else ""
        came = f" of {parts} parts" if parts > 1 else ""
        raise DataError(f"{where}: a batch is of type {type(batch).__name__}{came}; expected a pair (x, y){hint}")
    try:
        x, y = as_tensor(batch[0], "x"), as_tensor(batch[1], "y")
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    for name, part in {"x": x, "y": y}.items():
        if part.ndim == 0 or len(part) != num:
            raise DataError(
                f"{where}: {name} of a batch has shape {tuple(part.shape)}; expected {num} along its first axis, one "
                "for each example"
            )
    return x, y, *([_entries(batch[2], num, where)] if parts == 3 else [])


def _entries(groups: Any, num: int, where: str) -> list[Any]:
    """The names or numbers of the groups in a batch."""
    if np.shape(groups) != (num,):
        raise DataError(
            f"{where}: the groups have shape {np.shape(groups)}; expected the name or number of one group for each "
            "example: items (x, y, group)"
        )
    return [entry.item() if hasattr(entry, "item") else entry for entry in groups]


def _check_size(n: int | None, count: int, num_bytes: int, dataset: Any) -> None:
    """Raise where there is no end in sight, or n examples like the first would not fit into memory."""
    name = type(dataset).__name__
    if n is None and (count > MOST_WITHOUT_LENGTH or num_bytes > LARGEST_WITHOUT_LENGTH):
        raise DataError(
            f"the data set {name} has no __len__, and no end after {count} examples; give it a __len__ that returns "
            "how many there are to be"
        )
    if n is not None and num_bytes / count * n > LARGEST_WHOLE:
        raise DataError(
            f"the data are read whole, and the {n} examples that the __len__ of {name} promises would take "
            f"{num_bytes / count * n / 2**30:.0f} GB; expected at most {LARGEST_WHOLE / 2**30:.0f} GB. Take "
            "fewer, such as Subset(dataset, range(10_000)), or a network, which reads minibatches"
        )


def _joined(join: Callable[[Any], Tensor], parts: Sequence[Tensor], what: str) -> Tensor:
    """Tensors of one shape as one."""
    shapes = {tuple(part.shape if join is torch.stack else part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise DataError(
            f"the {what} differ in shape: {', '.join(map(str, sorted(shapes)))}; expected one shape. Resize or crop "
            "them in the data set."
        )
    return join(parts)


def shown(indices: Sequence[Any]) -> str:
    """The first eight indices, for a message."""
    return ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")


def _as_is(item: Any) -> Any:
    return item
