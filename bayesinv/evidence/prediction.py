"""p(y* | x*, D): averaged over the extents, the orbit and the free function."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.data.class_names import name_of
from bayesinv.numerics.arguments import counted
from bayesinv.orbits.orbit import base_draws


@dataclass(frozen=True)
class Prediction:
    """Predictions for n inputs; the fields of the other kind of likelihood are None.

    Attributes:
        probs: class probabilities, (n, classes); for maps of labels (n, *cells, classes).
        mean: mean of the targets, (n, outputs), or (n,) where the training targets were.
        variance: of the targets for regression, noise included, of the shape of `mean`; for classification of the
            class probabilities over extents and function, (n, classes): what more data could remove.
        log_density: log p(y_i | x_i, D) of the targets that were given, nats, summed over outputs, (n,); for
            regression.
        classes: names of the classes, in the order of `probs`, where the training data had them.
    """

    variance: Float[Tensor, n * outputs]
    probs: Float[Tensor, "n *cells classes"] | None = None
    mean: Float[Tensor, n * outputs] | None = None
    log_density: Float[Tensor, " n"] | None = None
    classes: tuple[str, ...] | None = None

    @property
    def labels(self) -> Int[Tensor, n * cells]:
        """The most probable class of each input, or of each cell of it.

        Raises:
            AttributeError: the model is a regression.
        """
        if self.probs is None:
            raise AttributeError("labels: this is a regression, which has .mean and .variance; classes come with probs")
        return self.probs.argmax(-1)

    @property
    def names(self) -> np.ndarray:
        """The names of `labels`, an array of text of their shape.

        Raises:
            AttributeError: the model is a regression, or its training labels were numbers without names.
        """
        labels = self.labels.cpu().numpy()
        if self.classes is None:
            raise AttributeError(
                "names: the training labels were numbers; read .labels, or fit to labels of text, or to "
                "bayesinv.Data(x, y, classes=names)"
            )
        num_classes = self.variance.shape[-1]
        return np.array([name_of(self.classes, label) for label in range(num_classes)])[labels]

    def __len__(self) -> int:
        return len(self.variance)

    def __repr__(self) -> str:
        """What there is, and of which shape: thousands of numbers are no help in a console."""
        fields = {name: getattr(self, name) for name in ("probs", "mean", "variance", "log_density")}
        shapes = (f"{name} {tuple(field.shape)}" for name, field in fields.items() if field is not None)
        return f"Prediction of {counted(len(self), 'input')}: {', '.join(shapes)}"

    def as_rows(self) -> Prediction:
        """The same with a mean and a variance of shape (n, outputs), for one output too."""
        if self.mean is None or self.mean.ndim > 1:
            return self
        return replace(self, mean=self.mean[:, None], variance=self.variance[:, None])

    def flattened(self) -> Prediction:
        """The same with a mean and a variance of shape (n,), for a single output."""
        if self.mean is None or self.mean.ndim == 1:
            return self
        return replace(self, mean=self.mean.squeeze(1), variance=self.variance.squeeze(1))

    def to(self, device: torch.device | str) -> Prediction:
        """The same on another device."""
        fields = (self.probs, self.mean, self.log_density)
        probs, mean, log_density = (None if field is None else field.to(device) for field in fields)
        return Prediction(self.variance.to(device), probs, mean, log_density, self.classes)


class Average(ABC):
    """Moments of the predictions, built up over weighted posterior draws of the extents, and densities of targets."""

    def __init__(self) -> None:
        self._log_densities: list[Tensor] = []  # of the targets, each with its weight

    def add(
        self,
        mean: Float[Tensor, "n *cells C"],
        variance: Float[Tensor, "n *cells C"],
        weight: float,
        y: Tensor | None = None,
    ) -> None:
        """Take in the function's posterior at one draw of the extents.

        Args:
            mean, variance: of the function.
            weight: of the draw; all sum to one.
            y: targets of a regression, (n, C), whose log density the result then has.

        Raises:
            ValueError: targets for class labels.
        """
        self._take(mean, variance, weight)
        if y is not None and weight > 0:
            self._log_densities.append(self.log_density(mean, variance, y) + math.log(weight))

    def result(self) -> Prediction:
        """The averaged prediction.

        Raises:
            ValueError: nothing was taken in.
        """
        prediction = self._averaged()
        if not self._log_densities:
            return prediction
        return replace(prediction, log_density=torch.stack(self._log_densities).logsumexp(0))

    def log_density(self, mean: Tensor, variance: Tensor, y: Tensor) -> Float[Tensor, " n"]:
        """log E p(y_i | f_i) over the function's posterior at one draw of the extents, summed over outputs."""
        raise ValueError("y: expected none for class labels, whose probabilities are in .probs")

    @abstractmethod
    def _take(self, mean: Tensor, variance: Tensor, weight: float) -> None:
        """Add the moments of one draw."""

    @abstractmethod
    def _averaged(self) -> Prediction:
        """The moments."""


class ClassAverage(Average):
    """Class probabilities, E softmax(m + √v z), z ~ N(0, I) in C dimensions, by quasi-random z.

    The same z for every input and every draw of the extents, so that a prediction does not depend on what else is in
    the batch.

    Args:
        log_probabilities: from function values (draws, n, C) to log class probabilities.
        num_function_samples: draws of the function.
        seed: of these draws.
    """

    def __init__(self, log_probabilities: Callable[[Tensor], Tensor], num_function_samples: int, seed: int) -> None:
        super().__init__()
        self._log_probabilities = log_probabilities
        self._num_samples, self._seed = num_function_samples, seed
        self._noise: Tensor | None = None
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def _take(self, mean: Float[Tensor, "n *cells C"], variance: Float[Tensor, "n *cells C"], weight: float) -> None:
        if self._noise is None:
            normal = even_normal_draws(self._num_samples, mean.shape[-1], self._seed)
            self._noise = normal.reshape(-1, *[1] * (mean.ndim - 1), mean.shape[-1]).to(mean.device)
        probabilities = self._log_probabilities(mean + variance.sqrt() * self._noise).exp()  # (draws, n, *cells, C)
        first, second = weight * probabilities.mean(0), weight * probabilities.square().mean(0)
        self._first = first if self._first is None else self._first + first
        self._second = second if self._second is None else self._second + second

    def _averaged(self) -> Prediction:
        if self._first is None or self._second is None:
            raise ValueError("no posterior draws were averaged: expected at least one draw of the extents")
        return Prediction(variance=(self._second - self._first.square()).clamp_min(0.0), probs=self._first)


class GaussianAverage(Average):
    """Mean and variance of a mixture of normals.

    Args:
        noise: gives the variance of the observation noise, added to that of the function; asked at every draw, since
            draws may have noise variances of their own.
    """

    def __init__(self, noise: Callable[[], Float[Tensor, ""]]) -> None:
        super().__init__()
        self._noise = noise
        self._mean: Tensor | None = None
        self._second: Tensor | None = None

    def _take(self, mean: Float[Tensor, "n C"], variance: Float[Tensor, "n C"], weight: float) -> None:
        second = weight * (variance + self._noise() + mean.square())
        self._mean = weight * mean if self._mean is None else self._mean + weight * mean
        self._second = second if self._second is None else self._second + second

    def log_density(
        self, mean: Float[Tensor, "n C"], variance: Float[Tensor, "n C"], y: Float[Tensor, "n C"]
    ) -> Float[Tensor, " n"]:
        """Σ_c log N(y_c | mean_c, variance_c + σ²)."""
        return torch.distributions.Normal(mean, (variance + self._noise()).sqrt()).log_prob(y.to(mean)).sum(-1)

    def _averaged(self) -> Prediction:
        if self._mean is None or self._second is None:
            raise ValueError("no posterior draws were averaged: expected at least one draw of the extents")
        return Prediction(variance=(self._second - self._mean.square()).clamp_min(0.0), mean=self._mean)


def standard_normal_draws(num_samples: int, num_columns: int, seed: int) -> Float[Tensor, "samples columns"]:
    """Antithetic standard normal draws, the same for the same seed, float64."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn((num_samples + 1) // 2, num_columns, generator=generator, dtype=torch.float64)
    return torch.cat([half, -half])[:num_samples]


def even_normal_draws(num_samples: int, num_columns: int, seed: int) -> Float[Tensor, "samples columns"]:
    """Standard normal draws from scrambled Sobol points, the same for the same seed, float64.

    Example:
        >>> even_normal_draws(64, 3, seed=0).shape
        torch.Size([64, 3])
    """
    kind = "sobol" if num_columns <= torch.quasirandom.SobolEngine.MAXDIM else "monte_carlo"
    uniform = base_draws(num_samples, num_columns, kind, seed)  # on [-1, 1]
    return torch.special.ndtri((0.5 + 0.5 * uniform).clamp(1e-12, 1 - 1e-12))
