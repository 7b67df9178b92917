"""A prior that lets a symmetry be absent: a relaxed spike at zero beside a slab."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from bayesinv.errors import ExtentError
from bayesinv.extents.priors import Prior, ProbitInterval, build_prior, prior_config, register_prior


@register_prior
class SpikeAndSlab(dist.TorchDistribution):
    """p(η) = (1 - π) · Exp(η; ε) 1[η ≤ high] / C + π · slab(η): absent with probability 1 - π.

    The spike is an exponential density of mean ε = spike · high next to zero, instead of a point at zero: the density
    stays continuous, so that every guide and NUTS can be used with it, and its slope leads an extent that is small
    into the spike. After a fit, the probability that a draw belongs to the slab is `inclusion_given`, whose average
    over the posterior is the inclusion probability; ``bayesinv.select(..., method="relaxed")`` does all of that.

    The relaxation is faithful where the evidence does not change between 0 and a few ε. An ε that is too wide takes
    small but real extents for absent ones.

    Args:
        slab: the prior of an extent that is there, any that ``priors`` takes, with support [low, high].
        inclusion: π, the prior probability that it is there.
        spike: ε as a share of the slab's end, 0.002 by default: for rotations with high = π that is 0.36°.

    Raises:
        ExtentError: no distribution, an inclusion outside (0, 1), or a spike that is not small.

    Reference:
        E. I. George, R. E. McCulloch (1993). Variable selection via Gibbs sampling. JASA 88:881. The exponential spike
        is that of V. Ročková, E. I. George (2018). The spike-and-slab lasso. JASA 113:431.

    Example:
        >>> from bayesinv.extents.families import UniformExtent
        >>> prior = SpikeAndSlab(UniformExtent(0.0, 2.0), inclusion=0.5)
        >>> prior.inclusion_given(torch.tensor([0.0, 0.1, 1.0])).round(decimals=2).tolist()
        [0.0, 1.0, 1.0]
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own convention)
    has_rsample = False

    def __init__(self, slab: Prior, inclusion: float = 0.5, spike: float = 0.002, validate_args: bool | None = None):
        support = getattr(slab, "support", None) if isinstance(slab, torch.distributions.Distribution) else None
        if support is None or getattr(support, "upper_bound", None) is None:
            raise ExtentError(
                "SpikeAndSlab: slab: expected a distribution on a bounded interval, such as "
                f"UniformExtent(0, largest) or Truncated(HalfNormal(...), high=largest), got {slab!r}"
            )
        if isinstance(inclusion, bool) or not 0 < inclusion < 1:
            raise ExtentError(f"SpikeAndSlab: inclusion: expected a probability between 0 and 1, got {inclusion!r}")
        if isinstance(spike, bool) or not 0 < spike <= 0.05:
            raise ExtentError(
                "SpikeAndSlab: spike: expected a small share of the slab's reach, above 0 and at most 0.05, got "
                f"{spike!r}"
            )
        self.slab, self.inclusion, self.spike = slab, float(inclusion), float(spike)
        self.high = torch.as_tensor(support.upper_bound, dtype=torch.float64)
        super().__init__(torch.Size(), torch.Size(), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> ProbitInterval:
        return ProbitInterval(torch.zeros((), dtype=torch.float64), self.high)

    def _log_spike(self, value: Tensor) -> Tensor:
        """log (1 - π) + log of the truncated exponential density."""
        rate = 1.0 / (self.spike * self.high)
        constant = rate.log() - torch.log(-torch.expm1(-rate * self.high)) + math.log1p(-self.inclusion)
        return torch.where((value >= 0) & (value <= self.high), constant - rate * value, -torch.inf)

    def _log_slab(self, value: Tensor) -> Tensor:
        """log π + log slab(η)."""
        inside = self.slab.support.check(value)
        low = torch.as_tensor(self.slab.support.lower_bound, dtype=torch.float64)
        safe = torch.where(inside, value, 0.5 * (low + self.high))
        return torch.where(inside, self.slab.log_prob(safe), -torch.inf) + math.log(self.inclusion)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(η); -inf outside [0, high]."""
        return torch.logaddexp(self._log_spike(value), self._log_slab(value))

    def inclusion_given(self, value: Float[Tensor, "*draws"]) -> Float[Tensor, "*draws"]:
        """p(γ = 1 | η) = π slab(η) / p(η), for extents in internal units."""
        return torch.sigmoid(self._log_slab(value) - self._log_spike(value))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draws: slab or spike first, then the extent."""
        shape = torch.Size(sample_shape)
        slab = self.slab.sample(shape).to(torch.float64)
        rate = 1.0 / (self.spike * self.high)
        spike = -torch.log1p(torch.rand(shape, dtype=torch.float64) * torch.expm1(-rate * self.high)) / rate
        return torch.where(torch.rand(shape) < self.inclusion, slab, spike.clamp(0.0, float(self.high)))

    def start(self, quantile: float) -> Tensor:
        """Where a fit starts: in the slab. From inside the spike nothing would lead out."""
        try:
            return self.slab.icdf(torch.tensor(quantile, dtype=torch.float64)).to(torch.float64)
        except NotImplementedError:
            low = torch.as_tensor(self.slab.support.lower_bound, dtype=torch.float64)
            return low + quantile * (self.high - low)

    def config(self) -> dict[str, Any]:
        """A JSON-able description, for saved models."""
        slab = prior_config("slab", self.slab)
        return {"type": "SpikeAndSlab", "slab": slab, "inclusion": self.inclusion, "spike": self.spike}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SpikeAndSlab:
        """The inverse of `config`."""
        return cls(build_prior(config["slab"]), config["inclusion"], config["spike"])
