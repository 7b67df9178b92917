"""The plug-in likelihood: no Occam factor, for the question of what is *permitted*."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones.invariant_network import InvariantNetwork
from bayesinv.data.container import Data
from bayesinv.evidence.network import NetworkEvidence


class PlugInEvidence(NetworkEvidence):
    """log p(D | θ̂, η) at weights that are trained along, in place of log p(D | η).

    Nothing is integrated out, so that no extent is ever rewarded: with a flat prior every extent shrinks until the
    data no longer notice, and all that is honest to report is how far up the posterior reaches. A prior that pushes
    outwards (:class:`bayesinv.Outward`) asks instead how far inputs can move before labels break; with
    average="log_likelihood" that is the regularised training loss of Augerino (Benton et al., 2020,
    arXiv:2010.11882) and AugNet (Rommel et al., 2022, arXiv:2202.02142), read as a posterior.
    """

    name = "plugin"

    def log_evidence(self, prior: InvariantNetwork, data: Data, num_total: int | None = None) -> Float[Tensor, ""]:
        """n times the mean log likelihood, at the current weights."""
        num_total = len(data) if num_total is None else num_total
        return num_total * self.mean_log_likelihood(prior, data).to(torch.float64)

    def weight_loss(self, prior: InvariantNetwork, data: Data, num_total: int) -> Float[Tensor, ""]:
        """The negative mean log likelihood; no prior over the weights beyond what the optimiser is told."""
        return -self.mean_log_likelihood(prior, data)
