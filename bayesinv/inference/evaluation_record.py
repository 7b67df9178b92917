"""Evaluations of a density in a file, so that a fit that was interrupted goes on where it was.

A search is a function of its seed and of the values that it meets. One that is started again asks for the same
numbers in the same order, reads those that are there, and computes from the first on that is not.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import CheckpointError
from bayesinv.io.checkpoints import Checkpoint, CheckpointFile
from bayesinv.model.invariance_model import InvarianceModel

SECONDS = 10.0  # between two writes: what a power cut can cost
DIGEST = 16  # bytes of a name
LARGEST_DIFFERENCE = 0.1  # nats; inner iterations from other starts end some thousandths apart

Evaluation = tuple[float, Tensor | None]
_DESCRIBED: weakref.WeakKeyDictionary[InvarianceModel, str] = weakref.WeakKeyDictionary()


class EvaluationRecord:
    """Values, and gradients where they were asked for, by a name of what was asked.

    Args:
        path: the file; its folder must exist. What it holds of the same fit is read.
        fingerprint: JSON-able; what makes a fit the same one.

    Raises:
        FileNotFoundError, IsADirectoryError, FileExistsError, CheckpointError: as `CheckpointFile`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file, name = Path(folder) / "fit.checkpoint", EvaluationRecord.name("value", torch.ones(2))
        ...     with EvaluationRecord(file, {"seed": 0}).kept() as record:
        ...         record.add(name, (1.5, None))
        ...     EvaluationRecord(file, {"seed": 0}).get(name)
        (1.5, None)
    """

    def __init__(self, path: str | Path, fingerprint: Mapping[str, Any]):
        self._file = CheckpointFile(path, fingerprint)
        self._lock = threading.Lock()
        self._known: dict[bytes, Evaluation] = {}
        self._written, self._when = 0, time.monotonic()
        saved = self._file.read()
        if saved is not None:
            self._known = self._restored(saved)
            self._written = len(self._known)
        self._unchecked = saved is not None

    def __deepcopy__(self, memo: Any) -> EvaluationRecord:
        """Itself: copies of a density that work side by side write one file."""
        return self

    def __len__(self) -> int:
        return len(self._known)

    @staticmethod
    def name(what: str, theta: Float[Tensor, " size"]) -> bytes:
        """Of the evaluation of something at θ, to the last bit of it."""
        numbers = theta.detach().cpu().double().contiguous().numpy().tobytes()
        return hashlib.blake2b(what.encode() + b"\0" + numbers, digest_size=DIGEST).digest()

    def get(self, name: bytes) -> Evaluation | None:
        """What is known; None for nothing."""
        return self._known.get(name)

    def is_unchecked(self) -> bool:
        """Whether nothing that an earlier run left was computed again yet; asks once."""
        with self._lock:
            unchecked, self._unchecked = self._unchecked, False
        return unchecked

    def check(self, before: float, now: float) -> None:
        """Raise where the density is another one by now, as after a change of somebody's own transform.

        Raises:
            CheckpointError: the two values at one point differ by more than an inner iteration leaves.
        """
        if not abs(before - now) <= LARGEST_DIFFERENCE:
            raise CheckpointError(
                f"{self._file.path} has a log density of {before:.6g} nats where the model has {now:.6g} now: its code "
                f"has changed since. Delete {self._file.path} to start anew"
            )

    def add(self, name: bytes, found: Evaluation) -> None:
        """Keep it; on disk at the latest ten seconds later, if evaluations go on, or at the end of `kept`."""
        with self._lock:
            self._known[name] = found
            if time.monotonic() - self._when > SECONDS:
                self._write()

    @contextmanager
    def kept(self) -> Iterator[EvaluationRecord]:
        """Within the block evaluations come in; at its end, whatever ends it, all are on disk."""
        try:
            yield self
        finally:
            with self._lock:
                if len(self._known) > self._written:
                    self._write()

    def _write(self) -> None:
        names = torch.tensor([list(name) for name in self._known], dtype=torch.uint8)
        values = torch.tensor([value for value, _ in self._known.values()], dtype=torch.float64)
        empty = torch.zeros(0, dtype=torch.float64)
        gradients = [empty if gradient is None else gradient for _, gradient in self._known.values()]
        sizes = torch.tensor([len(gradient) for gradient in gradients])
        state = {"names": names, "values": values, "sizes": sizes, "gradients": torch.cat(gradients)}
        self._file.write(Checkpoint(len(self._known), False, [state], [], (), 0.0))
        self._written, self._when = len(self._known), time.monotonic()

    def _restored(self, saved: Checkpoint) -> dict[bytes, Evaluation]:
        try:
            (state,) = saved.modules
            names, values, sizes = state["names"].tolist(), state["values"].tolist(), state["sizes"].tolist()
            gradients = state["gradients"].split(sizes)
            return {
                bytes(name): (value, gradient if size else None)
                for name, value, size, gradient in zip(names, values, sizes, gradients, strict=True)
            }
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self._file.path} is the checkpoint of another kind of fit; give this one a file of its own"
            ) from error


def described(model: InvarianceModel) -> str:
    """What a model was made with, as text; its learned values are in θ. Made once for each model."""
    known = _DESCRIBED.get(model)
    if known is None:
        known = _DESCRIBED[model] = _described(model)
    return known


def _described(model: InvarianceModel) -> str:
    try:
        config: Any = model.config()
    except (TypeError, ValueError, NotImplementedError):  # a part is somebody's own
        config = repr(model)
    return json.dumps(config, sort_keys=True, default=lambda part: type(part).__name__)


def fingerprint(model: InvarianceModel, data: Data, seed: int) -> dict[str, Any]:
    """What has to be the same for evaluations to be those of this fit; of an initialised model."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    parts = (data.x, data.y, data.groups, *model.state_dict().values())
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(part.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return {
        "seed": seed,
        "num_train": len(data),
        "bayesinv": metadata.version("bayesinv"),
        "model": json.loads(described(model)),
        "data and start": digest.hexdigest(),
    }
