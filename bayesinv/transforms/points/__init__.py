"""Points and molecules, batch × atoms × (3 + further columns): rotations, translations, scale, reflection, jitter."""

from bayesinv.transforms.points.affine3d import Affine3d
from bayesinv.transforms.points.base import AffinePoints, PointTransform
from bayesinv.transforms.points.coordinates import COORDINATES_3D
from bayesinv.transforms.points.jitter import Jitter3d
from bayesinv.transforms.points.reflection import Reflection3d
from bayesinv.transforms.points.rotation import Rotation3d
from bayesinv.transforms.points.scale import Scale3d
from bayesinv.transforms.points.so3 import SO3
from bayesinv.transforms.points.translation import Translation3d

__all__ = [
    "COORDINATES_3D",
    "SO3",
    "Affine3d",
    "AffinePoints",
    "Jitter3d",
    "PointTransform",
    "Reflection3d",
    "Rotation3d",
    "Scale3d",
    "Translation3d",
]
