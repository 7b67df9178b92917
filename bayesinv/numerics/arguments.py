"""Checks of single arguments: what was expected, what came; NumPy's integers and floats are numbers like any other.

And the words for a number of things in such messages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

__all__ = ["as_integer", "as_number", "as_probability", "counted", "meant"]


def as_integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number from ``least`` up, as Python's int.

    Raises:
        ValueError: it is none.

    Example:
        >>> as_integer("num_draws", "8")
        Traceback (most recent call last):
        ...
        ValueError: num_draws: expected an integer of at least 1, got '8'
    """
    good = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
    if not good or (most is not None and int(value) > most):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: expected an integer {expected}, got {value!r}")
    return int(value)


def as_number(name: str, value: Any, zero: bool = False) -> float:
    """A finite number above zero, or at zero where that is allowed.

    Raises:
        ValueError: it is none.

    Example:
        >>> as_number("learning_rate", float("nan"))
        Traceback (most recent call last):
        ...
        ValueError: learning_rate: expected a finite number > 0, got nan
    """
    good = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name}: expected a finite number {'>= 0' if zero else '> 0'}, got {value!r}")
    return float(value)


def as_probability(name: str, value: Any) -> float:
    """A number between 0 and 1, both excluded.

    Raises:
        ValueError: it is none.

    Example:
        >>> as_probability("level", 90)
        Traceback (most recent call last):
        ...
        ValueError: level: expected a probability between 0 and 1, such as 0.9, got 90
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < 1:
        raise ValueError(f"{name}: expected a probability between 0 and 1, such as 0.9, got {value!r}")
    return float(value)


def counted(number: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "draw"), counted(2000, "draw")
        ('1 draw', '2,000 draws')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def meant(unknown: Iterable[str], known: Iterable[str]) -> str:
    """The end of a message about unknown names: those that they are close to, if any.

    Example:
        >>> meant(["rotaton", "xyz"], ["rotation", "shear"]), meant(["xyz"], ["rotation"])
        ("; did you mean 'rotation'?", '')
    """
    names = list(known)
    close = [near[0] for name in unknown if (near := get_close_matches(name, names, 1))]
    return f"; did you mean {', '.join(map(repr, dict.fromkeys(close)))}?" if close else ""
