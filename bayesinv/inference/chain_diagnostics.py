"""Whether chains agree, and what their draws are worth: rank-normalised R̂, bulk and tail ESS, by ArviZ."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

FEWEST = 4  # draws of a chain, or of half of a single one, that ArviZ takes
TAIL = (0.05, 0.95)  # the ends of a 90 % interval, which is what summaries quote


def rank_rhat(draws: Float[Tensor, "chains draws A"]) -> tuple[float, ...]:
    """Rank-normalised split R̂ of each coordinate, the larger of that of the draws and of their folded values.

    Folding, |z - median|, shows chains that agree on the middle and differ in spread, which the R̂ of the draws does
    not see. The halves of a single chain count as two chains.

    Args:
        draws: (chains, draws, A), unconstrained.

    Returns:
        A numbers; NaN or infinite where chains did not move, or for fewer than four draws (of a single chain: eight).

    Reference:
        A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner (2021). Rank-normalization, folding, and
        localization: an improved R̂ for assessing convergence of MCMC. arXiv:1903.08008.

    Example:
        >>> import torch
        >>> draws = torch.randn(2, 500, 1, generator=torch.Generator().manual_seed(0))
        >>> apart = draws + torch.tensor([0.0, 3.0])[:, None, None]
        >>> rank_rhat(draws)[0] < 1.02, rank_rhat(apart)[0] > 1.5
        (True, True)
    """
    if draws.shape[0] == 1:
        half = draws.shape[1] // 2
        draws = draws[0, -2 * half :].reshape(2, half, -1)
    if draws.shape[1] < FEWEST:
        return (math.nan,) * draws.shape[-1]
    return _by_coordinate(draws, lambda z: _arviz("rhat")(z, method="rank"))


def effective_draws(draws: Float[Tensor, "chains draws A"]) -> tuple[float, ...]:
    """The smaller of the bulk and the tail effective sample size of each coordinate.

    The bulk is what a median rests on; the tail, the worse of the 5 % and the 95 % quantile, is what the ends of an
    interval rest on (Vehtari et al., 2021, arXiv:1903.08008).

    Args:
        draws: (chains, draws, A), unconstrained.

    Returns:
        A numbers of independent draws, over all chains.

    Example:
        >>> import torch
        >>> draws = torch.randn(2, 500, 1, generator=torch.Generator().manual_seed(0))
        >>> 600 < effective_draws(draws)[0] < 1200
        True
    """
    ess = _arviz("ess")
    return _by_coordinate(draws, lambda z: min(float(ess(z, method="bulk")), float(ess(z, method="tail", prob=TAIL))))


def _by_coordinate(draws: Float[Tensor, "chains draws A"], statistic: Callable[[Any], Any]) -> tuple[float, ...]:
    values = draws.detach().cpu().numpy().astype(np.float64)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # ArviZ announces its next major version; chains that never moved divide by 0
        return tuple(float(statistic(values[..., k])) for k in range(values.shape[-1]))


def _arviz(name: str) -> Callable[..., Any]:
    """``rhat`` or ``ess`` of arrays (chains, draws): at the top level in ArviZ 0.x, in arviz-stats from 1.0 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from arviz_stats.base import array_stats
        except ImportError:
            import arviz

            found: Callable[..., Any] = getattr(arviz, name)
            return found
    found = getattr(array_stats, name)
    return found
