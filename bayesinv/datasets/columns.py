"""Tables from CSV and parquet files: numeric columns, and one with the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bayesinv.datasets.split import Examples
from bayesinv.errors import DataError
from bayesinv.numerics.arguments import meant

__all__ = ["TABLE_SUFFIXES", "are_labels", "load_table"]

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
MOST_LABELS = 20  # whole numbers with more values than these are measured, not classes
SHOWN = 8  # names in a message


def are_labels(y: np.ndarray) -> bool:
    """Whether targets look like classes.

    Text and truth values do, whole numbers of at most 20 values, and more where each of 0 … C - 1 comes twice and more.

    Example:
        >>> are_labels(np.array(["cat", "dog"])), are_labels(np.array([1, 2, 1])), are_labels(np.array([0.5, 1.0]))
        (True, True, False)
        >>> are_labels(np.arange(100) // 2), are_labels(18 + np.arange(100) // 2)
        (True, False)
    """
    if y.dtype.kind not in "iuf":
        return True
    if y.ndim != 1 or not bool((y == np.round(y)).all()):
        return False
    values, counts = np.unique(y, return_counts=True)
    if len(values) <= MOST_LABELS:
        return True
    return bool(values[0] == 0 and values[-1] == len(values) - 1 and counts.min() > 1)


def load_table(
    path: str | Path, target: str | None = None, columns: Sequence[str] | None = None, labels: bool | None = None
) -> Examples:
    """Read rows from a CSV (.csv, .tsv) or parquet file with a header.

    Args:
        path: the file.
        target: the column of the targets; None reads inputs alone.
        columns: those of the inputs, in this order; None takes all but the target.
        labels: whether targets are classes; None asks :func:`are_labels`.

    Returns:
        x (n, columns), float64; y, labels 0..C-1 in the order of the sorted class names, real targets, or None; the
        class names; and ``columns``, the names of the inputs.

    Raises:
        DataError: no such file or column, text among the inputs, missing values, nothing in it, or ``labels=True``
            and a target that is not whole.
        ImportError: parquet without pyarrow.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "wine.csv"
        ...     _ = path.write_text("acid,sugar,kind\\n0.1,2,red\\n0.3,1,white\\n")
        ...     rows = load_table(path, target="kind")
        >>> rows.x.shape, rows.y.tolist(), rows.classes, rows.columns
        ((2, 2), [0, 1], ('red', 'white'), ('acid', 'sugar'))
    """
    table = _read(Path(path))
    missing = [name for name in [*(columns or ()), *([] if target is None else [target])] if name not in table.columns]
    if missing:
        names = [str(name) for name in table.columns]
        raise DataError(f"{path} has no column {_some(missing)}; it has {_some(table.columns)}{meant(missing, names)}")
    names = [name for name in table.columns if name != target] if columns is None else list(columns)
    text = [name for name in names if table[name].dtype.kind not in "iufb"]
    if text:
        raise DataError(
            f"{path}: {_some(text)} hold text; expected numbers. Encode these columns as numbers, or choose others"
        )
    holes = [name for name in [*names, *([] if target is None else [target])] if table[name].isna().any()]
    if holes:
        raise DataError(f"{path}: {_some(holes)} have missing values; fill them in, or leave those rows or columns out")
    if not len(table) or not names:
        raise DataError(
            f"{path} has {len(table)} rows and {len(names)} columns of inputs; expected at least one of each"
        )
    x = table[names].to_numpy(dtype=np.float64)
    y, classes = (None, ()) if target is None else _targets(table[target].to_numpy(), target, labels)
    return Examples(x, y, classes, columns=tuple(names))


def column_names(path: str | Path) -> tuple[str, ...]:
    """The columns of a table.

    Raises:
        DataError: no such file, or none that can be read. ImportError: parquet without pyarrow.
    """
    return tuple(_read(Path(path)).columns)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected a table, {', '.join(TABLE_SUFFIXES)}")
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",")
    except ImportError as error:
        raise ImportError('reading parquet needs pyarrow: pip install "bayesinv[tables]"') from error
    except Exception as error:  # damaged files fail in many ways
        raise DataError(f"{path} cannot be read as a table ({error}); expected a header and rows") from error
    table.columns = [str(name) for name in table.columns]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise DataError(f"{path} has several columns called {_some(twice)}; give each a name of its own")
    return table


def _targets(y: np.ndarray, target: str, labels: bool | None) -> tuple[np.ndarray, tuple[str, ...]]:
    if not (are_labels(y) if labels is None else labels):
        if y.dtype.kind not in "iuf":
            raise DataError("the target column holds text; expected numbers for a regression, or classes")
        return y.astype(np.float64), ()
    odd = y[y != np.round(y)] if y.dtype.kind == "f" else y[:0]
    if len(odd):
        raise DataError(
            f"column {target!r} holds numbers that are not whole, such as {odd[0]:g}; expected classes, by name or by "
            "number; pass labels=False if they are real targets"
        )
    values, places = np.unique(y, return_inverse=True)
    return places.astype(np.int64), tuple(f"{v:g}" if y.dtype.kind == "f" else str(v) for v in values)


def _some(names: Sequence[str] | pd.Index) -> str:
    return ", ".join(map(str, names[:SHOWN])) + ", ..." * (len(names) > SHOWN)
