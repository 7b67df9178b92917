"""What the data sets return, and where those that are not bundled lie."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bayesinv.data.container import Data
from bayesinv.errors import DataError

__all__ = ["Examples", "Split", "choose", "data_root"]


class Split(NamedTuple):
    """A training set and a test set that share no example."""

    train: Data
    test: Data


class Examples(NamedTuple):
    """What a file or folder holds: inputs (n, *event), targets or None, names of classes, files and columns, or ().

    `dtype` is how the file stores grey levels that were divided: "uint8", "uint16", ...; "" where nothing was.
    """

    x: np.ndarray
    y: np.ndarray | None
    classes: tuple[str, ...]
    files: tuple[str, ...] = ()
    dtype: str = ""
    columns: tuple[str, ...] = ()


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


def choose(num: int, available: int, name: str, generator: torch.Generator) -> torch.Tensor:
    """`num` out of `available` indices, without repetition, in random order.

    Raises:
        ValueError: not that many there; ``name`` is the argument to blame.
    """
    if not 1 <= num <= available:
        raise ValueError(f"{name} is {num}; expected 1..{available}")
    return torch.randperm(available, generator=generator)[:num]
