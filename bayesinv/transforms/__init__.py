"""Transforms T_t: families of maps of one example, with named coordinates and units. torch only, no
Pyro.

A transform of your own is a subclass of `Transform` with `coordinates` and `transform`, decorated
with `register` if a saved posterior is to rebuild it; `bayesinv.testing.transforms` tests it.
"""

from bayesinv.transforms.affine2d import Affine2d
from bayesinv.transforms.base import (
    Coordinate,
    Transform,
    from_config,
    known_transforms,
    register,
)
from bayesinv.transforms.compose import Compose, as_transform
from bayesinv.transforms.discrete import CyclicRotation, Dihedral, FiniteGroup, Flip, Permutation

__all__ = [
    "Affine2d",
    "Compose",
    "Coordinate",
    "CyclicRotation",
    "Dihedral",
    "FiniteGroup",
    "Flip",
    "Permutation",
    "Transform",
    "as_transform",
    "from_config",
    "known_transforms",
    "register",
]
