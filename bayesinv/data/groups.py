"""Which group each example belongs to: names or numbers, checked and numbered."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import DataError

__all__ = ["NEW_GROUP", "as_groups", "numbered"]

NEW_GROUP = -1  # the number of a group that training has not seen


def as_groups(groups: Any, names: Sequence[str], num_inputs: int, training: bool = False) -> Int64[Tensor, " n"]:
    """The number of every example's group.

    Args:
        groups: (n,) numbers 0..G-1, or names; None, -1 or a name that is not there is a group not seen in training.
        names: of the G groups.
        num_inputs: n.
        training: whether unseen groups are refused.

    Raises:
        DataError: what was expected, what came, and what to do.

    Example:
        >>> as_groups(["b", "a", "b"], ["a", "b"], 3)
        tensor([1, 0, 1])
    """
    known = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    if groups is None:
        if training:
            raise DataError(
                f"the model has extents for {len(names)} groups, and the data do not say which example is of which; "
                f"fit bayesinv.Data(x, y, groups=names), one for each example, or with the numbers {known}"
            )
        return torch.full((num_inputs,), NEW_GROUP)
    if isinstance(groups, str | int):
        raise DataError(f"groups: expected an entry for each of {num_inputs} inputs, got {groups!r}; known are {known}")
    listed = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    entries = [entry.item() if hasattr(entry, "item") else entry for entry in listed]  # numpy.int64(1) in a list
    if len(entries) != num_inputs:
        raise DataError(f"groups holds {len(entries)} entries for {num_inputs} inputs; expected one for each")
    if entries and all(isinstance(entry, str) for entry in entries):
        strangers = sorted(set(entries) - set(names))
        if strangers and training:
            raise DataError(f"groups: {', '.join(map(repr, strangers))} not among {', '.join(names)}")
        if strangers:
            warnings.warn(
                f"groups: {', '.join(map(repr, strangers))} not among {', '.join(names)}, so taken for groups that "
                f"training has not seen, with extents from the population; {NEW_GROUP} says so without this warning",
                UserWarning,
                stacklevel=2,
            )
        entries = [names.index(entry) if entry in names else NEW_GROUP for entry in entries]
    wrong = [entry for entry in entries if isinstance(entry, bool) or not isinstance(entry, int)]
    if wrong:
        both = ", not both" if any(isinstance(entry, int) for entry in entries) else ""
        raise DataError(f"groups: expected whole numbers or names{both}, got {wrong[0]!r}; known are {known}")
    lowest = 0 if training else NEW_GROUP
    outside = sorted({entry for entry in entries if not lowest <= entry < len(names)})
    if outside:
        unseen = "" if training else f", or {NEW_GROUP} for a group that training has not seen"
        raise DataError(f"groups: {outside[0]} is no group of this model; expected {known}{unseen}")
    return torch.tensor(entries, dtype=torch.int64)


def numbered(data: Data, names: Sequence[str] | None) -> Data:
    """Training data whose groups are numbers, where they came with names.

    Args:
        data: of a fit.
        names: of the groups of the model; None where it has none, and then names in the data are left out.

    Raises:
        DataError: a name that the model does not have.
    """
    if data.groups is None or isinstance(data.groups, Tensor):
        return data
    return replace(data, groups=None if names is None else as_groups(data.groups, names, len(data), training=True))
