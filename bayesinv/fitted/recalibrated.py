"""Intervals corrected by simulated fits: the correction, and the quantiles that follow from it.

Extents are compared where their prior is a standard normal, z = Φ⁻¹(F_prior(η)). A fit with median m and 90 % interval
[l, u] in z makes the standardised error

    e = (z_true - m) / s,    s = (u - m) / 1.645 above the median, (m - l) / 1.645 below it,

which is N(0, 1) for a calibrated normal posterior. With the errors e_1 ... e_N of N fits to simulated data, the
recalibrated quantile of the fit to the real data is

    z(p) = m + s Q(p),    Q(i / (N + 1)) = e_(i), linear between, -∞ and ∞ outside,

so that a fit which is too narrow is widened, and one which is biased shifted, also past all of its draws; what N errors
cannot say, p < 1 / (N + 1), is the end of the prior's range. If the truth of the real data is one more draw of the
simulated ones, z(p) lies above it with probability p (Vovk, Gammerman & Shafer, 2005: split conformal prediction).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from bayesinv.extents.families import Extents
from bayesinv.io.tables import ConsoleTable
from bayesinv.numerics.psis import weights_are_good
from bayesinv.numerics.quantiles import weighted_quantile

if TYPE_CHECKING:
    from bayesinv.fitted.result import InferenceResult

LEVEL = 0.9  # of the raw interval whose ends set the scale
NORMAL_END = 1.6448536269514722  # Φ⁻¹(0.95)
# A fit whose draws are all alike has no scale; a thousandth of the prior's is half a degree of ±180°.
SMALLEST_SCALE = 1e-3
# Φ(±6) is a billionth from 0 or 1: a draw at the very end of the prior's range is there and not at infinity.
LARGEST_Z = 6.0
NUM_LEVELS = 129  # of the prior's distribution function; any monotone map serves, the same one there and back
_FIELDS = ("symmetries", "extents", "reweighted", "num_failed", "p_values", "assumptions", "settings", "warnings")


class PriorScale:
    """z = Φ⁻¹(F_prior(η)) for each of the K extents, and back.

    F_prior is interpolated between quantiles, exactly so where the prior is flat.

    Args:
        extents: the priors; columns of fixed extents mean nothing.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> scale = PriorScale(Extents(Affine2d(["rotation"]).coordinates))
        >>> z = scale.to_z(np.array([[math.pi / 2]]))
        >>> bool(abs(z[0, 0]) < 1e-6), bool(abs(scale.from_z(z)[0, 0] - math.pi / 2) < 1e-6)
        (True, True)
    """

    def __init__(self, extents: Extents):
        self.levels = np.linspace(0.0, 1.0, NUM_LEVELS)
        inner = np.stack([extents.prior_quantile(float(p)).numpy() for p in self.levels[1:-1]])
        low, high = np.zeros(inner.shape[1]), np.array([c.largest for c in extents.coordinates], float)
        for k, name in enumerate(extents.symmetries):
            if name in extents.priors:
                support = extents.priors[name].support
                low[k], high[k] = float(support.lower_bound), float(support.upper_bound)
        self.values = np.maximum.accumulate(np.concatenate([low[None], inner, high[None]]), axis=0)  # (levels, K)

    def to_z(self, eta: Float[np.ndarray, "rows K"]) -> Float[np.ndarray, "rows K"]:
        """Internal units to z."""
        shares = [np.interp(eta[:, k], self.values[:, k], self.levels) for k in range(eta.shape[1])]
        return _normal_quantile(np.stack(shares, 1)).clip(-LARGEST_Z, LARGEST_Z)

    def from_z(self, z: Float[np.ndarray, "rows K"]) -> Float[np.ndarray, "rows K"]:
        """z to internal units; -∞ and ∞ are the ends of the prior's range."""
        shares = torch.special.ndtr(torch.from_numpy(z)).numpy()
        values = [np.interp(shares[:, k], self.levels, self.values[:, k]) for k in range(z.shape[1])]
        return np.stack(values, 1)


def _normal_quantile(shares: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.from_numpy(shares)).numpy()


def weights_of(result: InferenceResult, reweighted: bool | None) -> Float[np.ndarray, " draws"] | None:
    """The log weights that a recalibration uses: None is those that are good for so many draws.

    Raises:
        ValueError: weights are wanted and there are none.
    """
    if reweighted is None:
        reweighted = result.log_weights is not None and weights_are_good(result.pareto_k, result.num_draws)
    if not reweighted:
        return None
    if result.log_weights is None:
        raise ValueError(f"reweighted: these draws ({result.inference}) carry no importance weights; use None or False")
    return result.log_weights.numpy()


def knots(
    draws: Float[np.ndarray, "draws K"], log_weights: Float[np.ndarray, " draws"] | None, scale: PriorScale
) -> Float[np.ndarray, "3 K"]:
    """Lower end of the raw 90 % interval, median and upper end, in z."""
    tail = (1 - LEVEL) / 2
    return scale.to_z(weighted_quantile(draws, np.array([tail, 0.5, 1 - tail]), log_weights))


def standardised(z: Float[np.ndarray, "rows K"], at: Float[np.ndarray, "3 K"]) -> Float[np.ndarray, "rows K"]:
    """e = (z - m) / s.

    Example:
        >>> at = np.array([[-1.0], [0.0], [2.0]])
        >>> e = standardised(np.array([[-2.0], [2.0]]), at) / NORMAL_END
        >>> e.ravel().round(6).tolist()
        [-2.0, 1.0]
    """
    below, above = _scales(at)
    return (z - at[1]) / np.where(z > at[1], above, below)


def located(e: Float[np.ndarray, "rows K"], at: Float[np.ndarray, "3 K"]) -> Float[np.ndarray, "rows K"]:
    """z = m + s e, the inverse of `standardised`."""
    below, above = _scales(at)
    return at[1] + e * np.where(e > 0, above, below)


def _scales(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    widths = np.maximum(np.diff(at, axis=0) / NORMAL_END, SMALLEST_SCALE)
    return widths[0], widths[1]


def error_quantile(
    errors: Float[np.ndarray, "N K"], probabilities: Float[np.ndarray, " levels"]
) -> Float[np.ndarray, "levels K"]:
    """Q(p): e_(i) at i / (N + 1), linear between, infinite outside.

    Example:
        >>> error_quantile(np.array([[3.0], [1.0], [2.0]]), np.array([0.2, 0.25, 0.625])).ravel().tolist()
        [-inf, 1.0, 2.5]
    """
    N = len(errors)
    ordered = np.sort(errors, axis=0)
    at = np.arange(1, N + 1) / (N + 1)
    # 19 errors hold a 90 % interval, although (1 - 0.9) / 2 comes out a little below 1 / 20
    whole = np.rint(probabilities * (N + 1))
    p = np.where(np.abs(probabilities * (N + 1) - whole) < 1e-9, whole / (N + 1), probabilities)
    columns = [np.interp(p, at, ordered[:, k], left=-math.inf, right=math.inf) for k in range(errors.shape[1])]
    return np.stack(columns, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recalibration:
    """What simulated fits said about the intervals of a posterior; made by ``posterior.recalibrate()``.

    Args:
        symmetries: names of the latent extents.
        errors: standardised errors e, one row a simulated fit, (N, latent).
        extents: where the true extents of the simulations came from, "mixture" or "prior".
        reweighted: whether importance weights were used; None for those with a good Pareto k̂.
        num_failed: simulated fits that failed, which are not among the N.
        p_values: of the predictive checks, by name.
        assumptions: what the recalibrated intervals take for granted, in words.
        settings: seed, options of the fits and names of the failures, anything that JSON can hold.
        warnings: in words, such as a predictive check that failed and was overruled.

    Raises:
        ValueError: errors of another shape, or not finite.
    """

    symmetries: tuple[str, ...]
    errors: Any
    extents: str = "mixture"
    reweighted: bool | None = None
    num_failed: int = 0
    p_values: Mapping[str, float] = field(default_factory=dict)
    assumptions: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        errors = np.asarray(self.errors, float)
        if errors.ndim != 2 or errors.shape[1] != len(self.symmetries) or not len(errors):
            raise ValueError(f"errors: expected (N, {len(self.symmetries)}), got {errors.shape}")
        if not np.isfinite(errors).all():
            raise ValueError("errors: expected finite numbers")
        object.__setattr__(self, "errors", errors)
        object.__setattr__(self, "symmetries", tuple(self.symmetries))
        object.__setattr__(self, "warnings", tuple(self.warnings))

    @property
    def num_simulations(self) -> int:
        """N, the simulated fits that did not fail."""
        return len(self.errors)

    @property
    def raw_coverage(self) -> pd.DataFrame:
        """How often the raw 90 % intervals of the simulated fits held the truth, with standard error and bias.

        Index `symmetry`; columns `actual`, `actual_se` (Agresti and Coull), `bias` (mean e; above 0 where fits lie too
        low) and `spread` (standard deviation of e; 1 where intervals are as wide as they should be).
        """
        N = self.num_simulations
        share = (np.abs(self.errors) <= NORMAL_END * (1 + 1e-9)).mean(0)
        adjusted = (N * share + 2) / (N + 4)
        columns = {
            "actual": share,
            "actual_se": np.sqrt(adjusted * (1 - adjusted) / (N + 4)),
            "bias": self.errors.mean(0),
            "spread": self.errors.std(0, ddof=1) if N > 1 else np.full(len(share), math.nan),
        }
        return ConsoleTable(columns, pd.Index(self.symmetries, name="symmetry"))

    def quantile(
        self, result: InferenceResult, extents: Extents, probabilities: Float[np.ndarray, " levels"]
    ) -> Float[np.ndarray, "levels K"]:
        """Recalibrated quantiles of a fit, in internal units; fixed extents stay.

        Raises:
            ValueError: p outside [0, 1].
        """
        log_weights, draws = weights_of(result, self.reweighted), result.draws.numpy()
        values = weighted_quantile(draws, probabilities, log_weights)  # (levels, K); checks the levels
        columns = [extents.symmetries.index(name) for name in self.symmetries]
        scale = PriorScale(extents)
        at = knots(draws, log_weights, scale)
        z = np.repeat(at[1:2], len(probabilities), axis=0)
        z[:, columns] = located(error_quantile(self.errors, probabilities), at[:, columns])
        values[:, columns] = scale.from_z(z)[:, columns]
        return values

    def header(self) -> dict[str, Any]:
        """All but the errors, as JSON holds it."""
        return json.loads(json.dumps({name: getattr(self, name) for name in _FIELDS}))

    @classmethod
    def from_header(cls, header: Mapping[str, Any], errors: np.ndarray) -> Recalibration:
        """The inverse of `header`.

        Raises:
            KeyError, TypeError, ValueError: a damaged header.
        """
        fields = {name: header[name] for name in _FIELDS}
        for name in ("symmetries", "warnings"):
            fields[name] = tuple(fields[name])
        return cls(errors=errors, **fields)
