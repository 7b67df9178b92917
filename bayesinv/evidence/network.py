"""What the evidences of networks share: the likelihood, its averages over an orbit, and prediction.

An example has one output, or a map of them, (*cells) such as (height, width): then f is (n, *cells, C), y is
(n, *cells), and the log likelihood of an example is the sum over its cells.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bayesinv.backbones.invariant_network import AVERAGES, InvariantNetwork, average_copies, class_log_probs
from bayesinv.data.container import Data
from bayesinv.evidence.base import Evidence
from bayesinv.evidence.prediction import Average, ClassAverage, GaussianAverage
from bayesinv.orbits.averages import average_log_probs, weighted_mean


class NetworkEvidence(Evidence):
    """Softmax over the outputs, a Bernoulli of one logit, or normal noise of one learned variance around them.

    Args:
        likelihood: "categorical", "bernoulli" or "gaussian".
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
        if self.likelihood != "gaussian":
            return 1.0
        variance = float(data.y.to(torch.float64).var(0, correction=0).mean())
        variance = variance if variance > 0 else 1.0  # constant targets have no scale
        with torch.no_grad():
            self.log_noise.fill_(math.log(0.1 * variance))
        return variance

    def log_likelihood(self, f: Float[Tensor, "*draws_n_cells C"], y: Tensor) -> Float[Tensor, "*draws_n"]:
        """log p(y_i | f_i): log softmax(f)_y, or Σ_c log N(y_c | f_c, σ²), summed over the cells of an example."""
        return self._per_example(self._cell_log_likelihood(f, y), y)

    def _cell_log_likelihood(self, f: Float[Tensor, "*draws_n_cells C"], y: Tensor) -> Float[Tensor, "*draws_n_cells"]:
        if self.likelihood == "gaussian":
            return torch.distributions.Normal(f, self.noise.sqrt().to(f)).log_prob(y.to(f.dtype)).sum(-1)
        if self.likelihood == "bernoulli":
            return torch.nn.functional.logsigmoid(torch.where(y == 1, f[..., 0], -f[..., 0]))
        index = y.expand(f.shape[:-1])[..., None]
        return f.log_softmax(-1).gather(-1, index)[..., 0]

    def _per_example(self, values: Tensor, y: Tensor) -> Tensor:
        """Sums over the cells of an example."""
        num_cells = 0 if self.likelihood == "gaussian" else y.ndim - 1
        return values.flatten(-num_cells).sum(-1) if num_cells else values

    def averaged_log_likelihood(
        self,
        outputs: Float[Tensor, "S n *cells C"],
        y: Tensor,
        average: str,
        weights: Float[Tensor, S * some] | None = None,
    ) -> Float[Tensor, " n"]:
        """log p(y_i | x_i) of the copies' outputs h_s.

        "function": log p(y | mean_s h_s). "probabilities": log mean_s p(y | h_s), cell by cell. "log_likelihood":
        mean_s log p(y | h_s), what Augerino and AugNet train.
        """
        if average == "function":
            return self.log_likelihood(weighted_mean(outputs, weights), y)
        per_copy = self._cell_log_likelihood(outputs, y)  # (S, n, *cells)
        mean = weighted_mean if average == "log_likelihood" else average_log_probs
        return self._per_example(mean(per_copy, weights), y)

    def mean_log_likelihood(self, prior: InvariantNetwork, data: Data) -> Float[Tensor, ""]:
        """Nats per example at the current weights."""
        prior = prior.of_groups(data.groups)
        outputs, weights = prior.moved_back(prior.outputs(data.x))
        return self.averaged_log_likelihood(outputs, data.y, prior.average, weights).mean()

    @abstractmethod
    def weight_loss(self, prior: InvariantNetwork, data: Data, num_total: int) -> Float[Tensor, ""]:
        """What the weights minimise, nats per example."""

    def function_posterior(
        self,
        prior: InvariantNetwork,
        x: Float[Tensor, n * event],
        data: Data,
        groups: Int[Tensor, " n"] | None = None,
    ) -> tuple[Float[Tensor, "n *cells C"], Float[Tensor, "n *cells C"]]:
        """f(x) at the trained weights; its variance is that over copies where their densities are averaged, else 0.

        ``groups`` are those of x, where each has extents of its own.
        """

        def moments(outputs: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
            outputs = outputs.double()
            f = average_copies(outputs, prior.average, self.likelihood, weights)
            if self.likelihood == "gaussian" and prior.average == "probabilities":
                return f, weighted_mean((outputs - f).square(), weights)
            return f, torch.zeros_like(f)

        return prior.in_blocks(x, moments, groups)

    def average(self, num_function_samples: int, seed: int) -> Average:
        """Class probabilities, or mean and variance."""
        if self.likelihood == "gaussian":
            return GaussianAverage(lambda: self.noise)
        likelihood = self.likelihood
        return ClassAverage(
            lambda f: class_log_probs(f, likelihood), 1, seed
        )  # no spread of the function: one draw says all

    def sample_targets(self, f: Float[Tensor, "n *cells C"]) -> Tensor:
        """y ~ p(y | f): labels (n, *cells), or real targets (n, C)."""
        if self.likelihood != "gaussian":
            return torch.distributions.Categorical(logits=class_log_probs(f, self.likelihood)).sample()
        return f + self.noise.detach().sqrt() * torch.randn_like(f)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Zero: the noise has no prior."""
        return torch.zeros((), dtype=torch.float64)

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {"type": self.name, "likelihood": self.likelihood}
