"""Slabs cut to a share of their reach, for the sensitivity of Bayes factors to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.extents.priors import Prior

# Mid-point cells for a slab without a distribution function; 4,000 give a mass to about 1e-4.
_CELLS = 4000


def log_mass_below(slab: Prior, share: float) -> float:
    """log P(η ≤ share · high) under the slab, high the end of its support.

    From ``cdf`` where there is one, else by the mid-point rule; -inf where the slab has nothing there.

    Example:
        >>> from bayesinv.extents.families import UniformExtent
        >>> round(math.exp(log_mass_below(UniformExtent(0.0, 2.0), 0.25)), 6)
        0.25
    """
    low, high = float(slab.support.lower_bound), float(slab.support.upper_bound)
    end = share * high
    if end >= high:
        return 0.0
    if end <= low:
        return -math.inf
    try:
        mass = float(slab.cdf(torch.tensor(end, dtype=torch.float64)))
    except NotImplementedError:
        cell = (end - low) / _CELLS
        points = low + cell * (torch.arange(_CELLS, dtype=torch.float64) + 0.5)
        mass = float(slab.log_prob(points).exp().sum() * cell)
    return math.log(mass) if mass > 0 else -math.inf


def log_masses(slabs: Sequence[Prior], scales: Sequence[float]) -> dict[float, Float[Tensor, " K"]]:
    """By scale, the log mass of each slab below it; scale 1 is always there.

    Raises:
        ValueError: a scale outside (0, 1]. A slab cannot be widened past what it was sampled from; give the model a
            wider prior instead.
    """
    for scale in scales:
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= 1:
            raise ValueError(
                f"slab_scales: expected shares of the slab's reach, above 0 and at most 1, got {scale!r}; for a wider "
                "slab give the model another prior"
            )
    return {
        scale: torch.tensor([log_mass_below(slab, scale) for slab in slabs], dtype=torch.float64)
        for scale in sorted({*(float(s) for s in scales), 1.0})
    }
