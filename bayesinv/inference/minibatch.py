"""Variational inference over minibatches: weights on a detached orbit, extents on the evidence."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from bayesinv.data.container import Data
from bayesinv.evidence import LaplaceEvidence, NetworkEvidence
from bayesinv.inference.guides import GuideFactory, make_guide
from bayesinv.inference.importance import extents_of_trace
from bayesinv.inference.modes import STARTS
from bayesinv.inference.target import start_extents
from bayesinv.inference.training import Objective, Phase, Training
from bayesinv.inference.vi import describe_extents
from bayesinv.model.invariance_model import InvarianceModel


class VariationalObjective(Objective):
    """The ELBO of q(η) on an evidence that takes minibatches.

    An evidence that learns everything by its own bound (stochastic GP) has one phase. Where weights are trained apart,
    they take their steps on the likelihood seen through an orbit at a draw η ~ q that is detached from it, and every
    few steps the guide and the hyperparameters (prior scales, noise) take one on E_q[log p(D | η)] - KL(q ‖ p). The
    Laplace evidence has three stretches of that:

    1. burn-in: the likelihood alone, extents where they start. Extents of an untrained network run away, since
       everything is explained best by a constant; then the prior scales start at what the weights have become;
    2. weights at their mode under the prior, scales on the evidence and a little later the extents too: under scales
       that are still too wide, extents grow only to keep the determinant small;
    3. finish: the likelihood alone again, under the posterior found, for predictions. The mode under the prior
       of a minibatch evidence is too smooth to predict with.

    Args:
        model: initialised, on its device; it is trained in place.
        guide: as for ``fit``; None where every extent is fixed.
        batch: some data, to create the guide's parameters with.
        num_total: n.
    """

    def __init__(self, model: InvarianceModel, guide: str | GuideFactory, batch: Data, num_total: int):
        self.model = model
        self.guide: Any = None
        self.guide_name: str | None = None
        self.modules = [model]
        self._kept: _Kept | None = None
        if isinstance(model.evidence, LaplaceEvidence):
            self._kept = _Kept(model)
            self.modules.append(self._kept)  # so that a checkpoint holds it
        if model.active:
            eta = start_extents(model, STARTS[0])
            start = {site: eta[where] for site, where in model.extents.sites.items()}
            self.guide, self.guide_name = make_guide(guide, model, start)
            with torch.no_grad():
                self.guide(batch, num_total)  # creates the guide's parameters
            if isinstance(self.guide, nn.Module):
                self.modules.append(self.guide)
            self._elbo = Trace_ELBO()(model, self.guide)

    def phases(self, training: Training, num_steps: int) -> list[Phase]:
        """Weights alone, then weights and extents, then weights alone again; or everything in one phase."""
        evidence = self.model.evidence
        guide = list(self.guide.parameters()) if self.guide is not None else []
        slow = {"params": guide, "lr": training.extent_rate}
        if not evidence.trains_weights:
            groups = [*_in_their_units(self.model, training.hyper_rate), *([slow] if guide else [])]
            return [
                Phase(
                    "joint",
                    groups,
                    self.extent_loss,
                    training.batch_size,
                    schedule="cooldown",
                    traced=True,
                    takes_evidence=True,
                )
            ]
        start = round(training.burn_in * num_steps)
        stop = num_steps - round(training.finish * num_steps) if evidence.name != "plugin" else num_steps
        weights = list(self.model.network.weights().values())
        own = [p for p in evidence.parameters() if p.requires_grad]  # the noise of a regression
        groups = [{"params": weights, "lr": training.weight_rate, "weight_decay": training.weight_decay}]
        with_noise = [*groups, *([{"params": own, "lr": training.hyper_rate}] if own else [])]
        size, schedule = training.batch_size, training.schedule
        if evidence.name == "plugin":
            phases = [Phase("weights", with_noise, self.weight_loss, size, schedule=schedule, clip=True)]
            hyper: list[dict[str, Any]] = []
        else:
            phases = [
                Phase("burn-in", with_noise, self.plain_loss, size, stop=start, schedule="constant", clip=True),
                Phase(
                    "weights",
                    groups,
                    self.weight_loss,
                    size,
                    start=start,
                    stop=stop,
                    schedule=schedule,
                    clip=True,
                    on_start=self.model.network.start_scales,
                ),
                Phase(
                    "finish",
                    with_noise,
                    self.plain_loss,
                    size,
                    start=stop,
                    schedule=schedule,
                    clip=True,
                    on_start=self._keep,
                ),
            ]
            hyper = [{"params": [self.model.network.log_scales, *own], "lr": training.hyper_rate}]
        groups = [*hyper, *([slow] if guide else [])]
        whole = isinstance(evidence, LaplaceEvidence)
        begin = start + round(training.settle * num_steps) if hyper and guide else start
        size, every = training.extent_batch_size, training.extent_every
        if begin > start:
            phases.append(
                Phase(
                    "scales",
                    hyper,
                    self.extent_loss,
                    size,
                    every=every,
                    start=start,
                    stop=begin,
                    schedule="constant",
                    takes_evidence=True,
                    whole=whole,
                )
            )
        if groups:
            phases.append(
                Phase(
                    "extents",
                    groups,
                    self.extent_loss,
                    size,
                    every=every,
                    start=begin,
                    stop=stop,
                    schedule="cooldown",
                    traced=True,
                    takes_evidence=True,
                    whole=whole,
                )
            )
        else:
            phases[0].traced = True
        return [phase for phase in phases if phase.stop is None or phase.stop > phase.start]

    @property
    def mode(self) -> InvarianceModel:
        """The model with the weights where the stretch under their prior left them, before those of the finish."""
        return self.model if self._kept is None or not self._kept.is_full else self._kept.model

    def _keep(self) -> None:
        if self._kept is not None:
            self._kept.take(self.model)

    def weight_loss(self, data: Data, num_total: int) -> Tensor:
        """The weights' own loss at a detached draw of the extents."""
        with torch.no_grad():
            eta = self.draw(data)
        return self.model.evidence.weight_loss(self.model.at(eta, fresh=True), data, num_total)

    def plain_loss(self, data: Data, num_total: int) -> Tensor:
        """The negative mean log likelihood at a detached draw of the extents."""
        with torch.no_grad():
            eta = self.draw(data)
        return -self._evidence.mean_log_likelihood(self.model.at(eta, fresh=True), data)

    @property
    def _evidence(self) -> NetworkEvidence:
        evidence = self.model.evidence
        if not isinstance(evidence, NetworkEvidence):
            raise TypeError(f"the {evidence.name} evidence trains no weights")
        return evidence

    def extent_loss(self, data: Data, num_total: int) -> Tensor:
        """The negative ELBO, nats."""
        if self.guide is None:
            return -(self.model.log_evidence(self.fixed(), data, num_total) + self.model.log_hyperprior())
        return self._elbo(data, num_total)

    def draw(self, data: Data) -> Tensor:
        """η ~ q, (K,)."""
        if self.guide is None:
            return self.fixed()
        return extents_of_trace(self.model, poutine.trace(self.guide).get_trace(data, 1))

    def fixed(self) -> Tensor:
        """η where nothing is latent."""
        return torch.tensor([self.model.extents.fixed[name] for name in self.model.symmetries], dtype=torch.float64)

    def current_extents(self) -> Mapping[str, float]:
        """Medians of q, internal units."""
        if self.guide is None:
            return dict(self.model.extents.fixed)
        with torch.no_grad():
            medians = self.guide.median(None, 1) if hasattr(self.guide, "median") else self.guide(None, 1)
        return dict(zip(self.model.symmetries, self.model.extents.assemble(medians).tolist(), strict=True))

    def describe(self, extents: Mapping[str, float]) -> str:
        """The three largest extents in words."""
        return describe_extents(self.model, extents) if self.model.active else "extents fixed"


class _Kept(nn.Module):
    """A model as it was at one step of its training, once there was that step."""

    def __init__(self, model: InvarianceModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.is_full: Tensor
        self.register_buffer("is_full", torch.zeros((), dtype=torch.bool))

    def take(self, model: InvarianceModel) -> None:
        """Keep it as it is now."""
        self.model.load_state_dict(model.state_dict())
        self.is_full.fill_(True)


def _in_their_units(model: InvarianceModel, rate: float) -> list[dict[str, Any]]:
    """Adam's groups of a process over minibatches: steps of parameters in the unit of the data are in that unit."""
    units = model.parameter_units()
    groups: dict[float, list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups.setdefault(units.get(name, 1.0), []).append(p)
    return [{"params": params, "lr": rate * unit, "eps": 1e-8 / unit} for unit, params in groups.items()]
