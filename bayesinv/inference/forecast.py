"""Where an inner iteration will end at a point, from where it ended at others."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 1e-3  # of the regression, relative to its diagonal
BUDGET = 2**26  # bytes of ends that are kept; the regression holds as many coefficients
MOST_POINTS = 500  # the latest, which lie closest to those to come


class Forecast:
    """A quadratic regression of fixed points u on coordinates θ, without a forecast outside of what it has seen.

        u(θ) = u_0 + Σ_j a_j (1 + eᵀe_j)²,    e = (θ - mean of θ_j) / scale,  cut to the box of the e_j

    Args:
        end: u_0, of any shape, which is the forecast before anything was learned.

    Example:
        >>> forecast = Forecast(torch.zeros(1, dtype=torch.float64))
        >>> for x in torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]:
        ...     forecast.add(x, x**2 - x)
        >>> forecast.fit()
        >>> abs(float(forecast(torch.tensor([0.6], dtype=torch.float64))) - (0.36 - 0.6)) < 0.01
        True
    """

    def __init__(self, end: Tensor):
        self._end = end
        self._points: list[Tensor] = []
        self._ends: list[Tensor] = []
        self._learned: tuple[Tensor, Tensor, Tensor, Tensor] | None = None  # origin, scale, e_j and a

    def add(self, theta: Float[Tensor, " d"], end: Tensor) -> None:
        """Another point and where the iteration ended there; the oldest give way once memory is used up."""
        self._points.append(theta)
        self._ends.append(end.cpu().flatten())
        most = min(MOST_POINTS, BUDGET // (8 * max(1, end.numel())))
        del self._points[: -most or None], self._ends[: -most or None]

    def fit(self) -> None:
        """Regress on all points so far."""
        if not self._points:
            return
        points = torch.stack(self._points)
        origin = points.mean(0)
        scale = (points - origin).abs().amax(0).clamp_min(1e-12)
        e = (points - origin) / scale
        K = (1.0 + e @ e.T).square()
        K = K + RIDGE * K.diagonal().mean() * torch.eye(len(K), dtype=K.dtype)
        a = torch.linalg.solve(K, torch.stack(self._ends) - self._end.cpu().flatten())
        self._learned = origin, scale, e, a

    def __call__(self, theta: Float[Tensor, " d"]) -> Tensor:
        """u(θ)."""
        if self._learned is None:
            return self._end
        origin, scale, known, a = self._learned
        e = ((theta - origin) / scale).clamp(known.amin(0), known.amax(0))
        moved = ((1.0 + known @ e).square() @ a).view_as(self._end)
        return self._end + moved.to(self._end.device)
