"""AugNet: stacked layers that each learn which operation to apply and how far."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from bayesinv.inference.point.augerino import image_warps
from bayesinv.inference.point.base import (
    PointMethod,
    PointObjective,
    check_count,
    check_number,
    copies_of,
    fixed_extents,
    plug_in_copy,
    require_continuous,
    require_latent,
)
from bayesinv.inference.training import Training
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.orbits.augmentation import draw
from bayesinv.orbits.orbit import Orbit, base_draws

__all__ = ["AugNet", "AugNetOrbit"]

# Published scales of image warps, in the units of Affine2d (translations by up to 45 % of the width); others are the
# largest sensible extents.
SCALES = {"translate_x": 0.9, "translate_y": 0.9, "shear": 0.3}
# A symmetry that no layer selects with this share of an even chance is reported as absent.
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class AugNet(PointMethod):
    """Weights, selection weights and magnitudes by the augmented training loss.

    One operation o per latent symmetry, its coordinate alone. Layer l, with a_l of O selection logits and magnitudes
    μ_l in [0, 1]:

        x ← Σ_o π_lo T^o_t x,   π_l = softmax(a_l / τ),   t ~ U[-μ_lo s_o, μ_lo s_o] for each input anew   (training)
        x ← T^o_t x,            o ~ π_l                                                                  (prediction)
        L = -(1/n) Σ_i log p(y_i | h(x_i)) - λ ‖μ ⊙ π‖₂ + ½ δ (‖a‖² + ‖μ‖² + ‖θ‖²)

    Predictions average log likelihoods over copies whose draws are fixed. The extent reported for a symmetry is
    μ_lo s_o of the layer that selects it with the most weight, and 0 if that weight is below half an even chance,
    0.5/O; the whole policy is in ``posterior.result.settings["method"]``.

    Args:
        regularisation: λ, nats; published is 0.5 for images.
        num_layers: L.
        temperature: τ of the selection weights.
        num_copies: of an input in a training step; their losses are averaged.
        prediction_copies: of an input in a prediction.
        initial_magnitude: μ at the start, in [0, 1].
        scales: s by symmetry, internal units; those left out are the published ones of image warps (a rotation of π, a
            translation of 0.9, a shear of 0.3), or the largest sensible extents.
        rate: Adam's, for a and μ. At the published 5e-4 a magnitude crosses its range in 2,000 steps.
        weight_decay: δ, Adam's own kind, which is part of the gradient, of all that is trained; published are 1 for
            Mario & Iggy, for a network with batch statistics, whose weights' size is of no matter, and 0 for a and μ on
            CIFAR-10. ``Training.weight_decay`` is decoupled, and of the network alone.

    Raises:
        ValueError: an option outside its range.

    Reference:
        C. Rommel, T. Moreau, A. Gramfort (2022). Deep invariant networks with differentiable augmentation layers.
        arXiv:2202.02142.

    Example:
        >>> from torch import nn
        >>> model = InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), ["rotation", "shear"])
        >>> objective = AugNet(scales={"rotation": 2.0}).objective(model, Training(), num_total=100, seed=0)
        >>> objective.current_extents()
        {'rotation': 0.25, 'shear': 0.0375}
    """

    regularisation: int | float = 0.5
    num_layers: int = 1
    temperature: int | float = 0.01
    num_copies: int = 1
    prediction_copies: int = 4
    initial_magnitude: int | float = 1 / 8
    scales: Mapping[str, int | float] | None = None
    rate: int | float = 5e-4
    weight_decay: int | float = 0.0
    name = "augnet"
    learns_extents = True

    def __post_init__(self) -> None:
        for number in ("regularisation", "weight_decay"):
            check_number(number, getattr(self, number), zero=True)
        for count in ("num_layers", "num_copies", "prediction_copies"):
            check_count(count, getattr(self, count))
        for number in ("temperature", "initial_magnitude", "rate"):
            check_number(number, getattr(self, number))
        if self.initial_magnitude > 1:
            raise ValueError(
                f"initial_magnitude: expected a share of the scale, at most 1, got {self.initial_magnitude!r}"
            )
        if self.scales is not None:
            object.__setattr__(self, "scales", dict(self.scales))
            for symmetry, scale in self.scales.items():
                check_number(f"scales[{symmetry!r}]", scale)

    def prepare(self, model: InvarianceModel) -> InvarianceModel:
        """A copy whose orbit is the policy; fixed extents stay.

        Raises:
            ValueError: the backbone is no network, nothing is latent, a finite group would be learned, or `scales`
                names something else.
        """
        fitted = plug_in_copy(model, self.name, "log_likelihood")
        require_latent(model, self.name)
        require_continuous(model, self.name)
        unknown = sorted(set(self.scales or {}) - set(model.active))
        if unknown:
            raise ValueError(f"scales: {unknown} are not latent in this model; latent are {list(model.active)}")
        largest = {c.name: c.largest for c in model.transform.coordinates}
        for warp in image_warps(model.transform):
            largest |= {name: scale for name, scale in SCALES.items() if name in warp.names}
        given = {name: largest[name] for name in model.active} | dict(self.scales or {})
        fitted.orbit = AugNetOrbit(
            model.orbit,
            given,
            fixed_extents(model),
            num_samples=self.prediction_copies,
            num_layers=self.num_layers,
            temperature=self.temperature,
            initial_magnitude=self.initial_magnitude,
        ).to(model.orbit.base.device)
        return fitted

    def objective(self, model: InvarianceModel, training: Training, num_total: int, seed: int) -> "AugNetObjective":
        """What the training loop minimises."""
        return AugNetObjective(self, self.prepare(model))


class AugNetOrbit(Orbit):
    """The policy of an AugNet, in the place of a model's orbit.

    Base draws hold, for each copy, two numbers a layer (which operation, how far) and one for each coordinate that is
    fixed and not learned.

    Args:
        orbit: whose transform, kind of draws and seed to use.
        scales: largest half-width by operation, internal units.
        fixed: extents of the symmetries that are no operation, (K,), 0 elsewhere.
        num_samples: copies.
        num_layers, temperature, initial_magnitude: as for :class:`AugNet`.
    """

    def __init__(
        self,
        orbit: Orbit,
        scales: Mapping[str, float],
        fixed: Float64[Tensor, " K"],
        num_samples: int = 4,
        num_layers: int = 1,
        temperature: float = 0.01,
        initial_magnitude: float = 1 / 8,
    ):
        super().__init__(orbit.transform, num_samples, orbit.draws, orbit.seed, orbit.augmentation)
        self.operations = tuple(scales)
        self.temperature = temperature
        K = len(self._columns)
        shape = (num_layers, len(self.operations))
        self.base = base_draws(num_samples, 2 * num_layers + K, orbit.draws, orbit.seed)
        self.drawn = torch.ones(self.base.shape[1], dtype=torch.bool)
        self.logits = nn.Parameter(torch.ones(shape, dtype=torch.float64))
        self.magnitudes = nn.Parameter(torch.full(shape, float(initial_magnitude), dtype=torch.float64))
        self._moves_fixed = bool(fixed.any())
        self._scales: Tensor
        self._fixed: Tensor
        self._places: Tensor
        places = torch.tensor([orbit.transform.names.index(name) for name in self.operations])
        self.register_buffer("_scales", torch.tensor(list(scales.values()), dtype=torch.float64), persistent=False)
        self.register_buffer("_fixed", fixed.clone().cpu(), persistent=False)
        self.register_buffer("_places", places, persistent=False)

    @property
    def num_copies(self) -> int:
        """One operation a layer, for each draw."""
        return self.num_samples

    def weights(self, extents: Float[Tensor, " K"]) -> None:
        """All count alike."""

    @property
    def selection_weights(self) -> Float[Tensor, "L O"]:
        """π."""
        return (self.logits / self.temperature).softmax(-1)

    @property
    def half_widths(self) -> Float[Tensor, "L O"]:
        """μ s, internal units; μ is cut to [0, 1]."""
        # The gradient passes by the cut: torch's own has none on the bounds, where magnitudes would stay.
        cut = self.magnitudes + (self.magnitudes.clamp(0.0, 1.0) - self.magnitudes).detach()
        return cut * self._scales

    @torch.no_grad()
    def clamp_magnitudes(self) -> None:
        """Bring μ back to [0, 1] after a step."""
        self.magnitudes.clamp_(0.0, 1.0)

    @torch.no_grad()
    def extents(self) -> Float64[Tensor, " K"]:
        """What is reported: the half-widths of the layers that select each operation most, on the CPU."""
        weights, widths = self.selection_weights, self.half_widths
        best = weights.argmax(0, keepdim=True)  # (1, O)
        selected = weights.gather(0, best)[0] >= LEAST_SHARE / len(self.operations)
        widths = torch.where(selected, widths.gather(0, best)[0], 0.0)
        return self._fixed.index_copy(0, self._places, widths.to(self._fixed)).to("cpu", torch.float64)

    def mixed(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "n *event"]:
        """Every layer's weighted sum of operations, for training; draws come from torch's global generator."""
        n, num = len(x), len(self.operations)
        if self._moves_fixed:
            x = self.transform.transform(x, self.random_coordinates(self._fixed, (n,)))
        for weights, widths in zip(self.selection_weights, self.half_widths, strict=True):
            t = self._single_operations(widths[:, None], _uniform((num, n), x))  # (O, n, columns)
            if None in self._columns:
                t = self._with_auxiliary(t, _uniform(t.shape, x))
            views = self.transform.orbit_per_example(x, t)  # (O, n, *event)
            x = torch.einsum("o,o...->...", weights.to(x.dtype), views)
        return x

    def _single_operations(self, widths: Tensor, eps: Float[Tensor, "O *draws"]) -> Float[Tensor, "O *draws columns"]:
        """t that moves one operation's coordinate a row; everything else is zero."""
        rows = []
        for operation, k in enumerate(self._places.tolist()):
            values = draw(self.distributions[k], eps[operation], widths[operation])
            drawn = [torch.zeros_like(values) for _ in self._columns]
            drawn[self._columns.index(k)] = values
            rows.append(torch.stack(drawn, -1))
        return torch.stack(rows)

    def _with_auxiliary(self, t: Float[Tensor, "*draws columns"], eps: Tensor) -> Float[Tensor, "*draws columns"]:
        """t with base draws in its auxiliary columns."""
        auxiliary = torch.tensor([k is None for k in self._columns], device=t.device)
        return torch.where(auxiliary, eps.to(t), t)

    def layer_coordinates(self, base: Tensor | None = None) -> Float[Tensor, "layers S K"]:
        """t of every layer and copy; that of the fixed extents comes first, if there are any."""
        base = self.base if base is None else base
        L, S, K = len(self.logits), len(base), len(self._columns)
        which, far, rest = base.split([L, L, K], dim=1)
        cumulative = self.selection_weights.cumsum(-1)  # (L, O)
        chosen = torch.searchsorted(cumulative, (0.5 * (which.T + 1.0)).to(cumulative).contiguous(), right=True)
        chosen = chosen.clamp_max(len(self.operations) - 1)  # (L, S); rounding can leave the last sum below 1
        each = self._single_operations(self.half_widths.T[..., None], far.T.expand(len(self.operations), L, S))
        t = each.gather(0, chosen[None, ..., None].expand(1, L, S, K))[0]  # (L, S, columns)
        t = self._with_auxiliary(t, rest)
        return torch.cat([self._continuous(rest, self._fixed)[None], t]) if self._moves_fixed else t

    def coordinates(
        self, extents: Float[Tensor, " K"], base: Float[Tensor, "S columns"] | None = None
    ) -> Float[Tensor, "S K"]:
        """Σ_l t_l: where each copy's layers move it together, if they commute."""
        self._check(extents)
        return self.layer_coordinates(base).sum(0)

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        extents: Float[Tensor, " K"],
        base: Float[Tensor, "S columns"] | None = None,
    ) -> Float[Tensor, "S batch *event"]:
        """The copies of a prediction, one operation per layer.

        Args:
            x: the examples, (batch, *event).
            extents: those of `extents`.
            base: other base draws than the orbit's own.

        Raises:
            ValueError: other extents. They are a summary, from which no policy could be made.
        """
        self._check(extents)
        first, *others = self.layer_coordinates(base)
        points = self.transform.orbit(x, first)  # (S, batch, *event)
        for t in others:
            each = t[:, None].expand(-1, len(x), -1).flatten(0, 1)  # (S·batch, K)
            points = self.transform.transform(points.flatten(0, 1), each).unflatten(0, points.shape[:2])
        return points

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {
            **super().config(),
            "type": "AugNetOrbit",
            "scales": dict(zip(self.operations, self._scales.tolist(), strict=True)),
            "num_layers": len(self.logits),
            "temperature": self.temperature,
        }

    def _check(self, extents: Tensor) -> None:
        own = self.extents()
        if extents.shape != own.shape or not torch.allclose(extents.detach().to("cpu", torch.float64), own, atol=1e-5):
            raise ValueError(
                f"an AugNet predicts by the policy that it has learned, with extents {_rounded(own)}, and extents "
                f"{_rounded(extents)} came; for others fit with inference=Fixed({{name: extent}})"
            )


class AugNetObjective(PointObjective):
    """The augmented loss; the fitted model's orbit holds what is learned beside the weights."""

    def __init__(self, method: AugNet, model: InvarianceModel):
        if not isinstance(model.orbit, AugNetOrbit):
            raise TypeError(
                f"expected a model that AugNet.prepare has made, and its orbit is {type(model.orbit).__name__}"
            )
        self.options = method
        self.policy = model.orbit
        super().__init__(method, model, method.num_copies, method.prediction_copies)

    def training_points(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "copies n *event"]:
        """Weighted sums of operations under draws of their own."""
        self.policy.clamp_magnitudes()
        copies = copies_of(x, self.training_copies)
        return self.policy.mixed(copies.flatten(0, 1)).unflatten(0, copies.shape[:2])

    def reward(self) -> Float[Tensor, ""]:
        """λ ‖μ ⊙ π‖₂, less what weights of any size cost."""
        policy, options = self.policy, self.options
        reward = options.regularisation * torch.linalg.vector_norm(policy.magnitudes * policy.selection_weights)
        if not options.weight_decay:
            return reward
        trained = [policy.logits, policy.magnitudes, *self.network.weights().values()]
        squares = torch.stack([p.square().sum().to(reward) for p in trained]).sum()
        return reward - 0.5 * options.weight_decay * squares

    def own_groups(self, training: Training) -> list[dict[str, Any]]:
        """a and μ."""
        return [{"params": [self.policy.logits, self.policy.magnitudes], "lr": self.options.rate}]

    def extents(self) -> Float64[Tensor, " K"]:
        """Half-widths where they are selected."""
        return self.policy.extents()

    def facts(self) -> dict[str, Any]:
        """The options, and the policy: selection weights, magnitudes and half-widths, layer by layer."""
        policy = self.policy
        names = policy.operations
        with torch.no_grad():
            tables = {
                "selection_weights": policy.selection_weights,
                "magnitudes": policy.magnitudes.clamp(0.0, 1.0),
                "half_widths": policy.half_widths,
            }
        layers = {key: [dict(zip(names, row, strict=True)) for row in table.tolist()] for key, table in tables.items()}
        return {**super().facts(), "operations": list(names), **layers}


def _uniform(shape: Sequence[int], like: Tensor) -> Float64[Tensor, "*shape"]:
    """ε ~ U[-1, 1] from torch's global generator on the CPU, so that devices share their numbers."""
    return (2.0 * torch.rand(*shape, dtype=torch.float64) - 1.0).to(like.device)


def _rounded(extents: Tensor) -> str:
    return "(" + ", ".join(f"{value:.4g}" if math.isfinite(value) else str(value) for value in extents.tolist()) + ")"
