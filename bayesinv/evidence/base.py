"""log p(D | η): what every evidence offers, whichever way it integrates the free function out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bayesinv.backbones.invariant import InvariantPrior
from bayesinv.data import Data
from bayesinv.prediction import Average, ClassAverage


class Evidence(nn.Module, ABC):
    """An evidence integrates h out and keeps what is needed to predict with it.

    Subclasses hold the likelihood's own parameters (noise, class means) and nothing about the
    extents: those arrive inside the prior.
    """

    name: str
    likelihood: str
    mean: nn.Parameter  # constant mean of each output, (C,)

    def resize(self, num_outputs: int) -> None:
        """Make room for the means of a saved state before ``load_state_dict``."""
        self.mean = nn.Parameter(torch.zeros(num_outputs, dtype=torch.float64, device=self.mean.device))

    @abstractmethod
    def initialise(self, data: Data) -> float:
        """Start the parameters at the scale of the data; returns a starting variance for the prior over h."""

    @abstractmethod
    def log_evidence(self, prior: InvariantPrior, data: Data) -> Float[Tensor, ""]:
        """log p(D | η), or a lower bound on it; differentiable in everything that requires a gradient."""

    @abstractmethod
    def function_posterior(
        self, prior: InvariantPrior, x: Float[Tensor, n * event], data: Data
    ) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Mean and variance of f(x) given the data, each of shape (n, C)."""

    @abstractmethod
    def average(self, num_function_samples: int, seed: int) -> Average:
        """What turns posteriors of f, one a draw of the extents, into a prediction."""

    @abstractmethod
    def log_likelihood(self, f: Float[Tensor, "*draws n C"], y: Tensor) -> Float[Tensor, "*draws n"]:
        """log p(y_i | f_i)."""

    @abstractmethod
    def sample_targets(self, f: Float[Tensor, "n C"]) -> Tensor:
        """y ~ p(y | f): class labels (n,), or real targets (n, C)."""

    @abstractmethod
    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Log density of the priors on the evidence's own parameters; zero without any."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """A JSON-able description."""


class ClassificationEvidence(Evidence):
    """What the classification evidences share: a link from C functions to class probabilities."""

    likelihood = "categorical"

    @abstractmethod
    def log_probabilities(self, f: Float[Tensor, "*draws n C"]) -> Float[Tensor, "*draws n C"]:
        """Log class probabilities of function values."""

    def average(self, num_function_samples: int, seed: int) -> Average:
        """Class probabilities over draws of the function."""
        return ClassAverage(self.log_probabilities, num_function_samples, seed)

    def log_likelihood(self, f: Float[Tensor, "*draws n C"], y: Int[Tensor, " n"]) -> Float[Tensor, "*draws n"]:
        """log p(y_i | f_i) through the link."""
        index = y.expand(f.shape[:-1])[..., None]
        return self.log_probabilities(f).gather(-1, index)[..., 0]

    def sample_targets(self, f: Float[Tensor, "n C"]) -> Int[Tensor, " n"]:
        """Labels drawn from the link's probabilities."""
        return torch.distributions.Categorical(logits=self.log_probabilities(f)).sample()

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Zero: the class means have no prior."""
        return torch.zeros((), dtype=torch.float64)
