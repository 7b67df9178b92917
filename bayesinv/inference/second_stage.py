"""The second stage of a network fit: weights for predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from bayesinv.inference.rates import OptimiserFactory, ScheduleFactory

__all__ = ["SecondStage"]

STARTS = ("given", "continued")


@dataclass(frozen=True)
class SecondStage:
    """Train the weights that predict on the likelihood alone, with extents drawn from the posterior of the first stage.

    Of N = epochs · n / batch_size steps the first stage takes N - round(share · N) and the second one round(share · N),
    each on batches of the same size with the same number of copies: as many passes as with fixed extents. The share
    takes the place of `Training.finish`; `burn_in` and `settle` stay shares of all N steps.

        L = -(1/n) Σ_i log p(y_i | f_η(x_i)),    η ~ p(η | D), one draw and fresh copies for each batch

    Args:
        share: of all steps, between 0 and 1.
        start: "continued", the weights that the first stage has trained; or "given", those that the network came with,
            of its constructor or pretrained, which takes about as many passes as a training from scratch.
        optimiser: from a list of parameters to an optimiser, with rates and weight decay of its own; None is Adam at
            `Training.weight_rate`, AdamW with `Training.weight_decay`.
        schedule: from an optimiser and its number of steps to a scheduler, which takes one step a batch; None is
            `Training.schedule`.

    Raises:
        TypeError, ValueError: a setting of the wrong kind or out of range.

    Example:
        >>> SecondStage(share=0.6).start
        'continued'
    """

    share: float = 0.5
    start: Literal["given", "continued"] = "continued"
    optimiser: OptimiserFactory | None = None
    schedule: ScheduleFactory | None = None

    def __post_init__(self) -> None:
        share: Any = self.share
        if not (isinstance(share, int | float) and not isinstance(share, bool) and math.isfinite(share)):
            raise TypeError(f"SecondStage: share: expected a number, got {share!r}")
        if not 0 < share < 1:
            raise ValueError(f"SecondStage: share: expected a share of the steps between 0 and 1, got {share!r}")
        if self.start not in STARTS:
            raise ValueError(f"SecondStage: start: expected one of {list(STARTS)}, got {self.start!r}")
        for name in ("optimiser", "schedule"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(f"SecondStage: {name}: expected a function that makes it, or None, got {value!r}")

    def described(self) -> dict[str, Any]:
        """What JSON can hold of it: functions by their names."""
        named = {name: _name(getattr(self, name)) for name in ("optimiser", "schedule")}
        return {"share": self.share, "start": self.start, **named}


def _name(function: Any) -> str | None:
    return None if function is None else getattr(function, "__qualname__", type(function).__name__)
