"""CIFAR-10, whole or a subset, where it is on disk."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from bayesinv.data.container import Data
from bayesinv.datasets.moves import moved
from bayesinv.datasets.split import Split, choose, data_root
from bayesinv.errors import DataError

__all__ = ["cifar10"]

SUBSET = Path("cifar10") / "cifar10_10k2k.npz"


def cifar10(
    num_train: int = 10_000,
    num_test: int = 2_000,
    seed: int = 0,
    rotation: float | None = None,
    translation: float | None = None,
    log_scale: float | None = None,
    standardise: bool = False,
    root: str | Path | None = None,
) -> Split:
    """A random part of CIFAR-10, read from disk, each picture moved by amounts of its own.

    Two layouts are known: torchvision's (``cifar-10-batches-py/`` in the folder), and one file
    ``cifar10/cifar10_10k2k.npz`` with x_train, y_train, x_test and y_test, the pictures as
    (n, 32, 32, 3) bytes.

    Args:
        num_train: examples out of the training pictures.
        num_test: examples out of the test pictures.
        seed: of the choice of examples and of the amounts.
        rotation: half-width of the angles in radians, 0..π; None turns nothing.
        translation: half-width of the shifts along each axis, as a fraction of half the width (±8 pixels are 8/16).
        log_scale: half-width of the log of the factor of enlargement, the same along both axes.
        standardise: subtract the mean of each channel over the training pictures and divide by its standard
            deviation, before anything moves: what comes in from outside, zero, is then the mean colour.
        root: the folder; None takes `data_root()`.

    Returns:
        The split; x is (n, 3, 32, 32), float32, in [0, 1] unless standardised, and there are 10 classes.

    Raises:
        DataError: CIFAR-10 is not there, or not in one of these layouts.
        ValueError: an argument out of its range.

    Reference:
        A. Krizhevsky (2009). Learning multiple layers of features from tiny images. University of Toronto.

    Example:
        >>> from bayesinv.datasets import cifar10
        >>> train, test = cifar10(num_train=1000, standardise=True)  # doctest: +SKIP
    """
    folder = data_root() if root is None else Path(root)
    generator = torch.Generator().manual_seed(seed)
    images, labels = [], []
    wanted = {"num_train": num_train, "num_test": num_test}
    for (name, num), (pixels, classes) in zip(wanted.items(), _read(folder), strict=True):
        index = choose(num, len(pixels), name, generator)
        images.append(torch.from_numpy(pixels)[index].permute(0, 3, 1, 2).float() / 255)
        labels.append(torch.from_numpy(np.asarray(classes, dtype=np.int64))[index])
    if standardise:
        mean = images[0].mean((0, 2, 3), keepdim=True)  # (1, channels, 1, 1)
        deviation = images[0].std((0, 2, 3), keepdim=True)
        images = [(x - mean) / deviation for x in images]
    return Split(
        *(
            Data(moved(x, rotation, translation, log_scale, generator), y, num_classes=10)
            for x, y in zip(images, labels, strict=True)
        )
    )


def _read(folder: Path) -> list[tuple[UInt8[np.ndarray, "n height width channels"], np.ndarray]]:
    """Pictures and labels of the training and of the test part."""
    for parent in (folder, folder / "cifar10"):
        if (parent / "cifar-10-batches-py").is_dir():
            return _read_torchvision(parent)
    path = folder / SUBSET
    if not path.is_file():
        raise DataError(
            f"CIFAR-10 is not in {folder}; expected {SUBSET} (x_train, y_train, x_test, y_test) or torchvision's "
            "cifar-10-batches-py there. Nothing is downloaded."
        )
    try:
        # Opened here, since np.load leaves its own handle open when a file turns out to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        parts = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected x_train, y_train, x_test and y_test") from error
    for x, y in parts:
        if x.dtype != np.uint8 or x.shape[1:] != (32, 32, 3) or y.shape != (len(x),):
            raise DataError(
                f"{path} holds pictures of shape {x.shape} and type {x.dtype} with labels of shape {y.shape}; expected "
                "bytes (n, 32, 32, 3) and (n,)"
            )
    return parts


def _read_torchvision(folder: Path) -> list[tuple[UInt8[np.ndarray, "n height width channels"], np.ndarray]]:
    from torchvision.datasets import CIFAR10  # heavy, and only needed here

    try:
        sources = [CIFAR10(str(folder), train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise DataError(
            f"CIFAR-10 in {folder / 'cifar-10-batches-py'} is incomplete or damaged ({error}); expected the six "
            "official batches. Nothing is downloaded."
        ) from error
    return [(source.data, np.asarray(source.targets)) for source in sources]
