"""Coordinates in which a density with a scale of its own on either side of its mode is a normal one.

θ = c + w h(ε),   h the increasing map that sends N(0, 1) to a normal with scales r below zero and q above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-300  # of a probability whose quantile is taken


def _phi(x: Tensor) -> Tensor:
    """Φ; torch.special.ndtr is zero below -8.3."""
    return 0.5 * torch.erfc(x * -math.sqrt(0.5))


@dataclass(frozen=True)
class Bend:
    """h for each of d coordinates.

        F(x) = 2r/(r + q) Φ(x / r) below zero, 1 - 2q/(r + q) Φ(-x / q) above;   h(ε) = F⁻¹(Φ(ε))

    Attributes:
        centre: c, (d,).
        width: w, (d,).
        below, above: r and q, (d,).

    Reference:
        J. Geweke (1989). Bayesian inference in econometric models using Monte Carlo integration. Econometrica 57.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> bend = Bend(0 * one, one, 2 * one, one)
        >>> bool(torch.allclose(bend.straighten(bend(0.3 * one)), 0.3 * one))
        True
    """

    centre: Float[Tensor, " d"]
    width: Float[Tensor, " d"]
    below: Float[Tensor, " d"]
    above: Float[Tensor, " d"]

    def __call__(self, epsilon: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws d"]:
        """θ of ε."""
        r, q = self.below, self.above
        lower = _phi(epsilon)
        upper = _phi(-epsilon)
        left = r * torch.special.ndtri((lower * (r + q) / (2.0 * r)).clamp(SMALLEST, 0.5))
        right = -q * torch.special.ndtri((upper * (r + q) / (2.0 * q)).clamp(SMALLEST, 0.5))
        return self.centre + self.width * torch.where(lower * (r + q) < r, left, right)

    def straighten(self, theta: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws d"]:
        """ε of θ."""
        r, q = self.below, self.above
        x = (theta - self.centre) / self.width
        lower = 2.0 * r / (r + q) * _phi(x / r)
        upper = 2.0 * q / (r + q) * _phi(-x / q)
        left, right = (torch.special.ndtri(p.clamp(SMALLEST, 1.0 - 1e-16)) for p in (lower, upper))
        return torch.where(x < 0, left, -right)

    def log_slope(self, theta: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws"]:
        """log |dε/dθ|, summed over the coordinates."""
        return self.log_slopes(theta).sum(-1)

    def log_slopes(self, theta: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws d"]:
        """log dε/dθ of each coordinate: log f(x) - log φ(ε) - log w, f the density with two scales."""
        r, q = self.below, self.above
        x = (theta - self.centre) / self.width
        side = torch.where(x < 0, r, q)
        log_f = math.log(2.0) - (r + q).log() - 0.5 * (x / side).square()
        return log_f + 0.5 * self.straighten(theta).square() - self.width.log()

    def of(self, columns: Sequence[int]) -> Bend:
        """That of some of the coordinates."""
        which = list(columns)
        return Bend(self.centre[which], self.width[which], self.below[which], self.above[which])
