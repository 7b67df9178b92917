"""Picture files as they are seen: turned upright, with what is transparent over black."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from bayesinv.errors import DataError

__all__ = ["Picture", "open_picture", "pixels"]


class Picture(NamedTuple):
    """A picture in memory: grey levels of 8 bits ("L") or in [0, 1] ("F"), or colours ("RGB").

    Args:
        image: upright, as the orientation in its EXIF data says.
        is_transparent: whether something in it was, which is now mixed with black.
    """

    image: Image.Image
    is_transparent: bool


def open_picture(file: str | os.PathLike[str]) -> Picture:
    """Read a picture file.

    Raises:
        DataError: no picture, damaged, of several frames, or of more than 16 bits.

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
            return _as_seen(ImageOps.exif_transpose(opened), file)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{file} is too large for a picture of training data; make it smaller: {error}") from error
    # A damaged picture fails in as many ways as its format has fields, and for want of memory.
    except Exception as error:
        raise DataError(f"{os.fspath(file)} cannot be read as a picture: {error}") from error


def pixels(image: Image.Image) -> Float[np.ndarray, "height width *rgb"]:
    """The values of a `Picture` in [0, 1], float32."""
    values = np.asarray(image, dtype=np.float32)
    return values if image.mode == "F" else values / 255


def _as_seen(image: Image.Image, file: str | os.PathLike[str]) -> Picture:
    if image.mode.startswith("I") or image.mode == "F":
        # Conversion to 8 bits would clip these, so their range has to be known first.
        if not image.mode.startswith("I;16"):
            raise DataError(f"{Path(file)} has pixel type {image.mode}; expected 8 or 16 bits")
        return Picture(Image.fromarray(np.asarray(image, dtype=np.float32) / 65535), False)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if "transparency" not in image.info and not {"A", "a"} & set(image.getbands()):
        return Picture(image.convert(mode), False)
    layer = image.convert("RGBA")
    opacity = np.asarray(layer.getchannel("A"))
    black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
    return Picture(Image.alpha_composite(black, layer).convert(mode), bool(opacity.min() < 255))
