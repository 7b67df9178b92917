"""Data sets: scikit-learn's bundled digits, MNIST where it is on disk, `.npz` files, image folders.

Nothing is downloaded. Large data sets are looked for under the folder that the environment variable
``BAYESINV_DATA`` names (`data_root`).
"""

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bayesinv.data import Data
from bayesinv.errors import DataError
from bayesinv.transforms import Affine2d

__all__ = ["Examples", "Split", "data_root", "digits", "load_image_folder", "load_npz", "mnist"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Split(NamedTuple):
    """A training set and a test set that share no example."""

    train: Data
    test: Data


class Examples(NamedTuple):
    """What a file or folder holds: inputs (n, *event), targets or None, class names or (), file names or ()."""

    x: np.ndarray
    y: np.ndarray | None
    classes: tuple[str, ...]
    files: tuple[str, ...] = ()


def data_root() -> Path:
    """The folder with data sets that are not bundled: the value of ``BAYESINV_DATA``.

    Raises:
        DataError: the variable is not set, or names no folder.

    Example:
        >>> from bayesinv.datasets import mnist
        >>> train, test = mnist(num_train=1000)  # doctest: +SKIP
    """
    value = os.environ.get("BAYESINV_DATA", "")
    if not value:
        raise DataError(
            "BAYESINV_DATA is not set; expected the folder that holds the data sets, for example "
            "BAYESINV_DATA=data with data/MNIST/raw/ inside"
        )
    root = Path(value).expanduser()
    if not root.is_dir():
        raise DataError(f"BAYESINV_DATA names {value!r}, which is not a folder")
    return root


def digits(rotation: float | None = None, size: int = 16, num_train: int = 500, seed: int = 0) -> Split:
    """scikit-learn's 1,797 handwritten digits, each turned by an angle of its own.

        angle_i ~ U[−rotation, rotation],  in training and test images alike

    The 8×8 pictures are scaled to [0, 1], enlarged to ``size`` (bilinear) and then turned.

    Args:
        rotation: half-width of the angles in radians, 0..π; None leaves the digits upright.
        size: side in pixels, at least 8.
        num_train: training examples; the rest of the 1,797 is the test set.
        seed: of the split and the angles. The global generators are neither used nor changed.

    Returns:
        The split; x is (n, 1, size, size), float32, and there are 10 classes.

    Raises:
        ValueError: an argument out of its range.

    Reference:
        E. Alpaydin, C. Kaynak (1998). Optical recognition of handwritten digits. UCI repository.

    Example:
        >>> from bayesinv.datasets import digits
        >>> train, test = digits(rotation=0.785, num_train=300)
        >>> train.x.shape, len(test)
        (torch.Size([300, 1, 16, 16]), 1497)
    """
    from sklearn.datasets import load_digits  # takes a second to import: only where it is needed

    if size < 8:
        raise ValueError(f"size is {size}; expected at least 8, the side of the original pictures")
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16  # grey levels are 0..16
    x = torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    y = torch.from_numpy(labels).to(torch.int64)
    if not 1 <= num_train < len(x):
        raise ValueError(f"num_train is {num_train}; expected 1..{len(x) - 1}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    x, y = _turned(x[order], rotation, generator), y[order]
    return Split(
        Data(x[:num_train], y[:num_train], num_classes=10),
        Data(x[num_train:], y[num_train:], num_classes=10),
    )


def mnist(
    root: str | Path | None = None,
    num_train: int = 1000,
    num_test: int = 1000,
    rotation: float | None = None,
    seed: int = 0,
) -> Split:
    """A random part of MNIST, read from disk, each picture turned by an angle of its own.

    Args:
        root: folder with MNIST/raw/ inside; None takes `data_root()`.
        num_train: examples out of the 60,000 training pictures.
        num_test: examples out of the 10,000 test pictures.
        rotation: half-width of the angles in radians, 0..π; None leaves the digits upright.
        seed: of the choice of examples and the angles.

    Returns:
        The split; x is (n, 1, 28, 28), float32 in [0, 1], and there are 10 classes.

    Raises:
        DataError: MNIST is not there.
        ValueError: an argument out of its range.

    Reference:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998). Gradient-based learning applied to
        document recognition. Proceedings of the IEEE 86.

    Example:
        >>> from bayesinv.datasets import mnist
        >>> train, test = mnist(num_train=1000)  # doctest: +SKIP
    """
    from torchvision.datasets import MNIST  # heavy, and only needed here

    folder = data_root() if root is None else Path(root)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for train, num in ((True, num_train), (False, num_test)):
        try:
            source = MNIST(str(folder), train=train, download=False)
        except RuntimeError as error:
            raise DataError(
                f"MNIST is not in {folder}; expected the four unpacked IDX files in "
                f"{folder / 'MNIST' / 'raw'}. Nothing is downloaded."
            ) from error
        if not 1 <= num <= len(source.data):
            which = "num_train" if train else "num_test"
            raise ValueError(f"{which} is {num}; expected 1..{len(source.data)}")
        index = torch.randperm(len(source.data), generator=generator)[:num]
        x = source.data[index].unsqueeze(1).float() / 255
        y = source.targets[index].to(torch.int64)
        parts.append(Data(_turned(x, rotation, generator), y, num_classes=10))
    return Split(*parts)


def _turned(
    x: Float[Tensor, "batch channels height width"],
    rotation: float | None,
    generator: torch.Generator,
) -> Float[Tensor, "batch channels height width"]:
    """Each image turned by its own angle in U[−rotation, rotation] (radians)."""
    if rotation is None:
        return x
    if not 0 <= rotation <= math.pi:
        raise ValueError(f"rotation is {rotation}; expected radians in 0..π (45° is {math.radians(45):.4f})")
    angles = rotation * (2 * torch.rand(len(x), 1, generator=generator) - 1)
    return Affine2d(["rotation"]).transform(x, angles)


def load_npz(path: str | Path, x_key: str = "x", y_key: str = "y") -> Examples:
    """Read inputs and targets from a NumPy `.npz` file. Nothing in the file is executed.

    Args:
        path: the file.
        x_key: name of the inputs, (n, *event).
        y_key: name of the targets, (n,) or (n, outputs); may be missing. An array ``classes`` is
            read as the names of the classes.

    Returns:
        The arrays as they are stored. `bayesinv.as_data` checks them.

    Raises:
        DataError: no such file, not an `.npz` file, damaged, or without inputs.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> from bayesinv.datasets import load_npz
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "images.npz"
        ...     np.savez(path, x=np.zeros((5, 1, 8, 8)), y=np.arange(5))
        ...     load_npz(path).x.shape
        (5, 1, 8, 8)
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected a .npz file with {x_key} and {y_key}")
    try:
        # Opened here, since np.load leaves its own handle open when a file turns out to be damaged.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            named = (
                {}
                if isinstance(archive, np.ndarray)
                else {key: archive[key] for key in (x_key, y_key, "classes") if key in archive.files}
            )
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        reason = "it holds Python objects" if "pickle" in str(error) else str(error)
        raise DataError(
            f"{path} cannot be read as .npz ({reason}); expected a file of plain arrays written by numpy.savez"
        ) from error
    if isinstance(archive, np.ndarray):
        raise DataError(f"{path} holds a single array; expected .npz: numpy.savez(path, x=x, y=y)")
    if x_key not in named:
        raise DataError(
            f"{path} has no array {x_key!r}; it holds {', '.join(archive.files) or 'nothing'}. "
            "Name the inputs x and the targets y, or say what they are called."
        )
    for key, value in named.items():
        if not isinstance(value, np.ndarray):  # np.load hands out other members as bytes
            raise DataError(f"{path} cannot be read as .npz ({key!r} is not an array)")
    names = named.get("classes", np.array([])).tolist()
    return Examples(named[x_key], named.get(y_key), tuple(str(name) for name in names))


def load_image_folder(path: str | Path, size: int | None = None, channels: int | None = None) -> Examples:
    """Read pictures from a folder, one sub-folder a class.

    Pictures without classes lie directly in it.

        folder/cat/1.png, folder/cat/2.png, folder/dog/1.png, ...

    Args:
        path: the folder.
        size: side in pixels: the shorter side is resized to it and the middle is cut out, so that
            angles stay what they are. None expects pictures of one size.
        channels: 1 (grey), 3 (RGB), or None: grey where every picture is.

    Returns:
        x (n, channels, height, width), float32 in [0, 1]; y the labels, in the order of the sorted
        class names, or None; the class names; the files, relative to the folder.

    Raises:
        DataError: no such folder, no pictures, a picture that cannot be read, or sizes that differ.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from bayesinv.datasets import load_image_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         (pathlib.Path(folder) / name).mkdir()
        ...         Image.new("L", (8, 8)).save(pathlib.Path(folder) / name / "1.png")
        ...     examples = load_image_folder(folder)
        >>> examples.x.shape, examples.y.tolist(), examples.classes
        ((2, 1, 8, 8), [0, 1], ('cat', 'dog'))
    """
    folder = Path(path)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels is {channels}; expected 1 (grey), 3 (RGB) or None")
    files, labels, classes = _pictures(folder)
    arrays = [_read_picture(file, size) for file in files]
    if channels is None:
        channels = 3 if any(array.ndim == 3 for array in arrays) else 1
    first = arrays[0].shape[:2]
    for file, array in zip(files, arrays, strict=True):
        if array.shape[:2] != first:
            raise DataError(
                f"{file} is {array.shape[1]}×{array.shape[0]} pixels and {files[0]} "
                f"{first[1]}×{first[0]}; expected one size. Give a size to resize to."
            )
    x = np.stack([_with_channels(array, channels) for array in arrays])
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return Examples(x, np.asarray(labels, dtype=np.int64) if classes else None, classes, names)


def _pictures(folder: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """The files in sorted order, the label of each, and the class names."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; expected pictures, one sub-folder a class")
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    files: list[Path] = []
    labels: list[int] = []
    for label, parent in enumerate(subfolders or [folder]):
        found = sorted(p for p in parent.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError(f"{parent} holds no pictures; expected files that end in {', '.join(IMAGE_SUFFIXES)}")
        files += found
        labels += [label] * len(found)
    return files, labels, tuple(p.name for p in subfolders)


def _read_picture(file: Path, size: int | None) -> np.ndarray:
    """One picture in [0, 1]: (height, width) if it is grey, else (height, width, 3)."""
    try:
        with Image.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise DataError(f"{file} holds {frames} frames; expected one picture a file. Write the frames apart")
            if image.mode.startswith("I") or image.mode == "F":
                # Conversion to 8 bits would clip these, so their range has to be known first.
                if not image.mode.startswith("I;16"):
                    raise DataError(f"{file} has pixel type {image.mode}; expected 8 or 16 bits")
                picture = Image.fromarray(np.asarray(image, dtype=np.float32) / 65535)
            else:
                grey = image.mode in ("1", "L", "LA")
                picture = image.convert("L" if grey else "RGB")
            if size is not None:
                picture = _resized(picture, size)
            pixels = np.asarray(picture, dtype=np.float32)
            return pixels if picture.mode == "F" else pixels / 255
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{file} cannot be read as a picture: {error}") from error


def _resized(picture: Image.Image, size: int) -> Image.Image:
    """The shorter side to `size`, then the middle square."""
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel")
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _with_channels(
    array: Float[np.ndarray, "height width *rgb"], channels: int
) -> Float[np.ndarray, "channels height width"]:
    """Channels first, as many as asked for; grey from RGB by the ITU-R 601 luma, as Pillow does."""
    if array.ndim == 2:
        return np.repeat(array[None], channels, axis=0)
    if channels == 3:
        return np.moveaxis(array, -1, 0)
    return (array @ np.array([0.299, 0.587, 0.114], dtype=array.dtype))[None]
