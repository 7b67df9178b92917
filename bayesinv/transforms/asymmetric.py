"""Ranges that are not centred: t ~ U[-down, up], with an extent for each end."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import LOWER_END, UPPER_END, Coordinate, Transform, from_config, register
from bayesinv.transforms.compose import as_transform

__all__ = ["Asymmetric", "base_name", "other_end", "without_ends"]


def _mirrored(value: Any, function: Callable[[Any], Any]) -> Any:
    return -function(-value)


@register
class Asymmetric(Transform):
    """A transform whose coordinates have two extents each, one for either side.

        t ~ U[-down, up],    t = -down + (down + up) (1 + ε) / 2,    ε ~ U[-1, 1]

    A coordinate ``brightness`` becomes ``brightness_down`` and ``brightness_up``, both from 0 to the largest extent of
    ``brightness``. They are two coordinates like any others: each has its own prior, its own posterior and its own line
    in tables. A prior of None switches one side off, and `bayesinv.select` says whether a side is there at all. The
    number ε of each range is an auxiliary column of t.

    The data tell the two ends apart where moving *all* inputs by one amount changes the prior of the function. It does
    not under a stationary kernel for what adds a constant (brightness without clipping, shifts of columns), under an
    isotropic one for rotations, or, with a lengthscale that is learned, for factors: there only down + up is learned,
    and the prior divides it (docs/transforms.md, "Ranges that are not centred").

    Args:
        transform: one transform, or a name such as "scale_x"; of a list, wrap each member.
        names: which of its coordinates get two ends. The default is all that are drawn from U[-η, η]; amounts without a
            sign, finite groups and rotations in space have one end and stay as they are.

    Raises:
        TypeError: something that is no transform.
        ValueError: a list of transforms, no or unknown names, or a coordinate that has no two sides.

    Example:
        >>> from bayesinv.transforms import Colour
        >>> light = Asymmetric(Colour(["brightness"]))
        >>> light.names, [c.words(0.2) for c in light.coordinates]
        (('brightness_down', 'brightness_up'), ['−20.0 % of the range', '+20.0 % of the range'])
        >>> light.amounts(torch.tensor([[0.1, 0.3, -1.0], [0.1, 0.3, 1.0]]))[:, 0].tolist()  # down, up, ε
        [-0.10000000149011612, 0.30000001192092896]
    """

    def __init__(self, transform: Transform | str, names: Sequence[str] | None = None) -> None:
        super().__init__()
        inner = as_transform(transform)
        if len(inner.stages) > 1:
            raise ValueError(
                f"Asymmetric: expected one transform, got a list of {len(inner.stages)}; wrap each member: "
                "[Asymmetric(a), Asymmetric(b)]"
            )
        if any(c.is_end for c in inner.coordinates):
            raise ValueError("Asymmetric: expected a transform with centred ranges, and this one has two ends already")
        self.inner = inner
        two_sided = [c.name for c in inner.coordinates if c.distribution == "uniform" and not c.is_discrete]
        names = [names] if isinstance(names, str) else None if names is None else list(names)
        if not two_sided:
            raise ValueError(f"Asymmetric: no coordinate of {type(inner).__name__} has two sides; leave it as it is")
        chosen = two_sided if names is None else names
        wrong = [name for name in chosen if name not in two_sided]
        if not chosen or wrong or len(set(chosen)) < len(chosen):
            raise ValueError(
                f"Asymmetric: names: expected some of {two_sided}, each once, got {chosen}; of "
                f"{type(inner).__name__} these are drawn from both sides of zero"
            )
        self._names = tuple(name for name in inner.names if name in chosen)
        self._coordinates = tuple(
            end for c in inner.coordinates for end in (_ends(c) if c.name in self._names else (c,))
        )

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    @property
    def num_auxiliary(self) -> int:  # type: ignore[override]
        """A number for each range, then those of the transform."""
        return len(self._names) + self.inner.num_auxiliary

    @property
    def invertible(self) -> bool:  # type: ignore[override]
        """Whether the transform has an inverse."""
        return self.inner.invertible

    @property
    def fixes_frame(self) -> bool:  # type: ignore[override]
        """Whether the transform leaves everything where it is."""
        return self.inner.fixes_frame

    def amounts(self, t: Float[Tensor, "*orbit columns"]) -> Float[Tensor, "*orbit inner"]:
        """What moves the inner transform, its own columns.

        Raises:
            ValueError: another number of columns.
        """
        self.check_coordinates(t)
        K = self.num_coordinates
        share = 0.5 * (1.0 + t[..., K : K + len(self._names)])  # (*orbit, ranges)
        columns, k, which = [], 0, 0
        for name in self.inner.names:
            if name in self._names:
                columns.append(share[..., which] * t[..., k + 1] - (1.0 - share[..., which]) * t[..., k])
                k, which = k + 2, which + 1
            else:
                columns.append(t[..., k])
                k += 1
        return torch.cat([torch.stack(columns, -1), t[..., K + len(self._names) :]], -1)

    def transform(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch *event"]:
        self.check_coordinates(t, batch=x.shape[0])
        return self.inner.transform(x, self.amounts(t))

    def orbit(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit columns"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        return self.inner.orbit(x, self.amounts(t))

    def orbit_per_example(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit_batch columns"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        self.check_coordinates(t, batch=x.shape[0])
        return self.inner.orbit_per_example(x, self.amounts(t))

    def inverse_coordinates(self, t: Float[Tensor, "*orbit columns"]) -> Float[Tensor, "*orbit columns"]:
        """Columns under which the transform moves back: both ends of each range at its one amount."""
        back = self.inner.inverse_coordinates(self.amounts(t))
        columns = []
        for k, name in enumerate(self.inner.names):
            columns += [-back[..., k], back[..., k]] if name in self._names else [back[..., k]]
        middle = [torch.zeros_like(back[..., 0])] * len(self._names)
        return torch.cat([torch.stack([*columns, *middle], -1), back[..., self.inner.num_coordinates :]], -1)

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        """That of the transform, for either end."""
        each = self.inner.negligible(event_shape)
        repeats = torch.tensor([2 if name in self._names else 1 for name in self.inner.names])
        return each.repeat_interleave(repeats)

    def check_input(self, x: object) -> None:
        """As the transform does."""
        self.inner.check_input(x)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "transform": self.inner.config(), "names": list(self._names)}

    @classmethod
    def from_arguments(cls, arguments: Any) -> "Asymmetric":
        return cls(from_config(arguments["transform"]), arguments["names"])


def _ends(c: Coordinate) -> tuple[Coordinate, Coordinate]:
    """The lower end, whose extent counts downwards, and the upper one."""
    meaning = c.meaning.rstrip(".")
    down = replace(
        c,
        name=f"{c.name}_down",
        to_people=partial(_mirrored, function=c.to_people),
        from_people=partial(_mirrored, function=c.from_people),
        meaning=f"How far below zero it reaches. Above zero: {meaning}." if meaning else "",
        distribution=LOWER_END,
    )
    return down, replace(c, name=f"{c.name}_up", distribution=UPPER_END)


def base_name(c: Coordinate) -> str:
    """The name of a coordinate, for an end that of its range.

    Example:
        >>> [base_name(c) for c in Asymmetric("rotation").coordinates]
        ['rotation', 'rotation']
    """
    return c.name.removesuffix("_down" if c.distribution == LOWER_END else "_up") if c.is_end else c.name


def other_end(coordinates: Sequence[Coordinate], k: int) -> int:
    """The place of the other end of a range.

    Example:
        >>> [other_end(Asymmetric("rotation").coordinates, k) for k in range(2)]
        [1, 0]
    """
    return k + 1 if coordinates[k].distribution == LOWER_END else k - 1


def without_ends(
    stage: Transform, t: Float[Tensor, "*orbit columns"]
) -> tuple[Transform, Float[Tensor, "*orbit inner"]]:
    """A stage and its columns; of an `Asymmetric` the transform inside and its own."""
    return (stage.inner, stage.amounts(t)) if isinstance(stage, Asymmetric) else (stage, t)
