"""Cell nuclei under the fluorescence microscope with a mask for each image, where they are on disk."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from bayesinv.data.container import Data
from bayesinv.datasets.split import Split, choose, data_root
from bayesinv.errors import DataError

__all__ = ["nuclei"]

FILE = Path("segmentation") / "nuclei_dsb2018_128.npz"
SIDE = 128


def nuclei(
    root: str | Path | None = None,
    num_train: int = 200,
    num_test: int = 44,
    size: int = 64,
    seed: int = 0,
) -> Split:
    """A random part of the fluorescence images of the Data Science Bowl 2018: which pixels belong to a nucleus?

    Args:
        root: folder with segmentation/nuclei_dsb2018_128.npz inside, or that file; None takes `data_root()`.
        num_train: images out of 541.
        num_test: images out of 44, the first stage's test set.
        size: pixels a side, a divisor of 128. Blocks are averaged; one belongs to a nucleus if at least half of it
            does.
        seed: of the choice of images.

    Returns:
        The split; x is (n, 1, size, size), float32, each image divided by its 99th percentile (many are dark) and cut
        off at 2; y is (n, size, size), 1 in a nucleus.

    Raises:
        DataError: the file is not there, or not of this format.
        ValueError: an argument out of its range.

    Reference:
        J. C. Caicedo et al. (2019). Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl.
        Nature Methods 16.

    Example:
        >>> from bayesinv.datasets import nuclei
        >>> train, test = nuclei(num_train=200, size=32)  # doctest: +SKIP
    """
    if size < 1 or SIDE % size:
        raise ValueError(f"size: expected a divisor of {SIDE}, got {size}")
    folder = data_root() if root is None else Path(root)
    stored = _read(folder if folder.suffix == ".npz" else folder / FILE)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for part, name, num in (("train", "num_train", num_train), ("test", "num_test", num_test)):
        images, masks = (torch.from_numpy(stored[f"{kind}_{part}"]) for kind in "xy")
        index = choose(num, len(images), name, generator)
        x, y = (avg_pool2d(values[index, None].float(), SIDE // size) for values in (images, masks))
        bright = x.flatten(1).quantile(0.99, dim=1).clamp_min(1.0)
        x = (x / bright[:, None, None, None]).clamp_max(2.0)
        parts.append(Data(x, (y[:, 0] >= 0.5).long(), num_classes=2))
    return Split(*parts)


def _read(file: Path) -> dict[str, np.ndarray]:
    """The arrays that are needed, checked."""
    if not file.is_file():
        raise DataError(f"there is no file {file}; expected {FILE}. Nothing is downloaded.")
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            arrays = {f"{kind}_{part}": archive[f"{kind}_{part}"] for kind in "xy" for part in ("train", "test")}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is not a file of images with masks: {error}") from error
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.shape[1:] != (SIDE, SIDE) or y.shape != x.shape or y.max() > 1:
            raise DataError(
                f"{file}: x_{part} is {x.dtype} {x.shape} and y_{part} {y.shape}; expected bytes (n, {SIDE}, {SIDE}) "
                "and masks of zeros and ones of the same shape"
            )
    return arrays
