"""One coordinate of a transform: its name, its unit, how it is drawn and how people read it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

__all__ = ["LOWER_END", "PART", "UPPER_END", "Coordinate"]

# How the two ends of a range that is not centred are "drawn": as they are; see `bayesinv.transforms.Asymmetric`.
LOWER_END, UPPER_END = "lower_end", "upper_end"
# So are the parts of a half-width that depends on the input; see `bayesinv.transforms.PerInput`.
PART = "part"


def _identity(value: Any) -> Any:
    return value


def _multiply(value: Any, factor: float) -> Any:
    return value * factor


@dataclass(frozen=True)
class Coordinate:
    """One coordinate t_k of a transform: its name, its unit, and how people read it.

    Args:
        name: the name of the symmetry, unique inside a model, such as ``"rotation"``.
        unit: what people read, such as ``"°"`` or ``"% of width"``.
        largest: the largest sensible extent, in internal units (rotation: π).
        to_people: a monotone function with 0 ↦ 0 from internal units to ``unit``, for floats,
            arrays and tensors.
        from_people: its inverse.
        meaning: one sentence that says what a positive value does.
        distribution: how t is drawn within the extent, a name that `bayesinv.orbits.augmentation` knows:
            ``"uniform"`` on [-η, η]; ``"one_sided"`` on [0, η], for amounts without a sign;
            ``"gaussian"``; ``"von_mises"``, for angles; ``"haar"``, for angles of rotations in space;
            ``"lower_end"`` and, as the next coordinate, ``"upper_end"``, for the ends of one range; ``"part"``, for a
            part of a half-width.
        order: 0, or the number of elements of a finite group. The column of t then holds the index
            of an element, 0 for the identity, and the extent is the probability of any other one.

    Raises:
        ValueError: if the name is empty, ``largest`` is not a positive finite number, or ``order``
            is that of no group.

    Example:
        >>> pitch = Coordinate.linear("pitch", "Hz", largest=2.0, factor=50.0, meaning="Raises the pitch.")
        >>> pitch.words(0.5)
        '±25.0 Hz'
        >>> pitch.from_people(25.0)
        0.5
    """

    name: str
    unit: str
    largest: float
    to_people: Callable[[Any], Any] = _identity
    from_people: Callable[[Any], Any] = _identity
    meaning: str = ""
    distribution: str = "uniform"
    order: int = 0

    def __post_init__(self) -> None:
        if self.order < 0 or self.order == 1:
            raise ValueError(
                f"the order of {self.name!r} has to be 0, or the size of a group, at least 2, and {self.order!r} came"
            )
        if not self.name:
            raise ValueError("a coordinate needs a name, and an empty string came")
        if not (math.isfinite(self.largest) and self.largest > 0):
            raise ValueError(
                f"the largest extent of {self.name!r} has to be a positive finite number, and {self.largest!r} came"
            )

    @classmethod
    def linear(
        cls,
        name: str,
        unit: str,
        largest: float,
        factor: float,
        meaning: str = "",
        distribution: str = "uniform",
    ) -> "Coordinate":
        """A coordinate whose people's units are ``factor`` times the internal ones."""
        to_people, from_people = partial(_multiply, factor=factor), partial(_multiply, factor=1.0 / factor)
        return cls(name, unit, largest, to_people, from_people, meaning, distribution)

    @classmethod
    def group(cls, name: str, order: int, meaning: str = "") -> "Coordinate":
        """The coordinate of a finite group of ``order`` elements; people read percent of the copies.

        The largest extent, 1 - 1/order, makes all elements equally likely.
        """
        to_people, from_people = partial(_multiply, factor=100.0), partial(_multiply, factor=0.01)
        largest = 1.0 - 1.0 / max(order, 2)
        return cls(name, "% of copies", largest, to_people, from_people, meaning, order=order)

    @property
    def is_discrete(self) -> bool:
        """Whether it is the coordinate of a finite group."""
        return self.order > 0

    @property
    def is_end(self) -> bool:
        """Whether it is one end of a range, whose t is the extent itself."""
        return self.distribution in (LOWER_END, UPPER_END)

    @property
    def is_fixed(self) -> bool:
        """Whether t is the extent itself and no draw: an end of a range, or a part of a half-width."""
        return self.is_end or self.distribution == PART

    @property
    def prefix(self) -> str:
        """What people read before an extent: ``"±"``, ``"up to "`` for amounts without a sign, ``"−"`` or ``"+"`` for
        the ends of a range, nothing for a group.
        """
        known = {"one_sided": "up to ", LOWER_END: "−", UPPER_END: "+"}
        return "" if self.is_discrete else known.get(self.distribution, "±")

    @property
    def extent_is(self) -> str:
        """What an extent is: ``"half-width"``, ``"upper end"`` for amounts without a sign, ``"upper end"`` or
        ``"lower end"`` of a range that is not centred, ``"probability"`` of any element but the identity, ``"largest
        angle"`` of a ball of rotations in space, or ``"scale"`` of a distribution without ends.
        """
        if self.is_discrete:
            return "probability"
        known = {"one_sided": "upper end", "gaussian": "scale", "von_mises": "scale", "haar": "largest angle"}
        known |= {LOWER_END: "lower end", UPPER_END: "upper end"}
        return known.get(self.distribution, "half-width")

    def words(self, extent: float) -> str:
        """The extent η (internal units) as people say it: ``"±54.0°"``, ``"up to 2.0 px"``,
        ``"50.0 % of copies"``.
        """
        space = "" if self.unit == "°" else " "
        return f"{self.prefix}{float(self.to_people(float(extent))):.1f}{space}{self.unit}".rstrip()
