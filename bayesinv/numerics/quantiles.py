"""Quantiles of, and resampling from, draws that carry weights. NumPy only."""

import numpy as np
from jaxtyping import Float, Int

from bayesinv.numerics.arguments import as_integer


def weighted_quantile(
    draws: Float[np.ndarray, "draws *event"],
    probabilities: Float[np.ndarray, " levels"],
    log_weights: Float[np.ndarray, " draws"] | None = None,
) -> Float[np.ndarray, "levels *event"]:
    """Quantiles of a weighted sample, by inverting its empirical distribution function.

    F(v) = sum_j w_j [x_j <= v],    quantile(p) = min { x_j : F(x_j) >= p, w_j > 0 }

    Nothing is interpolated, so a quantile is one of the draws, and a monotone change of units
    commutes with it.

    Args:
        draws: (draws, *event); each column of the trailing dimensions is treated alone.
        probabilities: the p of each quantile, (levels,), in [0, 1].
        log_weights: (draws,) unnormalised log w_j; None weighs all draws alike.

    Returns:
        The quantiles, (levels, *event), in the units of `draws`.

    Raises:
        ValueError: no draws, probabilities outside [0, 1], or weights that are NaN or all zero.

    Example:
        >>> import numpy as np
        >>> draws, weights = np.array([10.0, 20.0, 30.0]), np.array([0.2, 0.2, 0.6])
        >>> levels = np.array([0.2, 0.4, 0.41])
        >>> weighted_quantile(draws, levels, np.log(weights)).tolist()
        [10.0, 20.0, 30.0]
    """
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN is neither
        raise ValueError(f"probabilities must lie in [0, 1]; got {probabilities}")
    if len(draws) == 0:
        raise ValueError("quantiles need at least one draw; got none")
    weights = _normalised(log_weights, len(draws))
    # Draws of weight zero are no part of the distribution: quantile(0) is the smallest draw of
    # positive weight.
    flat = draws.reshape(len(draws), -1)[weights > 0]  # (kept, columns)
    weights = weights[weights > 0]
    order = np.argsort(flat, axis=0, kind="stable")  # (kept, columns)
    result = np.empty((len(probabilities), flat.shape[1]), dtype=flat.dtype)
    # A sum of n weights that is p on paper comes out up to n ulp short of it; without this slack
    # the quantile at 0.9 of ten equal draws would be the tenth.
    slack = len(flat) * np.finfo(float).eps
    for column in range(flat.shape[1]):
        cdf = np.cumsum(weights[order[:, column]])  # (kept,)
        rank = np.minimum(np.searchsorted(cdf, probabilities - slack, side="left"), len(flat) - 1)
        result[:, column] = flat[order[rank, column], column]
    return result.reshape(len(probabilities), *draws.shape[1:])


def systematic_resample(
    num: int,
    num_draws: int,
    log_weights: Float[np.ndarray, " draws"] | None = None,
    seed: int = 0,
) -> Int[np.ndarray, " num"]:
    """Indices of `num` draws taken in proportion to their weights, in random order.

    One uniform u picks the points (u + i) / num, i = 0..num-1, and draw j is taken once for each
    point that falls into its share of the cumulative weights: floor or ceil of num * w_j times,
    whatever the seed. With equal weights and num < num_draws it thins the draws evenly.

    Args:
        num: how many indices, >= 1.
        num_draws: how many draws there are to choose from.
        log_weights: (num_draws,) unnormalised log weights; None weighs all draws alike.
        seed: the seed of u and of the order.

    Returns:
        (num,) indices into the draws.

    Raises:
        ValueError: `num` below 1, or weights that are NaN or all zero.

    References:
        Kitagawa, 1996, "Monte Carlo filter and smoother for non-Gaussian nonlinear state space
        models".

    Example:
        >>> import numpy as np
        >>> sorted(systematic_resample(4, 2, np.log(np.array([0.75, 0.25]))).tolist())
        [0, 0, 0, 1]
    """
    num, seed = as_integer("num", num), as_integer("seed", seed, 0)
    weights = _normalised(log_weights, num_draws)
    rng = np.random.default_rng(seed)
    points = (rng.random() + np.arange(num)) / num  # (num,)
    cdf = np.cumsum(weights)
    last = int(np.flatnonzero(weights)[-1])  # rounding must not carry the last point past it
    indices = np.minimum(np.searchsorted(cdf, points, side="right"), last)
    return rng.permutation(indices)


def _normalised(log_weights: np.ndarray | None, num_draws: int) -> np.ndarray:
    if log_weights is None:
        return np.full(num_draws, 1.0 / num_draws)
    if log_weights.shape != (num_draws,):
        raise ValueError(f"log_weights must have shape ({num_draws},); got {log_weights.shape}")
    largest = log_weights.max()
    if not np.isfinite(largest):
        raise ValueError(f"log_weights must be finite or -inf, and not all -inf; the largest is {largest}")
    weights = np.exp(log_weights - largest)
    return weights / weights.sum()
