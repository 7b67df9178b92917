"""Averages over the copies of an input."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def weighted_mean(
    values: Float[Tensor, "copies *rest"], weights: Float[Tensor, "copies *some"] | None
) -> Float[Tensor, "*rest"]:
    """Σ_s w_s v_s; the plain mean without weights. Weights may differ along the first axes after that of the copies."""
    if weights is None:
        return values.mean(0)
    if weights.ndim == 1:
        return torch.tensordot(weights.to(values), values, 1)
    return (_along(weights.to(values), values) * values).sum(0)


def average_log_probs(
    log_probs: Float[Tensor, "copies *rest"], weights: Float[Tensor, "copies *some"] | None
) -> Float[Tensor, "*rest"]:
    """log Σ_s w_s exp(l_s); the log of the plain mean without weights, which are as in `weighted_mean`."""
    if weights is None:
        return log_probs.logsumexp(0) - math.log(len(log_probs))
    # The floor keeps the gradient of a weight of zero finite: it is that of no copy at all.
    log_weights = weights.to(log_probs).clamp_min(torch.finfo(log_probs.dtype).tiny).log()
    return (log_probs + _along(log_weights, log_probs)).logsumexp(0)


def _along(weights: Tensor, values: Tensor) -> Tensor:
    """Weights with axes at the end for those of the values that they do not tell apart."""
    return weights.reshape(*weights.shape, *[1] * (values.ndim - weights.ndim))


def average_function(
    h: Callable[[Tensor], Tensor],
    points: Float[Tensor, "S batch *event"],
    weights: Float[Tensor, " S"] | None = None,
) -> Float[Tensor, "batch *out"]:
    """The orbit average of function values, f_η(x) = Σ_s w_s h(T_s x), w_s = 1/S without weights.

    As a prior this is a prior over invariant functions: it asks how much invariance is *needed*.

    Args:
        h: a function of a batch (n, *event) to (n, *out); called once, on all S·batch points.
        points: the orbit, (S, batch, *event).
        weights: of its points, `Orbit.weights`; equal if None.

    Returns:
        (batch, *out).

    Reference:
        M. van der Wilk, M. Bauer, S. John, J. Hensman (2018). Learning invariances using the
        marginal likelihood. arXiv:1808.05563.

    Example:
        >>> average_function(lambda x: 10 * x, torch.tensor([[[1.0]], [[3.0]]])).tolist()
        [[20.0]]
    """
    return weighted_mean(_outputs(h, points), weights)


def average_probabilities(
    h: Callable[[Tensor], Tensor],
    points: Float[Tensor, "S batch *event"],
    weights: Float[Tensor, " S"] | None = None,
) -> Float[Tensor, "batch classes"]:
    """The log of the orbit average of class probabilities, log Σ_s w_s softmax(h(T_s x)).

    As a prior this is a mixture over transformed inputs: an extent that carries single inputs
    across a class boundary is punished.

    Args:
        h: a function of a batch (n, *event) to logits (n, classes); called once, on all S·batch
            points.
        points: the orbit, (S, batch, *event).
        weights: of its points, `Orbit.weights`; equal if None.

    Returns:
        log probabilities, (batch, classes), each row normalised.

    Example:
        >>> average_probabilities(lambda x: x, torch.tensor([[[9.0, 0.0]], [[0.0, 9.0]]])).exp()
        tensor([[0.5000, 0.5000]])
    """
    return average_log_probs(_outputs(h, points).log_softmax(-1), weights)  # of (S, batch, classes)


def _outputs(h: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """h at every point of the orbit, (S, batch, *out)."""
    outputs = h(points.flatten(0, 1))  # (S·batch, *out)
    if outputs.shape[:1] != (points.shape[0] * points.shape[1],):
        raise ValueError(
            f"the averaged function has to return one row per point, "
            f"{points.shape[0] * points.shape[1]} here, and shape {tuple(outputs.shape)} came"
        )
    return outputs.unflatten(0, points.shape[:2])
