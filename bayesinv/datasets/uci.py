"""Small regression tables of the UCI repository, where they are on disk."""

from pathlib import Path

import numpy as np
import torch

from bayesinv.data.container import Data
from bayesinv.datasets.split import Split, data_root
from bayesinv.errors import DataError

__all__ = ["UCI_COLUMNS", "uci"]

UCI_COLUMNS: dict[str, tuple[str, ...]] = {
    "yacht": (
        "buoyancy_position",
        "prismatic_coefficient",
        "length_displacement",
        "beam_draught",
        "length_beam",
        "froude",
    ),
    "energy": (
        "compactness",
        "surface_area",
        "wall_area",
        "roof_area",
        "height",
        "orientation",
        "glazing_area",
        "glazing_distribution",
    ),
    "concrete": (
        "cement",
        "slag",
        "fly_ash",
        "water",
        "superplasticizer",
        "coarse_aggregate",
        "fine_aggregate",
        "age",
    ),
}
"""The inputs of each table, in order. Targets: residuary resistance per weight, heating load, and strength in MPa."""

NUM_SPLITS = 10


def uci(name: str, split: int = 0, root: str | Path | None = None) -> Split:
    """One of the ten splits of a table, inputs standardised by their training rows.

    Args:
        name: "yacht" (308 rows), "energy" (768) or "concrete" (1,030).
        split: 0..9; each row is a test row of one of them.
        root: folder with uci/<name>/ inside; None takes `data_root()`.

    Returns:
        The split; x is (n, columns), float32, of mean 0 and standard deviation 1 over the training rows; y is (n, 1),
        float64, in the table's own unit. The names of the columns are ``UCI_COLUMNS[name]``.

    Raises:
        DataError: the table is not there, or not of this format.
        ValueError: an unknown name or split.

    Reference:
        M. Kelly, R. Longjohn, K. Nottingham. The UCI machine learning repository. https://archive.ics.uci.edu

    Example:
        >>> from bayesinv.datasets import uci
        >>> train, test = uci("yacht", split=3)  # doctest: +SKIP
    """
    if name not in UCI_COLUMNS:
        raise ValueError(f"name: expected one of {', '.join(UCI_COLUMNS)}, got {name!r}")
    if not 0 <= split < NUM_SPLITS:
        raise ValueError(f"split is {split}; expected 0..{NUM_SPLITS - 1}")
    folder = (data_root() if root is None else Path(root)) / "uci" / name
    table = _read(folder / "data.csv.gz")
    mask = _read(folder / "test_mask.csv.gz")
    columns = len(UCI_COLUMNS[name])
    if table.shape[1] != columns + 1 or mask.shape != (len(table), NUM_SPLITS):
        raise DataError(
            f"{folder}: the table is {table.shape} and the mask {mask.shape}; expected {columns} inputs and a target, "
            f"and a mask of {NUM_SPLITS} columns with as many rows"
        )
    is_test = torch.from_numpy(mask[:, split] > 0.5)
    x, y = torch.from_numpy(table[:, :-1]), torch.from_numpy(table[:, -1:])
    mean, sd = x[~is_test].mean(0), x[~is_test].std(0)
    x = ((x - mean) / torch.where(sd > 0, sd, 1.0)).float()  # a constant column stays constant
    return Split(Data(x[~is_test], y[~is_test]), Data(x[is_test], y[is_test]))


def _read(file: Path) -> np.ndarray:
    """Numbers separated by commas, compressed."""
    if not file.is_file():
        raise DataError(f"there is no file {file}; expected data.csv.gz and test_mask.csv.gz. Nothing is downloaded.")
    try:
        return np.loadtxt(file, delimiter=",", ndmin=2)
    except (ValueError, OSError) as error:
        raise DataError(f"{file} is not a table of numbers: {error}") from error
