"""Two characters, turned: the experiment whose answer is known.

    a ~ U[−45°, 45°],    inverted ~ Bernoulli(½),    x = picture turned by a + 180° · inverted

The label says which character, and which way up. Turning an image by up to 45° more never carries it past the middle
between the two ways up, and turning by more does.
"""

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bayesinv.data.arrays import as_tensor
from bayesinv.data.container import Data
from bayesinv.datasets.moves import moved
from bayesinv.datasets.pictures import open_picture, pixels
from bayesinv.datasets.split import Split
from bayesinv.errors import DataError

__all__ = ["default_pictures", "mario_iggy"]

SIZE = 32
FILE = Path("mario-iggy") / "images.npz"
NUM_LABELS = 4  # 2 · character + inverted


def mario_iggy(
    pictures: Sequence[Any] | Tensor | np.ndarray | None = None,
    num_train: int = 10_000,
    num_test: int = 5_000,
    seed: int = 0,
    angle: float = math.radians(45),
) -> Split:
    """Two pictures, each turned by U[−angle, angle], half of them upside down; four labels.

    label = 2 · character + inverted, as many of each as the number of images allows.

    Args:
        pictures: the two characters, upright: arrays or tensors (3, 32, 32) or (32, 32, 3) in [0, 1], or paths of
            image files, which are resized. None reads ``mario-iggy/images.npz`` in the folder that ``BAYESINV_DATA``
            names (arrays mario and iggy) if it is there, and otherwise takes `default_pictures()`. What comes in from
            outside when a picture turns is black, so a dark background suits.
        num_train: training images.
        num_test: test images, at other angles.
        seed: of the angles and the order.
        angle: half-width of the angles in radians, 0..π.

    Returns:
        The split; x is (n, 3, 32, 32), float32 in [0, 1].

    Raises:
        DataError: pictures that cannot be read, or not two of that size.
        ValueError: a number or the angle is out of its range.

    Reference:
        G. Benton, M. Finzi, P. Izmailov, A. G. Wilson (2020). Learning invariances in neural networks.
        arXiv:2010.11882.

    Example:
        >>> from bayesinv.datasets import default_pictures, mario_iggy
        >>> train, test = mario_iggy(default_pictures(), num_train=40, num_test=20)
        >>> train.x.shape, train.y.bincount().tolist()
        (torch.Size([40, 3, 32, 32]), [10, 10, 10, 10])
    """
    for name, num in (("num_train", num_train), ("num_test", num_test)):
        if not num >= 1:
            raise ValueError(f"{name} is {num}; expected at least 1")
    characters = _bundled_or_stored() if pictures is None else _given(pictures)  # (2, 3, 32, 32)
    generator = torch.Generator().manual_seed(seed)
    return Split(*(_turned(characters, num, angle, generator) for num in (num_train, num_test)))


def default_pictures() -> Float[Tensor, "2 3 32 32"]:
    """Two of scikit-learn's bundled digits as characters: an orange four and a blue seven, on black.

    Neither looks like itself, or like the other, upside down.

    Returns:
        (2, 3, 32, 32), float32 in [0, 1].

    Example:
        >>> from bayesinv.datasets import default_pictures
        >>> default_pictures().shape
        torch.Size([2, 3, 32, 32])
    """
    from sklearn.datasets import load_digits  # takes a second to import: only where it is needed

    digits = load_digits()
    colours = torch.tensor([[1.0, 0.55, 0.1], [0.3, 0.6, 1.0]])
    pictures = []
    for digit, colour in zip((4, 7), colours, strict=True):
        picture = digits.images[np.flatnonzero(digits.target == digit)[0]]  # (8, 8), grey levels 0..16
        grey = torch.from_numpy(picture).float()[None, None] / 16
        # 22 of 32 pixels: the corners of the drawing stay inside the image at any angle (22 √2 = 31.1).
        grey = torch.nn.functional.interpolate(grey, size=22, mode="bicubic", align_corners=False).clamp(0, 1)
        grey = torch.nn.functional.pad(grey, (5, 5, 5, 5))[0]  # (1, 32, 32)
        pictures.append(colour[:, None, None] * grey)
    return torch.stack(pictures)


def _turned(
    characters: Float[Tensor, "2 channels height width"], num: int, angle: float, generator: torch.Generator
) -> Data:
    """`num` turned copies, labels as even as can be, in random order."""
    labels = torch.arange(num)[torch.randperm(num, generator=generator)] % NUM_LABELS
    x = characters[labels // 2]
    inverted = labels % 2 == 1
    # Half a turn of a square image moves pixels onto pixels: nothing is interpolated.
    x = torch.where(inverted[:, None, None, None], x.flip(2, 3), x)
    return Data(moved(x, angle, None, None, generator), labels, num_classes=NUM_LABELS)


def _bundled_or_stored() -> Float[Tensor, "2 3 32 32"]:
    path = Path(os.environ.get("BAYESINV_DATA", "")).expanduser() / FILE
    if not os.environ.get("BAYESINV_DATA") or not path.is_file():
        return default_pictures()
    try:
        # Opened here, since np.load leaves its own handle open when a file turns out to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return _given([archive["mario"].squeeze(0), archive["iggy"].squeeze(0)])
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected arrays mario and iggy, (1, 3, 32, 32)") from error


def _given(pictures: Sequence[Any] | Tensor | np.ndarray) -> Float[Tensor, "2 3 32 32"]:
    if len(pictures) != 2:
        raise DataError(f"pictures holds {len(pictures)} pictures; expected two")
    return torch.stack([_picture(each, position) for position, each in enumerate(pictures)])


def _picture(picture: Any, position: int) -> Float[Tensor, "3 32 32"]:
    if isinstance(picture, str | os.PathLike):
        values = pixels(open_picture(picture).image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        return as_tensor(values, "picture").reshape(SIZE, SIZE, -1).expand(-1, -1, 3).permute(2, 0, 1)
    x = as_tensor(picture, f"pictures[{position}]")
    if tuple(x.shape) == (SIZE, SIZE, 3):
        x = x.permute(2, 0, 1)
    if tuple(x.shape) != (3, SIZE, SIZE):
        raise DataError(
            f"pictures[{position}] has shape {tuple(x.shape)}; expected (3, {SIZE}, {SIZE}) or ({SIZE}, {SIZE}, 3)"
        )
    if not x.is_floating_point():
        raise DataError(f"pictures[{position}] has type {x.dtype}; expected floating point in [0, 1]: divide by 255")
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise DataError(f"pictures[{position}] reaches from {low:g} to {high:g}; expected values in [0, 1]")
    return x.float()
