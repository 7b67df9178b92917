"""q(η): the variational families, as Pyro guides over the unconstrained extents."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import transforms as T
from pyro.infer.autoguide import (
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalizingFlow,
    init_to_value,
)
from pyro.infer.autoguide.guides import AutoGuide
from torch import Tensor

from bayesinv.extents.families import Extents
from bayesinv.numerics.mixture import Mixture

GuideFactory = Callable[[Callable[..., Any]], Any]

GUIDES = ("full_rank", "mean_field", "flow")

# Standard deviation of q in the unconstrained space, where the default prior is N(0, 1): narrow enough that the
# first gradients speak about one place, wide enough to feel the slope.
INITIAL_SCALE = 0.1


class _Pathwise(dist.MultivariateNormal):
    """A normal whose log density treats its parameters as constants.

    The score term of the ELBO gradient has mean zero; without it the gradient's variance vanishes as q
    approaches the posterior (Roeder, Wu & Duvenaud, 2017, arXiv:1703.09194), which is what a covariance
    learned from one draw a step needs.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        frozen = dist.MultivariateNormal(self.loc.detach(), scale_tril=self.scale_tril.detach())
        return frozen.log_prob(value)


class FullRankNormal(AutoMultivariateNormal):
    """q(z) = N(m, L Lᵀ) over the unconstrained extents, with low-variance gradients."""

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.MultivariateNormal:
        """The normal at the current parameters."""
        normal = super().get_posterior(*args, **kwargs)
        return _Pathwise(normal.loc, scale_tril=normal.scale_tril)


def check_guide(guide: Any) -> None:
    """Refuse what is no guide, before anything is computed.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a callable.
    """
    if isinstance(guide, str) and guide not in GUIDES:
        raise ValueError(f"guide: expected one of {list(GUIDES)} or a callable, got {guide!r}")
    if not isinstance(guide, str) and not callable(guide):
        raise TypeError(f"guide: expected one of {list(GUIDES)} or a callable, got {type(guide).__name__}")


def make_guide(guide: str | GuideFactory, model: Callable[..., Any], start: Mapping[str, Tensor]) -> tuple[Any, str]:
    """A guide for the model, and its name.

    Args:
        guide: "full_rank", "mean_field", "flow" (starts as a full-rank normal), or a callable that takes the
            Pyro model and returns a guide, such as ``pyro.infer.autoguide.AutoLowRankMultivariateNormal``.
        model: the Pyro model.
        start: starting extents by site name.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a callable.
    """
    init = init_to_value(values=dict(start))
    check_guide(guide)
    if isinstance(guide, str):
        if guide == "mean_field":
            return AutoNormal(model, init_loc_fn=init, init_scale=INITIAL_SCALE), guide
        return FullRankNormal(model, init_loc_fn=init, init_scale=INITIAL_SCALE), guide
    return guide(model), getattr(guide, "__name__", type(guide).__name__)


def normal_of(guide: Any, extents: Extents) -> Mixture | None:
    """q(z) of a built-in normal guide, coordinates in the order of ``extents.active``; None for any other guide.

    Args:
        guide: over the sites of ``extents``.
        extents: the prior that the guide was made for.
    """
    sites = {site: [where] if isinstance(where, int) else where for site, where in extents.sites.items()}
    if type(guide) is FullRankNormal:
        normal = guide.get_posterior()
        mean, scale = normal.loc.detach(), normal.scale_tril.detach()
        order = list(guide._unconstrained_shapes)
    elif type(guide) is AutoNormal:
        order = list(sites)
        parts = [guide._get_loc_and_scale(site) for site in order]
        mean = torch.cat([loc.detach().reshape(-1) for loc, _ in parts])
        scale = torch.diag(torch.cat([sd.detach().reshape(-1) for _, sd in parts]))
    else:
        return None
    # Sites of groups hold several columns, which lie apart in η.
    columns = [k for site in order if site in sites for k in sites[site]]
    rows = [columns.index(k) for k in sorted(columns)]
    covariance = (scale @ scale.T).to("cpu", torch.float64)[rows][:, rows]
    one = torch.ones(1, dtype=torch.float64)
    mean = mean.to("cpu", torch.float64)[rows]
    return Mixture(one, mean[None], torch.linalg.cholesky(covariance)[None], math.inf)


def _start_at_identity(part: Any) -> None:
    """Equal bins with slope one for a spline; no shift and no log-scale for an autoregressive layer."""
    with torch.no_grad():
        if isinstance(part, T.Spline):
            part.unnormalized_widths.zero_()
            part.unnormalized_heights.zero_()
            # Pyro's slopes are softplus(·) + 1e-3
            part.unnormalized_derivatives.fill_(math.log(math.expm1(1.0 - 1e-3)))
        else:
            part.arn.layers[-1].weight.zero_()
            part.arn.layers[-1].bias.zero_()


class _DoubleFlow(AutoNormalizingFlow):
    """A flow whose base is in float64, like the extents."""

    def get_base_dist(self) -> Any:
        """u ~ N(0, I)."""
        return dist.Normal(torch.zeros(self.latent_dim, dtype=torch.float64), 1.0).to_event(1)


def flow_around(normal: AutoMultivariateNormal, model: Callable[..., Any]) -> AutoGuide:
    """A normalising flow whose last layer is the fitted normal, so that it starts from that posterior.

    z = m + L F(u), u ~ N(0, I), F two inverse autoregressive layers (one spline for a single symmetry);
    Kingma et al., 2016, arXiv:1606.04934.
    """
    fitted = normal.get_posterior()
    # Cached, so that log q(z) of a fresh draw never inverts the autoregressive layers: slow, and float32 in Pyro.
    affine = T.LowerCholeskyAffine(fitted.loc.detach(), fitted.scale_tril.detach(), cache_size=1)

    def layers(dimension: int) -> Any:
        if dimension == 1:
            parts: list[Any] = [T.Spline(1, count_bins=8, bound=4.0)]
        else:
            parts = [T.affine_autoregressive(dimension, hidden_dims=[8 * dimension]) for _ in range(2)]
        for part in parts:
            part.double()
            _start_at_identity(part)
        return T.ComposeTransformModule([*parts, affine])

    return _DoubleFlow(model, layers)
