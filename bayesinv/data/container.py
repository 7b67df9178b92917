"""The data of a fit: one container, and the checks that everything passes on its way into it.

    D = {(x_i, y_i)},  i = 1..n

`as_data` takes what people have (tensors, arrays, a `Dataset`, a `DataLoader`) and returns a `Data`
whose contents are known to be usable: finite floating-point inputs, labels 0..C−1 (names of classes become
such, and are kept) or real targets, equal lengths. Everything else is refused with a `DataError` that says what
was expected, what came and what to do. Nothing is repaired or dropped silently.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bayesinv.data.arrays import as_tensor, column_names
from bayesinv.data.class_names import as_text, checked_names, coded, names_in
from bayesinv.data.items import read_first, read_items
from bayesinv.data.targets import (
    check_finite,
    check_not_tiny,
    checked_labels,
    checked_targets,
    dtype_name,
    kind_of,
    read_half,
)
from bayesinv.errors import DataError
from bayesinv.numerics.arguments import as_integer
from bayesinv.transforms import Transform

__all__ = ["LIKELIHOODS", "Data", "as_data", "as_inputs"]


LIKELIHOODS = ("categorical", "bernoulli", "gaussian")


@dataclass(frozen=True)
class Data:
    """Inputs and targets of n examples, on one device.

        D = {(x_i, y_i)},  i = 1..n

    Args:
        x: inputs, (n, *event), floating point. Arrays, of x and of y, become tensors.
        y: class labels (n,), or maps of them (n, *cells), integers or text; or real targets (n, outputs), floating
            point. Inputs without targets have ``outputs = 0``.
        num_classes: C for labels, None for real targets. State it where some class may not occur.
        groups: the group (subject, sensor, site) that each example belongs to, (n,), for models with ``groups=``: its
            name there, or its number, the position of that name. None where there are none.
        columns: names of the columns of x, which later inputs that have names must repeat; None takes those of a data
            frame.
        classes: names of the classes in the order of their numbers; None sorts the text in y. Predictions have them as
            `Prediction.names`.
        flat: whether a fit was given real targets (n,), which are kept as (n, 1) here: predictions are then (n,), and
            `Prediction.as_rows` has the shape of y.

    Raises:
        DataError: no arrays of real numbers, x, y and groups hold different numbers of examples, or y a name that
            `classes` does not.

    Example:
        >>> import torch
        >>> from bayesinv.data.container import Data
        >>> data = Data(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 1, 0]), num_classes=2)
        >>> len(data), data.event_shape, len(data.subset([0, 2]))
        (4, (1, 8, 8), 2)
    """

    x: Float[Tensor, "n *event"]
    # Axes of their own names: that y is as long as x is checked below, for everybody.
    y: Int64[Tensor, "targets *cells"] | Float[Tensor, "targets outputs"]
    num_classes: int | None = None
    groups: Any = None
    columns: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    flat: bool = False

    def __init__(
        self,
        x: Any,
        y: Any,
        num_classes: int | None = None,
        groups: Any = None,
        columns: tuple[str, ...] | None = None,
        classes: Sequence[str] | None = None,
        flat: bool = False,
    ) -> None:
        object.__setattr__(self, "flat", flat)
        y, classes = coded(y, classes=None if classes is None else checked_names(classes, num_classes))
        num_classes = len(classes) if num_classes is None and classes is not None else num_classes
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "columns", column_names(x) if columns is None else tuple(columns))
        for name, values in {"x": x, "y": y}.items():
            values = values if isinstance(values, Tensor) else as_tensor(values, name)
            if values.ndim == 0:
                raise DataError(f"{name} is a single number; expected one entry for each example along its first axis")
            whole = name == "y" and not (values.is_floating_point() or values.dtype == torch.bool)
            object.__setattr__(self, name, values.long() if whole else values)
        object.__setattr__(self, "num_classes", None if num_classes is None else as_integer("num_classes", num_classes))
        object.__setattr__(self, "groups", groups)
        if self.x.is_inference() or self.y.is_inference():  # what autograd would refuse later, and a copy is not
            object.__setattr__(self, "x", self.x.clone())
            object.__setattr__(self, "y", self.y.clone())
        if self.groups is not None:
            object.__setattr__(self, "groups", _groups(self.groups, len(self.x)))
        if len(self.x) != len(self.y):
            raise DataError(
                f"x holds {len(self.x)} examples and y {len(self.y)}; expected one target for each "
                "input. Check that both come from the same split and in the same order."
            )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one input, for example (channels, height, width)."""
        return tuple(self.x.shape[1:])

    @property
    def num_outputs(self) -> int:
        """Classes for labels, target dimensions for real targets."""
        return self.y.shape[1] if self.num_classes is None else self.num_classes

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> "Data":
        """The same data on `device`, with the floating-point parts in `dtype`; groups stay where they are.

        Args:
            device: where to; None stays.
            dtype: of floating-point parts; None keeps it.
            non_blocking: copy to an accelerator while the host goes on, out of pinned memory.
        """
        x, y = self.x, self.y
        if non_blocking and device is not None and torch.device(device).type == "cuda" and x.device.type == "cpu":
            x, y = x.pin_memory(), y.pin_memory()  # a copy out of other memory makes the host wait
        x = x.to(device=device, dtype=dtype, non_blocking=non_blocking)
        y_dtype = dtype if y.is_floating_point() else None
        y = y.to(device=device, dtype=y_dtype, non_blocking=non_blocking)
        return Data(x, y, self.num_classes, self.groups, self.columns, self.classes, self.flat)

    def subset(self, index: Any) -> "Data":
        """The examples at `index`: integers, a slice or a boolean mask."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, device=self.x.device)
        which = index if isinstance(index, slice) else index.cpu()
        if not isinstance(which, slice) and isinstance(self.groups, np.ndarray):
            which = which.numpy()
        groups = None if self.groups is None else self.groups[which]
        return Data(self.x[index], self.y[index], self.num_classes, groups, self.columns, self.classes, self.flat)


def as_data(
    data: Any,
    likelihood: str,
    transform: Transform | None = None,
    require_y: bool = True,
    num_classes: int | None = None,
    one_class: bool = False,
    with_groups: bool = True,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Data:
    """Turn `data` into a checked `Data`.

    Args:
        data: ``(x, y)`` of tensors or arrays (anything `numpy.asarray` reads), a `Data`, a torch
            `Dataset` of ``(x, y)`` items, or a `DataLoader` of such batches. Of a loader every example that it
            serves is read once, those of a shuffling one in the order of the data set; of an iterable data set as many
            as its ``__len__`` says. x has shape (n, *event).
        likelihood: "categorical" (y: integers 0..C−1 or names of classes, shape (n,), or for each pixel
            (n, height, width)), "bernoulli" (the same with two classes), or "gaussian" (y: real numbers, shape (n,) or
            (n, outputs)).
        transform: where given, also checks that x is what it acts on (rank, dtype).
        require_y: False for inputs to predict at; `data` may then be x alone, and the result has
            targets of shape (n, 0).
        num_classes: C, where some classes may be missing from y.
        one_class: whether all labels may be alike: enough to score predictions on, and not to learn from.
        with_groups: whether the items of a data set may be (x, y, group), with the name or number of a group.
        seed: of what a data set or sampler draws at random; the generators of the process stay as they were.
        classes: names of the classes, in the order of their numbers: those of a fit, for data to score it on. None
            takes the ``.classes`` of a data set, or sorts the names in y. Labels that have names are matched by these.

    Returns:
        The data, on the device of x; labels as int64, real targets as (n, outputs).

    Raises:
        DataError: anything about the data that would not give a meaningful fit.
        TypeError: `data` is of a kind that is not known here.
        ValueError: an unknown likelihood.

    Example:
        >>> import numpy as np
        >>> from bayesinv.data.container import as_data
        >>> data = as_data((np.zeros((3, 1, 8, 8)), [0, 1, 1]), "categorical")
        >>> data.num_classes, data.y
        (2, tensor([0, 1, 1]))
        >>> as_data((np.full((3, 1, 8, 8), np.nan), [0, 1, 1]), "categorical")
        Traceback (most recent call last):
        ...
        bayesinv.errors.DataError: x holds 192 values that are not finite (192 NaN, 0 infinite), ...
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {likelihood!r}; known: {', '.join(LIKELIHOODS)}")
    groups, columns, flat = None, None, False
    own = None if likelihood == "gaussian" else data.classes if isinstance(data, Data) else names_in(data)
    named = isinstance(data, Data) and own is not None
    if isinstance(data, Data):
        if likelihood == "gaussian" and data.classes is not None:
            raise DataError("y holds names of classes; expected real targets, or likelihood='categorical'")
        if num_classes is None and not (named and classes is not None):  # the names of a fit say how many
            num_classes = data.num_classes
        groups, columns, flat, data = data.groups, data.columns, data.flat, (data.x, data.y)
    if not require_y and not isinstance(data, tuple | list | Dataset | DataLoader):
        x = as_inputs(data, transform)
        return Data(x, x.new_empty(len(x), 0))
    raw_x, raw_y, groups_of_items = _parts(data, with_groups, seed)
    groups = groups if groups_of_items is None else groups_of_items
    columns = column_names(raw_x) if columns is None else columns
    x = as_inputs(raw_x, transform)
    if not require_y:
        return Data(x, x.new_empty(len(x), 0))
    check_not_tiny(x, "x")
    if likelihood != "gaussian":
        if one_class and classes is None and (named or as_text(raw_y, "y", "names or numbers") is not None):
            raise DataError(
                "y holds names of classes, and the fit was to numbers; expected its labels 0..C-1. Fit to "
                "bayesinv.Data(x, y, classes=names) to have names"
            )
        raw_y, classes = coded(raw_y, own, classes)
        num_classes = len(classes) if num_classes is None and classes is not None else num_classes
    y = as_tensor(raw_y, "y").to(x.device)
    if y.ndim > 0 and len(y) != len(x):
        raise DataError(
            f"x holds {len(x)} examples and y {len(y)}; expected one target for each input. Check "
            "that both come from the same split and in the same order."
        )
    if likelihood == "gaussian":
        return Data(x, checked_targets(y), groups=groups, columns=columns, flat=flat or y.ndim == 1)
    labels, num_classes = checked_labels(y, 2 if likelihood == "bernoulli" else num_classes, one_class)
    return Data(x, labels, num_classes, groups, columns, classes)


def first_of(data: Any) -> tuple[Tensor, Tensor]:
    """The first examples, (k, *event) and (k, ...): one of a data set or loader, all of arrays.

    Args:
        data: as for `as_data`; with (x, y) of arrays k = n.

    Raises:
        DataError: there is no example, or it is no pair (x, y) of numbers.
        TypeError: `data` is of a kind that is not known here.

    Example:
        >>> import numpy as np
        >>> first_of((np.zeros((3, 1, 8, 8)), [0, 1, 1]))[0].shape
        torch.Size([3, 1, 8, 8])
    """
    if isinstance(data, Data):
        return data.x, data.y
    if isinstance(data, Dataset | DataLoader):
        return read_first(data)
    x, y, _ = _parts(data, with_groups=False, seed=0)
    return as_inputs(x), as_tensor(coded(y)[0], "y")


def as_inputs(x: Any, transform: Transform | None = None) -> Float[Tensor, "n *event"]:
    """Check inputs alone, as `as_data` does.

    Args:
        x: tensor or array, (n, *event), floating point.
        transform: where given, also checks that x is what it acts on.

    Returns:
        x as a tensor without gradient history; half precision is widened to float32.

    Raises:
        DataError: not floating point, empty, of the wrong rank, or not finite.

    Example:
        >>> from bayesinv.data.container import as_inputs
        >>> as_inputs([[0.0, 1.0], [2.0, 3.0]]).shape
        torch.Size([2, 2])
    """
    x = as_tensor(x, "x")
    if x.ndim == 0 or x.numel() == 0:
        raise DataError(f"x is empty (shape {tuple(x.shape)}); expected shape (n, ...) with at least 1 example")
    if not x.is_floating_point():
        raise DataError(
            f"x has dtype {dtype_name(x.dtype)}; expected floating point. For images stored as integers "
            "0..255 divide first: x / 255."
        )
    x = read_half(x, "x")  # no Cholesky factor exists in half precision
    if x.ndim < 2:
        raise DataError(
            f"x has shape {tuple(x.shape)}; expected (n, ...), a batch of inputs. For scalar inputs use x[:, None]."
        )
    if transform is not None:
        transform.check_input(x)
    check_finite(x, "x")
    return x


def _parts(data: Any, with_groups: bool, seed: int) -> tuple[Any, Any, Any]:
    """Split whatever was given into x, y and, where a data set has them, groups."""
    if isinstance(data, Dataset | DataLoader):
        return read_items(data, with_groups, seed)
    if not isinstance(data, tuple | list):
        raise TypeError(
            f"data is {kind_of(data)}; expected (x, y) tensors or arrays, a torch Dataset or a "
            f"DataLoader{how_to_wrap(data)}"
        )
    if data and all(_is_example(part) for part in data):
        raise DataError(
            f"data is a {type(data).__name__} of {len(data)} pairs (x, y), one for each example; expected all x and "
            "all y: x = torch.stack([torch.as_tensor(x) for x, _ in data]), "
            "y = torch.as_tensor([y for _, y in data]), and then (x, y)"
        )
    if len(data) != 2:
        groups = "; groups of the examples go into bayesinv.Data(x, y, groups=names)" if len(data) == 3 else ""
        raise DataError(f"data holds {len(data)} parts; expected two, (x, y){groups}")
    if any(part is None for part in data):
        raise DataError("data holds None; expected (x, y), both given")
    return data[0], data[1], None


def how_to_wrap(data: Any) -> str:
    """How what is nearly data becomes such, in a line."""
    if isinstance(data, Mapping):
        return ": " + (f"(data[{next(iter(data))!r}], data[...])" if data else "(x, y)")
    if isinstance(data, Iterator):
        return (
            ". What comes one by one is put together first: DataLoader(list(data), batch_size=32) where it gives "
            "examples (x, y), tuple(map(torch.cat, zip(*data))) where it gives batches"
        )
    return ""


def _is_example(part: Any) -> bool:
    """Whether this is one input with its label, and not the inputs or the targets of all."""
    return isinstance(part, tuple) and len(part) == 2 and np.ndim(part[0]) > 0 and np.ndim(part[1]) == 0


def _groups(groups: Any, num_examples: int) -> Int64[Tensor, " n"] | np.ndarray:
    """Numbers of groups, on the CPU, or their names as an array of text."""
    found: Any = as_text(groups, "groups", "the name of a group for each example, as text, or its number")
    if found is None:
        found = as_tensor(groups, "groups")
        if found.is_floating_point() or found.dtype == torch.bool:
            raise DataError(
                f"groups has shape {tuple(found.shape)} and dtype {dtype_name(found.dtype)}; expected the name of a "
                "group for each example, or its number as an integer, names.index(name) in the model's groups=names"
            )
        found = found.cpu().long()
    if found.ndim != 1:
        cure = "; drop the axis with groups[:, 0]" if found.ndim == 2 and found.shape[1] == 1 else ""
        raise DataError(
            f"groups has shape {tuple(found.shape)}; expected (n,), a name or whole number for each example{cure}"
        )
    if len(found) != num_examples:
        raise DataError(f"x holds {num_examples} examples and groups {len(found)}; expected one group for each input")
    return found
