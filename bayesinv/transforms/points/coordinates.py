"""The coordinates of affine maps in three dimensions, and their generators.

A positive rotation is right-handed: about z, it carries x towards y. Lengths are in ångström.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesinv.transforms.base import Coordinate

__all__ = ["COORDINATES_3D", "LARGEST_SHIFT", "generators", "select"]

LARGEST_SHIFT = 2.0
"""Å; a third of the diameter of a molecule of nine heavy atoms, and more than any bond."""

AXES = "xyz"


def factor_to_percent(value: Any) -> Any:
    """A log factor as people read it: log 2 is 100 %."""
    return 100.0 * (torch.expm1(value) if isinstance(value, Tensor) else np.expm1(value))


def percent_to_factor(value: Any) -> Any:
    """The inverse."""
    return torch.log1p(value / 100.0) if isinstance(value, Tensor) else np.log1p(np.asarray(value) / 100.0)[()]


def _elementary(row: int, column: int) -> Tensor:
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[row, column] = 1.0
    return matrix


def _catalogue() -> dict[str, tuple[Coordinate, Tensor]]:
    """Name, coordinate and generator, acting on (x, y, z, 1)."""
    entries: dict[str, tuple[Coordinate, Tensor]] = {}
    for i, axis in enumerate(AXES):
        name = f"translate_{axis}"
        entries[name] = (
            Coordinate.linear(name, "Å", LARGEST_SHIFT, 1.0, f"Moves the points along {axis}."),
            _elementary(i, 3),
        )
    for i, axis in enumerate(AXES):
        after, last = (i + 1) % 3, (i + 2) % 3  # about x: y towards z
        name = f"rotation_{axis}"
        meaning = f"Turns {AXES[after]} towards {AXES[last]}, about {axis}."
        entries[name] = (
            Coordinate.linear(name, "°", math.pi, 180.0 / math.pi, meaning),
            _elementary(last, after) - _elementary(after, last),
        )
    for i, axis in enumerate(AXES):
        name = f"scale_{axis}"
        meaning = f"Stretches along {axis}, by a log factor."
        entries[name] = (
            Coordinate(name, "%", math.log(2.0), factor_to_percent, percent_to_factor, meaning),
            _elementary(i, i),
        )
    for i, j in ((0, 1), (0, 2), (1, 2)):
        name = f"shear_{AXES[i]}{AXES[j]}"
        meaning = f"Moves points along {AXES[i]}, in proportion to {AXES[j]}."
        entries[name] = (Coordinate.linear(name, "%", 1.0, 100.0, meaning), _elementary(i, j))
    return entries


_CATALOGUE = _catalogue()

COORDINATES_3D: dict[str, Coordinate] = {name: coordinate for name, (coordinate, _) in _CATALOGUE.items()}
"""The twelve coordinates by name: three each of translate, rotation, scale and shear."""


def select(names: Any, known: tuple[str, ...], who: str) -> tuple[str, ...]:
    """The names a user gave, checked; all that are known where there are none.

    Raises:
        ValueError: an unknown or repeated name, or an empty list.
    """
    if names is None:
        return known
    chosen = (names,) if isinstance(names, str) else tuple(names)
    if not chosen:
        raise ValueError(f"{who} needs at least one coordinate out of {', '.join(known)}, and an empty list came")
    for name in chosen:
        if name not in known:
            about = [other for other in known if isinstance(name, str) and other.startswith(f"{name}_")]
            meant = f"did you mean {', '.join(about)}? " if about else ""
            raise ValueError(f"{who}: unknown coordinate {name!r}; {meant}known are {', '.join(known)}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"the coordinates of {who} have to be distinct, and {', '.join(chosen)} came")
    return chosen


def generators(names: tuple[str, ...]) -> Tensor:
    """dA/dt_k at t = 0, acting on columns (x, y, z, 1): (K, 4, 4) in float64."""
    return torch.stack([_CATALOGUE[name][1] for name in names])
