"""OPTIMA: a variational posterior over extents and weights on the likelihood of augmented inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from bayesinv.data.container import Data
from bayesinv.extents.unconstrained import Unconstrained
from bayesinv.inference.modes import STARTS
from bayesinv.inference.point.base import (
    PointMethod,
    PointObjective,
    check_count,
    check_number,
    plug_in_copy,
    require_continuous,
    require_latent,
    resized,
)
from bayesinv.inference.target import start_extents
from bayesinv.inference.training import Training
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.mixture import Mixture

__all__ = ["Optima"]

WEIGHTS = ("mean_field", "point")


@dataclass(frozen=True)
class Optima(PointMethod):
    """A mean-field q over the extents and the weights, by the evidence bound of the augmented likelihood.

        p(y | x, θ, η) = E_{t ~ U[-η, η]} p(y | h_θ(T_t x)),
        ELBO = Σ_i E_{q(θ) q(η)} E_t log p(y_i | h_θ(T_t x_i)) - KL(q(θ) ‖ p(θ)) - KL(q(η) ‖ p(η))
             ≤ log ∫∫ Π_i p(y_i | x_i, θ, η) p(θ) p(η) dθ dη.

    One draw of θ and η a step and one t for each input: Jensen's inequality is used twice, for q and for the average
    over t. q(η) is normal and independent in the unconstrained coordinates of the model's priors, q(θ) normal and
    independent around the weights, with p(θ_l) = N(0, g² / fan-in_l). Predictions average probabilities over copies and
    draws of η at the mean weights.

    The second use of Jensen's inequality takes away what would reward an extent: E_t log p ≤ log E_t p, so that under
    flat priors extents shrink to where the data no longer notice, however much data there are, and what is reported
    follows the prior (:class:`bayesinv.Outward` gives one that pushes). Its intervals are about that bound; no coverage
    has been published.

    Args:
        num_copies: of an input in a training step; their log likelihoods are averaged.
        prediction_copies: of an input in a prediction; None is the model's number.
        weights: q(θ), "mean_field", or "point" for a mode: weights then pay ½ |θ|² / σ² alone.
        weight_scale: g.
        start: prior quantile at which the medians of q(η) begin.
        initial_spread: standard deviation of q(η) at the start, where a flat prior is N(0, 1).
        initial_weight_spread: of q(θ), as a share of the prior's.
        rate: Adam's, for q(η); None is ``Training.extent_rate``.

    Raises:
        ValueError: an option outside its range.

    Reference:
        M. Matymov, B.-H. Tran, M. Kampffmeyer, M. Heinonen, M. Filippone (2025). Optimizing data augmentation through
        Bayesian model selection. arXiv:2505.21813.

    Example:
        >>> from torch import nn
        >>> model = InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "rotation")
        >>> objective = Optima().objective(model, Training(), num_total=100, seed=0)
        >>> round(float(objective.extents()), 3), tuple(objective.draws(50, seed=0).shape)
        (0.314, (50, 1))
    """

    num_copies: int = 1
    prediction_copies: int | None = None
    weights: str = "mean_field"
    weight_scale: int | float = 1.0
    start: int | float = STARTS[0]
    initial_spread: int | float = 0.1
    initial_weight_spread: int | float = 0.01
    rate: int | float | None = 0.01
    name = "optima"
    learns_extents = True

    def __post_init__(self) -> None:
        check_count("num_copies", self.num_copies)
        if self.prediction_copies is not None:
            check_count("prediction_copies", self.prediction_copies)
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights: expected one of {list(WEIGHTS)}, got {self.weights!r}")
        for option in ("weight_scale", "initial_spread", "initial_weight_spread"):
            check_number(option, getattr(self, option))
        if self.rate is not None:
            check_number("rate", self.rate)
        check_number("start", self.start)
        if not self.start < 1.0:
            raise ValueError(f"start: expected a quantile between 0 and 1, got {self.start!r}")

    def prepare(self, model: InvarianceModel) -> InvarianceModel:
        """A copy that averages probabilities over its copies.

        Raises:
            ValueError: the backbone is no network, nothing is latent, or a finite group would be learned.
        """
        fitted = plug_in_copy(model, self.name, "probabilities")
        require_latent(model, self.name)
        require_continuous(model, self.name)
        if self.prediction_copies is not None:
            fitted.orbit = resized(fitted.orbit, self.prediction_copies)
        return fitted

    def objective(self, model: InvarianceModel, training: Training, num_total: int, seed: int) -> OptimaObjective:
        """What the training loop minimises."""
        return OptimaObjective(self, self.prepare(model))


class Normals(nn.Module):
    """Independent normal distributions over the unconstrained extents; draws are differentiable in both parameters.

    Args:
        mean: (A,).
        spread: standard deviation at the start, of all.
    """

    def __init__(self, mean: Float64[Tensor, " A"], spread: float):
        super().__init__()
        self.mean = nn.Parameter(mean.clone())
        self.log_spread = nn.Parameter(torch.full_like(mean, math.log(spread)))

    def forward(self) -> Float64[Tensor, " A"]:
        """One draw, from torch's global generator."""
        return self.mean + self.log_spread.exp() * torch.randn(len(self.mean), dtype=torch.float64)

    def entropy(self) -> Float64[Tensor, ""]:
        """Σ_k ½ log(2πe s_k²)."""
        return (self.log_spread + 0.5 * math.log(2.0 * math.pi * math.e)).sum()


class OptimaObjective(PointObjective):
    """The negative bound; `normals` is q(η), `log_spreads` the spreads of q(θ)."""

    def __init__(self, method: Optima, model: InvarianceModel):
        self.options = method
        self.space = Unconstrained(model.extents)
        self.normals = Normals(self.space.to_z(start_extents(model, float(method.start))), method.initial_spread)
        self._scales = {name: method.weight_scale * base for name, base in model.network.fan_in_scales().items()}
        start = {name: math.log(method.initial_weight_spread * scale) for name, scale in self._scales.items()}
        named = model.network.weights() if method.weights == "mean_field" else {}
        self._names = list(named)
        self.log_spreads = nn.ParameterList([torch.full_like(w, start[name]) for name, w in named.items()])
        copies = model.orbit.num_samples
        super().__init__(method, model, method.num_copies, copies, [self.normals, self.log_spreads])

    def draw_weights(self) -> dict[str, Tensor]:
        """θ ~ q; the weights themselves for a point."""
        if not self._names:
            return {}
        means = self.network.weights()
        pairs = zip(self._names, self.log_spreads, strict=True)
        return {name: means[name] + spread.exp() * torch.randn_like(spread) for name, spread in pairs}

    def weight_divergence(self) -> Float[Tensor, ""]:
        """KL(q(θ) ‖ p(θ)), nats; ½ Σ |θ|² / σ² for a point."""
        means = self.network.weights()
        total = torch.stack([0.5 * (w / self._scales[name]).square().sum() for name, w in means.items()]).sum()
        for name, log_spread in zip(self._names, self.log_spreads, strict=True):
            log_ratio = log_spread - math.log(self._scales[name])
            total = total + (0.5 * ((2.0 * log_ratio).exp() - 1.0) - log_ratio).sum()
        return total

    def training_points(self, x: Float[Tensor, n * event]) -> Float[Tensor, "copies n *event"]:
        """Copies at one draw of η, each under a t of its own."""
        return self._copies(x, self.space.extents(self.normals()))

    def _copies(self, x: Float[Tensor, n * event], eta: Float64[Tensor, " K"]) -> Float[Tensor, "copies n *event"]:
        t = self.model.orbit.random_coordinates(eta.to(x.device, non_blocking=True), (self.training_copies, len(x)))
        return self.model.transform.orbit_per_example(x, t)

    def loss(self, data: Data, num_total: int) -> Float[Tensor, ""]:
        """The negative bound on a minibatch, nats per example; KL(q(η) ‖ p(η)) at the draw of η, less q's entropy."""
        z = self.normals()
        eta = self.space.extents(z)
        points = self._copies(data.x, eta)
        flat = self.network.functional_in_parts(self.draw_weights(), points.flatten(0, 1), self.model.memory_budget)
        outputs = self.network.in_unit(flat.unflatten(0, points.shape[:2]))
        fit = self.evidence.averaged_log_likelihood(outputs, data.y, "log_likelihood").mean()
        log_prior = self.model.extents.log_prior(eta) + self.space.log_jacobian(z)
        divergence = self.weight_divergence() - (log_prior + self.normals.entropy()).to(fit)
        return divergence / num_total - fit

    def own_groups(self, training: Training) -> list[dict[str, Any]]:
        """q(η), and the spreads of q(θ)."""
        rate = training.extent_rate if self.options.rate is None else self.options.rate
        groups: list[dict[str, Any]] = [{"params": list(self.normals.parameters()), "lr": rate}]
        if self._names:
            groups.append({"params": list(self.log_spreads), "lr": training.weight_rate})
        return groups

    @torch.no_grad()
    def extents(self) -> Float64[Tensor, " K"]:
        """Medians of q(η)."""
        return self.space.extents(self.normals.mean)

    def density(self) -> Mixture:
        """q over the unconstrained extents."""
        one = torch.ones(1, dtype=torch.float64)
        spread = torch.diag(self.normals.log_spread.detach().exp())
        return Mixture(one, self.normals.mean.detach().clone()[None], spread[None], math.inf)

    def draws(self, num_draws: int, seed: int) -> Float64[Tensor, "draws K"]:
        """Quasi-random draws of q(η)."""
        return self.space.extents(self.density().sample(num_draws, seed))

    def facts(self) -> dict[str, Any]:
        """The options, and q(η) in unconstrained coordinates."""
        normals = zip(
            self.model.active, self.normals.mean.tolist(), self.normals.log_spread.exp().tolist(), strict=True
        )
        return {**super().facts(), "q": {name: {"mean": mean, "spread": spread} for name, mean, spread in normals}}
