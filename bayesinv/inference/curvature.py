"""Second derivatives of a log density at a mode, over about a standard deviation."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.inference.many_points import ManyPoints

# Of the difference quotients of the gradient, in standard deviations of the posterior, within these limits in θ.
# Interpolated images leave kinks, which shorter steps take for curvature: at half of these the widths swung by 4.
STEP, SHORTEST, LONGEST = 1.0, 0.02, 0.6
# A step of more than so many standard deviations, or one that finds no curvature, has left the mode.
LEFT_MODE, SHORTER_STEPS = 4.0, 2
LEAST_CURVATURE = 0.1  # nats per squared unit of θ: a posterior is not three times as wide as its prior


def curvature_at(
    many: ManyPoints, at: Tensor, gradient: Tensor, widths: np.ndarray, d: int, both: bool = False
) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]:
    """Minus the second derivatives by differences of the gradient, made positive, and the slopes that belong to them.

    A step that leaves the mode, as the curvature that it finds gives away, is taken again and shorter.

    Args:
        many: the log density.
        at: θ.
        gradient: there.
        widths: about one standard deviation of each coordinate.
        d: how many coordinates count.
        both: steps to both sides in place of those towards the inside, and the mean of both slopes in place of the
            gradient, which at a kink is that of one side alone.
    """
    inside = np.where(at[:d].numpy() > 0, -1.0, 1.0)
    steps = np.clip(STEP * widths, SHORTEST, LONGEST)
    H = torch.zeros(d, d, dtype=torch.float64)
    slopes = gradient[:d].clone()
    doubtful = list(range(d))
    for _ in range(1 + SHORTER_STEPS):
        points = []
        for k in doubtful:
            for side in (1.0, -1.0) if both else (1.0,):
                point = at.clone()
                point[k] += side * inside[k] * steps[k]
                points.append(point)
        there = many.gradients(points)
        opposite = there[1::2] if both else [gradient] * len(doubtful)
        shorter = []
        for k, found, other in zip(doubtful, there[::2] if both else there, opposite, strict=True):
            if found is None or other is None:
                H[k], H[k, k] = 0.0, 1.0 / max(widths[k], SHORTEST) ** 2
                continue
            row = (other[:d] - found[:d]) / (inside[k] * (2.0 * steps[k] if both else steps[k]))
            if both:
                slopes[k] = 0.5 * (found[k] + other[k])
            own = float(row[k])
            if own >= LEAST_CURVATURE or not H[k].any():  # where every step finds none, the longest has the last word
                H[k] = row
            sd = own**-0.5 if own >= LEAST_CURVATURE else 0.0
            if sd < steps[k] / LEFT_MODE and steps[k] > SHORTEST:
                steps[k] = max(sd, steps[k] / LEFT_MODE, SHORTEST)
                shorter.append(k)
        doubtful = shorter
        if not doubtful:
            break
    values, vectors = torch.linalg.eigh(0.5 * (H + H.T))
    return (vectors * values.clamp_min(LEAST_CURVATURE)) @ vectors.T, slopes


def decrement_of(precision: Float[Tensor, "d d"], *slopes: Float[Tensor, " d"]) -> float:
    """How far a Newton step would go; by the least of several: kinks leave a gradient, and skewness mean slopes."""
    return math.sqrt(max(min(float(g @ torch.linalg.solve(precision, g)) for g in slopes), 0.0))


def of_more_data(precision: Float[Tensor, "d d"], ratio: float) -> Float[Tensor, "d d"]:
    """The curvature with so many times the data: what exceeds a standard normal prior's grows, and the prior does not.

    Example:
        >>> of_more_data(torch.diag(torch.tensor([1.0, 11.0], dtype=torch.float64)), 3.0).diagonal().tolist()
        [1.0, 31.0]
    """
    eye = torch.eye(len(precision), dtype=precision.dtype)
    values, vectors = torch.linalg.eigh(precision - eye)
    return precision + (ratio - 1.0) * (vectors * values.clamp_min(0.0)) @ vectors.T
