"""Intervals that guides and samplers reach through the normal distribution function."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to, transforms


class ProbitInterval(constraints.interval):
    """An interval that guides and samplers reach through the normal distribution function.

    η = low + (high - low) Φ(z). A uniform prior is then exactly N(0, 1) in z, and a posterior that
    piles up at a bound has a Gaussian tail there; under the usual logistic map its tail is
    exponential, which a normal guide cannot follow (Pareto k̂ rises).
    """


class _NormalCDF(transforms.Transform):
    """z -> Φ(z), through erfc so that small extents keep their relative precision."""

    domain = constraints.real
    codomain = constraints.unit_interval
    bijective = True
    sign = +1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NormalCDF)

    __hash__ = transforms.Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        return 0.5 * torch.erfc(-x / math.sqrt(2.0))

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.special.ndtri(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -0.5 * (x * x + math.log(2.0 * math.pi))


@transform_to.register(ProbitInterval)  # what Pyro's flow guides ask for
@biject_to.register(ProbitInterval)
def _probit_bijection(constraint: ProbitInterval) -> transforms.Transform:
    low = torch.as_tensor(constraint.lower_bound, dtype=torch.float64)
    width = torch.as_tensor(constraint.upper_bound, dtype=torch.float64) - low
    return transforms.ComposeTransform([_NormalCDF(), transforms.AffineTransform(low, width)])
