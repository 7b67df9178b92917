"""Small settings and data of an audit, and a finding with given numbers."""

import math

import numpy as np
import torch

from bayesinv.auditing.operations import candidates
from bayesinv.auditing.result import Finding

SMALL = {"num_orbit_samples": 6, "num_features": 64}


def two_rhythms():
    """Two classes of signals by frequency, at any phase: shifts are needed, and time runs either way."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    phase = rng.uniform(0, 2 * math.pi, 60)[:, None]
    x = np.sin(2 * math.pi * (1 + y)[:, None] * np.arange(16) / 16 + phase) + 0.1 * rng.normal(size=(60, 16))
    return x[:, None].astype(np.float32), y


def finding(probability, permitted, name="rotation", furthest=1.0):
    operation = next(o for o in candidates("images", torch.rand(2, 3, 8, 8)) if o.name == name)
    (coordinate,) = operation.family([name]).coordinates
    needed = tuple(share * coordinate.largest for share in (0.1, 0.2, 0.3))
    permitted = (0.0, permitted * coordinate.largest, furthest * coordinate.largest)
    return Finding(operation, coordinate, probability, 0.0, 0.0, needed, permitted)
