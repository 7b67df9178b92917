"""Extents by hand: an orbit of given size, or none."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float, Float64
from torch import Tensor

from bayesinv.backbones.invariant_network import InvariantNetwork
from bayesinv.data.container import Data
from bayesinv.inference.point.base import (
    PointMethod,
    PointObjective,
    check_count,
    check_number,
    copies_of,
    fix_extents,
    fixed_extents,
    plug_in_copy,
    resized,
)
from bayesinv.inference.training import Training
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.orbits.groups import GroupedOrbit
from bayesinv.orbits.orbit import Orbit
from bayesinv.orbits.structure import PerOutputOrbit

__all__ = ["Fixed", "NoInvariance"]


@dataclass(frozen=True)
class Fixed(PointMethod):
    """A network averaged over an orbit of given extents; its weights alone are learned.

        L = -(1/n) Σ_i log p(y_i | average_s h(T_{η ε_s} x_i)),   the average that the model was made with

    Args:
        extents: by symmetry, internal units. One that is left out stays at the number that the model fixes it at, and
            is off if the model has it latent; none at all is refused where one is latent.
        num_copies: of an input in a training step, each with a draw of its own. None: the model's sampled orbit,
            moved anew at every step and shared by the batch.
        prediction_copies: of an input in a prediction; None is the model's number.

    Raises:
        ValueError: a negative extent, or a number of copies below one.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> fitted = Fixed({"rotation": 0.5}).prepare(InvarianceModel(net, ["rotation", "shear"]))
        >>> fitted.extents.fixed
        {'rotation': 0.5, 'shear': 0.0}
    """

    extents: Mapping[str, int | float] = field(default_factory=dict)
    num_copies: int | None = None
    prediction_copies: int | None = None
    name = "fixed"

    def __post_init__(self) -> None:
        object.__setattr__(self, "extents", dict(self.extents))
        for symmetry, extent in self.extents.items():
            check_number(f"extents[{symmetry!r}]", extent, zero=True)
        for option in ("num_copies", "prediction_copies"):
            if getattr(self, option) is not None:
                check_count(option, getattr(self, option))

    def prepare(self, model: InvarianceModel) -> InvarianceModel:
        """A copy whose extents are all fixed.

        Raises:
            ValueError: the backbone is no network, or no extents are given and some are latent.
            ExtentError: an unknown symmetry, or an extent past the largest sensible one.
        """
        fitted = plug_in_copy(model, self.name)
        if model.active and not self.extents:
            raise ValueError(
                f'inference="fixed" needs to know how far {", ".join(model.active)} reach; pass '
                "Fixed({name: extent, ...}), internal units"
            )
        blocks = model.structure or model.pooling
        if blocks is not None and self.num_copies is not None:
            raise ValueError(
                f"Fixed: num_copies: copies with draws of their own are shared by all {blocks.kind}s, and this model "
                f"has extents for every {blocks.kind}; leave num_copies out, and set num_orbit_samples in the model"
            )
        fix_extents(fitted, self.extents, model.extents.fixed)
        if self.prediction_copies is not None:
            fitted.orbit = resized(fitted.orbit, self.prediction_copies)
        return fitted

    def objective(self, model: InvarianceModel, training: Training, num_total: int, seed: int) -> PointObjective:
        """What the training loop minimises."""
        fitted = self.prepare(model)
        return _FixedObjective(self, fitted, model.network_orbit, self.num_copies)


class _FixedObjective(PointObjective):
    def __init__(
        self,
        method: Fixed,
        model: InvarianceModel,
        orbit: Orbit | PerOutputOrbit | GroupedOrbit,
        num_copies: int | None,
    ):
        self._eta = fixed_extents(model)
        # The orbit of nothing is the input itself: one copy says all, unless more are asked for.
        self._identity = not bool(self._eta.any())
        self._orbit = orbit
        self._num_copies = 1 if num_copies is None and self._identity else num_copies
        copies = orbit.num_copies if self._num_copies is None else self._num_copies
        super().__init__(method, model, copies, 1 if self._identity else model.network_orbit.num_copies)

    def loss(self, data: Data, num_total: int) -> Float[Tensor, ""]:
        if not isinstance(self._orbit, GroupedOrbit):
            return super().loss(data, num_total)
        average, budget, action = self.model.average, self.model.memory_budget, self.model.output_action
        base = self._orbit.fresh_base()
        seen = InvariantNetwork(self.network, self._orbit, self._eta, average, budget, self._identity, base, action)
        return -self.evidence.mean_log_likelihood(seen, data)

    def training_points(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "copies n *event"]:
        return self.drawn_copies(x)[0]

    def drawn_copies(
        self, x: Float[Tensor, "n *event"]
    ) -> tuple[Float[Tensor, "copies n *event"], Float[Tensor, "copies *each"] | None]:
        eta = self._eta.to(x.device)
        if self._num_copies is None:
            base = self._orbit.fresh_base()
            return self._orbit(x, eta, base), self._orbit.coordinates(eta, base)
        if self._identity or not isinstance(self._orbit, Orbit):  # the others have no copies of their own: `prepare`
            return copies_of(x, self._num_copies), None
        t = self._orbit.random_coordinates(eta, (self._num_copies, len(x)))
        return self._orbit.transform.orbit_per_example(x, t), t

    def copy_weights(self) -> Float[Tensor, "copies *some"] | None:
        return self._orbit.weights(self._eta) if self._num_copies is None else None

    def extents(self) -> Float64[Tensor, " K"]:
        return self._eta


@dataclass(frozen=True)
class NoInvariance(PointMethod):
    """A network on its inputs as they are: every extent is zero, and predictions see one copy.

    Args:
        num_copies: how often an input enters a training step, for a network that draws (dropout) beside methods with
            as many.

    Raises:
        ValueError: a number of copies below one.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> NoInvariance().prepare(InvarianceModel(net, "rotation")).extents.fixed
        {'rotation': 0.0}
    """

    num_copies: int = 1
    name = "none"

    def __post_init__(self) -> None:
        check_count("num_copies", self.num_copies)

    def prepare(self, model: InvarianceModel) -> InvarianceModel:
        """A copy whose extents are all zero.

        Raises:
            ValueError: the backbone is no network.
        """
        fitted = plug_in_copy(model, self.name, "log_likelihood")
        fix_extents(fitted, {})
        return fitted

    def objective(self, model: InvarianceModel, training: Training, num_total: int, seed: int) -> PointObjective:
        """What the training loop minimises."""
        return _PlainObjective(self, self.prepare(model), self.num_copies, 1)


class _PlainObjective(PointObjective):
    def training_points(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "copies n *event"]:
        return copies_of(x, self.training_copies)

    def extents(self) -> Float64[Tensor, " K"]:
        return fixed_extents(self.model)
