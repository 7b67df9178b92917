"""One log density at many points, side by side."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import NumericalError
from bayesinv.inference.forecast import Forecast
from bayesinv.inference.target import Target
from bayesinv.model.conditioning import copies_beside, shared_parts
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.threads import side_by_side

R = TypeVar("R")


class ManyPoints:
    """log p(D, θ) at many θ, next to each other where the data are small; their order changes nothing.

    The evidence's inner iteration starts where it last ended, and for values from the second call on where a regression
    on the points of earlier calls says that it will end.

    Args:
        target: the log density; its copies share the data.
        num_threads: that there are to share.
        exact: the model whose evidence is taken, where the target's own is a bound on it.
    """

    def __init__(self, target: Target, num_threads: int = 1, exact: InvarianceModel | None = None):
        self.target = target
        self._forecast: Forecast | None = None
        more = copies_beside(target.model, target.data, num_threads)
        self._num_threads = 1 + more
        self._free: SimpleQueue[tuple[Target, InvarianceModel | None]] = SimpleQueue()
        self._free.put((target, exact))
        for _ in range(more):
            self._free.put(copy.deepcopy((target, exact), shared_parts(target.model, target.data)))

    def values(
        self,
        points: Float[Tensor, "J size"],
        hyperpriors: bool = True,
        on_value: Callable[[], object] | None = None,
    ) -> Float[Tensor, " J"]:
        """The density at each; minus infinity where it cannot be computed.

        Args:
            points: θ.
            hyperpriors: whether the priors of hyperparameters count, see `Target`.
            on_value: called after each.
        """
        start = self.target.model.evidence.warm_start
        if self._forecast is None and start is not None:
            self._forecast = Forecast(start)
        forecast = self._forecast

        def compute(target: Target, point: Tensor) -> tuple[float, Tensor | None]:
            if forecast is not None:
                target.model.evidence.warm_start = forecast(point)
            return target(point, hyperpriors), target.model.evidence.warm_start

        values = []
        for point, found in zip(points, self._each(compute, points), strict=True):
            values.append(-math.inf if found is None else found[0])
            if forecast is not None and found is not None and found[1] is not None:
                forecast.add(point, found[1])
            if on_value is not None:
                on_value()
        if forecast is not None:
            forecast.fit()
        return torch.tensor(values, dtype=torch.float64)

    def gradients(self, points: Sequence[Float[Tensor, " size"]]) -> list[Float[Tensor, " size"] | None]:
        """The gradient at each; None where it cannot be computed."""
        return list(self._each(lambda target, point: target.with_gradient(point)[1], points))

    def _each(
        self, compute: Callable[[Target, Tensor], R], points: Sequence[Tensor] | Float[Tensor, "J size"]
    ) -> Iterator[R | None]:
        start = self.target.model.evidence.warm_start

        def evaluate(point: Tensor) -> R | None:
            target, exact = self._free.get()  # the waiting thread may want one more than there are
            try:
                target.model.evidence.warm_start = start
                with target.evaluating(exact):
                    return compute(target, point)
            except (NumericalError, torch.linalg.LinAlgError):
                return None
            finally:
                self._free.put((target, exact))

        before = self.target.evaluations
        yield from side_by_side(evaluate, points, self._num_threads)
        self.target.evaluations = before + len(points)
        self.target.model.evidence.warm_start = start
