"""The state of a training run in one file, written whole or not at all, and read without running anything.

The file is one line of text (format, version, and the checksum of the rest) and what ``torch.save`` makes of a
dictionary of tensors, numbers and text.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import reprlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesinv.errors import CheckpointError, first_line
from bayesinv.io.differences import differences
from bayesinv.io.files import check_writable, clear_abandoned, write_atomically

FORMAT = "bayesinv.checkpoint"
FORMAT_VERSION = 1
DIFFERENCES_SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands.

    Attributes:
        step: global steps taken.
        finished: whether there are no more to take.
        modules: their ``state_dict``, in order.
        optimisers: theirs.
        trace: the objective so far.
        seconds: spent so far.
    """

    step: int
    finished: bool
    modules: list[dict[str, Any]]
    optimisers: list[dict[str, Any]]
    trace: tuple[float, ...]
    seconds: float


class CheckpointFile:
    """A file that holds the latest :class:`Checkpoint` of one fit.

    Args:
        path: the file; its folder must exist.
        fingerprint: JSON-able; what makes a fit the same one.

    Raises:
        FileNotFoundError: the folder does not exist. IsADirectoryError: the path is a folder. FileExistsError: it is a
            device or a pipe. CheckpointError: it is a file of something else, which is never replaced.
        TypeError: the fingerprint cannot be written as JSON.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = CheckpointFile(Path(folder) / "run.checkpoint", {"seed": 0})
        ...     file.write(Checkpoint(5, False, [{"w": torch.ones(2)}], [], (1.0, 2.0), 0.1))
        ...     file.read().step
        5
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: Mapping[str, Any]):
        self.path = Path(path)
        target = check_writable(self.path, overwrite=True)
        self._refuse_foreign()
        try:
            # As it will be read back, so that the two can be compared: tuples become lists, keys text.
            self.fingerprint: dict[str, Any] = json.loads(json.dumps(dict(fingerprint)))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"fingerprint: expected what JSON can hold, got {reprlib.repr(fingerprint)}: {error}"
            ) from error
        clear_abandoned(target)

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace what the file holds; a reader, or a power cut, sees the old content or the new."""
        content = {
            "fingerprint": json.dumps(self.fingerprint),
            "step": checkpoint.step,
            "finished": checkpoint.finished,
            "modules": [_tensors(state) for state in checkpoint.modules],
            "optimisers": checkpoint.optimisers,
            "trace": torch.tensor(checkpoint.trace, dtype=torch.float64),
            "seconds": checkpoint.seconds,
        }
        write_atomically(self.path, _pack(content))

    def read(self) -> Checkpoint | None:
        """What the file holds, on the CPU; None if there is no file.

        Raises:
            CheckpointError: it is damaged, of another format, or of another fit; says what to do.
        """
        if not self.path.is_file():
            return None
        self._refuse_foreign()
        try:
            content = _unpack(self.path.read_bytes())
            fingerprint = json.loads(content["fingerprint"])
            checkpoint = Checkpoint(
                step=int(content["step"]),
                finished=bool(content["finished"]),
                modules=list(content["modules"]),
                optimisers=list(content["optimisers"]),
                trace=tuple(content["trace"].tolist()),
                seconds=float(content["seconds"]),
            )
        except _LaterVersionError as error:
            raise CheckpointError(
                f"{self.path} has {error}, and this bayesinv reads {FORMAT_VERSION}; go on with the bayesinv that "
                f"wrote it, or delete {self.path} to start anew"
            ) from error
        # A file of something else fails in as many ways as torch's format has fields.
        except Exception as error:
            raise CheckpointError(
                f"{self.path} is a checkpoint of bayesinv that is damaged ({first_line(error)}); delete {self.path} to "
                "start anew"
            ) from error
        different = differences(fingerprint, self.fingerprint)
        if different:
            more = f", and {len(different) - DIFFERENCES_SHOWN} more" if len(different) > DIFFERENCES_SHOWN else ""
            raise CheckpointError(
                f"{self.path} is the checkpoint of another fit: {', '.join(different[:DIFFERENCES_SHOWN])}{more}. Give "
                f"this fit a checkpoint of its own, or delete {self.path} to start anew; for a network "
                "Training(resume=False) replaces it"
            )
        return checkpoint

    def restore(
        self, saved: Checkpoint, modules: Sequence[nn.Module], optimisers: Sequence[torch.optim.Optimizer]
    ) -> None:
        """Load modules and optimisers with what was saved; see :func:`restore`."""
        restore(self.path, saved, modules, optimisers)

    def _refuse_foreign(self) -> None:
        """Raise if the file is somebody's own, which must neither be deleted nor replaced."""
        if self.path.is_file() and not (is_checkpoint(self.path) or self.path.stat().st_size == 0):
            raise CheckpointError(
                f"{self.path} is not a checkpoint of bayesinv but some other file; leave it and choose another path: "
                f"Training(checkpoint={str(self.path.with_name(self.path.stem + '.checkpoint'))!r})"
            )


def restore(
    path: str | os.PathLike[str],
    saved: Checkpoint,
    modules: Sequence[nn.Module],
    optimisers: Sequence[torch.optim.Optimizer],
) -> None:
    """Load modules and optimisers with what was saved in a file, which need not be at hand.

    Raises:
        CheckpointError: they are not those that were saved.
    """
    try:
        for module, state in zip(modules, saved.modules, strict=True):
            module.load_state_dict(state)
        for optimiser, state in zip(optimisers, saved.optimisers, strict=True):
            optimiser.load_state_dict(state)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        first_lines = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} does not fit this model: {first_lines[:300]}. Give this fit a checkpoint of its own, or "
            "replace that one with Training(resume=False)"
        ) from error


def is_checkpoint(path: Path) -> bool:
    """Whether a file begins as a checkpoint does; it may be damaged further on."""
    with open(path, "rb") as file:
        return file.read(len(FORMAT)) == FORMAT.encode()


class _LaterVersionError(ValueError):
    """The format is ours, and its version is not."""


def _pack(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getvalue()
    return f"{FORMAT} {FORMAT_VERSION} {_checksum(body)}\n".encode() + body


def _unpack(written: bytes) -> Any:
    header, _, body = written.partition(b"\n")
    parts = header.split()
    if len(parts) != 3 or parts[0] != FORMAT.encode():
        raise ValueError(f"its first line is not that of a {FORMAT}")
    # torch's reader does not look at the checksums of its zip, so the file has one of its own.
    if parts[2].decode() != _checksum(body):
        raise ValueError("its checksum is wrong")
    if int(parts[1]) != FORMAT_VERSION:
        raise _LaterVersionError(f"format version {int(parts[1])}")
    with zipfile.ZipFile(io.BytesIO(body)) as archive:  # torch compresses nothing, and then nothing unpacks to more
        if sum(entry.file_size for entry in archive.infolist()) > len(body):
            raise ValueError("it would unpack to more than it holds")
    content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    _refuse_expanded(content)
    return content


def _refuse_expanded(content: Any) -> None:
    """Raise if a tensor names more numbers than are stored, which a copy of it would take the memory for."""
    if isinstance(content, Tensor):
        if content.nbytes > content.untyped_storage().nbytes():
            raise ValueError("a tensor is larger than what is stored of it")
    elif isinstance(content, Mapping | list | tuple):
        for value in content.values() if isinstance(content, Mapping) else content:
            _refuse_expanded(value)


def _checksum(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"only tensors can be saved; the state has a {type(value).__name__} at {name!r}")
    return dict(state)
