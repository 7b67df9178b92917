"""Data drawn from a model, from its prior or at extents of one's choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones import GaussianProcess
from bayesinv.data.container import Data
from bayesinv.data.groups import as_groups
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.model.parts import ModelParts
from bayesinv.numerics.randomness import seeded


@dataclass(frozen=True)
class Simulation:
    """One draw from the model: extents (K,), function values (n, C) and targets."""

    extents: Float[Tensor, " K"]
    function: Float[Tensor, "n *cells C"]
    y: Tensor


def simulate(
    model: ModelParts,
    x: Float[Tensor, n * event],
    extents: Float[Tensor, " K"] | None,
    num_outputs: int | None,
    seed: int,
    groups: Any,
) -> Simulation:
    """One draw; arguments and errors as for :meth:`InvarianceModel.simulate`."""
    if isinstance(model.backbone, GaussianProcess):
        return _from_process(model, x, extents, num_outputs, seed, groups)
    with seeded(seed), torch.no_grad():
        # The prior seeds itself: without a seed of its own, every simulation would have the same extents.
        own = int(torch.randint(2**31, ()))
        eta = model.extents.sample_prior(1, own)[0] if extents is None else torch.as_tensor(extents).double()
        if model.groups is not None:
            groups = as_groups(groups, model.groups, len(x), training=True)
        f = model._function_posterior(x, Data(x[:0], x.new_zeros(0, 0)), eta, groups)[0]
        return Simulation(eta, f, model.evidence.sample_targets(f))


def _from_process(
    model: ModelParts,
    x: Float[Tensor, n * event],
    extents: Float[Tensor, " K"] | None,
    num_outputs: int | None,
    seed: int,
    groups: Any,
) -> Simulation:
    """By the dense covariance."""
    default = 1 if model.likelihood == "gaussian" else len(model.evidence.constant_mean)
    if model.structure is not None:
        default = len(model.structure.outputs)
        if num_outputs not in (None, default):
            raise ValueError(f"num_outputs: this model has extents for {default} outputs, got {num_outputs}")
    num_outputs = default if num_outputs is None else num_outputs
    if model.likelihood == "categorical" and num_outputs < 2:
        raise ValueError(f"num_outputs: expected the number of classes, at least 2, got {num_outputs}")
    seeds = torch.Generator().manual_seed(seed)
    # Seeds of their own: with one seed for both, the function would depend on the extents.
    extents_seed, function_seed = torch.randint(2**31, (2,), generator=seeds).tolist()
    eta = model.extents.sample_prior(1, extents_seed)[0] if extents is None else torch.as_tensor(extents).double()
    if model.groups is None:
        if groups is not None:
            raise ValueError("groups: this model has the same extents for everyone; leave groups out")
        K = model.at(eta).covariance(x)
    else:
        K = model.at(eta).covariance(x, as_groups(groups, model.groups, len(x), training=True))
    means = model.evidence.constant_mean
    offset_variance = getattr(model.evidence, "offset_variance", torch.zeros((), dtype=torch.float64)).cpu()
    if len(means) not in (1, num_outputs):
        raise ValueError(f"num_outputs: this model has been initialised for {len(means)}, got {num_outputs}")
    with seeded(function_seed):
        z = torch.randn(len(x), num_outputs, dtype=torch.float64).to(K.device)
        L = cholesky(K, "k_ff of the simulated inputs", regularise=True)  # (n, n), or (C, n, n)
        offset = offset_variance.sqrt() * torch.randn(num_outputs, dtype=torch.float64)
        f = means + offset.to(K.device) + (L @ z.T[..., None])[..., 0].T
        return Simulation(eta, f, model.evidence.sample_targets(f))
