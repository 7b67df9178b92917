"""The process group of a run on several devices or machines: shares of work, sums over processes, named errors.

``torch.distributed`` connects the processes; whoever starts them (``torchrun``) initialises its group. Everything here
does nothing where there is no group, or one of a single process.
"""

from __future__ import annotations

import os
import pickle
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bayesinv.errors import RankError, first_line

__all__ = ["Processes", "current_group", "gathered", "is_first", "not_connected", "shared_by", "sharing"]

T = TypeVar("T")
# Seconds until a process that does not answer at a check is taken to be gone, where the backend itself does not say so.
LONGEST_WAIT = 300.0
# gloo's errors have no class of their own; these words are those of its messages about the other end.
_OF_CONNECTION = re.compile(
    r"connect|closed by peer|reset by peer|remote peer|broken pipe|socket|timed out|time-?out|monitoredBarrier", re.I
)
_sharing: ContextVar[Processes | None] = ContextVar("sharing", default=None)
# The group of the CPU beside one of another backend, and which group it is beside; made once.
_side: tuple[Any, Any] | None = None


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        rank: which of them this one is, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    def part(self, num: int) -> slice:
        """This process' share of `num` things: consecutive ones, and no two shares differ by more than one.

        Example:
            >>> [Processes(rank, 3).part(7) for rank in range(3)]
            [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        return slice(num * self.rank // self.size, num * (self.rank + 1) // self.size)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in place; the same bits on every one.

        One message for all that have a device and a type in common.

        Raises:
            RankError: another process has gone, or does not answer.
        """
        for some in _alike(tensors):
            flat = torch.cat([t.reshape(-1) for t in some])
            with _named(self):
                dist.all_reduce(flat, group=_group_of(flat))
            _write_back(flat, some)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of process 0, in place.

        Raises:
            RankError: another process has gone, or holds tensors of other sizes.
        """
        tensors = list(tensors)
        self.check_same([(tuple(t.shape), str(t.dtype)) for t in tensors], "the model: shapes of its tensors")
        for some in _alike(tensors):
            flat = torch.cat([t.reshape(-1) for t in some])
            with _named(self):
                dist.broadcast(flat, 0, group=_group_of(flat))
            _write_back(flat, some)

    def from_first(self, compute: Callable[[], T]) -> T:
        """What a function returns or raises on process 0, on all of them; the others do not call it.

        Raises:
            RankError: process 0 has gone.
        """
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = compute()
            except Exception as error:
                outcome[1] = error if _can_travel(error) else RankError(f"process 0: {first_line(error)}")
        with _named(self):
            dist.broadcast_object_list(outcome, 0, group=_group_of(None))
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def check_same(self, value: Any, what: str) -> None:
        """Raise on all processes where one of them holds another value than process 0.

        Raises:
            ValueError: names the process.
        """
        values: list[Any] = [None] * self.size
        with _named(self):
            dist.all_gather_object(values, value, group=_group_of(None))
        for rank, other in enumerate(values):
            if other != values[0]:
                raise ValueError(
                    f"{what} differ between processes: {_shown(values[0], other)} on process 0 and "
                    f"{_shown(other, values[0])} on process {rank}; give all of them the same"
                )

    def check_alive(self) -> None:
        """Wait until all processes are here, where the backend would wait for a missing one without an end.

        Raises:
            RankError: names those that are missing.
        """
        if dist.get_backend() == "gloo":
            return  # whose messages fail as soon as one end is gone
        with _named(self):
            dist.monitored_barrier(_group_of(None), timedelta(seconds=LONGEST_WAIT), wait_all_ranks=True)


def current_group() -> Processes | None:
    """The group that ``torch.distributed.init_process_group`` made; None without one, or of one process.

    Example:
        >>> current_group() is None
        True
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() < 2:
        return None
    return Processes(dist.get_rank(), dist.get_world_size())


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress: rank 0, or alone."""
    group = current_group()
    return group is None or group.rank == 0


def not_connected() -> int:
    """How many processes a launcher such as ``torchrun`` started, where nobody has connected them; else 0."""
    started = os.environ.get("WORLD_SIZE", "1")
    apart = "RANK" in os.environ and started.isdigit() and int(started) > 1
    return int(started) if apart and dist.is_available() and not dist.is_initialized() else 0


@contextmanager
def sharing(group: Processes | None) -> Iterator[None]:
    """Run a block that all processes of a group run with the same numbers: what it computes can be shared out."""
    token = _sharing.set(group)
    try:
        yield
    finally:
        _sharing.reset(token)


def shared_by(num: int) -> Processes | None:
    """The processes that share the work on `num` examples; None outside of a block that is shared, or for too few."""
    group = _sharing.get()
    return None if group is None or num < group.size else group


def gathered(own: Tensor, num: int, axis: int, group: Processes) -> Tensor:
    """The shares of all processes as one tensor, in the order of the examples.

    All processes compute the same number from the result, and the mean of their gradients is taken afterwards. A
    process therefore gets `size` times the gradient of its own share, and no message is needed on the way back.

    Args:
        own: has ``group.part(num)`` of the examples along an axis.
        num: of all examples.
        axis: of the examples.
        group: the processes.
    """
    result: Tensor = _Gathered.apply(own, num, axis, group)
    return result


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, num: int, axis: int, group: Processes) -> Tensor:
        ctx.axis, ctx.part, ctx.size = axis, group.part(num), group.size
        parts = [Processes(rank, group.size).part(num) for rank in range(group.size)]
        largest = max(part.stop - part.start for part in parts)
        sent = own.new_zeros(largest, *own.movedim(axis, 0).shape[1:])
        sent[: own.shape[axis]] = own.movedim(axis, 0)
        came = [torch.empty_like(sent) for _ in parts]
        with _named(group):
            dist.all_gather(came, sent, group=_group_of(sent))
        whole = torch.cat([rows[: part.stop - part.start] for rows, part in zip(came, parts, strict=True)])
        return whole.movedim(0, axis)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.size * g.movedim(ctx.axis, 0)[ctx.part].movedim(0, ctx.axis), None, None, None


@contextmanager
def _named(group: Processes) -> Iterator[None]:
    """Errors of the connection as one of the library; others, such as of shapes or of memory, as they are."""
    try:
        yield
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise RankError(
            f"process {group.rank} of {group.size}: another process has stopped or cannot be reached "
            f"({first_line(error)[:300]})"
        ) from error


def _is_of_connection(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, dist.DistError) or _OF_CONNECTION.search(str(error)) is not None


def _group_of(tensor: Tensor | None) -> Any:
    """The group by which a tensor travels, or an object (None); the default one, or that of the CPU beside it."""
    global _side
    if dist.get_backend() == "gloo" or (tensor is not None and tensor.device.type != "cpu"):
        return None
    if _side is None or _side[0] is not dist.group.WORLD:
        _side = dist.group.WORLD, dist.new_group(backend="gloo")
    return _side[1]


def _alike(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Tensors by device and type, in order."""
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return list(kinds.values())


@torch.no_grad()
def _write_back(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, values in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


def _shown(value: Any, other: Any) -> str:
    """Of lists the first entry that differs, and of others as much as fits."""
    if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
        value = next((one for one, two in zip(value, other, strict=True) if one != two), value)
    return reprlib.repr(value)


def _can_travel(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a class of the caller's own does there
        return False
    return True
