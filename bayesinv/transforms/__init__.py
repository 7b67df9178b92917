"""Transforms T_t: families of maps of one example, with named coordinates and units. torch only, no
Pyro.

A transform of your own is a subclass of `Transform` with `coordinates` and `transform`, decorated
with `register` if a saved posterior is to rebuild it; `bayesinv.testing.transforms` tests it.
"""

from bayesinv.transforms.actions import ImageAction, OutputAction, VectorAction, VolumeAction, as_action, undo
from bayesinv.transforms.affine2d import Affine2d
from bayesinv.transforms.asymmetric import Asymmetric
from bayesinv.transforms.base import (
    Coordinate,
    Transform,
    from_config,
    known_transforms,
    register,
)
from bayesinv.transforms.blur import GaussianBlur
from bayesinv.transforms.colour import Colour
from bayesinv.transforms.compose import Compose, as_transform
from bayesinv.transforms.discrete import CyclicRotation, Dihedral, FiniteGroup, Flip, Permutation
from bayesinv.transforms.elastic import Elastic
from bayesinv.transforms.flows import ImageFlow, LinearFlow
from bayesinv.transforms.missing import CutOut, PatchDropout
from bayesinv.transforms.noise import GaussianNoise
from bayesinv.transforms.per_input import PerInput
from bayesinv.transforms.perspective import Perspective
from bayesinv.transforms.points import (
    SO3,
    Affine3d,
    Jitter3d,
    Reflection3d,
    Rotation3d,
    Scale3d,
    Translation3d,
)
from bayesinv.transforms.signals import (
    AmplitudeScale,
    BandStop,
    ChannelDropout,
    FourierSurrogate,
    FrequencyShift,
    SignFlip,
    TimeMask,
    TimeShift,
    TimeWarp,
)
from bayesinv.transforms.tables import ColumnNoise, ColumnPermutation, ColumnScale, ColumnShift
from bayesinv.transforms.volumes import AffineVolume

__all__ = [
    "SO3",
    "Affine2d",
    "Affine3d",
    "AffineVolume",
    "AmplitudeScale",
    "Asymmetric",
    "BandStop",
    "ChannelDropout",
    "Colour",
    "ColumnNoise",
    "ColumnPermutation",
    "ColumnScale",
    "ColumnShift",
    "Compose",
    "Coordinate",
    "CutOut",
    "CyclicRotation",
    "Dihedral",
    "Elastic",
    "FiniteGroup",
    "Flip",
    "FourierSurrogate",
    "FrequencyShift",
    "GaussianBlur",
    "GaussianNoise",
    "ImageAction",
    "ImageFlow",
    "Jitter3d",
    "LinearFlow",
    "OutputAction",
    "PatchDropout",
    "PerInput",
    "Permutation",
    "Perspective",
    "Reflection3d",
    "Rotation3d",
    "Scale3d",
    "SignFlip",
    "TimeMask",
    "TimeShift",
    "TimeWarp",
    "Transform",
    "Translation3d",
    "VectorAction",
    "VolumeAction",
    "as_action",
    "as_transform",
    "from_config",
    "known_transforms",
    "register",
    "undo",
]
