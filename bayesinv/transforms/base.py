"""What a transform is: a family of maps T_t with named coordinates t, units, and two ways to draw
an orbit.

Names: ``batch`` counts examples, ``event`` is the shape of one example, ``K`` counts coordinates,
``orbit`` stands for any number of leading dimensions over draws. A new transform is a subclass with
`coordinates` and `transform`; everything else has a default, and `bayesinv.testing.transforms`
holds the tests it must pass.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.transforms.coordinate import LOWER_END, PART, UPPER_END, Coordinate

__all__ = ["LOWER_END", "PART", "UPPER_END", "Coordinate", "Transform", "from_config", "known_transforms", "register"]


class Transform(torch.nn.Module, ABC):
    """A family of maps T_t of one example, with T_0 the identity and t ∈ ℝ^K.

    A subclass gives `coordinates` (a class attribute or a property) and `transform`. It overrides
    `orbit` where one orbit shared by the batch is cheaper than one draw per example,
    `inverse_coordinates` (and ``invertible = True``) where there is an inverse, and `config` where
    its constructor takes arguments. One that needs randomness beside its coordinates (where a mask
    lies, the seed of a field) says by ``num_auxiliary = A`` how many numbers: t then has A more
    columns after its K, uniform on [-1, 1] whatever the extents are.

    Calling the module is calling `transform`.

    Example:
        >>> import torch
        >>> class Brightness(Transform):
        ...     coordinates = (Coordinate.linear("brightness", "%", largest=1.0, factor=100.0),)
        ...
        ...     def transform(self, x, t):
        ...         return x + t[:, 0].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        >>> brightness = Brightness()
        >>> brightness(torch.zeros(2, 1, 4, 4), torch.tensor([[0.1], [0.2]])).shape
        torch.Size([2, 1, 4, 4])
        >>> brightness.orbit(torch.zeros(2, 1, 4, 4), torch.zeros(24, 1)).shape
        torch.Size([24, 2, 1, 4, 4])
    """

    invertible: bool = False
    """Whether `inverse_coordinates` exists."""
    num_auxiliary: int = 0
    """A, how many columns t has beside its coordinates, uniform on [-1, 1] and without an extent."""
    fixes_frame: bool = False
    """Whether everything stays where it was and as it was turned (colour, blur, noise), so that outputs which move
    with the input, masks or vectors, do not move under it.
    """

    @property
    @abstractmethod
    def coordinates(self) -> tuple[Coordinate, ...]:
        """The K coordinates, in the order of the last dimension of t."""

    @abstractmethod
    def transform(self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch K"]) -> Float[Tensor, "batch *event"]:
        """T_t x, one draw per example.

        Args:
            x: the examples, (batch, *event).
            t: the coordinates in internal units, (batch, K).

        Returns:
            (batch, *event), in the dtype of ``x`` and differentiable in both.
        """

    def forward(self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch K"]) -> Float[Tensor, "batch *event"]:
        return self.transform(x, t)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates."""
        return tuple(coordinate.name for coordinate in self.coordinates)

    @property
    def num_coordinates(self) -> int:
        """K."""
        return len(self.coordinates)

    @property
    def num_columns(self) -> int:
        """K + A, the last dimension of t."""
        return self.num_coordinates + self.num_auxiliary

    @property
    def stages(self) -> tuple["Transform", ...]:
        """What is applied in order, each on its own columns of t: the transform itself, unless it is composed."""
        return (self,)

    @property
    def columns(self) -> tuple[int | None, ...]:
        """Which coordinate each column of t belongs to; None for the auxiliary ones."""
        return (*range(self.num_coordinates), *[None] * self.num_auxiliary)

    def orbit(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        """One orbit shared by the batch: out[s, i] = T_{t_s} x_i.

        Args:
            x: the examples, (batch, *event).
            t: the draws in internal units, (*orbit, K), or (*orbit, K + A) with A auxiliary columns.

        Returns:
            (*orbit, batch, *event).

        Raises:
            ValueError: if the last dimension of ``t`` is not K + A.
        """
        self.check_coordinates(t)
        return self.orbit_per_example(x, t.unsqueeze(-2).expand(*t.shape[:-1], x.shape[0], t.shape[-1]))

    def orbit_per_example(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit_batch K"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        """Every example on draws of its own: out[s, i] = T_{t_si} x_i.

        Args:
            x: the examples, (batch, *event).
            t: the draws in internal units, (*orbit, batch, K), or K + A columns.

        Returns:
            (*orbit, batch, *event).

        Raises:
            ValueError: if the last two dimensions of ``t`` are not (batch, K).
        """
        self.check_coordinates(t, batch=x.shape[0])
        shape = (*t.shape[:-2], *x.shape)  # (*orbit, batch, *event)
        return self.transform(
            x.expand(shape).reshape(-1, *x.shape[1:]),  # (orbit·batch, *event)
            t.reshape(-1, t.shape[-1]),  # (orbit·batch, K)
        ).reshape(shape)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """The t' with T_{t'} T_t = identity (up to interpolation).

        Raises:
            NotImplementedError: if the transform has no inverse in its own coordinates
                (``invertible`` is False).
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no inverse in its own coordinates; "
            f"an equivariant average needs one: define `inverse_coordinates` and "
            f"set `invertible = True`"
        )

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        """The extents, in internal units, that are too small to see in an example of shape
        ``event_shape``.

        The default is 1 % of each largest sensible extent. Returns (K,) in float64.
        """
        return torch.tensor([0.01 * c.largest for c in self.coordinates], dtype=torch.float64)

    def check_input(self, x: object) -> None:
        """Raise if this transform cannot act on ``x``; the default wants a floating point tensor
        with a batch dimension.

        Raises:
            DataError: naming what was expected and what came.
        """
        if not isinstance(x, Tensor):
            raise DataError(
                f"{type(self).__name__} expects a tensor, batch first, and a "
                f"{type(x).__name__} came; convert it with torch.as_tensor"
            )
        if not x.is_floating_point():
            raise DataError(
                f"{type(self).__name__} expects floating point examples and {x.dtype} came; "
                f"convert them, for images of bytes with x.float() / 255"
            )
        if x.ndim == 0:
            raise DataError(f"{type(self).__name__} expects a batch of examples, and a single number came")

    def check_coordinates(self, t: Tensor, batch: int | None = None) -> None:
        """Raise a ValueError unless t ends in (K + A,), or in (batch, K + A) if ``batch`` is given."""
        expected = (self.num_columns,) if batch is None else (batch, self.num_columns)
        if tuple(t.shape[-len(expected) :]) != expected:
            auxiliary = sum(column is None for column in self.columns)
            last = "K + A" if auxiliary else "K"
            layout = f"(..., {last})" if batch is None else f"(..., batch, {last})"
            more = f" and {auxiliary} auxiliary numbers" if auxiliary else ""
            raise ValueError(
                f"{type(self).__name__} expects coordinates t of shape {layout} ending in "
                f"{expected}, for {', '.join(self.names)}{more}, and {tuple(t.shape)} came"
            )

    def config(self) -> dict[str, Any]:
        """A JSON-able description from which `from_config` rebuilds the transform.

        It holds ``"type"``, the class's name, and the keyword arguments of its constructor.
        """
        return {"type": type(self).__name__}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "Transform":
        """Rebuild from `config` less its ``"type"``; the default passes them to the constructor."""
        return cls(**arguments)


# By the number of axes of a batch.
_MADE_FOR = {
    2: "rows of a table take ColumnShift, ColumnScale, ColumnNoise and ColumnPermutation",
    3: "signals, batch x channels x time, take TimeShift, AmplitudeScale and the like; points, batch x atoms x 3, "
    "Rotation3d and the like; grey images without a channel get one with x[:, None]",
    4: 'images take "affine2d", Flip(), Colour() and the like',
    5: "volumes, batch x channels x depth x height x width, take AffineVolume, Flip(-3) and the like",
}


def wrong_kind(transform: Transform, wanted: str, x: Tensor, cure: str = "") -> DataError:
    """The error for inputs that a transform is not made for: what it expects, what came, and what is made for these.

    Args:
        transform: that cannot act on ``x``.
        wanted: the kind of inputs it acts on, and their axes.
        x: the inputs.
        cure: what to do, where that is known, in place of the transforms that there are for inputs of so many axes.

    Example:
        >>> from bayesinv.transforms import TimeShift
        >>> print(wrong_kind(TimeShift(), "signals", torch.zeros(4, 1, 8, 8)))
        TimeShift expects signals, and shape (4, 1, 8, 8) came; images take "affine2d", Flip(), Colour() and the like
    """
    cure = cure or _MADE_FOR.get(x.ndim, "")
    text = f"{type(transform).__name__} expects {wanted}, and shape {tuple(x.shape)} came"
    return DataError(f"{text}; {cure}" if cure else text)


_REGISTRY: dict[str, type[Transform]] = {}

TransformType = TypeVar("TransformType", bound=type[Transform])


def register(cls: TransformType) -> TransformType:
    """Class decorator: make a transform known by its name, so that a saved posterior can rebuild
    it.

    Raises:
        ValueError: if another class of that name is registered. Defining the same class again, as a
            notebook does when a cell runs twice, replaces it.

    Example:
        >>> from bayesinv.transforms import known_transforms
        >>> "Affine2d" in known_transforms()
        True
    """
    name = cls.__name__
    known = _REGISTRY.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ValueError(
            f"a transform named {name!r} is registered already, by {known.__module__}; rename the new class"
        )
    _REGISTRY[name] = cls
    return cls


def known_transforms() -> tuple[str, ...]:
    """The names of the registered transforms, sorted."""
    return tuple(sorted(_REGISTRY))


def from_config(config: Mapping[str, Any]) -> Transform:
    """Rebuild a transform from its `Transform.config`.

    Raises:
        ValueError: if ``config`` names no type, or one that is not registered.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> from_config(Affine2d(["rotation"]).config()).names
        ('rotation',)
    """
    name = config.get("type")
    if name not in _REGISTRY:
        raise ValueError(
            f"unknown transform {name!r}; known are {', '.join(known_transforms())}. "
            f"A transform of your own has to be imported first, its class decorated with "
            f"bayesinv.transforms.register"
        )
    return _REGISTRY[name].from_arguments({key: value for key, value in config.items() if key != "type"})
