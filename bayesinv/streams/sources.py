"""Which stream fits what was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from bayesinv.data import LIKELIHOODS, as_data
from bayesinv.errors import DataError
from bayesinv.groups import as_groups, numbered
from bayesinv.streams.base import Stream
from bayesinv.streams.indexed import DatasetStream, MemoryStream
from bayesinv.streams.iterated import IterableStream
from bayesinv.streams.samplers import num_served, sampler_of
from bayesinv.transforms import Transform

# Examples that a bare IterableDataset is asked for at once.
CHUNK = 64


def stream_of(
    data: Any, likelihood: str, transform: Transform | None, num_workers: int, groups: Sequence[str] | None = None
) -> Stream:
    """Arguments and errors as for `Stream.of`."""
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {likelihood!r}; known: {', '.join(LIKELIHOODS)}")
    if isinstance(data, DataLoader):
        return _of_loader(data, likelihood, transform, num_workers, groups)
    if isinstance(data, IterableDataset):
        loader: Any = DataLoader(data, batch_size=CHUNK, num_workers=num_workers)
        return IterableStream(loader, length_of(data, data), likelihood, transform, groups)
    if _in_memory(data, groups):
        return _of_tensors(data, likelihood, transform, groups)
    if isinstance(data, Dataset):
        options = {"num_workers": num_workers}
        total = length_of(data, data)
        return DatasetStream(data, total, None, default_collate, options, likelihood, transform, groups)
    return MemoryStream(numbered(as_data(data, likelihood, transform), groups), transform)


def _of_loader(
    loader: Any, likelihood: str, transform: Transform | None, num_workers: int, groups: Sequence[str] | None
) -> Stream:
    """The data set of a loader under our own permutations where its order means nothing, else the loader itself."""
    stream: Stream
    if loader.batch_sampler is None:
        raise DataError(
            "the DataLoader has batch_size=None, so that its items may be examples or batches; give it a batch_size, "
            "or pass its data set"
        )
    sampler = sampler_of(loader)
    kind = type(sampler)
    replaced = kind is RandomSampler and sampler.replacement
    own_order = type(loader.batch_sampler) is not BatchSampler or replaced
    if isinstance(loader.dataset, IterableDataset):
        stream = IterableStream(loader, length_of(loader.dataset, loader), likelihood, transform, groups)
    elif own_order or kind not in (RandomSampler, SequentialSampler, SubsetRandomSampler):
        num_total = num_served(loader, length_of(loader.dataset, loader))
        stream = IterableStream(loader, num_total, likelihood, transform, groups)
    elif (
        _in_memory(loader.dataset, groups) and loader.collate_fn is default_collate and kind is not SubsetRandomSampler
    ):
        stream = _of_tensors(loader.dataset, likelihood, transform, groups)
    else:
        rows = torch.as_tensor(list(sampler.indices)) if kind is SubsetRandomSampler else None
        num_total = length_of(loader.dataset, loader) if rows is None else len(rows)
        options = {
            "num_workers": loader.num_workers or num_workers,
            "worker_init_fn": loader.worker_init_fn,
            "multiprocessing_context": loader.multiprocessing_context,
        }
        stream = DatasetStream(
            loader.dataset, num_total, rows, loader.collate_fn, options, likelihood, transform, groups
        )
    # None on a loader that was given a batch sampler, which has its own.
    stream.batch_size = loader.batch_sampler.batch_size if type(loader.batch_sampler) is BatchSampler else None
    return stream


def _in_memory(dataset: Any, groups: Sequence[str] | None) -> bool:
    """Whether a data set is tensors that can be checked as a whole."""
    return type(dataset) is TensorDataset and (groups is None or len(dataset.tensors) == 3)


def _of_tensors(
    dataset: TensorDataset, likelihood: str, transform: Transform | None, groups: Sequence[str] | None
) -> MemoryStream:
    if groups is None:
        return MemoryStream(as_data(dataset.tensors, likelihood, transform), transform)
    data = as_data(dataset.tensors[:2], likelihood, transform)
    numbers = as_groups(dataset.tensors[2], groups, len(data), training=True)
    return MemoryStream(replace(data, groups=numbers), transform)


def length_of(dataset: Any, given: Any) -> int:
    """The number of examples; `given` is what the caller passed, for the message."""
    try:
        return len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise DataError(
            f"the size of the data set of this {type(given).__name__} is not known, and the evidence of a minibatch "
            f"counts for all examples; give {type(dataset).__name__} a __len__ that returns their number"
        ) from error
