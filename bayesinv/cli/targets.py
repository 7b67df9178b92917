"""Targets of a fit: classes or real numbers, by what they look like where nobody says."""

from __future__ import annotations

import numpy as np

from bayesinv.datasets import Examples
from bayesinv.datasets.columns import are_labels
from bayesinv.errors import DataError

__all__ = ["likelihood_line", "likelihood_of", "with_whole_labels"]


def likelihood_of(examples: Examples, asked: str) -> str:
    """The likelihood that `--likelihood` asks for; "auto" goes by the targets, as `bayesinv.audit` does.

    Raises:
        DataError: classes were asked for, and the targets are numbers that are not whole; or whole numbers in several
            columns, which may be either.

    Example:
        >>> likelihood_of(Examples(np.zeros((2, 1)), np.array([0.5, 1.5]), ()), "auto")
        'gaussian'
    """
    y = np.asarray(examples.y)
    if asked == "auto":
        if y.ndim > 1 and y.dtype.kind in "iu":
            raise DataError(
                f"y has shape {y.shape} and holds whole numbers; expected one target for each input, or say what they "
                "are: --likelihood categorical for labels, --likelihood gaussian for real targets"
            )
        return "categorical" if examples.classes or are_labels(y) else "gaussian"
    if asked != "gaussian" and y.dtype.kind == "f" and not _is_whole(y):
        odd = y[~np.isfinite(y) | (y != np.round(y))]
        raise DataError(
            f"--likelihood {asked}: the targets hold {odd[0]:g}; expected integer labels of classes, or names; for "
            "real targets: --likelihood gaussian"
        )
    return asked


def with_whole_labels(examples: Examples, likelihood: str) -> Examples:
    """Labels that are stored as floating point, as integers; real targets as they are.

    Example:
        >>> with_whole_labels(Examples(np.zeros((2, 1)), np.array([0.0, 1.0]), ()), "categorical").y.dtype
        dtype('int64')
    """
    y = None if examples.y is None else np.asarray(examples.y)
    if likelihood == "gaussian" or y is None or y.dtype.kind != "f" or not _is_whole(y):
        return examples
    return examples._replace(y=y.astype(np.int64))


def likelihood_line(examples: Examples, likelihood: str, asked: str) -> str:
    """What a fit takes its targets for, and how to say otherwise.

    Example:
        >>> likelihood_line(Examples(np.zeros((2, 1)), np.array([0, 1]), ()), "categorical", "categorical")
        'likelihood    categorical (2 classes)'
    """
    y = np.asarray(examples.y)
    if likelihood == "gaussian":
        what, other = "real targets", "categorical, if they are classes"
    else:
        what, other = f"{len(examples.classes) or len(np.unique(y))} classes", "gaussian, if they are numbers"
    chosen = "" if asked != "auto" else f", by what the targets look like; say --likelihood {other}"
    return f"likelihood    {likelihood} ({what}{chosen})"


def _is_whole(y: np.ndarray) -> bool:
    return bool(np.isfinite(y).all() and (y == np.round(y)).all())
