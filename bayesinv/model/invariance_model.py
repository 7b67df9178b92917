"""The one Pyro model that variational inference, NUTS, simulation and prediction all run.

    η ~ p(η),    h ~ p(h),    f(x) = mean_s T'_{η ε_s}⁻¹ h(T_{η ε_s} x),    y_i ~ p(y | f(x_i)),

T' = 1 for an invariant function;

with h, a Gaussian process or a network with a Gaussian prior over its weights, integrated out by the evidence, so that
η is what is left to sample. Past 400 lines because a third of them say what its one class takes, gives and raises.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import pyro
import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones import GaussianProcess, NeuralNetwork, as_backbone
from bayesinv.data.container import Data
from bayesinv.data.groups import as_groups, numbered
from bayesinv.errors import NumericalError
from bayesinv.evidence import Evidence, NetworkEvidence, PlugInEvidence, as_evidence
from bayesinv.evidence.collapsed import CollapsedEvidence
from bayesinv.evidence.prediction import Prediction, standard_normal_draws
from bayesinv.extents.families import Extents, PriorSpec, as_priors, sample_extents
from bayesinv.extents.pooling import PooledExtents
from bayesinv.model.checks import (
    check_average,
    check_cells,
    check_data,
    check_exact,
    check_groups,
    check_network,
    check_outputs,
    for_evidence,
)
from bayesinv.model.conditioning import conditioned_draws
from bayesinv.model.config import arguments, describe
from bayesinv.model.hyperparameters import at, log_prior, vector
from bayesinv.model.parts import PRECISIONS, ModelParts
from bayesinv.model.simulation import Simulation, simulate
from bayesinv.numerics.arguments import as_integer
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.orbits.groups import Grouped
from bayesinv.orbits.orbit import Orbit
from bayesinv.orbits.structure import PerOutput, priors_of_blocks
from bayesinv.transforms import Transform, as_action, as_transform

__all__ = ["InvarianceModel", "Simulation"]


class InvarianceModel(ModelParts):
    """A backbone seen through an orbit whose extents are latent.

    Args:
        backbone: a :class:`GaussianProcess`, or a GPyTorch kernel to make one around; a :class:`NeuralNetwork`, or any
            ``torch.nn.Module`` from (n, *event) to (n, outputs) to make one around.
        transforms: a :class:`Transform`, a list of them (applied in order), or built-in names
            such as "affine2d" or ["rotation", "translate_x"].
        likelihood: "categorical" (labels 0..C-1), "bernoulli" (labels 0 and 1, a network with one output) or
            "gaussian" (real targets). Labels are (n,), or maps (n, height, width) for a network that returns
            (n, C, height, width).
        evidence: "auto", a name, or an ``Evidence`` object. Names: for a Gaussian process "softmax" (the default for
            classes), "dirichlet" (fast, its intervals are not calibrated), "gaussian" and "stochastic"; for a network
            "laplace" and "plugin".
        priors: by symmetry name: a Pyro distribution, a number (fixed), or None (off); internal units.
        num_orbit_samples: S, the size of the sampled orbit. A finite S is part of the model.
        draws: base draws, "sobol" (scrambled) or "monte_carlo".
        orbit_seed: of the base draws, which are fixed for the life of the model.
        precision: "mixed" (orbit and cross kernels in float32, algebra in float64) or "double".
        memory_budget: bytes for the orbit and kernel of one block of inputs.
        average: what is averaged over the copies of an input, for networks: "function" (outputs, a prior over
            invariant functions), "probabilities" (a mixture over transformed inputs), or "log_likelihood" (what
            Augerino and AugNet train; only with evidence="plugin"). A Gaussian process averages function values.
        augmentation: how coordinates are drawn within their extents, by symmetry name: "uniform", "one_sided",
            "gaussian" or "von_mises" (angles); those left out have their transform's own, mostly "uniform".
        output_action: how outputs move with the inputs, for networks: None (they stay, an invariant model), "image"
            or "volume" (maps that move with it), "vector" (outputs (n, 3) that turn with the points), or an object with
            ``inverse(outputs, t)``; see `bayesinv.transforms.actions`.
        outputs: names of the classes or targets, in order, each of which then has extents of its own, such as
            "rotation[6]"; None for extents in common. With a Gaussian process and a collapsed evidence ("softmax",
            "dirichlet", "gaussian"), or a network with one output for each name and average="function"; either
            costs C times the copies. ``priors`` take a symmetry's name for all outputs, or a full one.
        groups: names of the groups in the data (subjects, sensors, sites), by which ``Data.groups`` calls them, or by
            their positions here; each then has extents of its own around the population's, such as
            "rotation[site A]". None for extents in common. With a network, or a Gaussian process and a collapsed
            evidence. ``priors`` take a symmetry's name for the population, or "<symmetry> spread"; see
            :mod:`bayesinv.extents.pooling`.

    Raises:
        TypeError, ValueError, ExtentError: what was expected, what came, and what to do.

    Example:
        >>> model = InvarianceModel(GaussianProcess(), "rotation", likelihood="categorical")
        >>> model.symmetries, model.active, model.evidence_name
        (('rotation',), ('rotation',), 'softmax')
    """

    @ordinary()
    def __init__(
        self,
        backbone: GaussianProcess | Kernel | NeuralNetwork | nn.Module,
        transforms: Transform | str | Sequence[Transform | str],
        likelihood: str = "categorical",
        evidence: str | Evidence = "auto",
        priors: Mapping[str, PriorSpec] | None = None,
        num_orbit_samples: int = 24,
        draws: str = "sobol",
        orbit_seed: int = 0,
        precision: str = "mixed",
        memory_budget: int = 2**30,
        average: str = "function",
        augmentation: Mapping[str, str] | None = None,
        output_action: Any = None,
        outputs: Sequence[str] | None = None,
        groups: Any = None,
    ):
        super().__init__()
        self.backbone = as_backbone(backbone)
        if not isinstance(precision, str) or precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {sorted(PRECISIONS)}, got {precision!r}")
        as_integer("num_orbit_samples", num_orbit_samples)
        as_integer("orbit_seed", orbit_seed, 0, 2**32 - 1)
        self.orbit = Orbit(as_transform(transforms), num_orbit_samples, draws, orbit_seed, augmentation)
        self.output_action = as_action(output_action, self.orbit.transform)
        if self.output_action is not None and not self.is_network:
            raise ValueError(
                "output_action: the outputs of an equivariant Gaussian process depend on each other through the "
                "transform, which the evidences here, one for each output, leave out; use a network"
            )
        self.evidence = as_evidence(evidence, likelihood, "network" if self.is_network else "gp")
        if isinstance(self.backbone, GaussianProcess):
            self.backbone = for_evidence(self.backbone, self.evidence)
        self.structure = None if outputs is None else PerOutput(self.orbit.transform, outputs)
        if self.structure is not None:
            check_outputs(self, average)
            priors = priors_of_blocks(self.structure, as_priors(priors))
        self.pooling = None if groups is None else Grouped(self.orbit.transform, groups)
        if self.pooling is None:
            self.extents = Extents(self.transform.coordinates, priors)
        else:
            check_groups(self)
            self.extents = PooledExtents(self.pooling, priors)
        if isinstance(self.backbone, GaussianProcess) and self.backbone.is_exact:
            check_exact(self)
        self.precision = precision
        self.memory_budget = as_integer("memory_budget", memory_budget)
        check_average(self, average)
        self.average = average
        # A model of the same symmetries whose network was trained to predict, where it is another one.
        self.predictive: InvarianceModel | None = None
        self._held = False
        self.hyper_centre: Tensor
        self.register_buffer("hyper_centre", torch.zeros(0, dtype=torch.float64))

    def parameter_units(self) -> dict[str, float]:
        """The size, by name, of the parameters that are in the unit of the data; those left out have none."""
        parts = {"backbone": self.backbone, "evidence": self.evidence}
        return {f"{part}.{name}": u for part, module in parts.items() for name, u in module.parameter_units().items()}

    @ordinary()
    def initialise(self, data: Data, seed: int = 0, num_total: int | None = None) -> None:
        """Start kernel, inducing points, noise and means at the scale of the data.

        Args:
            data: all data, or a part of them where the evidence takes minibatches.
            seed: of what is chosen at random.
            num_total: n, if the data are a part.

        Raises:
            DataError: the network does not take these inputs, or has too few outputs for the labels.
            ValueError: a layer under which the evidence has no meaning.
        """
        check_data(self, data)
        if self._held:
            return
        data = numbered(data, self.groups)
        output_variance = self.evidence.initialise(data)
        self.extents.resolve(len(data) if num_total is None else num_total)
        if isinstance(self.backbone, GaussianProcess):
            self.backbone.initialise(data.x, output_variance, seed)
            self.evidence.prepare(self._untransformed(self.backbone), data)
            self.hyper_centre = vector(self.hyperparameters).detach().to(data.x.device)
        else:
            self.backbone.prepare(1 if self.likelihood == "bernoulli" else data.num_outputs)  # one logit
            check_network(self, self.backbone.initialise(data.x, output_variance, seed), data)
            check_cells(self, data)
            if self.likelihood == "gaussian":
                self.backbone.match(data.x, data.y, centred=self.output_action is None)
            if self.evidence.name != "plugin":
                self.backbone.check_layers(self.evidence.name)

    def hold_hyperparameters(self) -> InvarianceModel:
        """A copy whose fits leave kernel, noise and means as they are now, and learn extents and inducing inputs alone.

        For a Gaussian process that has been initialised or fitted: what the data say about the extents once the
        hyperparameters are known, as in simulations.

        Raises:
            TypeError: a network. ValueError: a Gaussian process that has not been initialised.

        Example:
            >>> model = InvarianceModel(GaussianProcess(num_inducing=5), "rotation", likelihood="gaussian")
            >>> model.initialise(Data(torch.rand(8, 1, 6, 6), torch.rand(8, 1)))
            >>> [name for name, p in model.hold_hyperparameters().named_parameters() if p.requires_grad]
            ['backbone.inducing']
        """
        if not isinstance(self.backbone, GaussianProcess):
            raise TypeError(f"hold_hyperparameters: expected a Gaussian process, got a {type(self.backbone).__name__}")
        if not self.backbone.is_initialised:
            raise ValueError("hold_hyperparameters: the model holds none yet; initialise or fit it first")
        held = copy.deepcopy(self)
        held._held = True
        for p in held.parameters():
            p.requires_grad_(False)
        held.backbone.inducing.requires_grad_(self.backbone.learn_inducing)
        return held

    def with_evidence(self, evidence: NetworkEvidence) -> InvarianceModel:
        """A copy with another evidence of the same network, whose noise is where this one's is.

        Raises:
            TypeError: the backbone is no network.
        """
        copied = copy.deepcopy(self)
        copied.predictive = None
        copied.evidence = evidence.to(self.network.log_scales.device)
        if isinstance(self.evidence, NetworkEvidence):  # it may be at the data's scale already
            evidence.to(self.evidence.log_noise)
            evidence.log_noise.data.copy_(self.evidence.log_noise.detach())
        return copied

    def plug_in(self) -> InvarianceModel:
        """A copy with the plug-in likelihood, to train the weights that predict.

        Raises:
            TypeError: the backbone is no network.
        """
        return self.with_evidence(PlugInEvidence(self.likelihood))

    def forward(self, data: Data, num_total: int | None = None) -> None:
        """The Pyro model: one site per latent extent, and the evidence as a factor.

        Args:
            data: all data, or a minibatch.
            num_total: the number of examples that a minibatch stands for.

        Raises:
            NumericalError: the evidence is not finite; names the extents.
        """
        eta = sample_extents(self.extents)
        value = self.log_evidence(eta, data) if num_total is None else self.log_evidence(eta, data, num_total)
        if not bool(torch.isfinite(value.detach())):
            at = ", ".join(f"{name}={e:.3g}" for name, e in zip(self.symmetries, eta.tolist(), strict=True))
            raise NumericalError(f"site 'evidence' is {float(value.detach())} at extents {at}")
        pyro.factor("evidence", value)
        pyro.factor("hyperpriors", self.log_hyperprior())

    @ordinary()
    def log_evidence(self, eta: Float[Tensor, " K"], data: Data, num_total: int | None = None) -> Float[Tensor, ""]:
        """log p(D | η), differentiable in η and the hyperparameters; on the CPU, where the guide is.

        Args:
            eta: extents, shape (K,), internal units, in the order of ``symmetries``.
            data: inputs and targets.
            num_total: the number of examples that a minibatch stands for; its orbit is then a fresh one.
        """
        prior = self.at(eta, fresh=num_total is not None)
        return self.evidence.log_evidence(prior, numbered(data, self.groups), num_total).to("cpu", torch.float64)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Log density of the priors on kernel hyperparameters and noise, in their latent coordinates."""
        given = (self.backbone.log_hyperprior().cpu() + self.evidence.log_hyperprior().cpu()).to(torch.float64)
        hyper = self.hyperparameters
        if sum(h.size for h in hyper) != len(self.hyper_centre):  # held, or without data yet
            return given
        return given + log_prior(hyper, self.hyper_centre)

    @ordinary()
    def function_posterior(
        self,
        x: Float[Tensor, n * event],
        data: Data,
        eta: Float[Tensor, " K"],
        groups: Any = None,
    ) -> tuple[Float[Tensor, "n *cells C"], Float[Tensor, "n *cells C"]]:
        """Mean and variance of f(x) given the data and the extents, each (n, C), or (n, *cells, C).

        Args:
            x: inputs, (n, *event).
            data: what the model was trained on.
            eta: extents, shape (K,), internal units.
            groups: of x, for a model with groups: numbers, names, or None for a group that training has not seen. All
                inputs of unseen groups share the extents of one, drawn from torch's global generator.
        """
        return (self.predictive or self)._function_posterior(x, data, eta, groups)

    @ordinary()
    @torch.no_grad()
    def predict(
        self,
        x: Float[Tensor, n * event],
        data: Data,
        extents: Float[Tensor, "J K"],
        weights: Float[Tensor, " J"] | None = None,
        num_function_samples: int = 64,
        seed: int = 0,
        groups: Any = None,
        hyperparameters: Float[Tensor, "J P"] | None = None,
        known: MutableMapping[int, Any] | None = None,
        y: Float[Tensor, "n outputs"] | None = None,
    ) -> Prediction:
        """Predictions averaged over draws of the extents, the orbit and the function.

        Args:
            x: inputs, (n, *event).
            data: what the model was trained on.
            extents: J posterior draws.
            weights: of the draws, summing to one; equal if None.
            num_function_samples: draws of f(x) per draw of the extents (classification).
            seed: of those draws, and of the extents of an unseen group.
            groups: of x, as in :meth:`function_posterior`.
            hyperparameters: of each draw, in latent coordinates; None for the model's own.
            known: posteriors of the function by row of ``extents`` that earlier calls with the same draws computed; new
                ones are added, which it need not keep.
            y: targets of a regression at x; the prediction then has their log density.

        Raises:
            ValueError: targets for a classification, whose probabilities are in the prediction.
        """
        J = len(extents)
        shares = [1.0 / J] * J if weights is None else weights.tolist()
        average = (self.predictive or self).evidence.average(num_function_samples, seed)
        if self.groups is not None:  # once, not for every draw: names that are not known are warned of
            groups = as_groups(groups, self.groups, len(x))
        hyper = self.hyperparameters if hyperparameters is not None else []
        by_group = groups is not None or self.groups is not None
        functions: Any = [None] * J
        if known is not None and not by_group and isinstance(self.evidence, CollapsedEvidence):
            functions = conditioned_draws(self, data, extents, hyperparameters, known)
        with seeded(seed):
            for j, (function, share) in enumerate(zip(functions, shares, strict=True)):
                with at(hyper, None if hyperparameters is None else hyperparameters[j]):
                    if function is None:
                        mean, variance = self.function_posterior(x, data, extents[j], groups)
                    else:
                        mean, variance = function.moments(x)
                    average.add(mean, variance, share, y)
        return average.result()

    @ordinary()
    @torch.no_grad()
    def log_likelihood(
        self,
        data: Data,
        train: Data,
        extents: Float[Tensor, "J K"],
        seed: int = 0,
        hyperparameters: Float[Tensor, "J P"] | None = None,
    ) -> Float[Tensor, "J n"]:
        """log p(y_i | f_i), with f_i drawn from its posterior at each draw of the extents (and hyperparameters)."""
        if self.predictive is not None:
            return self.predictive.log_likelihood(data, train, extents, seed)
        rows = []
        hyper = self.hyperparameters if hyperparameters is not None else []
        for j, eta in enumerate(extents):
            groups = None if self.groups is None else data.groups
            # Seeded, as the extents of unseen groups are drawn.
            with seeded(seed + j), at(hyper, None if hyperparameters is None else hyperparameters[j]):
                mean, variance = self.function_posterior(data.x, train, eta, groups)
                z = standard_normal_draws(1, mean.numel(), seed + j).reshape(mean.shape).to(mean.device)
                rows.append(self.evidence.log_likelihood(mean + variance.sqrt() * z, data.y))
        return torch.stack(rows)

    @ordinary()
    @torch.no_grad()
    def simulate(
        self,
        x: Float[Tensor, n * event],
        extents: Float[Tensor, " K"] | None = None,
        num_outputs: int | None = None,
        seed: int = 0,
        groups: Any = None,
    ) -> Simulation:
        """Draw extents, function and targets from the same finite-orbit model that is fitted.

        The function of a Gaussian process is drawn from the dense prior covariance, n²S² kernel values: for n up to a
        thousand. That of a network is the one at its current weights; draw these from their prior with
        ``backbone.sample_weights(seed)`` for a teacher.

        Args:
            x: inputs, (n, *event).
            extents: (K,); drawn from the prior if None.
            num_outputs: classes, or outputs of a regression; by default those of the data that the model was
                initialised with, and one output for a regression that has seen none.
            seed: of everything drawn.
            groups: of x, for a model with groups.

        Raises:
            ValueError: fewer than two classes, or another number than the model was initialised for.
        """
        return simulate(self, x, extents, num_outputs, seed, groups)

    def config(self) -> dict[str, Any]:
        """A JSON-able description, from which :meth:`from_config` rebuilds an untrained model."""
        return describe(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> InvarianceModel:
        """Rebuild a model from ``config()``; learned values come with ``load_state``.

        Raises:
            ValueError: the kernel (or noise prior, or transform) is the user's own and cannot be rebuilt.
        """
        return cls(**arguments(config))

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """``load_state_dict`` for a model that has not seen the data: sizes its arrays first."""
        state = dict(state)
        own = {k.removeprefix("predictive."): v for k, v in state.items() if k.startswith("predictive.")}
        self.predictive = self.plug_in() if own else None
        if self.predictive is not None:
            self.predictive.load_state(own)
        for name, part in (("backbone.", self.backbone), ("evidence.", self.evidence)):
            part.prepare_state({key.removeprefix(name): v for key, v in state.items() if key.startswith(name)})
        # Version 0.1 had no weak priors, and learned the means of the outputs in place of integrating them out.
        state.setdefault("hyper_centre", torch.zeros(0, dtype=torch.float64))
        if self.is_network:  # nor, before 0.3, targets in their own unit
            state.setdefault("backbone.output_mean", torch.zeros(0, dtype=torch.float64))
            state.setdefault("backbone.output_unit", torch.ones((), dtype=torch.float64))
        if isinstance(self.evidence, CollapsedEvidence):
            state.setdefault("evidence.offset_variance", torch.zeros((), dtype=torch.float64))
        self.hyper_centre = torch.zeros_like(state["hyper_centre"], device=self.hyper_centre.device)
        self.load_state_dict(state)
