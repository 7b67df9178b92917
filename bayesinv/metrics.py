"""How good predictions are: accuracy, log loss, calibration, and errors of a regression, with standard errors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["accuracy", "brier_score", "calibration_error", "gaussian_log_loss", "interval_coverage", "log_loss", "rmse"]


def accuracy(probs: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Whether the most probable class is the right one, 1 or 0 for each example; its mean is the accuracy."""
    return (probs.argmax(-1) == y).double()


def log_loss(probs: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """-log p(y_i), nats, for each example. Probabilities below 1e-12 count as that."""
    return -probs.double().gather(1, y[:, None])[:, 0].clamp_min(1e-12).log()


def brier_score(probs: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Σ_c (p_ic - 1[y_i = c])² for each example."""
    target = torch.nn.functional.one_hot(y, probs.shape[1]).double()
    return (probs.double() - target).square().sum(1)


def calibration_error(probs: Float[Tensor, "n C"], y: Int[Tensor, " n"], num_bins: int = 15) -> float:
    """Expected calibration error: |confidence - accuracy| of the most probable class, over bins of equal width.

    Reference:
        C. Guo, G. Pleiss, Y. Sun, K. Weinberger (2017). On calibration of modern neural networks. arXiv:1706.04599.

    Example:
        >>> probs = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
        >>> round(calibration_error(probs, torch.tensor([0, 1])), 3)  # 90 % sure, right half of the time
        0.4
    """
    confidence, guess = probs.double().max(-1)
    right = (guess == y).double()
    bins = (confidence * num_bins).long().clamp(max=num_bins - 1)
    total = 0.0
    for b in bins.unique().tolist():
        inside = bins == b
        total += float(inside.double().mean() * (confidence[inside].mean() - right[inside].mean()).abs())
    return total


def rmse(mean: Float[Tensor, "n outputs"], y: Float[Tensor, "n outputs"]) -> float:
    """Root mean square error over examples and outputs, in the units of y."""
    return float((mean.double() - y.double()).square().mean().sqrt())


def gaussian_log_loss(
    mean: Float[Tensor, "n outputs"], variance: Float[Tensor, "n outputs"], y: Float[Tensor, "n outputs"]
) -> Float[Tensor, " n"]:
    """-log N(y_i | mean, variance), nats, summed over outputs, for each example."""
    mean, variance, y = mean.double(), variance.double(), y.double()
    return 0.5 * ((y - mean).square() / variance + variance.log() + math.log(2.0 * math.pi)).sum(1)


def interval_coverage(
    mean: Float[Tensor, "n outputs"],
    variance: Float[Tensor, "n outputs"],
    y: Float[Tensor, "n outputs"],
    level: float = 0.9,
) -> float:
    """Share of the targets inside the central normal intervals of that level."""
    width = math.sqrt(2.0) * float(torch.special.erfinv(torch.tensor(level, dtype=torch.float64)))
    return float(((y - mean).abs() <= width * variance.sqrt()).double().mean())
