"""One temperature for all predictions of classes: how sure they are, without a change of what they say."""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from bayesinv.metrics.scores import log_loss

__all__ = ["fitted_temperature", "tempered"]

# Of log T: from five times as sure to a fifth.
LARGEST = math.log(5.0)
SMALLEST_PROBABILITY = 1e-12


def tempered(probs: Float[Tensor, "n *cells C"], temperature: float) -> Float[Tensor, "n *cells C"]:
    """p ∝ p^(1/T): less sure above one, surer below.

    Args:
        probs: class probabilities, (n, C), or of maps (n, *cells, C).
        temperature: T > 0.

    Example:
        >>> import torch
        >>> tempered(torch.tensor([[0.8, 0.2]]), 0.5)
        tensor([[0.9412, 0.0588]])
    """
    return (probs.clamp_min(SMALLEST_PROBABILITY).log() / temperature).softmax(-1)


def fitted_temperature(probs: Float[Tensor, "n *cells C"], y: Int[Tensor, "*targets"]) -> float:
    """T with the smallest log loss, between 1/5 and 5.

        T = argmin -(1/n) Σ_i log p_T(y_i | x_i)

    Args:
        probs: class probabilities of examples that training has not seen, (n, C) or (n, *cells, C).
        y: labels 0..C-1, (n,) or (n, *cells).

    Raises:
        ValueError: labels of another shape or out of range, or no examples.

    Reference:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017). On calibration of modern neural networks. arXiv:1706.04599.

    Example:
        >>> import torch
        >>> sure = torch.tensor([[0.99, 0.01]]).expand(4, 2)
        >>> round(fitted_temperature(sure, torch.tensor([0, 0, 0, 1])), 2)  # 0.75 of them are right
        4.18
    """
    found = minimize_scalar(
        lambda log_t: float(log_loss(tempered(probs.double(), math.exp(log_t)), y).mean()),
        bounds=(-LARGEST, LARGEST),
        method="bounded",
    )
    return math.exp(found.x)
