"""Known moves of images: each picture is warped by coordinates of its own, drawn within given half-widths.

    t_i ~ U[−extent, extent],    x_i ← T_{t_i} x_i

These are the truths that fits are compared with, so they are made by the library's own `Affine2d`: content moves, and
what comes in from outside is zero.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms import Affine2d

__all__ = ["moved"]

# Images warped at a time: their sampling grids take eight bytes a pixel, which for all of MNIST would be 400 MB.
_BLOCK = 5000


def moved(
    x: Float[Tensor, "batch channels height width"],
    rotation: float | None,
    translation: float | None,
    log_scale: float | None,
    generator: torch.Generator,
) -> Float[Tensor, "batch channels height width"]:
    """Each image turned, shifted and scaled by amounts of its own, in one warp.

    Args:
        x: images.
        rotation: half-width of the angles in radians, 0..π; None draws and changes nothing, as for the other two.
        translation: half-width of the shifts along each axis, as a fraction of half the width, 0..1.
        log_scale: half-width of the log factor, one for both axes, 0..log 2.
        generator: of the amounts.

    Raises:
        ValueError: an argument out of its range.
    """
    names: list[str] = []
    amounts: list[Tensor] = []

    def draw(half_width: float, columns: int) -> Tensor:
        return half_width * (2 * torch.rand(len(x), columns, generator=generator) - 1)

    if rotation is not None:
        if not 0 <= rotation <= math.pi:
            raise ValueError(f"rotation is {rotation}; expected radians in 0..π (45° is {math.radians(45):.4f})")
        names.append("rotation")
        amounts.append(draw(rotation, 1))
    if translation is not None:
        if not 0 <= translation <= 1:
            width = x.shape[-1]
            raise ValueError(
                f"translation is {translation}; expected a fraction of half the width in 0..1 "
                f"({width // 4} of {width} pixels are {2 * (width // 4) / width:.4g})"
            )
        names += ["translate_x", "translate_y"]
        amounts.append(draw(translation, 2))
    if log_scale is not None:
        if not 0 <= log_scale <= math.log(2):
            raise ValueError(f"log_scale is {log_scale}; expected a log factor in 0..log 2 = {math.log(2):.4f}")
        names += ["scale_x", "scale_y"]
        amounts.append(draw(log_scale, 1).repeat(1, 2))
    if not names:
        return x
    transform, t = Affine2d(names), torch.cat(amounts, dim=1)
    blocks = zip(x.split(_BLOCK), t.split(_BLOCK), strict=True)
    return torch.cat([transform.transform(block, each) for block, each in blocks])
