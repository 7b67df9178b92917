"""Masks of voxels that move with a volume."""

from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.transforms import AffineVolume, Flip, Permutation, SignFlip
from bayesinv.transforms.asymmetric import without_ends
from bayesinv.transforms.base import Transform

__all__ = ["masks_of_volumes"]


def masks_of_volumes(
    acting: Sequence[tuple[Transform, Float[Tensor, "draws _"]]],
    masks: Shaped[Tensor, "draws many depth height width"],
) -> Shaped[Tensor, "draws many depth height width"]:
    """Labels of any type, read at the nearest voxel; 0 outside the volume.

    Args:
        acting: the stages of the transform that act at all, in order, and what moves each of them.
        masks: (draws, many, depth, height, width).

    Raises:
        DataError: a stage that does not say how voxels move.

    Example:
        >>> import torch
        >>> masks = torch.arange(3).reshape(1, 1, 3, 1, 1)
        >>> slices = AffineVolume(["translate_z"], spacing=(5.0, 1.0, 1.0))
        >>> masks_of_volumes([(slices, torch.tensor([[5.0]]))], masks).flatten().tolist()
        [0, 0, 1]
    """
    for stage, part in acting:
        plain, t = without_ends(stage, part)
        if isinstance(plain, AffineVolume):
            masks = plain.moved_masks(masks, t)
        elif isinstance(plain, Flip | Permutation) and plain.dim > -4:
            masks = plain.transform(masks.double(), t).to(masks.dtype)
        elif not (plain.fixes_frame or isinstance(plain, SignFlip | Flip | Permutation)):
            raise DataError(
                f"{type(plain).__name__} ({', '.join(plain.names)}) does not say how masks of voxels move; pass "
                "volumes alone, or learn without it"
            )
    return masks
