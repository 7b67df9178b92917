"""What all streams share: seeds, and the checks that every batch passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bayesinv.data.arrays import as_tensor, widened
from bayesinv.data.container import Data, as_data, as_inputs
from bayesinv.data.groups import as_groups
from bayesinv.data.items import shown
from bayesinv.errors import DataError
from bayesinv.numerics.processes import Processes
from bayesinv.transforms import Transform

__all__ = ["Stream", "checked_size", "part_of"]


class Stream(ABC):
    """Training data as minibatches; `stream_of` makes one.

    Attributes:
        num_total: n, the number of examples that a batch stands for.
        num_classes: C; None for real targets, and until it is known. May be set.
        groups: names, where a data set says of each example which group it is of; None where it does not.
        classes: names of the classes, where the data have them.
        batch_size: that of the DataLoader it was made from, or None.
        exact_resume: whether `batch` is a pure function of its arguments.
    """

    exact_resume = True

    def __init__(
        self,
        num_total: int,
        likelihood: str,
        transform: Transform | None,
        num_classes: int | None = None,
        groups: Sequence[str] | None = None,
    ):
        self.num_total = num_total
        self.likelihood = likelihood
        self.transform = transform
        self.num_classes = num_classes
        self.groups = groups
        self.classes: tuple[str, ...] | None = None
        self.batch_size: int | None = None
        self._seen = False  # whether what half precision has rounded was looked at

    @property
    @abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one input."""

    @abstractmethod
    def batch(self, seed: int, purpose: str, step: int, size: int, group: Processes | None = None) -> Data:
        """Batch number `step` of the batches for one purpose, distinct examples.

        An epoch is one permutation; the last batch of it, where short, is filled up from its beginning.

        Args:
            seed: of the permutations.
            purpose: any name; purposes have permutations of their own.
            step: counted from 0.
            size: examples in the batch; cut to `num_total`.
            group: processes that share the batch; this one gets its own part. The batch itself depends on none of them.

        Raises:
            DataError: the batch is not usable; names it.
        """

    @abstractmethod
    def subset(self, num: int, seed: int) -> Data:
        """`num` random examples, or all of them in their own order if there are no more."""

    def digest(self) -> str | None:
        """A checksum of the data where they are in memory, to tell them from others; else None."""
        return None

    def close(self) -> None:  # noqa: B027 (most streams hold nothing)
        """End the worker processes; they start again when they are needed."""

    def checked(self, item: Any, where: str, indices: list[int] | None) -> Data:
        """A collated batch as `Data`, or a DataError that says which one is at fault and why."""
        wanted = 2 if self.groups is None else 3
        if not isinstance(item, tuple | list) or len(item) != wanted:
            came = f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, tuple | list) else "")
            expected = "pairs (x, y)" if self.groups is None else "(x, y, group), since the model has groups"
            raise DataError(f"{where}: the data set gave {came}; expected {expected}")
        try:
            x, y = as_tensor(item[0], "x"), as_tensor(item[1], "y")
            if self._seen:  # one warning is enough
                x, y = widened(x), widened(y)
            self._seen = self._seen or (x.ndim > 0 and len(x) > 1)
            if self.likelihood == "gaussian":
                data = as_data((x, y), "gaussian", self.transform)
            else:
                x = as_inputs(x, self.transform)
                y = y.to(x.device)
                num_classes = _check_labels(y, 2 if self.likelihood == "bernoulli" else self.num_classes)
                data = Data(x, y.to(torch.int64), num_classes, classes=self.classes)
            if self.groups is None:
                return data
            return replace(data, groups=as_groups(item[2], self.groups, len(data), training=True))
        except DataError as error:
            raise DataError(f"{where}{_culprits(item, indices)}: {error}") from error


def checked_size(size: int, num_total: int) -> int:
    if size < 1:
        raise ValueError(f"size: expected at least 1 example, got {size}")
    return min(size, num_total)


def part_of(num: int, group: Processes | None) -> slice:
    """The share of `num` examples that this process gets."""
    return slice(0, num) if group is None else group.part(num)


def _check_labels(y: Tensor, num_classes: int | None) -> int:
    """C, or one more than the largest label where it is not known."""
    if y.ndim in (0, 2) or y.is_floating_point():
        cure = "use int(y) in the data set, or likelihood='gaussian' if they are real targets"
        if y.ndim == 2:
            cure = "one-hot rows become labels with y.argmax(-1) in the data set" if y.shape[1] > 1 else "drop the axis"
        raise DataError(
            f"y has shape {tuple(y.shape)} and dtype {y.dtype}; expected integer labels of shape (n,), or "
            f"(n, height, width): {cure}"
        )
    low, high = (int(bound) for bound in torch.aminmax(y.to(torch.int64)))
    if low < 0 or (num_classes is not None and high >= num_classes):
        allowed = "0..C-1"
        if num_classes is not None:
            allowed = (
                f"0..{num_classes - 1} for {num_classes} classes, as many as a network has outputs or the first "
                "examples show; bayesinv.Data(x, y, num_classes=C) says it of arrays"
            )
        raise DataError(f"label {low if low < 0 else high} is out of range; expected {allowed}")
    return max(2, high + 1) if num_classes is None else num_classes


def _culprits(item: Any, indices: list[int] | None) -> str:
    """Which examples of the data set are not finite, for a message."""
    if indices is None:
        return ""
    bad: set[int] = set()
    for part in item:
        if isinstance(part, Tensor) and part.ndim and len(part) == len(indices):
            finite = torch.isfinite(part).reshape(len(part), -1).all(1)
            bad.update(indices[i] for i in torch.nonzero(~finite)[:, 0].tolist())
    return f" (data set indices {shown(sorted(bad))})" if bad else f" (data set indices {shown(indices)})"
