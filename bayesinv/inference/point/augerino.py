"""Augerino: extents learned with the training loss, and a regulariser that pushes them outwards."""

import math
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
    resized,
)
from bayesinv.inference.training import Training
from bayesinv.model import InvarianceModel

__all__ = ["Augerino"]


@dataclass(frozen=True)
class Augerino(PointMethod):
    """Weights and extents by the augmented training loss.

        L(θ, w) = -(1/n) Σ_i log p(y_i | h_θ(T_t x_i)) - λ ‖w‖₂,   t_k ~ U[-w_k/2, w_k/2] for each input anew,
        log p(y | x) = mean_s log softmax h_θ(T_{w ε_s / 2} x)   in predictions,

    with full widths w = softplus(raw), and the half-widths η = w/2 that are reported; raw is trained by Adam without
    weight decay. Widths are in the transform's internal units, and λ weighs them as they are: one radian of rotation
    counts as much as half a width of translation. The likelihood alone would shrink every extent (nothing is rewarded
    for moving inputs about), so the answer is a trade-off set by λ, and no statement of how sure the data make us.
    Nothing bounds the widths: an extent past the largest sensible one is reported as it is (a rotation past 180° is
    the full circle, with some of it twice).

    Args:
        regularisation: λ, nats per unit of width; published are 0.01, 0.05, 0.1, and 0.2 for Mario & Iggy.
        num_copies: of an input in a training step; their losses are averaged.
        prediction_copies: of an input in a prediction; a fixed set of draws, shared by all inputs.
        initial_width: full width at the start, of every latent symmetry.
        rate: Adam's, for raw; published are 0.01 for CIFAR-10 and Mario & Iggy and 0.1 for rotated MNIST. None is
            ``Training.extent_rate``, which is made for posteriors and is fast.

    Raises:
        ValueError: an option outside its range.

    Reference:
        G. Benton, M. Finzi, P. Izmailov, A. G. Wilson (2020). Learning invariances in neural networks.
        arXiv:2010.11882.

    Example:
        >>> from torch import nn
        >>> model = InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "rotation")
        >>> objective = Augerino(initial_width=0.2).objective(model, Training(), num_total=100, seed=0)
        >>> round(float(objective.extents()), 6), objective.prediction_copies
        (0.1, 4)
    """

    regularisation: int | float = 0.05
    num_copies: int = 1
    prediction_copies: int = 4
    initial_width: int | float = 0.1
    rate: int | float | None = 0.01
    name = "augerino"
    learns_extents = True

    def __post_init__(self) -> None:
        check_number("regularisation", self.regularisation, zero=True)
        check_count("num_copies", self.num_copies)
        check_count("prediction_copies", self.prediction_copies)
        check_number("initial_width", self.initial_width)
        if self.rate is not None:
            check_number("rate", self.rate)

    def prepare(self, model: InvarianceModel) -> InvarianceModel:
        """A copy that averages log likelihoods over its copies; fixed extents stay.

        Raises:
            ValueError: the backbone is no network, nothing is latent, or a finite group would be learned.
        """
        fitted = plug_in_copy(model, self.name, "log_likelihood")
        require_latent(model, self.name)
        require_continuous(model, self.name)
        fitted.orbit = resized(fitted.orbit, self.prediction_copies)
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


class AugerinoObjective(PointObjective):
    """The augmented loss; `widths` holds what is learned beside the weights."""

    def __init__(self, method: Augerino, model: InvarianceModel):
        self.options = method
        device = model.orbit.base.device
        self.widths = Widths(len(model.active), method.initial_width).to(device)
        self._fixed = fixed_extents(model).to(device)
        self._places = torch.tensor([model.symmetries.index(name) for name in model.active], device=device)
        super().__init__(method, model, method.num_copies, method.prediction_copies, [self.widths])

    def half_widths(self) -> Float64[Tensor, " K"]:
        """η, differentiable in raw; fixed ones as they are."""
        return self._fixed.index_copy(0, self._places, 0.5 * self.widths())

    def training_points(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "copies n *event"]:
        """Copies under draws of their own."""
        return self.drawn_copies(x)[0]

    def drawn_copies(
        self, x: Float[Tensor, "n *event"]
    ) -> tuple[Float[Tensor, "copies n *event"], Float[Tensor, "copies *each"] | None]:
        """The same with their t."""
        eta = self.half_widths()
        t = self.model.orbit.random_coordinates(eta, (self.training_copies, len(x)))
        return self.model.transform.orbit_per_example(x, t), t

    def reward(self) -> Float[Tensor, ""]:
        """λ ‖w‖₂."""
        return self.options.regularisation * torch.linalg.vector_norm(self.widths())

    def own_groups(self, training: Training) -> list[dict[str, Any]]:
        """raw."""
        rate = training.extent_rate if self.options.rate is None else self.options.rate
        return [{"params": list(self.widths.parameters()), "lr": rate}]

    def extents(self) -> Float64[Tensor, " K"]:
        """η."""
        return self.half_widths().detach().cpu()

    def facts(self) -> dict[str, Any]:
        """The options, and the full widths."""
        widths = dict(zip(self.model.active, self.widths().tolist(), strict=True))
        return {**super().facts(), "full_widths": widths}
