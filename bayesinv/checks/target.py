"""The unnormalised posterior of the extents at held hyperparameters, on the whole of ℝ^A.

log p(D, z) = log p(D | η(z)) + log p(η(z)) + log |dη/dz|,    η_k = bijection of z_k onto the prior's support
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import biject_to

from bayesinv.errors import NumericalError

if TYPE_CHECKING:
    from bayesinv.posterior import InvariancePosterior

EDGE = 1e-9  # draws on a bound are moved inside by this share of the range, where z is finite


class Target:
    """Density and change of variables of one posterior.

    Args:
        posterior: whose evidence is a deterministic function of the extents.

    Raises:
        ValueError: nothing is latent, or the evidence is an estimate from minibatches.
    """

    def __init__(self, posterior: InvariancePosterior) -> None:
        model = posterior.model
        if not model.active:
            raise ValueError("every symmetry of this model is fixed, so there is no posterior over extents")
        if model.evidence.minibatch:
            raise ValueError(
                f"the {model.evidence_name} evidence is an estimate from minibatches; this needs one that is a "
                "deterministic function of the extents, of a GaussianProcess"
            )
        self.model, self.data = model, posterior.data
        self.columns = [model.symmetries.index(name) for name in model.active]
        self.maps = [biject_to(model.extents.priors[name].support) for name in model.active]

    def z_of(self, extents: Float[Tensor, "J K"]) -> Float[Tensor, "J A"]:
        """z of η."""
        columns = []
        for k, name, change in zip(self.columns, self.model.active, self.maps, strict=True):
            support = self.model.extents.priors[name].support
            low, high = float(getattr(support, "lower_bound", 0.0)), float(getattr(support, "upper_bound", math.inf))
            margin = EDGE * (high - low) if math.isfinite(high) else EDGE
            columns.append(change.inv(extents[:, k].clamp(low + margin, high - margin)))
        return torch.stack(columns, -1)

    def eta_of(self, z: Float[Tensor, "J A"]) -> Float[Tensor, "J K"]:
        """η of z, fixed symmetries included."""
        columns = []
        for name in self.model.symmetries:
            if name in self.model.active:
                i = self.model.active.index(name)
                columns.append(self.maps[i](z[:, i]))
            else:
                columns.append(torch.full((len(z),), self.model.extents.fixed[name], dtype=torch.float64))
        return torch.stack(columns, -1)

    @torch.no_grad()
    def log_likelihood(self, extents: Float[Tensor, "J K"]) -> Float[Tensor, " J"]:
        """log p(D | η_j); -inf where it cannot be computed."""
        values = []
        for eta in extents:
            try:
                value = self.model.log_evidence(eta, self.data)
            except NumericalError:
                value = torch.tensor(-math.inf, dtype=torch.float64)
            values.append(torch.where(torch.isfinite(value), value, -math.inf))
        return torch.stack(values)

    @torch.no_grad()
    def log_prior(self, extents: Float[Tensor, "J K"]) -> Float[Tensor, " J"]:
        """log p(η_j)."""
        return torch.stack([self.model.extents.log_prior(eta) for eta in extents])

    @torch.no_grad()
    def log_density(self, z: Float[Tensor, "J A"]) -> Float[Tensor, " J"]:
        """log p(D, z_j)."""
        eta = self.eta_of(z)
        jacobian = torch.stack(
            [change.log_abs_det_jacobian(z[:, i], eta[:, k]) for i, (k, change) in enumerate(self._pairs())], -1
        )
        return self.log_likelihood(eta) + self.log_prior(eta) + jacobian.sum(-1)

    def _pairs(self) -> list[tuple[int, torch.distributions.Transform]]:
        return list(zip(self.columns, self.maps, strict=True))
