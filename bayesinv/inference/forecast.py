"""Where an inner iteration will end at a point, from where it ended at others."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 1e-3  # of the regression, relative to its diagonal
BUDGET = 2**27  # bytes of ends that are kept


class Forecast:
    """A quadratic regression of fixed points u on coordinates θ, without a forecast outside of what it has seen.

        u(θ) = u_0 + Σ_j a_j (1 + eᵀe_j)²,    e = (θ - θ_0) / scale,  cut to the box of the e_j

    Args:
        theta: θ_0, (d,).
        end: u_0, of any shape.

    Example:
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
        >>> forecast = Forecast(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
        >>> forecast.learn(x, list(x**2 - x))
        >>> abs(float(forecast(torch.tensor([0.6], dtype=torch.float64))) - (0.36 - 0.6)) < 0.01
        True
    """

    def __init__(self, theta: Float[Tensor, " d"], end: Tensor):
        self._origin, self._end = theta, end
        self._points: list[Tensor] = []
        self._ends: list[Tensor] = []
        self._e: Tensor | None = None

    def learn(self, points: Float[Tensor, "J d"], ends: list[Tensor]) -> None:
        """Take in more points and where the iteration ended there, as far as memory allows."""
        room = max(0, BUDGET // (8 * max(1, self._end.numel())) - len(self._points))
        self._points += list(points)[:room]
        self._ends += [end.cpu() for end in ends[:room]]
        if not self._points:
            return
        away = torch.stack(self._points) - self._origin
        self._scale = away.abs().amax(0).clamp_min(1e-12)
        self._e = away / self._scale
        self._low, self._high = self._e.amin(0), self._e.amax(0)
        K = (1.0 + self._e @ self._e.T).square()
        K = K + RIDGE * K.diagonal().mean() * torch.eye(len(K), dtype=K.dtype)
        self._a = torch.linalg.solve(K, torch.stack([end.flatten() for end in self._ends]) - self._end.flatten().cpu())

    def __call__(self, theta: Float[Tensor, " d"]) -> Tensor:
        """u(θ)."""
        if self._e is None:
            return self._end
        e = ((theta - self._origin) / self._scale).clamp(self._low, self._high)
        moved = ((1.0 + self._e @ e).square() @ self._a).view_as(self._end)
        return self._end + moved.to(self._end.device)
