"""Grey images of ten classes: scikit-learn's digits, MNIST and Fashion-MNIST."""

from pathlib import Path

import torch

from bayesinv.data.container import Data
from bayesinv.datasets.moves import moved
from bayesinv.datasets.split import Split, choose, data_root
from bayesinv.errors import DataError

__all__ = ["digits", "fashion_mnist", "mnist"]


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
    x, y = moved(x[order], rotation, None, None, generator), y[order]
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
    translation: float | None = None,
    log_scale: float | None = None,
) -> Split:
    """A random part of MNIST, read from disk, each picture moved by amounts of its own.

        angle_i ~ U[−rotation, rotation],  and likewise the others, in training and test images alike

    Args:
        root: folder with MNIST/raw/ inside; None takes `data_root()`.
        num_train: examples out of the 60,000 training pictures.
        num_test: examples out of the 10,000 test pictures.
        rotation: half-width of the angles in radians, 0..π; None leaves the digits upright.
        seed: of the choice of examples and of the amounts.
        translation: half-width of the shifts along each axis, as a fraction of half the width, 0..1: ±8 of 28 pixels
            are 8/14. Content moves, and what comes in is zero.
        log_scale: half-width of the log of the factor by which a digit is enlarged, the same along both axes; log 2
            is half to double the size.

    Returns:
        The split; x is (n, 1, 28, 28), float32 in [0, 1], and there are 10 classes. Amounts given together are the
        coordinates of one `Affine2d` warp.

    Raises:
        DataError: MNIST is not there.
        ValueError: an argument out of its range.

    Reference:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998). Gradient-based learning applied to
        document recognition. Proceedings of the IEEE 86.

    Example:
        >>> from bayesinv.datasets import mnist
        >>> train, test = mnist(num_train=1000, translation=8 / 14)  # doctest: +SKIP
    """
    return _idx("MNIST", root, num_train, num_test, rotation, translation, log_scale, seed)


def fashion_mnist(
    root: str | Path | None = None,
    num_train: int = 1000,
    num_test: int = 1000,
    rotation: float | None = None,
    seed: int = 0,
    translation: float | None = None,
    log_scale: float | None = None,
) -> Split:
    """A random part of Fashion-MNIST, read from disk, each picture moved by amounts of its own.

    Args:
        root: folder with FashionMNIST/raw/ inside, the four unpacked IDX files; None takes `data_root()`.
        num_train, num_test, rotation, seed, translation, log_scale: as for `mnist`.

    Returns:
        The split; x is (n, 1, 28, 28), float32 in [0, 1], and there are 10 classes.

    Raises:
        DataError: Fashion-MNIST is not there.
        ValueError: an argument out of its range.

    Reference:
        H. Xiao, K. Rasul, R. Vollgraf (2017). Fashion-MNIST: a novel image dataset for benchmarking machine learning
        algorithms. arXiv:1708.07747.

    Example:
        >>> from bayesinv.datasets import fashion_mnist
        >>> train, test = fashion_mnist(num_train=1000, rotation=3.1416)  # doctest: +SKIP
    """
    return _idx("FashionMNIST", root, num_train, num_test, rotation, translation, log_scale, seed)


def _idx(
    name: str,
    root: str | Path | None,
    num_train: int,
    num_test: int,
    rotation: float | None,
    translation: float | None,
    log_scale: float | None,
    seed: int,
) -> Split:
    """A part of a data set in MNIST's format; `name` is torchvision's."""
    from torchvision import datasets  # heavy, and only needed here

    folder = data_root() if root is None else Path(root)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for train, num in ((True, num_train), (False, num_test)):
        try:
            source = getattr(datasets, name)(str(folder), train=train, download=False)
        except RuntimeError as error:
            raise DataError(
                f"{name} is not in {folder}; expected the four unpacked IDX files in "
                f"{folder / name / 'raw'}. Nothing is downloaded."
            ) from error
        index = choose(num, len(source.data), "num_train" if train else "num_test", generator)
        x = source.data[index].unsqueeze(1).float() / 255
        y = source.targets[index].to(torch.int64)
        parts.append(Data(moved(x, rotation, translation, log_scale, generator), y, num_classes=10))
    return Split(*parts)
