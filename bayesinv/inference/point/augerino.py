"""Augerino: extents learned with the training loss, and a regulariser that pushes them outwards."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from bayesinv.inference.point.base import (
    PointMethod,
    PointObjective,
    check_count,
    check_number,
    fixed_extents,
    plug_in_copy,
    require_continuous,
    require_latent,
)
from bayesinv.inference.training import Training
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.orbits.augmentation import draw
from bayesinv.orbits.orbit import Orbit, base_draws
from bayesinv.transforms import Affine2d, Compose, Transform
from bayesinv.transforms.affine2d import MatrixProduct

__all__ = ["Augerino", "AugerinoOrbit"]

# A unit of a translation's width is this share of half the image's width.
TRANSLATION = 0.1
# The published generators of image warps that move two coordinates of Affine2d at once: [[1, 0], [0, 1]],
# [[1, 0], [0, -1]] and [[0, 1], [1, 0]]; the last is twice a shear, less the turn that is in it.
MIXED: dict[str, dict[str, float]] = {
    "scale": {"scale_x": 1.0, "scale_y": 1.0},
    "stretch": {"scale_x": 1.0, "scale_y": -1.0},
    "symmetric_shear": {"rotation": -1.0, "shear": -2.0},
}


@dataclass(frozen=True)
class Augerino(PointMethod):
    """Weights and extents by the augmented training loss.

        L(θ, w) = -(1/n) Σ_i log p(y_i | h_θ(T_t x_i)) - λ ‖w‖₂,   t = Σ_a z_a b_a,   z_a ~ U[-w_a/2, w_a/2],
        log p(y | x) = mean_s log softmax h_θ(T_{t_s} x)   in predictions,

    with t anew for each input, full widths w = softplus(raw), and raw trained by Adam without weight decay. The
    likelihood alone would shrink every extent (nothing is rewarded for moving inputs about), so the answer is a
    trade-off set by λ, and no statement of how sure the data make us. Nothing bounds the widths: an extent past the
    largest sensible one is reported as it is (a rotation past 180° is the full circle, with some of it twice).

    λ weighs widths as they are, so that their units matter. For :class:`~bayesinv.Affine2d`, exp(Σ_k t_k G_k), they are
    the published ones: a tenth of half the width for a translation, radians, and log factors of the uniform scale and
    of the stretch (scale_x + scale_y and scale_x - scale_y) and the symmetric shear in place of scale_x, scale_y and
    shear. ``generators="coordinates"``, and every other transform or a partner that is fixed, has one width for each
    coordinate in its internal unit (translations of images in tenths, too). What is reported for scale_x and scale_y
    is the half-width of a uniform extent with the same variance, ½ (w_scale² + w_stretch²)^½; for a shear w; for a
    rotation ½ w, without the turn in the symmetric shear. The full widths are in
    ``posterior.result.settings["method"]``.

    Args:
        regularisation: λ, nats per unit of width; published are 0.01, 0.05, 0.1, and 0.2 for Mario & Iggy.
        num_copies: of an input in a training step; their losses are averaged.
        prediction_copies: of an input in a prediction; a fixed set of draws, shared by all inputs.
        initial_width: full width at the start, of every generator. Published are log 2 (raw = 0) for CIFAR-10, π/4 for
            Mario & Iggy, and 0.0067 (raw = -5).
        rate: Adam's, for raw; published are 0.01 for CIFAR-10 and Mario & Iggy and 0.1 for rotated MNIST. None is
            ``Training.extent_rate``, which is made for posteriors and is fast.
        generators: "lie", or "coordinates" for those of the model's transform.

    Raises:
        ValueError: an option outside its range.

    Reference:
        G. Benton, M. Finzi, P. Izmailov, A. G. Wilson (2020). Learning invariances in neural networks.
        arXiv:2010.11882.

    Example:
        >>> from torch import nn
        >>> model = InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "affine2d")
        >>> objective = Augerino(initial_width=0.2).objective(model, Training(), num_total=100, seed=0)
        >>> {name: round(extent, 3) for name, extent in objective.current_extents().items() if name != "translate_y"}
        {'translate_x': 0.01, 'rotation': 0.1, 'scale_x': 0.141, 'scale_y': 0.141, 'shear': 0.2}
        >>> list(objective.orbit.generators)
        ['translate_x', 'translate_y', 'rotation', 'scale', 'stretch', 'symmetric_shear']
    """

    regularisation: int | float = 0.05
    num_copies: int = 1
    prediction_copies: int = 4
    initial_width: int | float = math.log(2.0)
    rate: int | float | None = 0.01
    generators: str = "lie"
    name = "augerino"
    learns_extents = True

    def __post_init__(self) -> None:
        check_number("regularisation", self.regularisation, zero=True)
        check_count("num_copies", self.num_copies)
        check_count("prediction_copies", self.prediction_copies)
        check_number("initial_width", self.initial_width)
        if self.rate is not None:
            check_number("rate", self.rate)
        if self.generators not in ("lie", "coordinates"):
            raise ValueError(f"generators: expected 'lie' or 'coordinates', got {self.generators!r}")

    def prepare(self, model: InvarianceModel) -> InvarianceModel:
        """A copy that averages log likelihoods over its copies, with the widths in its orbit; fixed extents stay.

        Raises:
            ValueError: the backbone is no network, nothing is latent, or a finite group would be learned.
        """
        fitted = plug_in_copy(model, self.name, "log_likelihood")
        require_latent(model, self.name)
        require_continuous(model, self.name)
        fitted.orbit = AugerinoOrbit(
            model.orbit,
            generators_of(model.transform, model.active, model.orbit.distributions, self.generators == "lie"),
            fixed_extents(model),
            num_samples=self.prediction_copies,
            initial_width=self.initial_width,
        ).to(model.orbit.base.device)
        return fitted

    def objective(self, model: InvarianceModel, training: Training, num_total: int, seed: int) -> "AugerinoObjective":
        """What the training loop minimises."""
        return AugerinoObjective(self, self.prepare(model))


class Widths(nn.Module):
    """Full widths w = softplus(raw) > 0.

    Args:
        num: how many.
        initial: w at the start.

    Example:
        >>> Widths(2, 0.5)()
        tensor([0.5000, 0.5000], dtype=torch.float64, grad_fn=<SoftplusBackward0>)
    """

    def __init__(self, num: int, initial: float):
        super().__init__()
        raw = initial + math.log(-math.expm1(-initial))  # the inverse of softplus
        self.raw = nn.Parameter(torch.full((num,), raw, dtype=torch.float64))

    def forward(self) -> Float64[Tensor, " A"]:
        """w, (A,)."""
        return nn.functional.softplus(self.raw)


class AugerinoOrbit(Orbit):
    """The orbit under the widths of an Augerino, in the place of a model's orbit.

    Base draws hold, for each copy, one number a generator and one for each column that is fixed and not learned.

    Args:
        orbit: whose transform, kind of draws and seed to use.
        generators: by name, what each adds to the coordinates, b_a.
        fixed: extents of the symmetries that no generator moves, (K,), 0 elsewhere.
        num_samples: copies.
        initial_width: w at the start.
    """

    def __init__(
        self,
        orbit: Orbit,
        generators: dict[str, dict[str, float]],
        fixed: Float64[Tensor, " K"],
        num_samples: int = 4,
        initial_width: float = math.log(2.0),
    ):
        super().__init__(orbit.transform, num_samples, orbit.draws, orbit.seed, orbit.augmentation)
        self.generators = generators
        names, A = orbit.transform.names, len(generators)
        self.base = base_draws(num_samples, A + len(self._columns), orbit.draws, orbit.seed)
        self.drawn = torch.ones(self.base.shape[1], dtype=torch.bool)
        self.widths = Widths(A, initial_width)
        single = [next(iter(moves)) if len(moves) == 1 else None for moves in generators.values()]
        self._drawn_from = ["uniform" if name is None else self.distributions[names.index(name)] for name in single]
        basis = torch.zeros(A, len(names), dtype=torch.float64)
        for a, moves in enumerate(generators.values()):
            for name, value in moves.items():
                basis[a, names.index(name)] = value
        reported = basis.square()
        if "symmetric_shear" in generators:  # the turn in it is no rotation that was asked for
            reported[list(generators).index("symmetric_shear"), names.index("rotation")] = 0.0
        self._basis: Tensor
        self._reported: Tensor
        self._fixed: Tensor
        self.register_buffer("_basis", basis, persistent=False)
        self.register_buffer("_reported", reported, persistent=False)
        self.register_buffer("_fixed", fixed.clone().cpu(), persistent=False)

    @property
    def num_copies(self) -> int:
        """One point for each draw."""
        return self.num_samples

    def weights(self, extents: Float[Tensor, " K"]) -> None:
        """All count alike."""

    @torch.no_grad()
    def extents(self) -> Float64[Tensor, " K"]:
        """What is reported: half-widths of uniform extents with the same variance, on the CPU."""
        return (self._fixed + ((0.5 * self.widths()).square() @ self._reported).sqrt()).to("cpu", torch.float64)

    def moves(self, eps: Float[Tensor, "*draws base"]) -> Float[Tensor, "*draws columns"]:
        """t from base draws, differentiable in the widths."""
        own, rest = eps.split([len(self.generators), eps.shape[-1] - len(self.generators)], -1)
        half = 0.5 * self.widths()
        z = torch.stack([draw(kind, own[..., a], half[a]) for a, kind in enumerate(self._drawn_from)], -1)
        t = z @ self._basis  # (*draws, K)
        columns = [torch.zeros_like(t[..., 0]) if k is None else t[..., k] for k in self._columns]
        return self._continuous(rest, self._fixed) + torch.stack(columns, -1)

    def random_moves(self, shape: tuple[int, ...]) -> Float64[Tensor, "*shape columns"]:
        """t under draws from torch's global generator on the CPU, so that devices share their numbers."""
        eps = 2.0 * torch.rand(*shape, self.base.shape[1], dtype=torch.float64) - 1.0
        return self.moves(eps.to(self.base.device))

    def coordinates(
        self, extents: Float[Tensor, " K"], base: Float[Tensor, "S base"] | None = None
    ) -> Float[Tensor, "S columns"]:
        """t of every copy; see `Orbit.coordinates`.

        Raises:
            ValueError: other extents than `extents`. They are a summary, from which no widths could be made.
        """
        own = self.extents()
        if extents.shape != own.shape or not torch.allclose(extents.detach().to("cpu", torch.float64), own, atol=1e-5):
            raise ValueError(
                f"an Augerino predicts by the widths that it has learned, with extents {own.tolist()}, and extents "
                f"{extents.tolist()} came; for others fit with inference=Fixed({{name: extent}})"
            )
        return self.moves(self.base if base is None else base)

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {**super().config(), "type": "AugerinoOrbit", "generators": self.generators}


def generators_of(
    transform: Transform, active: tuple[str, ...], distributions: tuple[str, ...], lie: bool
) -> dict[str, dict[str, float]]:
    """What each width moves, by name: the coordinates that are latent, or mixtures of two of them.

    Args:
        transform: T.
        active: the latent coordinates.
        distributions: of all coordinates; only uniform ones are mixed.
        lie: whether to mix.
    """
    uniform = {name for name, kind in zip(transform.names, distributions, strict=True) if kind == "uniform"}
    found: dict[str, dict[str, float]] = {name: {name: 1.0} for name in active}
    for warp in image_warps(transform):
        own = set(warp.names) & set(active)
        found |= {name: {name: TRANSLATION} for name in own if name.startswith("translate")}
        if lie and {"scale_x", "scale_y"} <= own & uniform:
            found = {name: moves for name, moves in found.items() if name not in ("scale_x", "scale_y")}
            found |= {name: MIXED[name] for name in ("scale", "stretch")}
        if lie and {"rotation", "shear"} <= own & uniform:
            del found["shear"]
            found["symmetric_shear"] = MIXED["symmetric_shear"]
    return found


def image_warps(transform: Transform) -> Iterator[Affine2d]:
    """Those whose coordinates are in one exponential."""
    if isinstance(transform, Affine2d):
        yield transform
    parts = transform.stages if isinstance(transform, Compose) else ()
    for part in transform.members if isinstance(transform, MatrixProduct) else parts:
        yield from image_warps(part)


class AugerinoObjective(PointObjective):
    """The augmented loss; the fitted model's orbit holds the widths."""

    def __init__(self, method: Augerino, model: InvarianceModel):
        if not isinstance(model.orbit, AugerinoOrbit):
            raise TypeError(
                f"expected a model that Augerino.prepare has made, and its orbit is {type(model.orbit).__name__}"
            )
        self.options = method
        self.orbit = model.orbit
        super().__init__(method, model, method.num_copies, method.prediction_copies)

    def training_points(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "copies n *event"]:
        """Copies under draws of their own."""
        return self.drawn_copies(x)[0]

    def drawn_copies(
        self, x: Float[Tensor, "n *event"]
    ) -> tuple[Float[Tensor, "copies n *event"], Float[Tensor, "copies *each"] | None]:
        """The same with their t."""
        t = self.orbit.random_moves((self.training_copies, len(x)))
        return self.model.transform.orbit_per_example(x, t), t

    def reward(self) -> Float[Tensor, ""]:
        """λ ‖w‖₂."""
        return self.options.regularisation * torch.linalg.vector_norm(self.orbit.widths())

    def own_groups(self, training: Training) -> list[dict[str, Any]]:
        """raw."""
        rate = training.extent_rate if self.options.rate is None else self.options.rate
        return [{"params": list(self.orbit.widths.parameters()), "lr": rate}]

    def extents(self) -> Float64[Tensor, " K"]:
        """Half-widths, see :class:`Augerino`."""
        return self.orbit.extents()

    def facts(self) -> dict[str, Any]:
        """The options, and the full widths by generator."""
        widths = dict(zip(self.orbit.generators, self.orbit.widths().tolist(), strict=True))
        return {**super().facts(), "full_widths": widths}
