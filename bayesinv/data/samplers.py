"""Which examples of its data set a DataLoader serves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from bayesinv.errors import DataError, DataWarning
from bayesinv.numerics.randomness import drawing

__all__ = [
    "chunks",
    "known_indices",
    "length_of",
    "num_served",
    "own_batches",
    "refuse_shares",
    "sampler_of",
    "served_batches",
]

# A pass that goes through the data set this often and has not met all of it is taken to be endless.
MOST_ROUNDS = 20
# Their permutation takes 1 GB. A longer __len__ is one that somebody made up for a data set without an end.
MOST_EXAMPLES = 2**27


def length_of(dataset: Any, given: Any) -> int:
    """The number of examples; `given` is what the caller passed, for the message.

    Raises:
        DataError: not known, zero, or no number that a data set may have.
    """
    try:
        n = len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise DataError(
            f"the size of the data set of this {type(given).__name__} is not known, and the evidence counts for all "
            f"examples; give {type(dataset).__name__} a __len__ that returns their number"
        ) from error
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"the __len__ of {type(dataset).__name__} returns no number of examples ({error}); expected one from 1 on"
        ) from error
    if n == 0:
        raise DataError(f"the data set is empty: len() of {type(dataset).__name__} is 0; expected at least 1 example")
    if n > MOST_EXAMPLES:
        raise DataError(
            f"the data set has {n} examples by the __len__ of {type(dataset).__name__}; expected at most "
            f"{MOST_EXAMPLES}. For one without an end, say how many there are to be: Subset(dataset, range(n))"
        )
    return n


def sampler_of(loader: DataLoader[Any]) -> Any:
    """What draws the indices of a loader; that inside its batch sampler where it was given one.

    ``loader.sampler`` is a sequential one then, which nothing uses.
    """
    batches: Any = loader.batch_sampler
    return loader.sampler if own_batches(loader) else batches.sampler


def own_batches(loader: DataLoader[Any]) -> bool:
    """Whether the batches are those of a batch sampler of somebody's own.

    Raises:
        DataError: there are no batches.
    """
    if loader.batch_sampler is None:
        raise DataError(
            "the DataLoader has batch_size=None, so that its items may be examples or batches; give it a batch_size, "
            "or pass its data set"
        )
    return type(loader.batch_sampler) is not BatchSampler


def refuse_shares(sampler: Any) -> None:
    """Raise where a sampler serves one process of several its share: the fit shares out the examples itself.

    Raises:
        DataError: a ``DistributedSampler``.
    """
    if isinstance(sampler, DistributedSampler):
        raise DataError(
            "the DataLoader has a DistributedSampler, which gives each process some of the examples; pass the loader "
            "without one, or the data set: processes share the minibatches of a fit by themselves"
        )


def known_indices(sampler: Any, num_total: int) -> Sequence[int] | None:
    """The different examples that PyTorch's samplers meet, in the order of the data set where theirs is random.

    Those with replacement meet every example in time. None for a sampler of somebody's own.
    """
    kind = type(sampler)
    if kind in (RandomSampler, SequentialSampler):
        return range(len(sampler.data_source))
    if kind is SubsetRandomSampler:
        return list(dict.fromkeys(_from_the_start(int(index), num_total) for index in sampler.indices))
    if kind is WeightedRandomSampler:
        return torch.nonzero(sampler.weights > 0)[:, 0].tolist()
    return None


def served_batches(loader: DataLoader[Any], seed: int) -> list[list[Any]]:
    """The indices of the different examples that a loader over a map-style data set serves, each once.

    Args:
        loader: the batches of its own batch sampler are kept, less what is in them for a second time.
        seed: of a sampler that draws as it goes.

    Raises:
        DataError: a sampler that serves no example, or has no end and does not meet all of them.

    Warns:
        DataWarning: the sampler draws some examples more often than others, which is left out.
    """
    num_total = length_of(loader.dataset, loader)
    sampler, own = sampler_of(loader), own_batches(loader)
    given: Any = loader.batch_sampler
    batches: list[list[Any]] | None = []
    known = None if own else known_indices(sampler, num_total)
    if known is None:
        with drawing(seed):  # some draw their order here, others as they go
            batches = _different(given if own else ([index] for index in sampler), num_total)
        if batches is None:
            raise DataError(
                f"the {'batch_sampler' if own else 'sampler'} {type(sampler).__name__} has no end and serves some of "
                f"the {num_total} examples only; pass Subset(dataset, indices), and leave it out"
            )
        known = [index for batch in batches for index in batch]
    elif type(sampler) is WeightedRandomSampler and len(sampler.weights[sampler.weights > 0].unique()) > 1:
        warnings.warn(
            f"the weights of the WeightedRandomSampler are not used: each of its {len(known)} examples is read once, "
            "since repeats would count as new data; to weigh classes, leave out examples with Subset(dataset, indices)",
            DataWarning,
            stacklevel=5,
        )
    if not known:
        raise DataError(f"the {type(sampler).__name__} of the DataLoader serves no example; expected at least 1")
    return batches if own and batches else chunks(known, loader.batch_size or 1)


def _from_the_start(index: Any, num_total: int) -> Any:
    """A negative index as the position that it names: -1 is the last example, and no other one."""
    return index + num_total if isinstance(index, int) and -num_total <= index < 0 else index


def chunks(indices: Sequence[Any], size: int) -> list[list[Any]]:
    """All indices in order, `size` at a time."""
    return [list(indices[start : start + size]) for start in range(0, len(indices), size)]


def num_served(loader: DataLoader[Any], num_total: int) -> int:
    """n of a loader that is iterated as it comes: how many different examples it serves.

    Args:
        loader: over a map-style data set.
        num_total: examples of the data set.

    Raises:
        DataError: a sampler that can be read once; a batch sampler that can, has no end, or serves other examples on
            every pass.
    """
    sampler = sampler_of(loader)
    if not own_batches(loader):
        known = known_indices(sampler, num_total)
        if known is not None:
            return len(known)
        served = _same_on_every_pass(lambda: ([index] for index in sampler), num_total)
        if isinstance(sampler, Iterator) and next(sampler, None) is None:
            raise DataError(
                f"the sampler is a {type(sampler).__name__}, which can be read once, and training takes many passes; "
                "make it a list of indices: sampler=list(indices)"
            )
        if served is None:
            return min(num_total, len(sampler)) if hasattr(sampler, "__len__") else num_total
        return served
    batches: Any = loader.batch_sampler
    name = type(batches).__name__
    cure = "pass Subset(dataset, indices) to a DataLoader with a batch_size, and leave batch_sampler out"
    with drawing(0):
        once = iter(batches) is batches
    if once:
        raise DataError(
            f"the batch_sampler is a {name}, which can be read once, and training takes many passes; make it a list of "
            f"lists of indices, or {cure}"
        )
    served = _same_on_every_pass(lambda: batches, num_total)
    if served is None:
        raise DataError(
            f"how many examples the batch_sampler {name} serves is not known, since it has no end or serves others on "
            f"every pass, and the evidence of a minibatch counts for all of them; {cure}"
        )
    return served


def _same_on_every_pass(one_pass: Callable[[], Iterable[Any]], num_total: int) -> int | None:
    """How many examples a pass meets, where a second one meets the same; else None."""
    passes: list[set[Any]] = []
    for _ in range(2):
        with drawing(0 if not passes else 1):  # random samplers draw from the global generator
            batches = _different(one_pass(), num_total)
        if batches is None:
            return None
        passes.append({index for batch in batches for index in batch})
        if len(passes[0]) >= num_total:
            return num_total
    return len(passes[0]) if passes[0] == passes[1] else None


def _different(batches: Iterable[Any], num_total: int) -> list[list[Any]] | None:
    """What a pass meets for the first time, batch by batch, up to where all are met. None: no end in sight."""
    met: set[Any] = set()
    kept, count = [], 0
    for batch in batches:
        if not isinstance(batch, Iterable):
            raise DataError(f"the batch_sampler gave {batch!r}; expected lists of indices, one for each batch")
        entries = [index.item() if hasattr(index, "item") else index for index in batch]
        indices = [_from_the_start(index, num_total) for index in entries]
        fresh = [index for index in dict.fromkeys(indices) if index not in met]
        met.update(fresh)
        kept += [fresh] if fresh else []
        count += max(1, len(indices))
        if len(met) >= num_total:
            break
        if count > MOST_ROUNDS * num_total:
            return None
    return kept
