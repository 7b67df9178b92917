"""One step of several processes: the mean of their gradients, and of what normalisations remember."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from bayesinv.numerics.processes import Processes

__all__ = ["average_gradients", "running_statistics"]


@torch.no_grad()
def average_gradients(
    group: Processes, params: Sequence[Tensor], statistics: Sequence[Tensor], value: Tensor, share: float
) -> Tensor:
    """Replace gradients by their weighted sum over processes, Σ_r s_r g_r with Σ_r s_r = 1, in place.

    A parameter without a gradient counts as one whose gradient is zero. A loss that is no number on one process makes
    the mean none, so that all of them see it at the same step.

    Args:
        group: the processes.
        params: what is trained, in the same order everywhere.
        statistics: running statistics of normalisations, which become their weighted means.
        value: the loss of this process, a scalar.
        share: s_r, of the examples of the batch.

    Returns:
        The weighted mean of the losses.
    """
    loss = (share * value.double()).reshape(1)
    gradients = [torch.zeros_like(p) if p.grad is None else share * p.grad for p in params]
    means = [share * t for t in statistics]
    group.add([loss, *gradients, *means])
    for p, gradient in zip(params, gradients, strict=True):
        p.grad = gradient
    for statistic, mean in zip(statistics, means, strict=True):
        statistic.copy_(mean)
    return loss[0]


def running_statistics(modules: Sequence[nn.Module]) -> list[Tensor]:
    """The running means and variances of all normalisations that keep some."""
    found: dict[int, Tensor] = {}
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, _NormBase):
                kept = [t for t in (layer.running_mean, layer.running_var) if t is not None]
                found |= {id(t): t for t in kept}
    return list(found.values())
