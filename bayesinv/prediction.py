"""p(y* | x*, D): averaged over the extents, the orbit and the free function."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """Predictions for n inputs; the fields of the other kind of likelihood are None.

    Attributes:
        probs: class probabilities, (n, classes).
        mean: mean of the targets, (n, outputs).
        variance: of the targets for regression, noise included, (n, outputs); for classification of the
            class probabilities over extents and function, (n, classes): what more data could remove.
    """

    variance: Float[Tensor, "n outputs"]
    probs: Float[Tensor, "n classes"] | None = None
    mean: Float[Tensor, "n outputs"] | None = None

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """The most probable class of each input.

        Raises:
            AttributeError: the model is a regression.
        """
        if self.probs is None:
            raise AttributeError("labels: this is a regression, which has .mean and .variance; classes come with probs")
        return self.probs.argmax(-1)

    def __len__(self) -> int:
        return len(self.variance)


class ClassAverage:
    """Running first and second moments of class probabilities over weighted posterior draws."""

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def add(self, probabilities: Float[Tensor, "samples n C"], weight: float) -> None:
        """Take in the function samples of one draw of the extents, which share its weight."""
        first = weight * probabilities.mean(0)
        second = weight * probabilities.square().mean(0)
        self._first = first if self._first is None else self._first + first
        self._second = second if self._second is None else self._second + second

    def result(self) -> Prediction:
        """The averaged prediction."""
        if self._first is None or self._second is None:
            raise ValueError("no posterior draws were averaged: expected at least one draw of the extents")
        return Prediction(variance=(self._second - self._first.square()).clamp_min(0.0), probs=self._first)


class GaussianAverage:
    """Running moments of a mixture of normals over weighted posterior draws."""

    def __init__(self) -> None:
        self._mean: Tensor | None = None
        self._second: Tensor | None = None

    def add(self, mean: Float[Tensor, "n C"], variance: Float[Tensor, "n C"], weight: float) -> None:
        """Take in one draw of the extents."""
        second = weight * (variance + mean.square())
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
