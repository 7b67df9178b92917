"""Transforms one after the other, and the short ways to name them."""

from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.numerics.arguments import meant
from bayesinv.transforms.affine2d import AFFINE_COORDINATES, Affine2d, MatrixProduct, MatrixWarp
from bayesinv.transforms.base import Coordinate, Transform, from_config, known_transforms, register

__all__ = ["Compose", "as_transform"]


@register
class Compose(Transform):
    """Transforms applied in order, each on its own slice of the coordinates.

        T_t = T^(m)_{t^(m)} ∘ … ∘ T^(1)_{t^(1)},    t = (t^(1), …, t^(m))

    Each t^(i) holds the columns of its transform, auxiliary ones included.

    Neighbouring `Affine2d` and `Perspective` with the same padding and interpolation are fused: their matrices are
    multiplied and the images are sampled once, which blurs once and does not cut off what leaves
    the image in between.

    Args:
        transforms: at least one transform; the names of their coordinates have to be distinct.

    Raises:
        TypeError: if an element is not a `Transform`.
        ValueError: if there is none, or if a name occurs twice.

    Example:
        >>> both = Compose([Affine2d(["rotation"]), Affine2d(["translate_x"])])  # turn, then move
        >>> both.names
        ('rotation', 'translate_x')
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        transforms = list(transforms)
        if not transforms:
            raise ValueError("Compose needs at least one transform, and an empty list came")
        for transform in transforms:
            _refuse_class(transform)
            if not isinstance(transform, Transform):
                raise TypeError(
                    f"Compose expects transforms and a {type(transform).__name__} came; "
                    f"as_transform turns names such as 'rotation' into transforms"
                )
        names = [name for transform in transforms for name in transform.names]
        clashes = sorted({name for name in names if names.count(name) > 1})
        if clashes:
            raise ValueError(
                f"the names of the coordinates have to be distinct, and these occur twice: {', '.join(clashes)}"
            )
        self.transforms = torch.nn.ModuleList(transforms)
        # Tuples are not registered, so that fused neighbours are not counted twice in state_dict.
        self._members = tuple(transforms)
        self._stages = tuple(_fuse(transforms))

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return tuple(coordinate for stage in self._stages for coordinate in stage.coordinates)

    @property
    def num_auxiliary(self) -> int:  # type: ignore[override]
        """Those of all stages together."""
        return sum(stage.num_auxiliary for stage in self._stages)

    @property
    def stages(self) -> tuple[Transform, ...]:
        """The members in order, with neighbouring affine warps fused into one."""
        return self._stages

    @property
    def columns(self) -> tuple[int | None, ...]:
        layout: list[int | None] = []
        first = 0  # of the stage's coordinates
        for stage in self._stages:
            layout.extend(None if k is None else first + k for k in stage.columns)
            first += stage.num_coordinates
        return tuple(layout)

    @property
    def invertible(self) -> bool:  # type: ignore[override]
        """True for a single invertible transform: the inverse of several runs in the opposite
        order.
        """
        return len(self._members) == 1 and self._stages[0].invertible

    def transform(self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch K"]) -> Float[Tensor, "batch *event"]:
        self.check_coordinates(t, batch=x.shape[0])
        for stage, part in zip(self._stages, self._split(t), strict=True):
            x = stage.transform(x, part)
        return x

    def orbit(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        self.check_coordinates(t)
        (first, *rest), (part, *parts) = self._stages, self._split(t)
        points = first.orbit(x, part)  # (*orbit, batch, *event)
        # From the second stage on every copy is an example of its own.
        shape = points.shape[: t.ndim]  # (*orbit, batch)
        each = [part.unsqueeze(-2).expand(*shape, part.shape[-1]) for part in parts]
        return _apply_to_copies(rest, points, each)

    def orbit_per_example(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit_batch K"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        self.check_coordinates(t, batch=x.shape[0])
        (first, *rest), (part, *parts) = self._stages, self._split(t)
        return _apply_to_copies(rest, first.orbit_per_example(x, part), parts)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        if not self.invertible:
            return super().inverse_coordinates(t)
        return self._stages[0].inverse_coordinates(t)

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        return torch.cat([stage.negligible(event_shape) for stage in self._stages])

    def check_input(self, x: object) -> None:
        for stage in self._stages:
            stage.check_input(x)

    def config(self) -> dict[str, Any]:
        return {
            "type": "Compose",
            "transforms": [member.config() for member in self._members],
        }

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "Compose":
        return cls([from_config(config) for config in arguments["transforms"]])

    def _split(self, t: Tensor) -> tuple[Tensor, ...]:
        return t.split([stage.num_columns for stage in self._stages], dim=-1)


def _fuse(transforms: Sequence[Transform]) -> list[Transform]:
    """Replace neighbouring affine and projective transforms that sample alike by one that samples once."""
    stages: list[Transform] = []
    for transform in transforms:
        last = stages[-1] if stages else None
        if isinstance(transform, MatrixWarp) and isinstance(last, MatrixWarp) and last.samples_like(transform):
            members = last.members if isinstance(last, MatrixProduct) else (last,)
            stages[-1] = MatrixProduct([*members, transform])
        else:
            stages.append(transform)
    return stages


def _apply_to_copies(stages: Sequence[Transform], points: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Apply ``stages`` to copies (*orbit, batch, *event), each copy on its own draws (*orbit,
    batch, K_stage).
    """
    if not stages:
        return points
    leading = parts[0].ndim - 1  # the number of dimensions in (*orbit, batch)
    shape = points.shape[:leading]
    points = points.flatten(0, leading - 1)  # (orbit·batch, *event)
    for stage, part in zip(stages, parts, strict=True):
        points = stage.transform(points, part.flatten(0, leading - 1))
    return points.unflatten(0, shape)


def as_transform(transforms: Transform | str | Sequence[Transform | str]) -> Transform:
    """Turn what a user writes into one transform.

    Args:
        transforms: a `Transform`; the name of an affine coordinate, such as ``"rotation"``;
            ``"affine2d"`` for all six; or a list of these, applied in order. Neighbouring names of
            affine coordinates become one `Affine2d`, with one exponential for all of them.

    Raises:
        TypeError: for anything else, such as a class without brackets.
        ValueError: for an unknown name, an empty list, or names that clash.

    Example:
        >>> as_transform(["rotation", "translate_x"])
        Affine2d(['rotation', 'translate_x'], padding='zeros', interpolation='bilinear')
    """
    if isinstance(transforms, Transform):
        return transforms
    items = [transforms] if isinstance(transforms, str | type) else transforms
    for item in items if isinstance(items, Sequence) else ():
        _refuse_class(item)
    if not isinstance(items, Sequence) or not all(isinstance(item, Transform | str) for item in items):
        raise TypeError(
            f"expected a transform, a name, or a list of these, and {transforms!r} came; "
            f"for example Affine2d(['rotation']) or ['rotation', 'translate_x']"
        )
    built: list[Transform] = []
    for is_coordinate, group in groupby(items, key=lambda item: isinstance(item, str) and item in AFFINE_COORDINATES):
        if is_coordinate:
            built.append(Affine2d([str(name) for name in group]))
        else:
            built.extend(item if isinstance(item, Transform) else _by_name(item) for item in group)
    if not built:
        raise ValueError(f"expected at least one transform, and an empty list came; known names are {_known_names()}")
    return built[0] if len(built) == 1 else Compose(built)


def _refuse_class(item: object) -> None:
    """Raise where a class stands in place of an object."""
    if isinstance(item, type) and issubclass(item, Transform):
        needed = [
            p.name for p in signature(item).parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD
        ]
        raise TypeError(
            f"expected a transform, and the class {item.__name__} came; write {item.__name__}({', '.join(needed)}), "
            "with brackets"
        )


def _by_name(name: str) -> Transform:
    if name != "affine2d":
        plain = name.replace("_", "").lower()
        alike = [known for known in known_transforms() if known.lower() == plain]
        raise ValueError(
            f"unknown transform {name!r}; known names are {_known_names()}. Every other transform is given as "
            f"an object, such as bayesinv.transforms.{alike[0] if alike else 'Flip'}()"
            + meant([name], ["affine2d", *AFFINE_COORDINATES])
        )
    return Affine2d()


def _known_names() -> str:
    return ", ".join(["affine2d", *AFFINE_COORDINATES])
