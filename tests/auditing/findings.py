"""Small settings of an audit, and a finding with given numbers."""

import torch

from bayesinv.auditing.operations import candidates
from bayesinv.auditing.result import Finding

SMALL = {"num_orbit_samples": 6, "num_features": 64}


def finding(probability, permitted, name="rotation", furthest=1.0):
    operation = next(o for o in candidates("images", torch.rand(2, 3, 8, 8)) if o.name == name)
    (coordinate,) = operation.family([name]).coordinates
    needed = tuple(share * coordinate.largest for share in (0.1, 0.2, 0.3))
    permitted = (0.0, permitted * coordinate.largest, furthest * coordinate.largest)
    return Finding(operation, coordinate, probability, 0.0, 0.0, needed, permitted)
