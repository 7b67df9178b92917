"""From a path on the command line to arrays that `bayesinv.data.as_data` checks."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesinv.cli.words import LAYOUTS
from bayesinv.datasets import Examples, load_image_folder, load_npz, load_table
from bayesinv.datasets.columns import TABLE_SUFFIXES, column_names
from bayesinv.datasets.files import IMAGE_SUFFIXES
from bayesinv.datasets.pictures import white_of
from bayesinv.errors import DataError, DataWarning

_KINDS: dict[Any, tuple[type, ...]] = {
    str: (str,),
    float | None: (int, float, type(None)),
    int | None: (int, type(None)),
    bool | None: (bool, type(None)),
    list | None: (list, type(None)),
}


# The options of the commands that say how to read.
READING_OPTIONS = (
    "x_key",
    "y_key",
    "layout",
    "divide_by",
    "size",
    "channels",
    "kind",
    "columns",
    "skip_broken",
)


@dataclass(frozen=True)
class Reading:
    """How to read data: kept with a fit, so that new ones are read in the same way.

    Args:
        x_key, y_key: names of the arrays in an .npz file; y_key is the target column of a table.
        layout: order of the axes in it: n examples, c channels, h height, w width.
        divide_by: the grey level that becomes 1, where images are stored as integers. None, or 1, leaves arrays as
            they are and takes the largest of 8 or 16 bits for pictures.
        size: side in pixels to bring pictures of a folder to, or None.
        channels: 1 (grey), 3 (RGB), or None, for pictures of a folder.
        dtype: how the training data store grey levels, "uint8" or "uint16"; "" where nothing was divided, or a divisor
            for other data was given.
        kind: of an .npz file, "images", "signals", "points" or "tables".
        columns: the inputs of a table, or None for all but the target.
        labels: whether the targets of a table are classes; None goes by what they look like.
        scales: means and standard deviations of a table's columns in the training data, or None to leave rows alone.
        skip_broken: leave out pictures that cannot be read, with a list, or None to refuse them.
    """

    x_key: str = "x"
    y_key: str = "y"
    layout: str = "nchw"
    divide_by: float | None = None
    size: int | None = None
    channels: int | None = None
    dtype: str = ""
    kind: str = "images"
    columns: list | None = None
    labels: bool | None = None
    scales: list | None = None
    skip_broken: bool | None = None

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
        if "divide_by" in given:
            given["dtype"] = ""
        return Reading(**{**asdict(self), **given})


def read_examples(path: Path, reading: Reading) -> Examples:
    """Read an .npz file, a folder of pictures or a table.

    Returns:
        x (n, channels, height, width) for images, else as stored; y and class names where there are some.

    Raises:
        DataError: it cannot be read, or its axes are not those of `reading.layout`.

    Warns:
        UserWarning: the file holds groups, which the commands have no use for. DataWarning: grey levels are stored in
            another type than those of the training data.
    """
    divide_by = reading.divide_by
    if divide_by is not None and not (np.isfinite(divide_by) and divide_by > 0):
        raise DataError(f"--divide-by is {divide_by}; expected a positive number")
    examples = _stored(path, reading)
    if divide_by not in (None, 1) and examples.dtype and reading.dtype and examples.dtype != reading.dtype:
        warnings.warn(
            f"{path} holds {examples.dtype} images and the training data were {reading.dtype}; both are divided by "
            f"{divide_by:g}. Where white is another number here, say it: --divide-by",
            DataWarning,
            stacklevel=2,
        )
    return examples


def kind_in(path: Path, reading: Reading) -> str:
    """What `read_examples` reads: "images", "signals", "points" or "tables"."""
    return "tables" if path.suffix.lower() in TABLE_SUFFIXES else "images" if path.is_dir() else reading.kind


def read_training(path: Path, reading: Reading) -> Examples:
    """`read_examples`, with targets.

    Raises:
        DataError: there are none, or as `read_examples`.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        names = column_names(path)
        if reading.y_key not in names:
            raise DataError(
                f"{path} has no column {reading.y_key!r}; name the one to predict, --target COLUMN, out of "
                f"{', '.join(names)}"
            )
    examples = read_examples(path, reading)
    if examples.y is None:
        raise DataError(f"{path} has no targets; expected an array {reading.y_key!r}, or one sub-folder a class")
    return examples


def _stored(path: Path, reading: Reading) -> Examples:
    divide_by = None if reading.divide_by == 1 else reading.divide_by
    if path.is_dir():
        skip = bool(reading.skip_broken)
        return load_image_folder(path, reading.size, reading.channels, reading.divide_by, skip_broken=skip)
    if not path.exists():
        raise DataError(f"there is no {path}; expected an .npz file, a folder of pictures or a table")
    if path.suffix.lower() in TABLE_SUFFIXES:
        return _rows(path, reading)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(
            f"{path} is a single picture; expected a folder of pictures: to predict, the folder it lies in, and to fit "
            "one with a sub-folder for each class"
        )
    examples = load_npz(path, reading.x_key, reading.y_key)
    _warn_of_groups(path, reading)
    if reading.kind != "images":
        return _scaled(examples, reading)
    x = _channels_first(examples.x, reading.layout)
    dtype = str(x.dtype) if x.dtype.kind in "iu" else ""
    if divide_by is not None:
        wide = np.float64 if x.dtype == np.float64 else np.float32
        return examples._replace(x=(x / divide_by).astype(wide), dtype=dtype)
    if dtype and x.size:
        raise DataError(
            f"{path} holds {dtype} images with values from {x.min()} to {x.max()}; expected floating point. Say which "
            f"grey level is white: --divide-by {white_of(float(x.max())):g}"
        )
    return examples._replace(x=x)


def _rows(path: Path, reading: Reading) -> Examples:
    """A table; its target column may be missing where rows are only to be predicted."""
    target = reading.y_key if reading.y_key in column_names(path) else None
    return _scaled(load_table(path, target, reading.columns, reading.labels), reading)


def _scaled(examples: Examples, reading: Reading) -> Examples:
    x = examples.x.astype(np.float32) if examples.x.dtype.kind in "iub" else examples.x
    if reading.scales is not None:
        mean, sd = (np.array(values) for values in reading.scales)
        if x.shape[-1:] != mean.shape:
            raise DataError(f"x has shape {x.shape}; expected {len(mean)} columns, as in the training data")
        x = (x - mean) / sd
    return examples._replace(x=x)


def _channels_first(x: np.ndarray, layout: str) -> np.ndarray:
    if x.ndim != len(layout):
        fitting = [other for other in LAYOUTS if len(other) == x.ndim]
        cure = f"; perhaps --layout {' or '.join(fitting)}" if fitting else ""
        cure += "; for other data than images say --kind signals, points or tables" if x.ndim in (2, 3) else ""
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
