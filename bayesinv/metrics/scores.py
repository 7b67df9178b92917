"""How good predictions are: accuracy, log loss, calibration, and errors of a regression.

Scores that are means over examples come as one number for each example, so that their standard errors, and paired
differences between two methods, can be taken; the others are one number.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


# The targets' axes have names of their own: that they fit the predictions is checked for everybody, since torch would
# broadcast (n, 1) against (n,) to (n, n) and return a wrong number.
def accuracy(probs: Float[Tensor, "n *cells C"], y: Int[Tensor, "*targets"]) -> Float[Tensor, " n"]:
    """Whether the most probable class is the right one, 1 or 0 for each example; its mean is the accuracy.

    For maps the share of an example's cells that are right: pixel accuracy.

    Args:
        probs: class probabilities, (n, C), or of maps (n, *cells, C).
        y: labels 0..C-1, (n,) or (n, *cells).

    Raises:
        ValueError: labels of another shape or out of range, or no examples.

    Example:
        >>> accuracy(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]))
        tensor([1., 0.], dtype=torch.float64)
    """
    _check_labels(probs, y)
    return (probs.argmax(-1) == y).double().reshape(len(y), -1).mean(1)


def log_loss(probs: Float[Tensor, "n *cells C"], y: Int[Tensor, "*targets"]) -> Float[Tensor, " n"]:
    """-log p(y_i), nats, the negative log likelihood of each example; for maps the sum over its cells.

    Probabilities below 1e-12 count as that: a network in float32 rounds to zero, and one such example would make every
    mean infinite. An example then costs 27.6 nats.

    Args:
        probs: class probabilities, (n, C), or of maps (n, *cells, C).
        y: labels 0..C-1, (n,) or (n, *cells).

    Raises:
        ValueError: labels of another shape or out of range, or no examples.

    Example:
        >>> log_loss(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([0, 1]))
        tensor([ 0.6931, 27.6310], dtype=torch.float64)
    """
    _check_labels(probs, y)
    own = probs.double().gather(-1, y[..., None].long())[..., 0]
    return -own.clamp_min(1e-12).log().reshape(len(y), -1).sum(1)


def brier_score(probs: Float[Tensor, "n *cells C"], y: Int[Tensor, "*targets"]) -> Float[Tensor, " n"]:
    """Σ_c (p_ic - 1[y_i = c])² for each example, from 0 to 2; for maps the mean over its cells.

    Args:
        probs: class probabilities, (n, C), or of maps (n, *cells, C).
        y: labels 0..C-1, (n,) or (n, *cells).

    Raises:
        ValueError: labels of another shape or out of range, or no examples.

    Reference:
        G. Brier (1950). Verification of forecasts expressed in terms of probability. Monthly Weather Review 78.

    Example:
        >>> brier_score(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.5000, 2.0000], dtype=torch.float64)
    """
    _check_labels(probs, y)
    target = torch.nn.functional.one_hot(y.long(), probs.shape[-1]).double()
    return (probs.double() - target).square().sum(-1).reshape(len(y), -1).mean(1)


def calibration_error(probs: Float[Tensor, "n *cells C"], y: Int[Tensor, "*targets"], num_bins: int = 15) -> float:
    """Expected calibration error: |confidence - accuracy| of the most probable class, over bins of equal width.

    For maps over all cells of all examples.

    Args:
        probs: class probabilities, (n, C), or of maps (n, *cells, C).
        y: labels 0..C-1, (n,) or (n, *cells).
        num_bins: of [0, 1]; each is closed on the left.

    Raises:
        ValueError: labels of another shape or out of range, no examples, or fewer than one bin.

    Reference:
        C. Guo, G. Pleiss, Y. Sun, K. Weinberger (2017). On calibration of modern neural networks. arXiv:1706.04599.

    Example:
        >>> probs = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
        >>> round(calibration_error(probs, torch.tensor([0, 1])), 3)  # 90 % sure, right half of the time
        0.4
    """
    _check_labels(probs, y)
    if num_bins < 1:
        raise ValueError(f"num_bins: expected at least 1, got {num_bins}")
    confidence, guess = probs.double().max(-1)
    right = (guess == y).double()
    bins = (confidence * num_bins).long().clamp(max=num_bins - 1)
    total = 0.0
    for b in bins.unique().tolist():
        inside = bins == b
        total += float(inside.double().mean() * (confidence[inside].mean() - right[inside].mean()).abs())
    return total


def intersection_over_union(
    probs: Float[Tensor, "n *cells C"], y: Int[Tensor, "*targets"], label: int = 1
) -> Float[Tensor, " n"]:
    """|A ∩ B| / |A ∪ B| of the cells of one label, predicted (A) and true (B), for each map.

    1 where neither holds the label. The mean over maps counts each alike; `pooled_intersection_over_union` counts each
    cell alike.

    Args:
        probs: class probabilities, (n, *cells, C).
        y: labels 0..C-1, (n, *cells).
        label: which.

    Raises:
        ValueError: labels of another shape or out of range, or no examples.

    Example:
        >>> probs = torch.tensor([[[0.1, 0.9], [0.2, 0.8], [0.9, 0.1]]])
        >>> intersection_over_union(probs, torch.tensor([[1, 0, 0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    both, either = _overlaps(probs, y, label)
    return torch.where(either > 0, both / either.clamp_min(1.0), 1.0)


def pooled_intersection_over_union(
    probs: Float[Tensor, "n *cells C"], y: Int[Tensor, "*targets"], label: int = 1
) -> float:
    """Σ_i |A_i ∩ B_i| / Σ_i |A_i ∪ B_i|: maps without the label count only by what is wrongly found there.

    Args:
        probs, y, label: as for `intersection_over_union`.

    Raises:
        ValueError: labels of another shape or out of range, or no examples.

    Example:
        >>> probs = torch.tensor([[[0.1, 0.9], [0.2, 0.8], [0.9, 0.1]]])
        >>> pooled_intersection_over_union(probs, torch.tensor([[1, 0, 0]]))
        0.5
    """
    both, either = _overlaps(probs, y, label)
    return float(both.sum() / either.sum()) if float(either.sum()) > 0 else 1.0


def rmse(mean: Float[Tensor, n * outputs], y: Float[Tensor, "*targets"]) -> float:
    """Root mean square error over examples and outputs, in the units of y.

    Args:
        mean: predictions, (n, outputs) or (n,).
        y: targets, of that shape.

    Raises:
        ValueError: targets of another shape, or no examples.

    Example:
        >>> rmse(torch.zeros(2, 1), torch.tensor([[3.0], [-3.0]]))
        3.0
    """
    _check_targets(mean, y)
    return float((mean.double() - y.double()).square().mean().sqrt())


def gaussian_log_loss(
    mean: Float[Tensor, n * outputs], variance: Float[Tensor, n * outputs], y: Float[Tensor, "*targets"]
) -> Float[Tensor, " n"]:
    """-log N(y_i | mean, variance), nats, summed over outputs, for each example.

    Args:
        mean: predictive means, (n, outputs) or (n,).
        variance: predictive variances, noise included, of that shape.
        y: targets, of that shape.

    Raises:
        ValueError: targets of another shape, no examples, or a variance that is not positive.

    Example:
        >>> gaussian_log_loss(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1))  # ½ log 2π
        tensor([0.9189], dtype=torch.float64)
    """
    _check_targets(mean, y)
    if not bool((variance > 0).all()):
        raise ValueError(
            f"variance: expected positive numbers, the smallest is {float(variance.min()):.3g}; "
            "the noise of the observations belongs to the variance of a prediction"
        )
    mean, variance, y = mean.double(), variance.double(), y.double()
    return 0.5 * ((y - mean).square() / variance + variance.log() + math.log(2.0 * math.pi)).reshape(len(y), -1).sum(1)


def interval_coverage(
    mean: Float[Tensor, n * outputs],
    variance: Float[Tensor, n * outputs],
    y: Float[Tensor, "*targets"],
    level: float = 0.9,
) -> float:
    """Share of the targets inside the central normal intervals of that level; `level` if they are calibrated.

    Args:
        mean: predictive means, (n, outputs) or (n,).
        variance: predictive variances, noise included, of that shape.
        y: targets, of that shape.
        level: the mass of the intervals.

    Raises:
        ValueError: targets of another shape, no examples, or a level outside (0, 1).

    Example:
        >>> interval_coverage(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([[1.6], [1.7]]))  # ±1.645
        0.5
    """
    _check_targets(mean, y)
    if not 0 < level < 1:
        raise ValueError(f"level: expected the mass of an interval, between 0 and 1, got {level}")
    width = math.sqrt(2.0) * float(torch.special.erfinv(torch.tensor(level, dtype=torch.float64)))
    return float(((y - mean).abs() <= width * variance.sqrt()).double().mean())


def standard_error(values: Float[Tensor, " n"]) -> float:
    """Of the mean of n independent values, s / √n; NaN for a single one.

    Example:
        >>> standard_error(torch.tensor([1.0, 3.0]))
        1.0
    """
    n = len(values)
    return float(values.double().std()) / math.sqrt(n) if n > 1 else math.nan


def _overlaps(probs: Tensor, y: Tensor, label: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """How many cells of each map hold the label in both, and in either."""
    _check_labels(probs, y)
    found, true = ((cells == label).reshape(len(y), -1) for cells in (probs.argmax(-1), y))
    return (found & true).sum(1).double(), (found | true).sum(1).double()


def _check_tensors(prediction: str, field: str, values: Any, y: Any) -> None:
    """Raise where something else than tensors came, such as a prediction as a whole."""
    if not isinstance(values, Tensor):
        cure = f"pass prediction.{field}" if hasattr(values, field) else "torch.as_tensor(...) makes one"
        raise TypeError(f"{prediction}: expected a tensor, got a {type(values).__name__}; {cure}")
    if not isinstance(y, Tensor):
        raise TypeError(f"y: expected a tensor, got a {type(y).__name__}; torch.as_tensor(y) makes one")


def _check_labels(probs: Any, y: Any) -> None:  # kinds are checked below, in words
    _check_tensors("probs", "probs", probs, y)
    if y.shape != probs.shape[:-1] or y.numel() == 0:
        which = (
            f"{len(probs)} predictions (n >= 1)" if probs.ndim == 2 else f"the predictions {tuple(probs.shape[:-1])}"
        )
        raise ValueError(f"y: expected one label for each of {which}, got {tuple(y.shape)}")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= probs.shape[-1]:
        raise ValueError(f"y: expected labels 0..{probs.shape[-1] - 1} as in probs, got {low}..{high}")


def _check_targets(mean: Any, y: Any) -> None:
    _check_tensors("mean", "mean", mean, y)
    if y.shape != mean.shape or y.numel() == 0:
        raise ValueError(f"y: expected the shape of the predictions, {tuple(mean.shape)}, n >= 1, got {tuple(y.shape)}")
