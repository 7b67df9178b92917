"""The twelve affine generators of three dimensions, in one matrix exponential."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.exponential import exponential
from bayesinv.transforms.points.base import AffinePoints
from bayesinv.transforms.points.coordinates import COORDINATES_3D, generators, select

__all__ = ["Affine3d"]


@register
class Affine3d(AffinePoints):
    """Affine maps of points through one matrix exponential.

        M(t) = exp(Σ_k t_k G_k),    T_t: (x, y, z, 1) ↦ M(t) (x, y, z, 1)

    | coordinate | internal unit | a positive value | people read | largest |
    |---|---|---|---|---|
    | translate_x, _y, _z | Å | moves along the axis | Å | 2 |
    | rotation_x, _y, _z | radians | turns about the axis, right-handed | ° | π |
    | scale_x, _y, _z | log factor | stretches along the axis | % | log 2 |
    | shear_xy, shear_xz, shear_yz | ratio | moves along the first axis in proportion to the second | % | 1 |

    The twelve span the Lie algebra of all affine maps that keep their orientation. −t is the inverse of t. With
    the three rotations alone this is `Rotation3d`, with one of each it is no product in a fixed order: the generators
    do not commute.

    Args:
        names: which coordinates, in which order; the default is all twelve.
        mask: the column that is zero in padded rows; see `bayesinv.transforms.points.base`. An example is
            (atoms, 3 + F): coordinates first, then columns that are carried along.

    Raises:
        ValueError: an unknown or repeated name, an empty list, or a mask among the coordinates.
        DataError: when called on something else than batch × atoms × (3 + F) floating point numbers.

    Reference:
        G. Benton, M. Finzi, P. Izmailov, A. G. Wilson (2020). Learning invariances in neural
        networks. arXiv:2010.11882 (Lie-algebra coordinates, there for images).

    Example:
        >>> import torch
        >>> water = torch.tensor([[[0.0, 0, 0, 8], [0.96, 0, 0, 1], [-0.24, 0.93, 0, 1], [0, 0, 0, 0]]])
        >>> moved = Affine3d(["translate_z"], mask=3)(water, torch.tensor([[0.5]]))
        >>> moved[0, :, 2].tolist()  # the padded row stays where it is
        [0.5, 0.5, 0.5, 0.0]
    """

    invertible = True

    def __init__(self, names: Sequence[str] | None = None, mask: int | None = None) -> None:
        super().__init__(mask)
        chosen = select(names, tuple(COORDINATES_3D), "Affine3d")
        self._coordinates = tuple(COORDINATES_3D[name] for name in chosen)
        self.generators: Tensor
        self.register_buffer("generators", generators(chosen), persistent=False)  # (K, 4, 4)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def matrix(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 4 4"]:
        """M(t) = exp(Σ_k t_k G_k), acting on columns (x, y, z, 1).

        Example:
            >>> import torch
            >>> Affine3d(["translate_x"]).matrix(torch.tensor([0.5]))[0].tolist()
            [1.0, 0.0, 0.0, 0.5]
        """
        self.check_coordinates(t)
        return exponential(self.generators, t)

    def affine(self, t: Float[Tensor, "*orbit K"]) -> tuple[Float[Tensor, "*orbit 3 3"], Float[Tensor, "*orbit 3"]]:
        M = self.matrix(t)
        return M[..., :3, :3], M[..., :3, 3]

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t, because M(−t) M(t) = 1."""
        self.check_coordinates(t)
        return -t

    def config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, "names": list(self.names), "mask": self.mask}

    def extra_repr(self) -> str:
        return f"{list(self.names)}, mask={self.mask}"
