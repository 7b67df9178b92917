"""From a path on the command line to arrays that `bayesinv.as_data` checks."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesinv.cli.words import LAYOUTS
from bayesinv.datasets import Examples, load_image_folder, load_npz
from bayesinv.datasets.files import IMAGE_SUFFIXES
from bayesinv.errors import DataError

_KINDS: dict[Any, tuple[type, ...]] = {str: (str,), float: (int, float), int | None: (int, type(None))}


@dataclass(frozen=True)
class Reading:
    """How to read images: kept with a fit, so that new ones are read in the same way.

    Args:
        x_key, y_key: names of the arrays in an .npz file.
        layout: order of the axes in it: n examples, c channels, h height, w width.
        divide_by: the largest grey level, where images are stored as integers; 1 leaves them.
        size: side in pixels to bring pictures of a folder to, or None.
        channels: 1 (grey), 3 (RGB), or None, for pictures of a folder.
    """

    x_key: str = "x"
    y_key: str = "y"
    layout: str = "nchw"
    divide_by: float = 1.0
    size: int | None = None
    channels: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Any) -> "Reading":
        """What `to_json` made.

        Raises:
            ValueError: it holds something else.
        """
        known = {name: field.type for name, field in cls.__dataclass_fields__.items()}
        if not isinstance(stored, Mapping):
            raise ValueError(f"reading: expected how the data were read, got {stored!r}")
        for name, value in stored.items():
            if name not in known:
                raise ValueError(f"reading: expected {', '.join(known)}, got {name!r}")
            if type(value) not in _KINDS[known[name]]:
                kinds = " or ".join(kind.__name__ for kind in _KINDS[known[name]])
                raise ValueError(f"reading: expected {kinds} for {name}, got {value!r}")
        return cls(**stored)

    def updated(self, changes: Mapping[str, Any]) -> "Reading":
        """The same with what is not None in `changes` put in."""
        given = {key: value for key, value in changes.items() if value is not None}
        return Reading(**{**asdict(self), **given})


def read_examples(path: Path, reading: Reading) -> Examples:
    """Read an .npz file or a folder of pictures.

    Returns:
        x (n, channels, height, width) for images; y and class names where there are some.

    Raises:
        DataError: it cannot be read, or its axes are not those of `reading.layout`.

    Warns:
        UserWarning: the file holds groups, which the commands have no use for.
    """
    if path.is_dir():
        return load_image_folder(path, size=reading.size, channels=reading.channels)
    if not path.exists():
        raise DataError(f"there is no {path}; expected an .npz file or a folder of pictures")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(
            f"{path} is a single picture; expected a folder of pictures: to predict, the folder it lies in, and to fit "
            "one with a sub-folder for each class"
        )
    examples = load_npz(path, reading.x_key, reading.y_key)
    _warn_of_groups(path, reading)
    x = _channels_first(examples.x, reading.layout)
    if reading.divide_by != 1:
        if not (np.isfinite(reading.divide_by) and reading.divide_by > 0):
            raise DataError(f"--divide-by is {reading.divide_by}; expected a positive number")
        wide = np.float64 if x.dtype == np.float64 else np.float32
        x = (x / reading.divide_by).astype(wide)
    elif x.dtype.kind in "iu":
        raise DataError(
            f"{path} holds {x.dtype} images; expected floating point. For grey levels 0..255 say --divide-by 255"
        )
    return examples._replace(x=x)


def _channels_first(x: np.ndarray, layout: str) -> np.ndarray:
    if x.ndim != len(layout):
        fitting = [other for other in LAYOUTS if len(other) == x.ndim]
        cure = f"; perhaps --layout {' or '.join(fitting)}" if fitting else ""
        raise DataError(f"x has shape {x.shape}; expected the axes {layout} (--layout){cure}")
    if layout == "nhw":
        return x[:, None]
    if layout == "nchw" and x.shape[-1] in (1, 3) and min(x.shape[1:3]) > x.shape[-1]:
        raise DataError(
            f"x has shape {x.shape}, which would be {x.shape[1]} channels of {x.shape[2]} × {x.shape[3]} pixels; its "
            "channels seem to be last: --layout nhwc"
        )
    return np.moveaxis(x, -1, 1) if layout == "nhwc" else x


def _warn_of_groups(path: Path, reading: Reading) -> None:
    with np.load(path, allow_pickle=False) as archive:
        unread = "groups" in archive.files and "groups" not in (reading.x_key, reading.y_key)
    if unread:
        warnings.warn(
            f"{path} holds an array 'groups', which is not read: extents for groups take Python, "
            "bayesinv.InvarianceModel(..., groups=names) fitted to bayesinv.Data(x, y, groups=...)",
            UserWarning,
            stacklevel=3,
        )


def labels_in(examples: Examples, classes: tuple[str, ...]) -> np.ndarray | None:
    """The labels of `examples` by the class names of the training data.

    Raises:
        DataError: a class that the training data did not have.
    """
    if examples.y is None or not examples.classes or not classes:
        return examples.y
    unknown = sorted(set(examples.classes) - set(classes))
    if unknown:
        raise DataError(f"classes {', '.join(unknown)} were not among those of the fit: {', '.join(classes)}")
    position = np.array([classes.index(name) for name in examples.classes])
    return position[examples.y]
