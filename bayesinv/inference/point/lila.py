"""LILA: extents at a maximum of the Laplace evidence, without a posterior around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from bayesinv.data.container import Data
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference.point.base import (
    MethodObjective,
    PointMethod,
    check_count,
    check_number,
    checked_copy,
    fixed_extents,
    require_continuous,
    require_latent,
    resized,
)
from bayesinv.inference.training import Phase, Training
from bayesinv.model.invariance_model import InvarianceModel

__all__ = ["Lila"]


@dataclass(frozen=True)
class Lila(PointMethod):
    """Extents by gradient ascent on the Laplace evidence of the weights: a point, from the training data alone.

        η* = argmax_η log p(D | θ*, η) - ½ Σ_l |θ*_l|² / σ_l² - ½ log det(I + Λ^½ J Σ Jᵀ Λ^½),
        f_η(x) = mean_s h_θ(T_{η ε_s} x),   ε_s ~ U[-1, 1]

    in training and in predictions, with the weights θ* kept at their mode under the prior and the prior scales σ_l
    learned by the same evidence, which is that of :class:`~bayesinv.evidence.LaplaceEvidence`, from minibatches. (The
    paper has a Kronecker-factored curvature of all data in its place.) η has no prior and no bound, and nothing says
    how sure the data make us; ``inference="vi"`` has the posterior on the same evidence.

    As published: η from 0, ten passes of the weights alone first, then one step of the extents and the prior scales
    for every pass over the data, whose rate falls from 0.05 to 0.005. With so few steps an extent moves by 0.05 a
    pass at most: π takes 63 of them. Before its extents move, the weights follow the likelihood alone here, and the
    prior scales then start where these weights have become likely; there is no last stretch on the likelihood.

    Args:
        num_copies: S; None is the model's number. Published are 31 for MNIST and 20 for CIFAR-10.
        burn_in: passes over the data before the first step of the extents, at most half of them all.
        steps_per_epoch: of the extents and prior scales.
        rate, final_rate: Adam's, for the extents, at the first and last step.
        initial_extent: η at the start, internal units.

    Raises:
        ValueError: an option outside its range.

    Reference:
        A. Immer, T. van der Ouderaa, G. Rätsch, V. Fortuin, M. van der Wilk (2022). Invariance learning in deep
        neural networks with differentiable Laplace approximations. arXiv:2202.10638.

    Example:
        >>> from torch import nn
        >>> model = InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "rotation")
        >>> objective = Lila(num_copies=4).objective(model, Training(batch_size=10), num_total=100, seed=0)
        >>> [(phase.name, phase.start, phase.every) for phase in objective.phases(Training(batch_size=10), 600)]
        [('burn-in', 0, 1), ('weights', 100, 1), ('extents', 100, 10)]
    """

    num_copies: int | None = None
    burn_in: int | float = 10
    steps_per_epoch: int = 1
    rate: int | float = 0.05
    final_rate: int | float = 0.005
    initial_extent: int | float = 0.0
    name = "lila"
    learns_extents = True

    def __post_init__(self) -> None:
        if self.num_copies is not None:
            check_count("num_copies", self.num_copies)
        check_count("steps_per_epoch", self.steps_per_epoch)
        for option in ("burn_in", "initial_extent"):
            check_number(option, getattr(self, option), zero=True)
        for option in ("rate", "final_rate"):
            check_number(option, getattr(self, option))
        if self.final_rate > self.rate:
            raise ValueError(f"final_rate: expected at most rate, {self.rate!r}, got {self.final_rate!r}")

    def copied(self, model: InvarianceModel) -> InvarianceModel:
        """A copy with averages of function values and the Laplace evidence, the model's own if it has one.

        Raises:
            ValueError: the backbone is no network, or the model has extents for outputs or groups.
        """
        is_laplace = isinstance(model.evidence, LaplaceEvidence)
        return checked_copy(model, self.name, None if is_laplace else LaplaceEvidence(model.likelihood), "function")

    def prepare(self, model: InvarianceModel) -> InvarianceModel:
        """The same with `num_copies`.

        Raises:
            ValueError: as `copied`; nothing is latent, or a finite group would be learned.
        """
        fitted = self.copied(model)
        require_latent(model, self.name)
        require_continuous(model, self.name)
        if self.num_copies is not None:
            fitted.orbit = resized(fitted.orbit, self.num_copies)
        return fitted

    def objective(self, model: InvarianceModel, training: Training, num_total: int, seed: int) -> LilaObjective:
        """What the training loop minimises."""
        return LilaObjective(self, self.prepare(model), max(1, num_total // min(training.batch_size, num_total)))


class HalfWidths(nn.Module):
    """η = |raw|, whose slope at 0 is that from above, so that extents that start there can grow.

    Args:
        num: how many.
        initial: η at the start.

    Example:
        >>> HalfWidths(2, 0.0)().sum().backward()
    """

    def __init__(self, num: int, initial: float):
        super().__init__()
        self.raw = nn.Parameter(torch.full((num,), float(initial), dtype=torch.float64))

    def forward(self) -> Float64[Tensor, " A"]:
        """η, (A,)."""
        return torch.where(self.raw < 0, -self.raw, self.raw)


class LilaObjective(MethodObjective):
    """Weights at their mode, extents and prior scales on the evidence.

    Args:
        method, model: as for :class:`MethodObjective`.
        per_epoch: steps of the weights to a pass over the data.
    """

    def __init__(self, method: Lila, model: InvarianceModel, per_epoch: int):
        evidence = model.evidence
        if not isinstance(evidence, LaplaceEvidence):
            raise TypeError(f"expected a model that Lila.prepare has made, and its evidence is {evidence.name}")
        self.options, self.per_epoch, self.evidence = method, per_epoch, evidence
        self.half_widths = HalfWidths(len(model.active), method.initial_extent)
        self._fixed = fixed_extents(model)
        self._places = torch.tensor([model.symmetries.index(name) for name in model.active])
        copies = model.network_orbit.num_copies
        super().__init__(method, model, copies, copies, [self.half_widths])

    def eta(self) -> Float64[Tensor, " K"]:
        """η, fixed ones as they are."""
        return self._fixed.index_copy(0, self._places, self.half_widths())

    def phases(self, training: Training, num_steps: int) -> list[Phase]:
        """Weights alone, then weights, and once in so many of their steps extents and prior scales."""
        options, size = self.options, training.batch_size
        start = min(round(options.burn_in * self.per_epoch), num_steps // 2)
        noise = [p for p in self.evidence.parameters() if p.requires_grad]
        weights = {
            "params": list(self.network.weights().values()),
            "lr": training.weight_rate,
            "weight_decay": training.weight_decay,
        }
        plain = [weights, *([{"params": noise, "lr": training.hyper_rate}] if noise else [])]
        learned = [
            {"params": [self.network.log_scales, *noise], "lr": training.hyper_rate},
            {"params": list(self.half_widths.parameters()), "lr": options.rate},
        ]
        phases = [
            Phase("burn-in", plain, self.plain_loss, size, stop=start, schedule="constant", clip=True),
            Phase(
                "weights",
                [weights],
                self.weight_loss,
                size,
                start=start,
                schedule=training.schedule,
                clip=True,
                on_start=self.network.start_scales,
            ),
            Phase(
                "extents",
                learned,
                self.extent_loss,
                training.extent_batch_size,
                every=max(1, self.per_epoch // options.steps_per_epoch),
                start=start,
                final=options.final_rate / options.rate,
                traced=True,
                takes_evidence=True,
                whole=True,
            ),
        ]
        return phases if start else phases[1:]

    def plain_loss(self, data: Data, num_total: int) -> Float[Tensor, ""]:
        """The negative mean log likelihood at the extents as they are."""
        return -self.evidence.mean_log_likelihood(self.model.at(self.eta().detach(), fresh=True), data)

    def weight_loss(self, data: Data, num_total: int) -> Float[Tensor, ""]:
        """The negative log joint density of data and weights, nats per example."""
        return self.evidence.weight_loss(self.model.at(self.eta().detach(), fresh=True), data, num_total)

    def extent_loss(self, data: Data, num_total: int) -> Float[Tensor, ""]:
        """The negative log evidence, nats."""
        return -self.model.log_evidence(self.eta(), data, num_total)

    def extents(self) -> Float64[Tensor, " K"]:
        """η."""
        return self.eta().detach().cpu()

    def facts(self) -> dict[str, Any]:
        """The options, and the gains of the prior scales."""
        return {**super().facts(), "prior_gains": self.network.log_scales.detach().exp().tolist()}
