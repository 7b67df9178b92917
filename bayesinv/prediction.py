"""p(y* | x*, D): averaged over the extents, the orbit and the free function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.orbits import base_draws


@dataclass(frozen=True)
class Prediction:
    """Predictions for n inputs; the fields of the other kind of likelihood are None.

    Attributes:
        probs: class probabilities, (n, classes); for maps of labels (n, *cells, classes).
        mean: mean of the targets, (n, outputs); (n, 1) for targets that came as (n,), which ``mean[:, 0]`` is to be
            compared with: the difference of (n, 1) and (n,) would be all pairs.
        variance: of the targets for regression, noise included, (n, outputs); for classification of the
            class probabilities over extents and function, (n, classes): what more data could remove.
    """

    variance: Float[Tensor, "n *cells outputs"]
    probs: Float[Tensor, "n *cells classes"] | None = None
    mean: Float[Tensor, "n outputs"] | None = None

    @property
    def labels(self) -> Int[Tensor, n * cells]:
        """The most probable class of each input, or of each cell of it.

        Raises:
            AttributeError: the model is a regression.
        """
        if self.probs is None:
            raise AttributeError("labels: this is a regression, which has .mean and .variance; classes come with probs")
        return self.probs.argmax(-1)

    def __len__(self) -> int:
        return len(self.variance)

    def to(self, device: torch.device | str) -> Prediction:
        """The same on another device."""
        probs, mean = (None if field is None else field.to(device) for field in (self.probs, self.mean))
        return Prediction(self.variance.to(device), probs, mean)


class Average(ABC):
    """Moments of the predictions, built up over weighted posterior draws of the extents."""

    @abstractmethod
    def add(self, mean: Float[Tensor, "n *cells C"], variance: Float[Tensor, "n *cells C"], weight: float) -> None:
        """Take in the function's posterior at one draw of the extents."""

    @abstractmethod
    def result(self) -> Prediction:
        """The averaged prediction."""


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
        self._log_probabilities = log_probabilities
        self._num_samples, self._seed = num_function_samples, seed
        self._noise: Tensor | None = None
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def add(self, mean: Float[Tensor, "n *cells C"], variance: Float[Tensor, "n *cells C"], weight: float) -> None:
        """Take in the function's posterior at one draw of the extents."""
        if self._noise is None:
            normal = even_normal_draws(self._num_samples, mean.shape[-1], self._seed)
            self._noise = normal.reshape(-1, *[1] * (mean.ndim - 1), mean.shape[-1]).to(mean.device)
        probabilities = self._log_probabilities(mean + variance.sqrt() * self._noise).exp()  # (draws, n, *cells, C)
        first, second = weight * probabilities.mean(0), weight * probabilities.square().mean(0)
        self._first = first if self._first is None else self._first + first
        self._second = second if self._second is None else self._second + second

    def result(self) -> Prediction:
        """The averaged prediction."""
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
        self._noise = noise
        self._mean: Tensor | None = None
        self._second: Tensor | None = None

    def add(self, mean: Float[Tensor, "n C"], variance: Float[Tensor, "n C"], weight: float) -> None:
        """Take in the function's posterior at one draw of the extents."""
        second = weight * (variance + self._noise() + mean.square())
        self._mean = weight * mean if self._mean is None else self._mean + weight * mean
        self._second = second if self._second is None else self._second + second

    def result(self) -> Prediction:
        """The averaged prediction."""
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
