"""Affine warps of image volumes with voxels that are no cubes: translations in millimetres, rotations about three axes.

Conventions. The axes of a volume are (channel, depth, height, width); z runs along the depth, y along the height and x
along the width, each towards higher indices, and the origin is the middle of the volume. Lengths are in the unit of
``spacing``, so that a rotation is rigid whatever the voxels are. T_t moves the content: what was at p is at M(t) p
afterwards, and the volume is read at M(t)⁻¹ p.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from bayesinv.errors import DataError
from bayesinv.transforms.base import Coordinate, Transform, register, wrong_kind
from bayesinv.transforms.exponential import exponential
from bayesinv.transforms.points.coordinates import COORDINATES_3D, generators, select
from bayesinv.transforms.warp import PADDINGS, pixel_centres

__all__ = ["AffineVolume", "warp_volumes"]

LARGEST_SHIFT = 20.0
"""mm; a quarter of a head of 80 mm to either side of its middle, and beyond most of what registration leaves."""
_AXES = "xyz"


@register
class AffineVolume(Transform):
    """Affine maps of image volumes through one matrix exponential, in millimetres and degrees.

        M(t) = exp(Σ_k t_k G_k),    (T_t v)(p) = v(M(t)⁻¹ p) = v(exp(−Σ_k t_k G_k) p),    p = (x, y, z) in mm

    | coordinate | internal unit | a positive value | people read | largest |
    |---|---|---|---|---|
    | translate_x, _y, _z | mm | moves the content to higher indices of width, height, depth | mm | ``largest_shift`` |
    | rotation_x, _y, _z | radians | about x turns y towards z, about y z towards x, about z x towards y | ° | π |
    | scale_x, _y, _z | log factor | stretches along the axis | % | log 2 |
    | shear_xy, shear_xz, shear_yz | ratio | moves along the first axis in proportion to the second | % | 1 |

    The generators are those of `Affine3d`, and −t is the inverse of t. x to y is right to down in a slice, so that a
    positive ``rotation_z`` is clockwise as seen, other than in `Affine2d`. Values between voxels are trilinear.

    Args:
        names: which coordinates, in which order; the default is the three translations, rotations and scales.
        spacing: (dz, dy, dx), the distance of neighbouring voxels along depth, height and width, in mm (or in any unit
            that the translations are to have): three numbers, an array or a tensor. SimpleITK and nibabel give
            (dx, dy, dz), the reverse.
        padding: what lies outside the volume: ``"zeros"``, ``"border"`` or ``"reflection"``.
        largest_shift: the largest extent of translations, in mm.

    Raises:
        ValueError: an unknown or repeated name, an empty list, a spacing that is not three positive numbers, an unknown
            padding, or a largest shift that is not positive.
        DataError: when called on something else than batch × channel × depth × height × width floating point numbers.

    Example:
        >>> import torch
        >>> scan = torch.zeros(1, 1, 3, 4, 4)
        >>> scan[0, 0, 1, 1, 1] = 1.0
        >>> slices = AffineVolume(["translate_z"], spacing=(5.0, 1.0, 1.0))  # slices are 5 mm apart
        >>> slices(scan, torch.tensor([[5.0]]))[0, 0, :, 1, 1].round().tolist()  # one slice further
        [0.0, 0.0, 1.0]
    """

    invertible = True

    def __init__(
        self,
        names: Sequence[str] | None = None,
        spacing: Iterable[Any] = (1.0, 1.0, 1.0),
        padding: str = "zeros",
        largest_shift: float = LARGEST_SHIFT,
    ) -> None:
        super().__init__()
        usual = tuple(name for name in COORDINATES_3D if not name.startswith("shear"))
        chosen = usual if names is None else select(names, tuple(COORDINATES_3D), "AffineVolume")
        if padding not in PADDINGS:
            raise ValueError(f"unknown padding {padding!r}; known are {', '.join(PADDINGS)}")
        if not _is_positive(largest_shift):
            raise ValueError(f"largest_shift: expected a positive number of mm, got {largest_shift!r}")
        self.spacing = _distances(spacing)
        self.padding, self.largest_shift = padding, float(largest_shift)
        self._coordinates = tuple(self._in_millimetres(COORDINATES_3D[name]) for name in chosen)
        self.generators: Tensor
        self.register_buffer("generators", generators(chosen), persistent=False)  # (K, 4, 4)

    def _in_millimetres(self, c: Coordinate) -> Coordinate:
        if not c.name.startswith("translate"):
            return replace(c, meaning=c.meaning.replace("points", "content"))
        axis = c.name[-1]
        where = {"x": "along the width", "y": "along the height", "z": "along the depth"}[axis]
        return replace(c, unit="mm", largest=self.largest_shift, meaning=f"Moves the content {where}.")

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def matrix(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 4 4"]:
        """M(t), acting on columns (x, y, z, 1) in mm.

        Raises:
            ValueError: another number of coordinates.
        """
        self.check_coordinates(t)
        return exponential(self.generators, t)

    def transform(
        self, x: Float[Tensor, "batch channel depth height width"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channel depth height width"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        return warp_volumes(x, self.matrix(-t), self.spacing, self.padding)

    def orbit(
        self, x: Float[Tensor, "batch channel depth height width"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit batch channel depth height width"]:
        self.check_input(x)
        self.check_coordinates(t)
        matrices = self.matrix(-t).reshape(-1, 4, 4)
        # All volumes as channels of one sampling: the weights are worked out once per draw.
        flat = x.flatten(0, 1)[None].expand(len(matrices), -1, -1, -1, -1)
        return warp_volumes(flat, matrices, self.spacing, self.padding).reshape(*t.shape[:-1], *x.shape)

    def moved_masks(
        self, masks: Shaped[Tensor, "draws many depth height width"], t: Float[Tensor, "draws K"]
    ) -> Shaped[Tensor, "draws many depth height width"]:
        """Labels of voxels, of any type, read at the nearest voxel; outside the volume as ``padding`` says.

        Args:
            masks: (draws, many, depth, height, width).
            t: internal units, (draws, K).
        """
        # grid_sample takes floating point; float64 holds whole numbers up to 2⁵³.
        moved = warp_volumes(masks.double(), self.matrix(-t.double()), self.spacing, self.padding, "nearest")
        return moved.to(masks.dtype)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t, because M(−t) M(t) = 1."""
        self.check_coordinates(t)
        return -t

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        """The extents at which no axis moves by more than half a voxel anywhere; at most half the largest ones.

        Along axis a voxels are d_a apart and the half side is N_a d_a / 2. A shift by d_a/2 is half a voxel; a scale
        moves the end by (exp(t) − 1) N_a d_a / 2, a shear of a by b by t N_b d_b / 2, and a turn in the plane of a and
        b moves the end of either axis by t times its half side.
        """
        d = dict(zip(_AXES, reversed(self.spacing), strict=True))
        side = {a: size * d[a] for a, size in zip(_AXES, reversed(event_shape[-3:]), strict=True)}
        values = []
        for c in self.coordinates:
            kind, axes = c.name.split("_")
            if kind == "translate":
                value = 0.5 * d[axes]
            elif kind == "scale":
                value = math.log1p(d[axes] / side[axes])
            elif kind == "shear":
                value = d[axes[0]] / side[axes[1]]
            else:
                a, b = (axis for axis in _AXES if axis != axes)
                value = min(d[a] / side[b], d[b] / side[a])
            values.append(min(value, 0.5 * c.largest))
        return torch.tensor(values, dtype=torch.float64)

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if isinstance(x, Tensor) and x.ndim != 5:
            cure = "volumes without a channel get one with x[:, None]" if x.ndim == 4 else ""
            raise wrong_kind(self, "volumes, batch x channel x depth x height x width", x, cure)
        if isinstance(x, Tensor) and x.shape[4] in (1, 3, 4) and x.shape[1] > 4:
            raise DataError(
                f"{type(self).__name__} expects batch x channel x depth x height x width, and shape {tuple(x.shape)} "
                "looks as if channels came last; use x.movedim(-1, 1)"
            )

    def config(self) -> dict[str, Any]:
        return {
            **super().config(),
            "names": list(self.names),
            "spacing": list(self.spacing),
            "padding": self.padding,
            "largest_shift": self.largest_shift,
        }

    def extra_repr(self) -> str:
        return f"{list(self.names)}, spacing={self.spacing}, padding={self.padding!r}"


def warp_volumes(
    x: Float[Tensor, "draws channel depth height width"],
    pullback: Float[Tensor, "draws 4 4"],
    spacing: tuple[float, ...],
    padding: str,
    interpolation: str = "bilinear",
) -> Float[Tensor, "draws channel depth height width"]:
    """Read volume i at M_i⁻¹ p.

    Args:
        x: floating point.
        pullback: M⁻¹, acting on columns (x, y, z, 1) in mm.
        spacing: (dz, dy, dx).
        padding: what lies outside; see `AffineVolume`.
        interpolation: ``"bilinear"``, which is trilinear here, or ``"nearest"``.
    """
    depth, height, width = x.shape[-3:]
    sides = (width, height, depth)
    half = [0.5 * size * d for size, d in zip(sides, reversed(spacing), strict=True)]
    # From units of half a side, those of grid_sample, to mm and back.
    unit = torch.tensor([*half, 1.0], dtype=pullback.dtype, device=pullback.device)
    theta = (pullback * unit / unit[:, None])[:, :3].to(x.dtype)  # (draws, 3, 4)
    along = [pixel_centres(size, theta) for size in sides]
    z, y, across = torch.meshgrid(along[2], along[1], along[0], indexing="ij")
    voxels = torch.stack([across, y, z, torch.ones_like(z)]).reshape(4, -1)
    grid = (theta @ voxels).reshape(-1, 3, depth, height, width).permute(0, 2, 3, 4, 1)
    return functional.grid_sample(x, grid, mode=interpolation, padding_mode=padding, align_corners=False)


def _distances(spacing: Any) -> tuple[float, ...]:
    """(dz, dy, dx) as Python's numbers."""
    given = spacing.tolist() if hasattr(spacing, "tolist") else spacing
    found = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
    found = [d.item() if isinstance(d, Tensor) and d.ndim == 0 else d for d in found]
    if len(found) != 3 or not all(_is_positive(d) for d in found):
        raise ValueError(
            "spacing: expected three positive numbers (dz, dy, dx), in the order of depth, height and width, which is "
            f"the reverse of what SimpleITK and nibabel give; got {spacing!r}"
        )
    return tuple(float(d) for d in found)


def _is_positive(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0.0 < float(value) < math.inf
