"""What a model is made of, and its backbone seen through its orbit."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones import GaussianProcess, NeuralNetwork
from bayesinv.backbones.grouped import GroupedPrior
from bayesinv.backbones.invariant import InvariantPrior
from bayesinv.backbones.invariant_network import InvariantNetwork
from bayesinv.backbones.per_output import PerOutputPrior
from bayesinv.data.container import Data
from bayesinv.data.groups import NEW_GROUP, as_groups, numbered
from bayesinv.evidence import Evidence, NetworkEvidence
from bayesinv.evidence.collapsed import CollapsedEvidence
from bayesinv.extents.families import Extents
from bayesinv.extents.pooling import PooledExtents
from bayesinv.model.hyperparameters import Hyperparameter, hyperparameters_of
from bayesinv.orbits.groups import Grouped, GroupedOrbit
from bayesinv.orbits.orbit import Orbit
from bayesinv.orbits.structure import PerOutput, PerOutputOrbit, by_output
from bayesinv.transforms import Coordinate, Transform
from bayesinv.transforms.actions import OutputAction

__all__ = ["PRECISIONS", "ModelParts"]

PRECISIONS = {"mixed": torch.float32, "double": torch.float64}


class ModelParts(nn.Module):
    """The parts of an :class:`InvarianceModel`, which sets them, and what follows from them without data.

    Attributes:
        backbone: h.
        orbit: T and its base draws.
        evidence: log p(D | η).
        extents: p(η).
        structure: with extents for every output, their names and coordinates.
        pooling: with extents for every group, their names and coordinates.
        output_action: how outputs move with the inputs.
        average: what is averaged over the copies of an input.
        precision: a key of `PRECISIONS`.
        memory_budget: bytes for the orbit and kernel of one block of inputs.
        predictive: a model of the same symmetries whose network was trained to predict, where it is another one.
    """

    backbone: GaussianProcess | NeuralNetwork
    orbit: Orbit
    evidence: Evidence
    extents: Extents
    structure: PerOutput | None
    pooling: Grouped | None
    output_action: OutputAction | None
    average: str
    precision: str
    memory_budget: int
    predictive: ModelParts | None

    @property
    def hyperparameters(self) -> list[Hyperparameter]:
        """What is learned of the kernel and the noise of a Gaussian process; empty for networks."""
        if not isinstance(self.backbone, GaussianProcess) or not isinstance(self.evidence, CollapsedEvidence):
            return []
        parts: list[tuple[str, nn.Module]] = [("kernel", self.backbone.kernel)]
        noise = getattr(self.evidence, "noise_model", None)
        return hyperparameters_of(parts if noise is None else [*parts, ("likelihood", noise)])

    @property
    def groups(self) -> tuple[str, ...] | None:
        """Names of the groups in the data that have extents of their own; None if all share them."""
        return None if self.pooling is None else self.pooling.groups

    @property
    def network_orbit(self) -> Orbit | PerOutputOrbit | GroupedOrbit:
        """What the model sees of each input: the orbit, one for every output, or that of its group."""
        if self.pooling is not None:
            return GroupedOrbit(self.pooling, self.orbit)
        return self.orbit if self.structure is None else PerOutputOrbit(self.structure, self.orbit)

    @property
    def is_network(self) -> bool:
        """Whether the backbone is a network."""
        return isinstance(self.backbone, NeuralNetwork)

    @property
    def network(self) -> NeuralNetwork:
        """The backbone, where it is a network.

        Raises:
            TypeError: it is not.
        """
        if not isinstance(self.backbone, NeuralNetwork):
            raise TypeError(f"the backbone is a {type(self.backbone).__name__}, not a network")
        return self.backbone

    @property
    def transform(self) -> Transform:
        """T; with extents for every output, what names them all."""
        return self.structure or self.pooling or self.orbit.transform

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """Those of the transform, each with the distribution that this model draws it from (``augmentation``)."""
        distributions = self.orbit.distributions
        if self.structure is not None:
            distributions *= len(self.structure.outputs)
        if self.pooling is not None:  # population, spreads, which no copy draws, and groups
            spreads = ("one_sided",) * len(distributions)
            distributions = distributions + spreads + distributions * len(self.pooling.groups)
        return tuple(
            dataclasses.replace(c, distribution=own)
            for c, own in zip(self.transform.coordinates, distributions, strict=True)
        )

    @property
    def likelihood(self) -> str:
        """ "categorical", "bernoulli" or "gaussian"."""
        return self.evidence.likelihood

    @property
    def evidence_name(self) -> str:
        """Which evidence."""
        return self.evidence.name

    @property
    def symmetries(self) -> tuple[str, ...]:
        """Names of all K coordinates."""
        return self.extents.symmetries

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the latent ones."""
        return self.extents.active

    def _untransformed(self, backbone: GaussianProcess) -> InvariantPrior:
        """The prior over h itself."""
        zero = torch.zeros(len(self.symmetries), dtype=torch.float64)
        return InvariantPrior(backbone, self.orbit, zero, PRECISIONS[self.precision], self.memory_budget, identity=True)

    def at(self, eta: Float[Tensor, " K"], fresh: bool = False, new_group: bool = False) -> Any:
        """The backbone seen through the orbit at given extents.

        Args:
            eta: extents, shape (K,), internal units.
            fresh: networks only: new base draws from torch's global generator instead of the orbit's own.
            new_group: with groups only: whether to add one that training has not seen, its extents drawn from the
                population's by torch's global generator.

        Returns:
            An :class:`InvariantPrior` of a Gaussian process, a :class:`PerOutputPrior` or :class:`GroupedPrior` of one
            with extents for every output or group, an :class:`InvariantNetwork` of a network.
        """
        identity = not self.active and not any(self.extents.fixed.values())
        if isinstance(self.backbone, NeuralNetwork):
            base = self.orbit.fresh_base() if fresh else None
            budget, orbit = self.memory_budget, self.network_orbit
            if new_group and isinstance(orbit, GroupedOrbit):
                orbit.new = self._new_group(eta)
            return InvariantNetwork(self.backbone, orbit, eta, self.average, budget, identity, base, self.output_action)
        dtype, budget, backbone = PRECISIONS[self.precision], self.memory_budget, self.backbone
        if self.structure is not None:
            rows = by_output(self.structure, eta)  # (C, K)
            return PerOutputPrior([InvariantPrior(backbone, self.orbit, row, dtype, budget, identity) for row in rows])
        if self.pooling is not None:
            each = list(self.pooling.by_group(eta))  # G of shape (K,)
            if new_group:
                each.append(self._new_group(eta))
            return GroupedPrior([InvariantPrior(backbone, self.orbit, row, dtype, budget, identity) for row in each])
        return InvariantPrior(backbone, self.orbit, eta, dtype, budget, identity)

    def _new_group(self, eta: Float[Tensor, " all"]) -> Float[Tensor, " K"]:
        """Extents of a group that training has not seen: a draw from the population, or its own where all are fixed."""
        if isinstance(self.extents, PooledExtents):
            return self.extents.sample_group(eta)
        return eta[: self.orbit.transform.num_coordinates]

    def _function_posterior(self, x: Tensor, data: Data, eta: Tensor, groups: Any) -> tuple[Tensor, Tensor]:
        """Mean and variance of f(x), of the network of the extents and not of one trained afterwards."""
        if self.groups is None or not isinstance(self.evidence, CollapsedEvidence | NetworkEvidence):
            if groups is not None:
                raise ValueError("groups: this model has the same extents for everyone; leave groups out")
            return self.evidence.function_posterior(self.at(eta), x, data)
        numbers = as_groups(groups, self.groups, len(x))
        prior = self.at(eta, new_group=bool((numbers == NEW_GROUP).any()))
        return self.evidence.function_posterior(prior, x, numbered(data, self.groups), numbers)
