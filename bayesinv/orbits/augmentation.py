"""p(t | η): how coordinates are drawn within an extent, as functions of base draws.

    t = Q(ε; η),    ε ~ U[-1, 1]

With ε held fixed t is a differentiable function of η. Every Q is odd in ε, but for "one_sided", and every spread has
the variance of the uniform one where that makes sense, so that extents mean the same under each. The ends of a range
that is not centred are not drawn: t = η, and `bayesinv.transforms.Asymmetric` draws between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms import Coordinate
from bayesinv.transforms.base import LOWER_END, PART, UPPER_END

__all__ = ["DISTRIBUTIONS", "checked_distribution", "draw"]

# ε of exactly ±1, which a Sobol set holds, has no normal quantile; 2⁻²⁴ from it, t is 5.4 standard deviations out.
_LARGEST_LEVEL = 1.0 - 2.0**-24
# Below this extent the von Mises distribution is normal to a relative error of η²/20 = 1e-5 in its quantiles.
_SMALL_ANGLE = 0.015
# Below this extent, and from this share of a ball's volume on, angles are those of a flat ball: η |ε|^(1/3).
_SMALLEST_BALL, _SMALLEST_LEVEL = 1e-12, 1e-15
_NEWTON_STEPS = 12  # quadratic convergence from a start within 40 % of the root
_BISECTIONS = 60  # halvings of the bracket: to rounding
_NODES = 48  # of the Gauss-Legendre rule; doubling them changes quantiles by less than 1e-12


def draw(
    distribution: str, eps: Float[Tensor, "*draws"], eta: Float[Tensor, "*extents"]
) -> Float[Tensor, "*coordinates"]:
    """t = Q(ε; η), in the dtype of ``eta``; draws and extents broadcast.

    Args:
        distribution: one of `DISTRIBUTIONS`.
        eps: base draws in [-1, 1].
        eta: extents, internal units.

    Raises:
        ValueError: an unknown distribution.

    Example:
        >>> draw("one_sided", torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(2.0))
        tensor([0., 1., 2.])
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"unknown augmentation distribution {distribution!r}; known are {', '.join(DISTRIBUTIONS)}")
    return DISTRIBUTIONS[distribution](eps.to(eta), eta)


def checked_distribution(distribution: str, coordinate: Coordinate) -> str:
    """The distribution, if the coordinate can have it.

    Raises:
        ValueError: an unknown one; any for a finite group or an end of a range; one with negative draws for an amount;
            one for angles for what is not an angle.
    """
    name = coordinate.name
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"augmentation[{name!r}]: expected one of {list(DISTRIBUTIONS)}, got {distribution!r}")
    if coordinate.is_discrete and distribution != "uniform":
        raise ValueError(
            f"augmentation[{name!r}]: a finite group is averaged over exactly, its elements but the identity equally "
            f"likely; leave {distribution!r} out"
        )
    parts = {LOWER_END: "one end of a range", UPPER_END: "one end of a range", PART: "part of a half-width"}
    own = coordinate.distribution
    if own in parts and distribution != own:
        raise ValueError(
            f"augmentation[{name!r}]: {name} is {parts[own]}, within which amounts are uniform; leave "
            f"{distribution!r} out"
        )
    if distribution in parts and own not in parts:
        raise ValueError(
            f"augmentation[{name!r}]: {name} has one extent; for more wrap its transform: "
            "bayesinv.transforms.Asymmetric(...) or PerInput.near(...)"
        )
    if coordinate.distribution == "one_sided" and distribution != "one_sided":
        raise ValueError(
            f"augmentation[{name!r}]: {name} is an amount without a sign, drawn from 0 to its extent; leave "
            f"{distribution!r} out, which would draw negative ones"
        )
    if distribution in ("von_mises", "haar") and not math.isclose(coordinate.largest, math.pi):
        raise ValueError(
            f"augmentation[{name!r}]: {distribution} is for angles, whose largest extent is π; that of {name} is "
            f"{coordinate.largest:g}"
        )
    return distribution


def _uniform(eps: Tensor, eta: Tensor) -> Tensor:
    """U[-η, η]."""
    return eta * eps


def _one_sided(eps: Tensor, eta: Tensor) -> Tensor:
    """U[0, η]."""
    return eta * (0.5 * (eps + 1.0))


def _end(eps: Tensor, eta: Tensor) -> Tensor:
    """η itself, for every draw."""
    return eta.expand(torch.broadcast_shapes(eps.shape, eta.shape))


def _gaussian(eps: Tensor, eta: Tensor) -> Tensor:
    """N(0, η²/3), of the variance of U[-η, η]; η stays a scale, and t passes it."""
    level = eps.clamp(-_LARGEST_LEVEL, _LARGEST_LEVEL)
    return eta * (math.sqrt(2.0 / 3.0) * torch.erfinv(level))


def _von_mises(eps: Tensor, eta: Tensor) -> Tensor:
    """Von Mises with the mean resultant length of U[-η, η], sin(η)/η; uniform on the circle at η = π.

    Quantiles are found by bisection without gradients; one Newton step then carries the gradient in η
    (implicit function theorem).
    """
    normal = _gaussian(eps, eta)
    safe = eta.clamp_min(_SMALL_ANGLE).to(torch.float64)
    kappa = _concentration(safe)
    level = eps.abs().clamp_max(_LARGEST_LEVEL).to(torch.float64)
    with torch.no_grad():
        reach = (12.0 * kappa.clamp_min(1e-12).rsqrt()).clamp_max(math.pi)  # all but 1e-31 of the mass lies within
        total = _mass(reach, kappa)
        low, high = torch.zeros_like(level * kappa), reach.expand_as(level * kappa)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            below = _mass(middle, kappa) < level * total
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        angle = 0.5 * (low + high)
    density = torch.exp(-2.0 * kappa * torch.sin(0.5 * angle).square()).detach()
    residual = _mass(angle, kappa) - level * _mass(reach, kappa)
    angle = angle - residual / density
    return torch.where(eta < _SMALL_ANGLE, normal, (eps.sign().to(torch.float64) * angle).to(eta))


def _haar(eps: Tensor, eta: Tensor) -> Tensor:
    """Angles of rotations uniform on the ball of angle η in SO(3), whose density is that of the Haar measure.

    The distribution function of |t| is V(t)/V(η), V(t) = t - sin t; the sign is that of ε. Newton steps without
    gradients find t, and one more carries the gradient in η (implicit function theorem).
    """
    level = eps.abs().to(torch.float64).clamp_min(_SMALLEST_LEVEL)
    safe = eta.clamp_min(_SMALLEST_BALL).to(torch.float64)
    target = level * _ball(safe)
    with torch.no_grad():
        # V is convex up to π and V(t) ≤ t³/6, so this start is below, and from the second step on t falls to the root.
        angle = (6.0 * target).pow(1.0 / 3.0)
        for _ in range(_NEWTON_STEPS):
            angle = angle - (_ball(angle) - target) / (2.0 * (0.5 * angle).sin().square())
    angle = angle - (_ball(angle) - target) / (2.0 * (0.5 * angle).sin().square())
    flat = eta * level.pow(1.0 / 3.0).to(eta)  # where a ball has no curvature
    return eps.sign().to(eta) * torch.where(eta < _SMALLEST_BALL, flat, angle.to(eta))


def _ball(angle: Tensor) -> Tensor:
    """V(t) = t - sin t, by its series where the difference would cancel."""
    square = angle.square()
    series = 1.0 - square / 20.0 * (1.0 - square / 42.0 * (1.0 - square / 72.0 * (1.0 - square / 110.0)))
    return torch.where(angle < 0.3, angle.pow(3) / 6.0 * series, angle - angle.sin())


def _mass(angle: Tensor, kappa: Tensor) -> Tensor:
    """∫_0^angle exp(κ (cos u - 1)) du by Gauss and Legendre; differentiable in κ."""
    nodes, weights = _LEGENDRE
    u = angle[..., None] * nodes.to(angle)
    return angle * (torch.exp(-2.0 * kappa[..., None] * torch.sin(0.5 * u).square()) @ weights.to(angle))


def _concentration(eta: Tensor) -> Tensor:
    """κ with I₁(κ)/I₀(κ) = sin(η)/η, differentiable in η."""
    length = torch.sinc(eta / math.pi)
    with torch.no_grad():
        # 1 - A(κ) is at least 1/(2κ) - and 1 - sin(η)/η at least η²/9 up to π - so κ is at most 9/(2η²) and a bit.
        low, high = torch.zeros_like(eta), 8.0 / eta.square()
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            below = torch.special.i1e(middle) / torch.special.i0e(middle) < length
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        kappa = 0.5 * (low + high)
        ratio = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        slope = torch.where(kappa > 1e-6, 1.0 - ratio / kappa.clamp_min(1e-6) - ratio.square(), 0.5)
    return (kappa - (ratio - length) / slope).clamp_min(0.0)


def _legendre() -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return torch.as_tensor(0.5 * (nodes + 1.0)), torch.as_tensor(0.5 * weights)


_LEGENDRE = _legendre()

DISTRIBUTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "uniform": _uniform,
    "one_sided": _one_sided,
    "gaussian": _gaussian,
    "von_mises": _von_mises,
    "haar": _haar,
    PART: _end,
    LOWER_END: _end,
    UPPER_END: _end,
}
"""All by name."""
