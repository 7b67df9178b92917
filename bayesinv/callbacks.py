"""Ready-made callbacks for ``fit(callbacks=[...])``."""

from __future__ import annotations

import math
import os
from types import TracebackType
from typing import Any

from bayesinv.inference.loop import Step
from bayesinv.numerics.arguments import as_integer

__all__ = ["TensorBoardCallback"]


class TensorBoardCallback:
    """Write the objective and the extents of a fit for TensorBoard.

    Scalars are named ``objective`` (nats), ``extents/<symmetry>`` (internal units) and ``seconds``. Nothing is
    written before the first step, and every step is on disk once the block ends; show them with
    ``tensorboard --logdir``.

    Args:
        log_dir: the folder to write to; created if it is not there.
        every: steps between two entries.

    Raises:
        ImportError: TensorBoard is not installed. ValueError: `every` is not a positive integer.

    Example:
        >>> with TensorBoardCallback("runs/digits") as callback:  # doctest: +SKIP
        ...     posterior = fit(model, data, callbacks=[callback])
    """

    def __init__(self, log_dir: str | os.PathLike[str], every: int = 1):
        every = as_integer("every", every)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError('TensorBoardCallback needs TensorBoard: pip install "bayesinv[tensorboard]"') from error
        self.every = every
        self._make: Any = SummaryWriter
        self._log_dir = os.fspath(log_dir)
        self._writer: Any = None

    def __call__(self, step: Step) -> None:
        """Write one step, where it is due; the last one always is."""
        if step.step % self.every and step.step != step.max_steps:
            return
        if self._writer is None:
            self._writer = self._make(self._log_dir)
        values = {"objective": step.objective, "seconds": step.seconds}
        values |= {f"extents/{name}": value for name, value in step.extents.items()}
        for tag, value in values.items():
            if math.isfinite(value):  # there is no objective before the first step of the extents
                self._writer.add_scalar(tag, value, step.step)
        self._writer.flush()

    def close(self) -> None:
        """End the file; another step would begin a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> TensorBoardCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
