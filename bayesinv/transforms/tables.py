"""Named columns of a table: shift, scale, noise, and the exchange of columns.

An example is a row, (columns,). Columns are named by the list ``table`` of all column names, or counted from 0.
Numbers should be **standardised** (mean 0, standard deviation 1): extents are then in standard deviations of a column.

What an extent says: a shift is averaged over ±η, and such an average removes what changes along a column within 2η and
keeps what changes slowly, straight lines above all. A large extent means that the targets depend on the column slowly
(along a straight line) or not at all, and a small one that they bend there. It is a smoothing length with a posterior,
for each column, and only past the column's own range does it make the average blind to the column.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, Transform, register, wrong_kind
from bayesinv.transforms.discrete import FiniteGroup
from bayesinv.transforms.points.coordinates import factor_to_percent, percent_to_factor
from bayesinv.transforms.white_noise import white_noise

__all__ = ["ColumnNoise", "ColumnPermutation", "ColumnScale", "ColumnShift"]

ORDERS = ("cyclic", "swap")


class ColumnTransform(Transform):
    """Which columns, by position and by name.

    Raises:
        ValueError: an unknown or repeated column, none, or names without ``table``.
    """

    def __init__(self, columns: Sequence[str | int] | str | int, table: Sequence[str] | None) -> None:
        super().__init__()
        given = [columns] if isinstance(columns, str | int) else list(columns)
        self.table = None if table is None else tuple(table)
        if not given:
            raise ValueError(f"{type(self).__name__} needs at least one column, and an empty list came")
        self._coordinates: tuple[Coordinate, ...] = ()
        self.columns_at = tuple(self._position(column) for column in given)
        if len(set(self.columns_at)) < len(given):
            raise ValueError(f"the columns of {type(self).__name__} have to be distinct, and {given} came")
        self.column_names = tuple(str(i) if self.table is None else self.table[i] for i in self.columns_at)

    @abstractmethod
    def _described(self) -> tuple[Coordinate, ...]:
        """The coordinates, once the columns are known."""

    def _position(self, column: str | int) -> int:
        who = type(self).__name__
        if isinstance(column, str):
            if self.table is None:
                raise ValueError(f"{who}: column {column!r} is named, so give all names: table=[...]; or its index")
            if column not in self.table:
                raise ValueError(f"{who}: unknown column {column!r}; the table has {', '.join(self.table)}")
            return self.table.index(column)
        if isinstance(column, bool) or not isinstance(column, int) or column < 0:
            raise ValueError(f"{who}: expected a column's name, or its index from 0; got {column!r}")
        if self.table is not None and column >= len(self.table):
            raise ValueError(
                f"{who}: column {column} of a table of {len(self.table)} columns, 0..{len(self.table) - 1}"
            )
        return column

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def place(self, values: Float[Tensor, "*draws K"], width: int) -> Float[Tensor, "*draws width"]:
        """A row of zeros with one value for each column in its place."""
        row = values.new_zeros(*values.shape[:-1], width)
        index = torch.tensor(self.columns_at, device=values.device)
        return row.index_copy(-1, index, values)

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if not isinstance(x, Tensor):
            return
        last = max(self.columns_at)
        if x.ndim != 2 or (self.table is not None and x.shape[1] != len(self.table)) or x.shape[1] <= last:
            wanted = f"{last + 1} columns or more" if self.table is None else f"{len(self.table)} columns"
            raise wrong_kind(
                self, f"rows of a table, batch x {wanted}", x, cure="name columns that are there" if x.ndim == 2 else ""
            )

    def config(self) -> dict[str, Any]:
        table = None if self.table is None else list(self.table)
        return {"type": type(self).__name__, "columns": list(self.columns_at), "table": table}

    def extra_repr(self) -> str:
        return f"{list(self.column_names)}"


@register
class ColumnShift(ColumnTransform):
    """x_c ↦ x_c + t_c: what is added to a column, one extent a column. −t is the inverse of t.

    Args:
        columns: names or indices.
        table: the names of all columns, in order; needed for names.
        largest: the largest sensible extent; 2 standard deviations.

    Raises:
        ValueError: an unknown or repeated column, none, or names without ``table``.
        DataError: when called on something else than rows of the table.

    Example:
        >>> import torch
        >>> shift = ColumnShift(["age"], table=["height", "age"])
        >>> shift.names, shift(torch.zeros(1, 2), torch.tensor([[0.5]])).tolist()
        (('shift_age',), [[0.0, 0.5]])
    """

    invertible = True

    def __init__(
        self, columns: Sequence[str | int] | str | int, table: Sequence[str] | None = None, largest: float = 2.0
    ) -> None:
        super().__init__(columns, table)
        self.largest = float(largest)
        self._coordinates = self._described()

    def _described(self) -> tuple[Coordinate, ...]:
        return tuple(
            Coordinate.linear(f"shift_{name}", "sd", self.largest, 1.0, f"Adds to {name}.")
            for name in self.column_names
        )

    def transform(
        self, x: Float[Tensor, "batch columns"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch columns"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        return x + self.place(t, x.shape[1]).to(x.dtype)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t."""
        self.check_coordinates(t)
        return -t

    def config(self) -> dict[str, Any]:
        return {**super().config(), "largest": self.largest}


@register
class ColumnScale(ColumnTransform):
    """x_c ↦ exp(t_c) x_c: a factor for each column, about zero (the mean of a standardised one). −t is the inverse.

    Args:
        columns: names or indices.
        table: the names of all columns, in order; needed for names.
        largest: the largest sensible log factor; log 3.

    Raises:
        ValueError: an unknown or repeated column, none, or names without ``table``.
        DataError: when called on something else than rows of the table.

    Example:
        >>> import math, torch
        >>> ColumnScale(0)(torch.ones(1, 2), torch.tensor([[math.log(2.0)]])).tolist()
        [[2.0, 1.0]]
    """

    invertible = True

    def __init__(
        self,
        columns: Sequence[str | int] | str | int,
        table: Sequence[str] | None = None,
        largest: float = math.log(3.0),
    ) -> None:
        super().__init__(columns, table)
        self.largest = float(largest)
        self._coordinates = self._described()

    def _described(self) -> tuple[Coordinate, ...]:
        return tuple(
            Coordinate(f"scale_{name}", "%", self.largest, factor_to_percent, percent_to_factor, f"Enlarges {name}.")
            for name in self.column_names
        )

    def transform(
        self, x: Float[Tensor, "batch columns"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch columns"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        return x * self.place(t, x.shape[1]).exp().to(x.dtype)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t."""
        self.check_coordinates(t)
        return -t

    def config(self) -> dict[str, Any]:
        return {**super().config(), "largest": self.largest}


@register
class ColumnNoise(ColumnTransform):
    """x_c ↦ x_c + t_c z_c: noise of standard deviation t_c, independent between columns. There is no inverse.

    z is a function of four auxiliary columns of t (`bayesinv.transforms.white_noise`), so a draw is shared by the rows
    of an orbit. Over a single column this is `ColumnShift` with bell-shaped draws.

    Args:
        columns: names or indices.
        table: the names of all columns, in order; needed for names.
        largest: the largest sensible standard deviation, that of the column itself.

    Raises:
        ValueError: an unknown or repeated column, none, or names without ``table``.
        DataError: when called on something else than rows of the table.

    Example:
        >>> import torch
        >>> noise = ColumnNoise([0, 2])
        >>> noise.names, noise.num_columns
        (('noise_0', 'noise_2'), 6)
    """

    num_auxiliary = 4

    def __init__(
        self, columns: Sequence[str | int] | str | int, table: Sequence[str] | None = None, largest: float = 1.0
    ) -> None:
        super().__init__(columns, table)
        self.largest = float(largest)
        self._coordinates = self._described()

    def _described(self) -> tuple[Coordinate, ...]:
        return tuple(
            Coordinate.linear(f"noise_{name}", "sd", self.largest, 1.0, f"Blurs {name}.", distribution="one_sided")
            for name in self.column_names
        )

    def transform(
        self, x: Float[Tensor, "batch columns"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch columns"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        K = self.num_coordinates
        return x + self.place(t[:, :K] * white_noise(t[:, K:], K), x.shape[1]).to(x.dtype)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "largest": self.largest}


@register
class ColumnPermutation(ColumnTransform, FiniteGroup):
    """The named columns exchange their values: in a cycle, or two of them with each other.

    A finite group: its extent is the probability of any other order than the given one, and averages are exact.
    Replicated sensors, or the corners of a symmetric part, are columns that may be exchanged.

    Args:
        columns: names or indices, at least two; exactly two to swap.
        table: the names of all columns, in order; needed for names.
        order: "cyclic", all shifts of the list of columns, or "swap".
        name: of the symmetry; by default the columns', such as ``"swap_left_right"``.

    Raises:
        ValueError: an unknown or repeated column, too few of them, or an unknown order.
        DataError: when called on something else than rows of the table.

    Example:
        >>> import torch
        >>> swap = ColumnPermutation(["left", "right"], table=["left", "right", "weight"], order="swap")
        >>> swap(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0]])).tolist()
        [[2.0, 1.0, 3.0]]
    """

    def __init__(
        self,
        columns: Sequence[str | int],
        table: Sequence[str] | None = None,
        order: str = "cyclic",
        name: str | None = None,
    ) -> None:
        super().__init__(columns, table)
        number = len(self.columns_at)
        if order not in ORDERS:
            raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
        if number < 2 or (order == "swap" and number > 2):
            wanted = "exactly two" if order == "swap" else "at least two"
            raise ValueError(f"columns: {order} takes {wanted}, got {list(self.column_names)}")
        self.order_of_columns = order
        self.symmetry = f"{order}_{'_'.join(self.column_names)}" if name is None else name
        self._coordinates = self._described()

    def _described(self) -> tuple[Coordinate, ...]:
        meaning = f"Exchanges {', '.join(self.column_names)}."
        return (Coordinate.group(self.symmetry, len(self.columns_at), meaning),)

    def act(self, x: Float[Tensor, "batch columns"], element: int) -> Float[Tensor, "batch columns"]:
        source = list(range(x.shape[1]))
        for k, position in enumerate(self.columns_at):
            source[position] = self.columns_at[(k - element) % len(self.columns_at)]
        return x[:, source]

    def inverse(self, element: int) -> int:
        return -element % self.order

    def config(self) -> dict[str, Any]:
        return {**super().config(), "order": self.order_of_columns, "name": self.symmetry}
