"""Which stream fits what was given."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from bayesinv.data.class_names import names_in
from bayesinv.data.container import LIKELIHOODS, as_data
from bayesinv.data.groups import as_groups, numbered
from bayesinv.data.items import CHUNK, collate_of, options_of, stack
from bayesinv.data.samplers import known_indices, length_of, num_served, own_batches, refuse_shares, sampler_of
from bayesinv.data.streams.base import Stream
from bayesinv.data.streams.indexed import DatasetStream, MemoryStream
from bayesinv.data.streams.iterated import IterableStream, Served
from bayesinv.transforms import Transform


def stream_of(
    data: Any,
    likelihood: str,
    transform: Transform | None = None,
    num_workers: int = 0,
    groups: Sequence[str] | None = None,
) -> Stream:
    """A stream of whatever holds (x, y), or with groups (x, y, group).

    Args:
        data: (x, y) tensors or arrays; a `Data`; a map-style ``Dataset`` of (x, y) items; a ``DataLoader``, whose
            data set, ``collate_fn`` and workers are used, its order replaced by that of the stream; an
            ``IterableDataset``, or a ``DataLoader`` with a sampler or batch sampler of one's own, which are
            iterated as they come and stand for the different examples that a pass over them meets.
        likelihood: "categorical", "bernoulli" or "gaussian".
        transform: where given, checks that x is what it acts on.
        num_workers: processes that fetch the batches of a data set ahead of time, for every purpose; those of a
            DataLoader come first.
        groups: names of the groups of a model that has extents for each. The data have to say then which example
            is of which: a `Data` with groups, or a data set of (x, y, group) with numbers or names.

    Raises:
        DataError: unusable data, or data of unknown size. TypeError: of an unknown kind.
        ValueError: an unknown likelihood.

    Example:
        >>> stream = stream_of((torch.rand(10, 1, 8, 8), torch.arange(10) % 2), "categorical")
        >>> stream.num_total, stream.event_shape
        (10, (1, 8, 8))
        >>> one, other = (stream.batch(seed=0, purpose="weights", step=7, size=4) for _ in range(2))
        >>> len(one), torch.equal(one.x, other.x)
        (4, True)
    """
    stream = _stream_of(data, likelihood, transform, num_workers, groups)
    stream.classes = stream.classes or (None if likelihood == "gaussian" else names_in(data))
    if stream.classes is not None and stream.num_classes is None:
        stream.num_classes = len(stream.classes)
    return stream


def _stream_of(
    data: Any, likelihood: str, transform: Transform | None, num_workers: int, groups: Sequence[str] | None
) -> Stream:
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {likelihood!r}; known: {', '.join(LIKELIHOODS)}")
    if isinstance(data, DataLoader):
        return _of_loader(data, likelihood, transform, num_workers, groups)
    if isinstance(data, IterableDataset):
        loader: Any = DataLoader(data, batch_size=CHUNK, num_workers=num_workers, collate_fn=stack)
        return IterableStream(loader, length_of(data, data), likelihood, transform, groups)
    if _in_memory(data, groups):
        return _of_tensors(data, likelihood, transform, groups)
    if isinstance(data, Dataset):
        options = {"num_workers": num_workers}
        total = length_of(data, data)
        return DatasetStream(data, total, None, None, options, likelihood, transform, groups)
    return MemoryStream(numbered(as_data(data, likelihood, transform), groups), transform)


def _of_loader(
    loader: Any, likelihood: str, transform: Transform | None, num_workers: int, groups: Sequence[str] | None
) -> Stream:
    """The data set of a loader under our own permutations where its order means nothing, else the loader itself."""
    stream: Stream
    own, sampler, collate = own_batches(loader), sampler_of(loader), collate_of(loader)
    refuse_shares(sampler)
    if isinstance(loader.dataset, IterableDataset):
        if collate is None:  # PyTorch's, which knows fewer arrays
            loader = copy.copy(loader)
            loader.collate_fn = stack
        stream = IterableStream(loader, length_of(loader.dataset, loader), likelihood, transform, groups)
        stream.batch_size = loader.batch_size
        return stream
    num_total, options = length_of(loader.dataset, loader), options_of(loader, num_workers)
    known = None if own or getattr(sampler, "replacement", False) else known_indices(sampler, num_total)
    if known is None:
        served = Served(loader, options)
        stream = IterableStream(served, num_served(loader, num_total), likelihood, transform, groups)
    elif _in_memory(loader.dataset, groups) and collate is None and len(known) == num_total:
        stream = _of_tensors(loader.dataset, likelihood, transform, groups)
    else:
        rows = None if known == range(num_total) else torch.tensor(known)
        stream = DatasetStream(loader.dataset, len(known), rows, collate, options, likelihood, transform, groups)
    stream.batch_size = None if own else loader.batch_sampler.batch_size
    return stream


def _in_memory(dataset: Any, groups: Sequence[str] | None) -> bool:
    """Whether a data set is tensors that can be checked as a whole."""
    return type(dataset) is TensorDataset and (groups is None or len(dataset.tensors) == 3)


def _of_tensors(
    dataset: TensorDataset, likelihood: str, transform: Transform | None, groups: Sequence[str] | None
) -> MemoryStream:
    classes = None if likelihood == "gaussian" else names_in(dataset)
    data = as_data(dataset.tensors[:2], likelihood, transform, classes=classes)
    if groups is None:
        return MemoryStream(data, transform)
    numbers = as_groups(dataset.tensors[2], groups, len(data), training=True)
    return MemoryStream(replace(data, groups=numbers), transform)
