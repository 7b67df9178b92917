"""What a point method is: one joint minimisation over weights and, where it learns them, extents."""

import copy
import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

from bayesinv.backbones import NeuralNetwork
from bayesinv.backbones.invariant_network import moved_back
from bayesinv.data.container import Data
from bayesinv.errors import ExtentError
from bayesinv.evidence import NetworkEvidence, PlugInEvidence
from bayesinv.extents.families import Extents
from bayesinv.inference.training import Objective, Phase, Training
from bayesinv.inference.vi import describe_extents
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.arguments import as_integer, as_number
from bayesinv.numerics.mixture import Mixture
from bayesinv.orbits.orbit import Orbit
from bayesinv.orbits.structure import priors_of_blocks

__all__ = ["MethodObjective", "PointMethod", "PointObjective", "checked_copy", "plug_in_copy"]

EQUIVARIANT_METHODS = ("augerino", "fixed", "lila", "none")
METHODS_OF_BLOCKS = ("fixed", "none")  # for extents by output or group


class PointMethod(ABC):
    """How a network is trained to one number per symmetry, in place of a posterior.

    A subclass is a frozen dataclass of options, with a `name`. Most of them minimise the negative log likelihood at the
    current weights, so that the evidence of the model is replaced by the plug-in likelihood; `copied` says where not.
    """

    name: str
    learns_extents: ClassVar[bool] = False  # by gradients, which have to come through the network

    @abstractmethod
    def prepare(self, model: InvarianceModel) -> InvarianceModel:
        """A copy of the model with the evidence, average, extents and orbit that the fitted one has.

        The values that are learned come with its state, so that it is also what a saved fit can be loaded into:
        ``bayesinv.load(path, model=method.prepare(model))``.

        Raises:
            ValueError: the method cannot train this model; says what can.
        """

    def copied(self, model: InvarianceModel) -> InvarianceModel:
        """A copy of the model with the evidence that this method trains on, for `objective` once it is initialised.

        Raises:
            ValueError: the method cannot train this model.
        """
        return plug_in_copy(model, self.name)

    @abstractmethod
    def objective(self, model: InvarianceModel, training: Training, num_total: int, seed: int) -> "MethodObjective":
        """What the training loop minimises.

        Args:
            model: initialised, on its device; left as it is.
            training: rates and sizes.
            num_total: n.
            seed: of what is drawn once; what is drawn at every step comes from the loop.

        Raises:
            ValueError: as `prepare`.
        """

    def check(self, data: Data) -> None:  # noqa: B027 (most methods take whatever the transform takes)
        """Raise a DataError if the method cannot train on such inputs."""


class MethodObjective(Objective):
    """What a point method trains, and what is reported of it.

    Args:
        method: whose options these are.
        model: prepared by the method; trained in place.
        training_copies: of an input in one step.
        prediction_copies: of an input in a prediction.
        modules: further ones that hold what is trained.
    """

    def __init__(
        self,
        method: PointMethod,
        model: InvarianceModel,
        training_copies: int,
        prediction_copies: int,
        modules: Sequence[nn.Module] = (),
    ):
        self.method = method
        self.model = model
        self.network = model.network
        self.modules = [model, *modules]
        self.training_copies = training_copies
        self.prediction_copies = prediction_copies

    @abstractmethod
    def extents(self) -> Float64[Tensor, " K"]:
        """Half-widths as they are now, internal units, on the CPU."""

    def draws(self, num_draws: int, seed: int) -> Float64[Tensor, "draws K"]:
        """What is reported: one row, unless the method has a distribution over the extents."""
        return self.extents()[None]

    def density(self) -> Mixture | None:
        """q over the unconstrained extents; None for a point."""
        return None

    def current_extents(self) -> Mapping[str, float]:
        """Half-widths by symmetry, internal units."""
        return dict(zip(self.model.symmetries, self.extents().tolist(), strict=True))

    def describe(self, extents: Mapping[str, float]) -> str:
        """The three largest extents in words."""
        return describe_extents(self.model, extents) if self.model.active else "extents fixed"

    def fitted_model(self) -> InvarianceModel:
        """The model as it is now, ready to predict with the extents that `extents` gives."""
        return self.model

    def facts(self) -> dict[str, Any]:
        """The method, its options and what it found, as JSON holds them."""
        return {"name": self.method.name, **dataclasses.asdict(self.method)}  # type: ignore[call-overload]


class PointObjective(MethodObjective):
    """The loss of a method on the plug-in likelihood: L = -(1/n) Σ_i log p(y_i | copies of x_i) - reward.

    Args:
        method, model, training_copies, prediction_copies, modules: as for :class:`MethodObjective`.
    """

    def __init__(
        self,
        method: PointMethod,
        model: InvarianceModel,
        training_copies: int,
        prediction_copies: int,
        modules: Sequence[nn.Module] = (),
    ):
        evidence, network = model.evidence, model.backbone
        if not (isinstance(evidence, PlugInEvidence) and isinstance(network, NeuralNetwork)):
            raise TypeError(
                f"expected a model that {type(method).__name__}.prepare has made, and one with a "
                f"{type(network).__name__} and the {evidence.name} evidence came"
            )
        super().__init__(method, model, training_copies, prediction_copies, modules)
        self.evidence = evidence

    @abstractmethod
    def training_points(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "copies n *event"]:
        """The copies of a batch that one step sees; new ones at every call."""

    def drawn_copies(
        self, x: Float[Tensor, "n *event"]
    ) -> tuple[Float[Tensor, "copies n *event"], Float[Tensor, "copies *each"] | None]:
        """`training_points`, and the t that they have where outputs are to be moved back; None if they stay."""
        return self.training_points(x), None

    def copy_weights(self) -> Float[Tensor, "copies *some"] | None:
        """How much each of the copies counts; None if alike."""
        return None

    def reward(self) -> Float[Tensor, ""]:
        """What is added to the mean log likelihood; nothing by default."""
        return torch.zeros(())

    def own_groups(self, training: Training) -> list[dict[str, Any]]:
        """Optimiser groups beside weights and noise; none by default."""
        return []

    def phases(self, training: Training, num_steps: int) -> list[Phase]:
        """Weights, noise and what the method learns, in one step; weights alone decay.

        With ``Training.extent_start`` the weights are alone for that share of the steps.
        """
        weights = list(self.network.weights().values())
        noise = [p for p in self.evidence.parameters() if p.requires_grad]
        groups = [{"params": weights, "lr": training.weight_rate, "weight_decay": training.weight_decay}]
        if noise:
            groups.append({"params": noise, "lr": training.hyper_rate, "weight_decay": 0.0})
        own = [{"weight_decay": 0.0, **group} for group in self.own_groups(training)]
        start = min(round(training.extent_start * num_steps), num_steps - 1) if own else 0
        size, schedule = training.batch_size, training.schedule
        common: dict[str, Any] = {"clip": True, "own_draws": True}
        phases = [
            Phase("joint", [*groups, *own], self.loss, size, start=start, schedule=schedule, traced=True, **common)
        ]
        if start:
            phases.insert(0, Phase("burn-in", groups, self.loss, size, stop=start, schedule="constant", **common))
        return phases

    def loss(self, data: Data, num_total: int) -> Float[Tensor, ""]:
        """L on a minibatch, nats per example."""
        points, t = self.drawn_copies(data.x)
        flat = self.network.functional_in_parts({}, points.flatten(0, 1), self.model.memory_budget)
        outputs = flat.unflatten(0, points.shape[:2])
        # Targets stay and outputs are moved back: labels need no interpolation then.
        outputs, weights = moved_back(self.model.output_action, outputs, t, self.copy_weights())
        outputs = self.network.in_unit(outputs)
        average = self.model.average
        value = self.evidence.averaged_log_likelihood(outputs, data.y, average, weights).mean()
        return -(value + self.reward().to(value.device))


def checked_copy(
    model: InvarianceModel, method: str, evidence: NetworkEvidence | None = None, average: str | None = None
) -> InvarianceModel:
    """A deep copy of a model that a method can train, with another evidence and average over copies if given.

    Raises:
        ValueError: the backbone is no network, or the method trains no such outputs or groups.
    """
    if not model.is_network:
        cure = (
            "fix the extents of such a model by priors={name: number} and fit it as ever"
            if method in ("fixed", "none")
            else 'use inference="vi", or a NeuralNetwork'
        )
        raise ValueError(
            f'inference="{method}" trains the weights of a network, and this model has a '
            f"{type(model.backbone).__name__}; {cure}"
        )
    if model.output_action is not None and method not in EQUIVARIANT_METHODS:
        raise ValueError(
            f'inference="{method}" trains on inputs that it makes in its own way, and outputs that move with the input '
            f'cannot be moved back; use one of {list(EQUIVARIANT_METHODS)} or "vi"'
        )
    blocks = model.structure or model.pooling
    if blocks is not None and method not in METHODS_OF_BLOCKS:
        raise ValueError(
            f'inference="{method}" averages over copies that all {blocks.kind}s share, and this model has extents for '
            f'every {blocks.kind}; use one of {list(METHODS_OF_BLOCKS)} or "vi", or a model without {blocks.kind}s=...'
        )
    copied = copy.deepcopy(model) if evidence is None else model.with_evidence(evidence)
    if average is not None:
        copied.average = average
    return copied


def plug_in_copy(model: InvarianceModel, method: str, average: str | None = None) -> InvarianceModel:
    """The same with the plug-in likelihood.

    Raises:
        ValueError: as `checked_copy`.
    """
    is_plug_in = isinstance(model.evidence, PlugInEvidence)
    return checked_copy(model, method, None if is_plug_in else PlugInEvidence(model.likelihood), average)


def fix_extents(
    model: InvarianceModel, extents: Mapping[str, float], others: Mapping[str, float] | None = None
) -> None:
    """Make every extent of a model a fixed number, in place; those named in neither are off.

    With extents by output or group, that of a symmetry is for all of them that have none of their own, and for groups
    that training has not seen. ``others`` are by full name.

    Raises:
        ExtentError: an unknown name, or a number outside [0, largest].
    """
    try:
        blocks = model.structure or model.pooling
        if blocks is not None:
            common = () if model.pooling is None else blocks.inner.names
            extents = {k: extents[k] for k in common if k in extents} | priors_of_blocks(blocks, extents)
        known = {name: 0.0 for name in model.symmetries} | dict(others or {})
        model.extents = Extents(model.transform.coordinates, known | dict(extents))
    except ExtentError as error:  # in the words of who wrote Fixed({...}), not of the model that is made of it
        raise ExtentError(re.sub(r"^priors(?=[:\[])", "Fixed: extents", str(error))) from error


def fixed_extents(model: InvarianceModel) -> Float64[Tensor, " K"]:
    """The fixed numbers in the order of the symmetries; 0 for latent ones."""
    return torch.tensor([model.extents.fixed.get(name, 0.0) for name in model.symmetries], dtype=torch.float64)


def resized(orbit: Orbit, num_samples: int) -> Orbit:
    """An orbit of the same transform and kind of draws with another number of copies, on the same device."""
    resized = Orbit(orbit.transform, num_samples, orbit.draws, orbit.seed, orbit.augmentation)
    return resized.to(orbit.base.device)


def copies_of(x: Shaped[Tensor, "n *event"], num_copies: int) -> Shaped[Tensor, "copies n *event"]:
    """A batch several times over, without memory of its own."""
    return x.expand(num_copies, *x.shape)


def require_latent(model: InvarianceModel, method: str) -> None:
    """Raise a ValueError unless there is an extent to learn."""
    if not model.active:
        raise ValueError(
            f'inference="{method}" learns the extents that are latent, and all of this model are fixed; give one a '
            'prior in priors={name: ...}, or use inference="fixed"'
        )


def require_continuous(model: InvarianceModel, method: str) -> None:
    """Raise a ValueError where a finite group would have to be drawn from."""
    groups = [
        c.name
        for c in model.transform.coordinates
        if c.is_discrete and (c.name in model.active or model.extents.fixed.get(c.name))
    ]
    if groups:
        raise ValueError(
            f'inference="{method}" learns half-widths through its draws, and {", ".join(groups)} of finite groups '
            'have none; switch them off with priors={name: None}, or use inference="vi" or "fixed"'
        )


def check_count(name: str, value: int) -> None:
    """Raise a ValueError unless the option is a positive integer."""
    as_integer(name, value)


def check_number(name: str, value: int | float, zero: bool = False) -> None:
    """Raise a ValueError unless the option is a finite number above zero, or at zero where that is allowed."""
    as_number(name, value, zero)
