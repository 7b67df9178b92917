"""Which examples of its data set a DataLoader serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, WeightedRandomSampler

from bayesinv.errors import DataError
from bayesinv.streams.base import drawing

__all__ = ["num_served", "sampler_of"]

# A pass that goes through the data set this often and has not met all of it is taken to be endless.
MOST_ROUNDS = 20


def sampler_of(loader: DataLoader[Any]) -> Any:
    """What draws the indices of a loader; that inside its batch sampler where it was given one.

    ``loader.sampler`` is a sequential one then, which nothing uses.
    """
    return loader.batch_sampler.sampler if type(loader.batch_sampler) is BatchSampler else loader.sampler


def num_served(loader: DataLoader[Any], num_total: int) -> int:
    """n of a loader that is iterated as it comes: how many different examples are in one pass.

    Args:
        loader: over a map-style data set.
        num_total: examples of the data set.

    Raises:
        DataError: a batch sampler that can be read once, or has no end, or serves other examples on every pass.
    """
    batches: Any = loader.batch_sampler
    if type(batches) is BatchSampler:
        sampler: Any = batches.sampler
        # Draws with replacement meet every example in time.
        drawn = isinstance(sampler, RandomSampler | SequentialSampler | WeightedRandomSampler)
        served = None if drawn else _same_on_every_pass(lambda: sampler, num_total)
        if served is None:
            return min(num_total, len(sampler)) if hasattr(sampler, "__len__") else num_total
        return served
    name = type(batches).__name__
    cure = "pass Subset(dataset, indices) to a DataLoader with a batch_size, and leave batch_sampler out"
    with drawing(0):  # some draw their order here, others as they go
        once = iter(batches) is batches
    if once:
        raise DataError(
            f"the batch_sampler is a {name}, which can be read once, and training takes many passes; make it a list of "
            f"lists of indices, or {cure}"
        )
    served = _same_on_every_pass(lambda: (index for batch in batches for index in batch), num_total)
    if served is None:
        raise DataError(
            f"how many examples the batch_sampler {name} serves is not known, since it has no end or serves others on "
            f"every pass, and the evidence of a minibatch counts for all of them; {cure}"
        )
    return served


def _same_on_every_pass(one_pass: Callable[[], Iterable[Any]], num_total: int) -> int | None:
    """How many examples a pass meets, where a second one meets the same; else None."""
    with drawing(0):  # random samplers draw from the global generator
        first = _met(one_pass(), num_total)
        if first is None or len(first) >= num_total:
            return first if first is None else num_total
        return len(first) if first == _met(one_pass(), num_total) else None


def _met(indices: Iterable[Any], num_total: int) -> set[Any] | None:
    """The different ones among the indices, up to where all examples are met. None: no end in sight."""
    met: set[Any] = set()
    for count, index in enumerate(indices):
        met.add(index.item() if hasattr(index, "item") else index)
        if len(met) >= num_total:
            break
        if count >= MOST_ROUNDS * num_total:
            return None
    return met
