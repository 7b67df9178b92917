"""A log density known at a few points, as a Gaussian process regression that knows its own error.

    v_i = f(z_i) + e_i,    f = b_0 + b·x + xᵀBx + g,    g ~ GP(0, a² exp(-½|z - z'|²/ℓ²)),    e_i ~ N(0, s_i²),

x the points z standardised. The trend has wide normal priors, so that few points leave it near flat and many make it a
quadratic, which is what the log evidence of much data is. a, ℓ and the noise s are those of the largest marginal
likelihood under weak priors. Points far below the highest count less, s_i² = s² + (0.05 (max v - v_i))²: nobody asks
how low the density is there. Outside of the box of the points f may go on falling, but does not rise above the nearest
place on the box.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Grid of hyperparameters. In z a flat prior has standard deviation one.
LENGTHS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
AMPLITUDES = (0.3, 1.0, 3.0, 10.0, 30.0)  # nats
NOISES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # nats
# Centres and spreads of their log-normal priors.
LENGTH_PRIOR, AMPLITUDE_PRIOR, NOISE_PRIOR = (1.0, 0.5), (2.0, 1.0), (0.2, 1.0)
TREND = 3.0  # prior standard deviation of slopes and curvatures, in spreads of the values
SHAPING = 0.05
# Nats below the highest, beside one for each extent, within which a point counts for the error: in one dimension a
# normal density has 0.5 % of its mass further down.
NEAR = 3.0
FEWEST_NEAR = 3


@dataclass(frozen=True)
class Surrogate:
    """f given its values at some points; made by `Surrogate.of`.

    Args:
        points: z, (M, A).
        values: v, nats, (M,).
        length, amplitude, noise: ℓ, a (nats) and s (nats).

    Example:
        >>> z = torch.linspace(-2, 2, 6, dtype=torch.float64)[:, None]
        >>> f = Surrogate.of(z, -2 * (z[:, 0] - 0.5) ** 2)
        >>> mean, sd = f(torch.tensor([[0.5]], dtype=torch.float64))
        >>> abs(float(mean)) < 0.1, f.error() < 0.5
        (True, True)
    """

    points: Float[Tensor, "M A"]
    values: Float[Tensor, " M"]
    length: float
    amplitude: float
    noise: float

    @classmethod
    def of(cls, points: Float[Tensor, "M A"], values: Float[Tensor, " M"]) -> Surrogate:
        """The regression on these points.

        Raises:
            ValueError: fewer than three points, or numbers that are not finite.
        """
        if len(points) < 3 or len(points) != len(values):
            raise ValueError(f"expected three points or more with a value each, got {len(points)} and {len(values)}")
        if not bool(torch.isfinite(points).all() and torch.isfinite(values).all()):
            raise ValueError("expected points and values that are finite")
        grid = torch.cartesian_prod(*(torch.tensor(g, dtype=torch.float64) for g in (LENGTHS, AMPLITUDES, NOISES)))
        start = cls(points, values, 1.0, 1.0, 1.0)
        z, residuals = start._standardised(points), start._centred
        K = _stationary(points, points, grid[:, 0, None, None], grid[:, 1, None, None]) + start._trend(z, z)
        K = K + torch.diag_embed(grid[:, 2, None].square() + start._shaping)
        factors = torch.linalg.cholesky(K)  # (grid, M, M)
        white = torch.linalg.solve_triangular(factors, residuals.expand(len(grid), -1)[..., None], upper=False)
        log_p = -0.5 * white.square().sum((1, 2)) - factors.diagonal(dim1=1, dim2=2).log().sum(1)
        for column, (centre, spread) in enumerate((LENGTH_PRIOR, AMPLITUDE_PRIOR, NOISE_PRIOR)):
            log_p = log_p - 0.5 * ((grid[:, column] / centre).log() / spread).square()
        return cls(points, values, *grid[int(log_p.argmax())].tolist())

    def __call__(self, z: Float[Tensor, "*draws A"]) -> tuple[Float[Tensor, "*draws"], Float[Tensor, "*draws"]]:
        """Mean and standard deviation of f, nats; the latter grows outside of the box."""
        flat = z.reshape(-1, z.shape[-1])
        factor = torch.linalg.cholesky(self._matrix)
        weights = torch.cholesky_solve(self._centred[:, None], factor)[:, 0]
        inside = flat.clamp(self.points.amin(0), self.points.amax(0))
        k = self._covariance(flat, self.points)  # (N, M)
        mean = torch.minimum(k @ weights, self._covariance(inside, self.points) @ weights)
        explained = torch.linalg.solve_triangular(factor, k.T, upper=False).square().sum(0)
        squares = self._standardised(flat).square().sum(1)
        own = self.amplitude**2 + self._trend_scale**2 * (1.0 + squares + squares.square())
        sd = (own - explained).clamp_min(0.0).sqrt()
        return (self._middle + mean).reshape(z.shape[:-1]), sd.reshape(z.shape[:-1])

    def left_out(self) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
        """Mean and standard deviation of each value as the others predict it, nats: 1 / K⁻¹_ii is its variance."""
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self._matrix))
        variance = 1.0 / inverse.diagonal()
        return self.values - (inverse @ self._centred) * variance, variance.sqrt()

    def error(self, log_prior: Float[Tensor, " M"] | None = None) -> float:
        """Root mean square of value less prediction by the other points, nats, over the points where the mass is.

        Args:
            log_prior: that of the points, so that values and it tell where the mass is; None for a flat one in z.
        """
        height = self.values if log_prior is None else self.values + log_prior
        rank = height.argsort(descending=True).argsort()
        near = (height > height.max() - NEAR - self.points.shape[1]) | (rank < FEWEST_NEAR)
        return float((self.values - self.left_out()[0])[near].square().mean().sqrt())

    @property
    def _middle(self) -> Tensor:
        return self.values.max()

    @property
    def _centred(self) -> Float[Tensor, " M"]:
        return self.values - self._middle

    @property
    def _shaping(self) -> Float[Tensor, " M"]:
        return (SHAPING * self._centred).square()

    @property
    def _trend_scale(self) -> float:
        return TREND * max(1.0, float(self.values.std()))

    @property
    def _matrix(self) -> Float[Tensor, "M M"]:
        return self._covariance(self.points, self.points) + torch.diag(self.noise**2 + self._shaping)

    def _covariance(self, a: Float[Tensor, "N A"], b: Float[Tensor, "M A"]) -> Float[Tensor, "N M"]:
        return _stationary(a, b, self.length, self.amplitude) + self._trend(
            self._standardised(a), self._standardised(b)
        )

    def _standardised(self, z: Float[Tensor, "N A"]) -> Float[Tensor, "N A"]:
        spread = self.points.std(0).clamp_min(1e-3)
        return (z - self.points.mean(0)) / spread

    def _trend(self, a: Float[Tensor, "N A"], b: Float[Tensor, "M A"]) -> Float[Tensor, "N M"]:
        products = a @ b.T
        return self._trend_scale**2 * (1.0 + products + products.square())


def _stationary(
    a: Float[Tensor, "N A"], b: Float[Tensor, "M A"], length: Tensor | float, amplitude: Tensor | float
) -> Float[Tensor, "*grid N M"]:
    squares = (a[:, None] - b).square().sum(-1)
    return amplitude**2 * torch.exp(-0.5 * squares / length**2)
