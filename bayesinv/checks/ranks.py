"""Are the ranks uniform? A test with simultaneous bands for the distribution function of ranks.

F̂(z) = 1/N #{ rank_i <= z } of N uniform ranks on 0..L has N F̂(z) ~ Binomial(N, (z + 1) / (L + 1)) at each z. The band
takes pointwise intervals of a level 1 - γ, with γ chosen so that the whole curve stays inside with probability 95 %
(Säilynoja, Bürkner & Vehtari, 2022, arXiv:2103.10522); here γ is the 5 % quantile of the smallest pointwise p-value
over simulated uniform ranks.
"""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int

from bayesinv.io.tables import ConsoleTable

NUM_UNIFORM = 4000  # simulated sets of ranks: a p-value of 0.05 has a standard error of 0.003


def smallest_tail(ranks: Int[np.ndarray, "sets N"], num_ranks: int) -> Float[np.ndarray, " sets"]:
    """min_z of the two-sided pointwise p-value of F̂(z), for every set of ranks."""
    from scipy.stats import binom  # a second of the package's import, which few need

    N = ranks.shape[1]
    counts = np.stack([np.bincount(row, minlength=num_ranks + 1) for row in ranks]).cumsum(1)[:, :-1]  # (sets, L)
    share = np.arange(1, num_ranks + 1) / (num_ranks + 1)
    low = binom.cdf(counts, N, share)
    high = binom.sf(counts - 1, N, share)
    return np.minimum(1.0, 2.0 * np.minimum(low, high)).min(1)


@functools.lru_cache(maxsize=32)
def _uniform_tails(N: int, num_ranks: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, num_ranks + 1, (NUM_UNIFORM, N))
    return np.sort(smallest_tail(drawn, num_ranks))


def simultaneous_band(
    N: int, num_ranks: int, level: float = 0.95
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """z = (1..L) / (L + 1) and the band around it that holds all of F̂ with the given probability.

    Example:
        >>> z, low, high = simultaneous_band(100, 19)
        >>> bool((low < z).all() and (z < high).all())
        True
    """
    from scipy.stats import binom

    if not 0 < level < 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {level}")
    gamma = float(np.quantile(_uniform_tails(N, num_ranks), 1 - level))
    share = np.arange(1, num_ranks + 1) / (num_ranks + 1)
    return share, binom.ppf(gamma / 2, N, share) / N, binom.ppf(1 - gamma / 2, N, share) / N


def uniformity(simulations: xr.Dataset, level: float = 0.95) -> pd.DataFrame:
    """Whether the ranks of each symmetry lie inside the simultaneous bands.

    Args:
        simulations: of ``simulation_based_calibration``.
        level: of the bands.

    Returns:
        Index weighting and symmetry; ``p_value``, of the whole curve; ``inside``, whether p_value > 1 - level;
        ``mean_rank``, as a share, 0.5 if unbiased, less where the posterior lies too high; ``spread``, the variance of
        the ranks over that of uniform ones, more than 1 where intervals are too narrow; ``simulations``.

    Example:
        >>> ranks = np.tile(np.arange(100), 2)[None, :, None]
        >>> table = uniformity(
        ...     xr.Dataset(
        ...         {"rank": (("weighting", "simulation", "symmetry"), ranks)},
        ...         {"weighting": ["draws"], "symmetry": ["rotation"]},
        ...         {"num_ranks": 99},
        ...     )
        ... )
        >>> bool(table.loc[("draws", "rotation"), "inside"])
        True
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {level}")
    L = int(simulations.attrs["num_ranks"])
    rows = []
    for weighting in simulations["weighting"].values:
        for symmetry in simulations["symmetry"].values:
            ranks = simulations["rank"].sel(weighting=weighting, symmetry=symmetry).values.astype(int)
            uniform = _uniform_tails(len(ranks), L)
            observed = float(smallest_tail(ranks[None], L)[0])
            # +1: the observed set is one more of the uniform ones, if the posterior is right
            p = (np.searchsorted(uniform, observed * (1 + 1e-9), side="right") + 1) / (len(uniform) + 1)
            share = (ranks + 0.5) / (L + 1)
            rows.append(
                {
                    "weighting": str(weighting),
                    "symmetry": str(symmetry),
                    "p_value": float(p),
                    "inside": bool(p > 1 - level),
                    "mean_rank": float(share.mean()),
                    "spread": float(np.mean((share - 0.5) ** 2) * 12 / (1 - (L + 1) ** -2)),
                    "simulations": len(ranks),
                }
            )
    return ConsoleTable(rows).set_index(["weighting", "symmetry"])
