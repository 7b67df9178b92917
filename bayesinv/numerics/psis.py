"""Pareto-smoothed importance sampling: the weights, k̂, and what k̂ allows one to say."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.numerics.arguments import counted

NEARLY_EQUAL = 0.95  # share of the draws: the weights then add a twentieth to the variance of any average
LARGEST_LIMIT = 0.7  # of k̂ at any number of draws: past it an average settles at no feasible size
FINITE_VARIANCE = 0.5  # a Pareto tail of shape k has a finite variance for k < 1/2


def pareto_smooth(log_weights: Float[Tensor, " J"]) -> tuple[Float[Tensor, " J"], float]:
    """Pareto-smoothed normalised log weights and k̂ (Vehtari et al., 2024, arXiv:1507.02646), by ArviZ.

    The fit of the tail does not see the scale of the weights: where all are nearly equal it describes ripples and k̂
    can be anything (2.2 was seen on weights that differ by a fifth). With an effective sample size above
    ``NEARLY_EQUAL`` of the draws there is no tail to speak of, and k̂ is reported as at most 0.
    """
    values = log_weights.detach().cpu().numpy().astype(np.float64, copy=True)  # psislw works in place
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ announces its next major version at import
        smoothed, k = _psislw()(values)
    out = torch.as_tensor(np.array(smoothed), dtype=torch.float64)
    effective = float((2.0 * log_weights.logsumexp(0) - (2.0 * log_weights).logsumexp(0)).exp())
    if effective > NEARLY_EQUAL * len(log_weights):
        k = min(float(k), 0.0)
    return out - out.logsumexp(0), float(k)


def pareto_limit(num_draws: int) -> float:
    """The largest k̂ at which averages over S weighted draws can be trusted.

        k_max(S) = min(1 - 1 / log10 S, 0.7)

    An average over a tail of shape k settles only from 10^(1 / (1 - k)) draws on; the limit is where S draws are just
    as many. Below ten draws it is 0: a tail with an end.

    Args:
        num_draws: S, how many draws carry weights.

    Returns:
        The limit, from 0 to 0.7.

    Raises:
        ValueError: no draws.

    Reference:
        A. Vehtari, D. Simpson, A. Gelman, Y. Yao, J. Gabry (2024). Pareto smoothed importance sampling.
        arXiv:1507.02646.

    Example:
        >>> [round(pareto_limit(S), 3) for S in (100, 300, 10_000)]
        [0.5, 0.596, 0.7]
    """
    if num_draws < 1:
        raise ValueError(f"num_draws: expected at least 1, got {num_draws}")
    return 0.0 if num_draws <= 10 else min(1.0 - 1.0 / math.log10(num_draws), LARGEST_LIMIT)


def weights_are_good(k: float | None, num_draws: int) -> bool:
    """Whether k̂ is within the limit for so many draws; False where there is no k̂ (None, NaN).

    Example:
        >>> weights_are_good(0.6, 1000), weights_are_good(0.6, 300), weights_are_good(math.nan, 1000)
        (True, False, False)
    """
    return k is not None and k <= pareto_limit(num_draws)


def variance_is_finite(k: float | None, num_draws: int) -> bool:
    """Whether a mean of the weights has a standard error: k̂ below 1/2 and within the limit for so many draws.

    The delta method divides the standard deviation of the weights by √S. For k in [1/2, 1) their mean exists and
    their variance does not: any number that S draws give for it is too small.

    Example:
        >>> variance_is_finite(0.4, 300), variance_is_finite(0.55, 300), variance_is_finite(0.45, 50)
        (True, False, False)
    """
    return k is not None and k < FINITE_VARIANCE and weights_are_good(k, num_draws)


def why_no_standard_error(k: float | None, num_draws: int) -> str:
    """Why a mean of weights has no standard error, as a clause; empty where it has one.

    Example:
        >>> why_no_standard_error(0.55, 300)
        'Pareto k̂ = 0.55 is not below 0.5, so that the variance of the weights is infinite'
        >>> why_no_standard_error(0.45, 50)
        'Pareto k̂ = 0.45 is above 0.41, the limit for 50 draws'
    """
    if variance_is_finite(k, num_draws):
        return ""
    if k is None or not math.isfinite(k):
        return f"Pareto k̂ of {counted(num_draws, 'draw')} could not be estimated"
    if k >= FINITE_VARIANCE:
        return f"Pareto k̂ = {k:.2f} is not below {FINITE_VARIANCE}, so that the variance of the weights is infinite"
    return f"Pareto k̂ = {k:.2f} is above {limit_in_words(num_draws)}"


def limit_in_words(num_draws: int) -> str:
    """The limit and what it is of, for messages.

    Example:
        >>> limit_in_words(300)
        '0.60, the limit for 300 draws'
    """
    return f"{pareto_limit(num_draws):.2f}, the limit for {counted(num_draws, 'draw')}"


def _psislw() -> Callable[[Any], Any]:
    """``psislw`` of the installed ArviZ: at the top level in 0.x, in arviz-stats from 1.0 on."""
    try:
        from arviz import psislw
    except ImportError:
        from arviz_stats.base import array_stats

        return array_stats.psislw
    return psislw
