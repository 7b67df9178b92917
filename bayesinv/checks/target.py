"""The unnormalised posterior of a fit on the whole of ℝ^d: of extents, and of hyperparameters where it drew them.

    log p(D, θ) = log p(D | η(z), u) + log p(η(z)) + log |dη/dz| + log p(u),    θ = (z, u)

Where a fit held its hyperparameters, u is absent and its prior does not count.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.errors import NumericalError
from bayesinv.inference import target as joint
from bayesinv.model.exact_evidence import weighing_model
from bayesinv.model.hyperparameters import at

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior


class Target:
    """Density and change of variables of one posterior: that by which its draws were weighed.

    Args:
        posterior: whose evidence is a deterministic function of the extents.

    Attributes:
        columns: places of the latent extents among the K.
        num_extents: A, how many are latent.

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
        model = weighing_model(model, posterior.data, posterior.result.settings)
        self.model, self.data = model, posterior.data
        self._draws, self._hyper = posterior.result.draws, posterior.result.hyperparameters
        # A copy, since evaluations move its hyperparameters; the orbit may be one that only this posterior knows.
        self._joint = joint.Target(copy.deepcopy(model), posterior.data)
        self._held = self._joint.start(0.5)[self._joint.num_extents :]
        self.columns = self._joint.space.columns
        self.num_extents = len(self.columns)

    def theta_of(self, rows: Int[Tensor, " J"]) -> Float[Tensor, "J d"]:
        """θ of draws of the posterior, by their rows."""
        z = self._joint.to_z(self._draws[rows])
        return z if self._hyper is None else torch.cat([z, self._hyper[rows]], 1)

    def eta_of(self, theta: Float[Tensor, "J d"]) -> Float[Tensor, "J K"]:
        """η of θ, fixed symmetries included."""
        return self._joint.extents(theta[:, : self.num_extents])

    def hyperparameters_of(self, rows: Int[Tensor, " J"]) -> Float[Tensor, "J P"] | None:
        """u of draws of the posterior; None where the fit held them."""
        return None if self._hyper is None else self._hyper[rows]

    @torch.no_grad()
    def log_likelihood(
        self, extents: Float[Tensor, "J K"], hyperparameters: Float[Tensor, "J P"] | None = None
    ) -> Float[Tensor, " J"]:
        """log p(D | η_j, u_j), at the model's own hyperparameters if None; -inf where it cannot be computed."""
        values = []
        for j, eta in enumerate(extents):
            try:
                with at(self.model.hyperparameters, None if hyperparameters is None else hyperparameters[j]):
                    value = self.model.log_evidence(eta, self.data)
            except NumericalError:
                value = torch.tensor(-math.inf, dtype=torch.float64)
            values.append(torch.where(torch.isfinite(value), value, -math.inf))
        return torch.stack(values)

    @torch.no_grad()
    def log_prior(self, extents: Float[Tensor, "J K"]) -> Float[Tensor, " J"]:
        """log p(η_j)."""
        return torch.stack([self.model.extents.log_prior(eta) for eta in extents])

    def log_density(self, theta: Float[Tensor, "J d"]) -> Float[Tensor, " J"]:
        """log p(D, θ_j); -inf where it cannot be computed."""
        rest = self._held[theta.shape[1] - self.num_extents :]
        values = []
        for row in theta:
            try:
                values.append(self._joint(torch.cat([row, rest]), hyperpriors=self._hyper is not None))
            except NumericalError:
                values.append(-math.inf)
        return torch.tensor(values, dtype=torch.float64)
