"""What the evidences of networks share: the likelihood, its averages over an orbit, and prediction."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones.invariant_network import AVERAGES, InvariantNetwork, average_copies
from bayesinv.data import Data
from bayesinv.evidence.base import Evidence
from bayesinv.orbits import average_log_probs, weighted_mean
from bayesinv.prediction import Average, ClassAverage, GaussianAverage


class NetworkEvidence(Evidence):
    """Softmax over the outputs, or normal noise of one learned variance around them.

    Args:
        likelihood: "categorical" or "gaussian".
    """

    backbone: ClassVar[str] = "network"
    minibatch: ClassVar[bool] = True
    trains_weights: ClassVar[bool] = True
    averages: ClassVar[tuple[str, ...]] = AVERAGES

    def __init__(self, likelihood: str = "categorical"):
        super().__init__()
        self.likelihood = likelihood
        # A parameter of classification too, so that every state has the same names; it has no use there.
        self.log_noise = nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=likelihood == "gaussian")

    @property
    def noise(self) -> Float[Tensor, ""]:
        """σ², the variance of the observation noise of a regression."""
        return self.log_noise.exp()

    def initialise(self, data: Data) -> float:
        """Noise at a tenth of the targets' variance; returns that variance."""
        if self.likelihood == "categorical":
            return 1.0
        variance = float(data.y.to(torch.float64).var(0, correction=0).mean())
        variance = variance if variance > 0 else 1.0  # constant targets have no scale
        with torch.no_grad():
            self.log_noise.fill_(math.log(0.1 * variance))
        return variance

    def log_likelihood(self, f: Float[Tensor, "*draws n C"], y: Tensor) -> Float[Tensor, "*draws n"]:
        """log p(y_i | f_i): log softmax(f)_y, or Σ_c log N(y_c | f_c, σ²)."""
        if self.likelihood == "categorical":
            index = y.expand(f.shape[:-1])[..., None]
            return f.log_softmax(-1).gather(-1, index)[..., 0]
        return torch.distributions.Normal(f, self.noise.sqrt().to(f)).log_prob(y.to(f.dtype)).sum(-1)

    def averaged_log_likelihood(
        self, outputs: Float[Tensor, "S n C"], y: Tensor, average: str, weights: Float[Tensor, " S"] | None = None
    ) -> Float[Tensor, " n"]:
        """log p(y_i | x_i) of the copies' outputs h_s.

        "function": log p(y | mean_s h_s). "probabilities": log mean_s p(y | h_s). "log_likelihood":
        mean_s log p(y | h_s), what Augerino and AugNet train.
        """
        if average == "function":
            return self.log_likelihood(weighted_mean(outputs, weights), y)
        per_copy = self.log_likelihood(outputs, y)  # (S, n)
        return weighted_mean(per_copy, weights) if average == "log_likelihood" else average_log_probs(per_copy, weights)

    def mean_log_likelihood(self, prior: InvariantNetwork, data: Data) -> Float[Tensor, ""]:
        """Nats per example at the current weights."""
        return self.averaged_log_likelihood(prior.outputs(data.x), data.y, prior.average, prior.weights()).mean()

    @abstractmethod
    def weight_loss(self, prior: InvariantNetwork, data: Data, num_total: int) -> Float[Tensor, ""]:
        """What the weights minimise, nats per example."""

    def function_posterior(
        self, prior: InvariantNetwork, x: Float[Tensor, n * event], data: Data
    ) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """f(x) at the trained weights; its variance is that over copies where their densities are averaged, else 0."""
        outputs = prior.outputs_in_blocks(x).double()
        weights = prior.weights()
        f = average_copies(outputs, prior.average, self.likelihood, weights)
        if self.likelihood == "gaussian" and prior.average == "probabilities":
            return f, weighted_mean((outputs - f).square(), weights)
        return f, torch.zeros_like(f)

    def average(self, num_function_samples: int, seed: int) -> Average:
        """Class probabilities, or mean and variance."""
        if self.likelihood == "gaussian":
            return GaussianAverage(self.noise)
        return ClassAverage(lambda f: f.log_softmax(-1), 1, seed)  # no spread of the function: one draw says all

    def sample_targets(self, f: Float[Tensor, "n C"]) -> Tensor:
        """y ~ p(y | f): labels (n,), or real targets (n, C)."""
        if self.likelihood == "categorical":
            return torch.distributions.Categorical(logits=f).sample()
        return f + self.noise.detach().sqrt() * torch.randn_like(f)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Zero: the noise has no prior."""
        return torch.zeros((), dtype=torch.float64)

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {"type": self.name, "likelihood": self.likelihood}
