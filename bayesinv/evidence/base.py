"""log p(D | η): what every evidence offers, whichever way it integrates the free function out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bayesinv.data.container import Data
from bayesinv.evidence.prediction import Average, ClassAverage


class Evidence(nn.Module, ABC):
    """An evidence integrates h out and keeps what is needed to predict with it.

    Subclasses hold the likelihood's own parameters (noise, class means, variational parameters) and nothing about
    the extents: those arrive inside ``prior``, the backbone seen through the orbit at one value of the extents
    (:class:`~bayesinv.backbones.invariant.InvariantPrior` of a Gaussian process,
    :class:`~bayesinv.backbones.invariant_network.InvariantNetwork` of a network).

    Attributes:
        name: what ``evidence=`` calls it.
        likelihood: which likelihood it serves.
        backbone: "gp" or "network".
        minibatch: whether ``log_evidence`` is an estimate from any part of the data, so that ``fit`` runs over
            minibatches; otherwise it needs all of them at once and is deterministic.
        trains_weights: whether the backbone's weights are trained by ``weight_loss`` on a detached orbit, apart
            from the evidence.
    """

    name: str
    likelihood: str
    backbone: ClassVar[str] = "gp"
    minibatch: ClassVar[bool] = False
    trains_weights: ClassVar[bool] = False

    @property
    def constant_mean(self) -> Float[Tensor, " C"]:
        """What is added to every draw of the function: zero, unless the evidence learns a mean of each output."""
        return torch.zeros(1, dtype=torch.float64)

    def prepare_state(self, state: Mapping[str, Tensor]) -> None:
        """Make room for the arrays of a saved state (names without prefix) before ``load_state_dict``."""

    # Where an inner iteration begins, any numbers that are smooth in the extents; a start, never part of a result.
    warm_start: Tensor | None = None

    def prepare(self, prior: Any, data: Data) -> None:
        """Start what needs an initialised backbone; ``prior`` is that backbone without a transform."""

    def parameter_units(self) -> dict[str, float]:
        """The size of the parameters that are in the unit of the targets, by name."""
        return {}

    @abstractmethod
    def initialise(self, data: Data) -> float:
        """Start the parameters at the scale of the data; returns a starting variance for the prior over h."""

    @abstractmethod
    def log_evidence(self, prior: Any, data: Data, num_total: int | None = None) -> Float[Tensor, ""]:
        """log p(D | η), or a lower bound on it; differentiable in everything that requires a gradient.

        Args:
            prior: the backbone at one value of the extents.
            data: all data; or a minibatch, for an evidence that takes one.
            num_total: n, the number of examples that a minibatch stands for; its own size if None.
        """

    def weight_loss(self, prior: Any, data: Data, num_total: int) -> Float[Tensor, ""]:
        """What the weights of a network minimise, nats per example; only where ``trains_weights``."""
        raise NotImplementedError(f"{self.name} has no weights to train apart from the evidence")

    @abstractmethod
    def function_posterior(
        self, prior: Any, x: Float[Tensor, n * event], data: Data
    ) -> tuple[Float[Tensor, "n *cells C"], Float[Tensor, "n *cells C"]]:
        """Mean and variance of f(x) given the data, each of shape (n, C), or (n, *cells, C) for maps."""

    @abstractmethod
    def average(self, num_function_samples: int, seed: int) -> Average:
        """What turns posteriors of f, one a draw of the extents, into a prediction."""

    @abstractmethod
    def log_likelihood(self, f: Float[Tensor, "*draws_n_cells C"], y: Tensor) -> Float[Tensor, "*draws_n"]:
        """log p(y_i | f_i)."""

    @abstractmethod
    def sample_targets(self, f: Float[Tensor, "n *cells C"]) -> Tensor:
        """y ~ p(y | f): class labels (n,) or (n, *cells), or real targets (n, C)."""

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
