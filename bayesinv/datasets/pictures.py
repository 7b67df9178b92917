"""Picture files as they are seen: turned upright, with what is transparent over black."""

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError

from bayesinv.errors import DataError

__all__ = ["SIXTEEN_BITS", "Picture", "open_picture", "pixels", "white_of"]

SIXTEEN_BITS = 65535
CURE = "mend or remove it; of a folder skip_broken=True leaves such out"


class Picture(NamedTuple):
    """A picture in memory: grey levels of 8 bits ("L") or in [0, 1] ("F"), or colours ("RGB").

    Args:
        image: upright, as the orientation in its EXIF data says.
        is_transparent: whether something in it was, which is now mixed with black.
        largest: the largest grey level in the file, where it has more than 8 bits; else None.
    """

    image: Image.Image
    is_transparent: bool
    largest: float | None = None


def open_picture(file: str | os.PathLike[str], divide_by: float | None = None) -> Picture:
    """Read a picture file.

    Args:
        file: its name.
        divide_by: the grey level that becomes 1, of pictures with more than 8 bits; None, or 1, takes 65535 for 16.

    Raises:
        DataError: no picture, damaged, of several frames, or of numbers whose scale nothing says.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "1.png"
        ...     Image.new("RGBA", (8, 6), (255, 0, 0, 0)).save(file)
        ...     picture = open_picture(file)
        >>> picture.image.size, picture.image.getpixel((0, 0)), picture.is_transparent
        ((8, 6), (0, 0, 0), True)
    """
    try:
        # By a handle: Pillow 13 maps plain TIFF files of a given name, and mixes up the rows of those to turn.
        with open(file, "rb") as stream, Image.open(stream) as opened:
            frames = getattr(opened, "n_frames", 1)
            if frames > 1 and opened.format != "MPO":  # a phone's JPEG, whose other frames are previews of the first
                raise DataError(f"{file} holds {frames} frames; expected one picture a file. Write the frames apart")
            return _as_seen(ImageOps.exif_transpose(opened), file, divide_by)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{file} is too large for a picture of training data; make it smaller: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{os.fspath(file)} cannot be read as a picture: its format is not known; {CURE}") from error
    # A damaged picture fails in as many ways as its format has fields, and for want of memory.
    except Exception as error:
        raise DataError(f"{os.fspath(file)} cannot be read as a picture: {error}; {CURE}") from error


def pixels(image: Image.Image, white: float = 255.0) -> Float[np.ndarray, "height width *rgb"]:
    """The values of a `Picture` in [0, 1], float32, those of 8 bits divided by `white`."""
    values = np.asarray(image, dtype=np.float32)
    return values if image.mode == "F" else values / white


def white_of(largest: float) -> float:
    """A guess at the level that is white where this is the largest: 1, or the largest of so many bits.

    Example:
        >>> white_of(0.7), white_of(200.0), white_of(3997.0)
        (1.0, 255.0, 4095.0)
    """
    return 1.0 if largest <= 1 else float(max(255, 2 ** math.ceil(math.log2(largest + 1)) - 1))


def _as_seen(image: Image.Image, file: str | os.PathLike[str], divide_by: float | None) -> Picture:
    if image.mode.startswith("I") or image.mode == "F":
        # Conversion to 8 bits would clip these, so their range has to be known first.
        values = np.asarray(image, dtype=np.float32)
        if divide_by in (None, 1) and image.mode.startswith("I;16"):
            divide_by = SIXTEEN_BITS
        if divide_by is None:
            kind = "32-bit floating point" if image.mode == "F" else "32-bit integers"
            raise DataError(
                f"{Path(file)} has pixel type {image.mode} ({kind}), which does not say what is white, and reaches "
                f"{values.max():.4g}; expected 8 or 16 bits, or the value that is to become 1: "
                f"divide_by={white_of(float(values.max())):.4g}"
            )
        return Picture(Image.fromarray(values / divide_by), False, float(values.max()))
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if "transparency" not in image.info and not {"A", "a"} & set(image.getbands()):
        return Picture(image.convert(mode), False)
    layer = image.convert("RGBA")
    opacity = np.asarray(layer.getchannel("A"))
    black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
    return Picture(Image.alpha_composite(black, layer).convert(mode), bool(opacity.min() < 255))
