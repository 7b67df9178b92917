"""Affine warps of images, with coordinates in the Lie algebra and one warp for the whole
composition.

Conventions. Coordinates of the plane are *isotropic*: the origin is the middle of the image, x
points right, y points down, and the unit is half the image's **width** along both axes, so that a
rotation is rigid on an image that is not square. T_t moves the content: what was at p is at A(t) p
afterwards, so the image is read at A(t)⁻¹ p.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.numerics.arguments import meant
from bayesinv.transforms.base import Coordinate, Transform, register, wrong_kind
from bayesinv.transforms.exponential import exponential
from bayesinv.transforms.warp import (
    INTERPOLATIONS,
    PADDINGS,
    warp,
    warp_orbit,
    warp_orbit_per_example,
)

__all__ = ["AFFINE_COORDINATES", "Affine2d", "MatrixProduct", "MatrixWarp"]


def _factor_to_percent(value: Any) -> Any:
    return 100.0 * (torch.expm1(value) if isinstance(value, Tensor) else np.expm1(value))


def _percent_to_factor(value: Any) -> Any:
    return torch.log1p(value / 100.0) if isinstance(value, Tensor) else np.log1p(np.asarray(value) / 100.0)[()]


AFFINE_COORDINATES: dict[str, Coordinate] = {
    coordinate.name: coordinate
    for coordinate in (
        Coordinate.linear("translate_x", "% of width", 1.0, 50.0, "Moves the content to the right."),
        Coordinate.linear("translate_y", "% of width", 1.0, 50.0, "Moves the content down."),
        Coordinate.linear(
            "rotation",
            "°",
            math.pi,
            180.0 / math.pi,
            "Turns the content counter-clockwise, as seen.",
        ),
        Coordinate(
            "scale_x",
            "%",
            math.log(2.0),
            _factor_to_percent,
            _percent_to_factor,
            "Widens the content, by a log factor.",
        ),
        Coordinate(
            "scale_y",
            "%",
            math.log(2.0),
            _factor_to_percent,
            _percent_to_factor,
            "Heightens the content, by a log factor.",
        ),
        Coordinate.linear(
            "shear",
            "%",
            1.0,
            100.0,
            "Moves the rows above the middle to the right, in proportion to their height.",
        ),
    )
}
"""The six coordinates by name. Translations are fractions of half the width, so 1 is 50 % of the
width.
"""

# dA/dt_k at t = 0, acting on (x, y, 1) with y down: (1, 0) turned counter-clockwise as seen starts
# upwards, to (1, -t).
_GENERATORS: dict[str, list[list[float]]] = {
    "translate_x": [[0, 0, 1], [0, 0, 0], [0, 0, 0]],
    "translate_y": [[0, 0, 0], [0, 0, 1], [0, 0, 0]],
    "rotation": [[0, 1, 0], [-1, 0, 0], [0, 0, 0]],
    "scale_x": [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
    "scale_y": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "shear": [[0, -1, 0], [0, 0, 0], [0, 0, 0]],
}


class MatrixWarp(Transform):
    """What affine and projective transforms share: T_t reads the image at A(t)⁻¹ p."""

    padding: str
    interpolation: str
    projective: bool = False
    """Whether A(t) has a third row other than (0, 0, 1)."""

    @abstractmethod
    def matrix(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        """A(t), acting on columns (x, y, 1) of isotropic coordinates."""

    @abstractmethod
    def pullback(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        """A(t)⁻¹."""

    def transform(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        return warp(x, self.pullback(t), self.padding, self.interpolation, self.projective)

    def orbit(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t)
        return warp_orbit(x, self.pullback(t), self.padding, self.interpolation, self.projective)

    def orbit_per_example(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "*orbit batch K"]
    ) -> Float[Tensor, "*orbit batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        return warp_orbit_per_example(x, self.pullback(t), self.padding, self.interpolation, self.projective)

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if isinstance(x, Tensor) and x.ndim != 4:
            flat = "flattened images get their axes back with x.reshape(len(x), channels, height, width)"
            raise wrong_kind(
                self,
                "images, batch x channel x height x width",
                x,
                cure=flat if x.ndim == 2 and x.shape[1] >= 64 else "",
            )
        if isinstance(x, Tensor) and x.shape[3] in (1, 3, 4) and x.shape[1] > 4:
            raise DataError(
                f"{type(self).__name__} expects batch x channel x height x width, and shape {tuple(x.shape)} looks "
                "like batch x height x width x channel; use x.permute(0, 3, 1, 2)"
            )

    def samples_like(self, other: "MatrixWarp") -> bool:
        """Whether the two pad and interpolate alike, so that their matrices can be multiplied and
        sampled once.
        """
        return (self.padding, self.interpolation) == (other.padding, other.interpolation)


@register
class Affine2d(MatrixWarp):
    """Affine warps of images through one matrix exponential.

        A(t) = exp(Σ_k t_k G_k),    (T_t x)(p) = x(A(t)⁻¹ p) = x(exp(−Σ_k t_k G_k) p)

    | coordinate | internal unit | a positive value | people read | largest |
    |---|---|---|---|---|
    | translate_x, translate_y | half the width | moves the content right, down | % of width | 1 |
    | rotation | radians | turns it counter-clockwise, as seen | ° | π |
    | scale_x, scale_y | log factor | enlarges it | % | log 2 |
    | shear | tangent of the angle | moves the upper rows right | % | 1 |

    One coordinate at a time these are torchvision's ``functional.rotate`` and ``functional.affine``
    (translate, scale and the first shear angle). Together they differ from a product in a fixed
    order by the commutators of the generators, and in return −t is the inverse of t. The pixel grid
    is that of ``align_corners=False``.

    Args:
        names: which coordinates, in which order; the default is all six.
        padding: what lies outside the image: ``"zeros"``, ``"border"`` or ``"reflection"``.
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Raises:
        ValueError: for an unknown or repeated name, an empty list, or an unknown padding or
            interpolation.
        DataError: when called on something else than floating point images, batch × channel ×
            height × width.

    Reference:
        G. Benton, M. Finzi, P. Izmailov, A. G. Wilson (2020). Learning invariances in neural
        networks. arXiv:2010.11882 (the Lie-algebra coordinates).

    Example:
        >>> import torch
        >>> right = torch.zeros(1, 1, 3, 3)
        >>> right[..., 1, 2] = 1.0  # a dot right of the middle
        >>> turned = Affine2d(["rotation"])(right, torch.tensor([[torch.pi / 2]]))
        >>> turned[0, 0].round().abs().tolist()  # a quarter turn counter-clockwise brings it to the top
        [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    invertible = True

    def __init__(
        self,
        names: Sequence[str] | None = None,
        padding: str = "zeros",
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__()
        if isinstance(names, str):
            names = (names,)
        names = tuple(AFFINE_COORDINATES) if names is None else tuple(names)
        known = ", ".join(AFFINE_COORDINATES)
        if not names:
            raise ValueError(f"Affine2d needs at least one coordinate out of {known}, and an empty list came")
        for name in names:
            if name not in AFFINE_COORDINATES:
                raise ValueError(
                    f"unknown affine coordinate {name!r}; known are {known}{meant([name], AFFINE_COORDINATES)}"
                )
        if len(set(names)) < len(names):
            raise ValueError(f"the coordinates of Affine2d have to be distinct, and {', '.join(names)} came")
        if padding not in PADDINGS:
            raise ValueError(f"unknown padding {padding!r}; known are {', '.join(PADDINGS)}")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"unknown interpolation {interpolation!r}; known are {', '.join(INTERPOLATIONS)}")
        self._coordinates = tuple(AFFINE_COORDINATES[name] for name in names)
        self.padding = padding
        self.interpolation = interpolation
        self.generators: Tensor
        generators = torch.tensor([_GENERATORS[name] for name in names], dtype=torch.float64)  # (K, 3, 3)
        self.register_buffer("generators", generators, persistent=False)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def matrix(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        """A(t) = exp(Σ_k t_k G_k), acting on columns (x, y, 1) of isotropic coordinates.

        Args:
            t: coordinates in internal units, (*orbit, K).

        Returns:
            (*orbit, 3, 3), in the dtype of ``t``.

        Example:
            >>> import torch
            >>> Affine2d(["translate_x"]).matrix(torch.tensor([0.5]))[0].tolist()
            [1.0, 0.0, 0.5]
        """
        self.check_coordinates(t)
        return exponential(self.generators, t)

    def pullback(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        return self.matrix(-t)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t, because A(−t) A(t) = 1."""
        self.check_coordinates(t)
        return -t

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        """The extents at which nothing inside the inscribed circle moves by more than half a pixel.

        The circle has a radius of m/2 pixels, m the shorter side. Half a pixel is 1/width in units
        of half the width; a turn or a shear by t moves its rim by at most t·m/2, a scaling by
        (exp(t) − 1)·m/2.
        """
        height, width = event_shape[-2:]
        shorter = min(height, width)
        values = {
            "translate_x": 1.0 / width,
            "translate_y": 1.0 / width,
            "rotation": 1.0 / shorter,
            "scale_x": math.log1p(1.0 / shorter),
            "scale_y": math.log1p(1.0 / shorter),
            "shear": 1.0 / shorter,
        }
        return torch.tensor([values[name] for name in self.names], dtype=torch.float64)

    def config(self) -> dict[str, Any]:
        return {
            "type": "Affine2d",
            "names": list(self.names),
            "padding": self.padding,
            "interpolation": self.interpolation,
        }

    def extra_repr(self) -> str:
        return f"{list(self.names)}, padding={self.padding!r}, interpolation={self.interpolation!r}"


class MatrixProduct(MatrixWarp):
    """Affine and projective transforms in order, A(t) = A_m(t^(m)) ⋯ A_1(t^(1)), sampled once;
    `Compose` builds it from neighbours.
    """

    def __init__(self, members: Sequence[MatrixWarp]) -> None:
        super().__init__()
        # A tuple is not registered: Compose owns the members.
        self.members = tuple(members)
        self.padding, self.interpolation = members[0].padding, members[0].interpolation
        self.projective = any(member.projective for member in members)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return tuple(coordinate for member in self.members for coordinate in member.coordinates)

    def matrix(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        factors = [member.matrix(part) for member, part in zip(self.members, self._split(t), strict=True)]
        return reduce(torch.matmul, reversed(factors))

    def pullback(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        factors = [member.pullback(part) for member, part in zip(self.members, self._split(t), strict=True)]
        return reduce(torch.matmul, factors)

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        return torch.cat([member.negligible(event_shape) for member in self.members])

    def _split(self, t: Tensor) -> tuple[Tensor, ...]:
        return t.split([member.num_coordinates for member in self.members], dim=-1)
