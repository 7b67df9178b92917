"""From what people call an array to a tensor with the values that NumPy means."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.masked import MaskedTensor

from bayesinv.errors import DataError
from bayesinv.numerics.torch_modes import refuse_meta

__all__ = ["as_tensor", "rounding", "widened"]

# Of the spread: what is lost beside an offset where numbers came in few bytes, and an offset. Without one, a format
# loses a part of the numbers themselves.
ROUNDING, OFFSET = 1e-3, 10.0


def as_tensor(values: Any, name: str) -> Tensor:
    """A tensor without gradient history, which shares memory with `values` where torch can.

    Args:
        values: a tensor, an array, or anything else that `numpy.asarray` reads: lists, memory maps, pandas and xarray
            objects, of any byte order and any strides.
        name: of the argument, for messages.

    Raises:
        DataError: no array of real numbers: text, Python objects, complex, sparse, ragged, or with masked entries.

    Example:
        >>> as_tensor(np.arange(3, dtype=">i2")[::-1], "x")
        tensor([2, 1, 0], dtype=torch.int16)
        >>> as_tensor(np.ma.masked_equal([0.0, -99.0], -99.0), "x")
        Traceback (most recent call last):
        ...
        bayesinv.errors.DataError: x holds 1 masked value, the first at index (1,); expected a value everywhere. ...
    """
    refuse_meta()
    if isinstance(values, list | tuple) and values and all(isinstance(part, Tensor) for part in values):
        shapes = {tuple(part.shape) for part in values}
        if len(shapes) > 1:
            raise DataError(
                f"{name} is a {type(values).__name__} of tensors of the shapes {_shown(shapes)}; expected one"
            )
        values = torch.stack([as_tensor(part, name) for part in values])
    if isinstance(values, MaskedTensor):
        raise DataError(
            f"{name} is a MaskedTensor; expected a value everywhere. Drop the examples with masked values, or fill "
            f"them: {name}.to_tensor(0)"
        )
    if isinstance(values, Tensor):
        if values.is_complex() or values.layout != torch.strided or values.is_nested or values.is_quantized:
            raise DataError(f"{name} is complex, sparse, nested or quantised; expected a dense real tensor")
        if values.is_meta:
            raise DataError(
                f"{name} is on the device 'meta', where tensors hold no values; expected a tensor with values"
            )
        values = values.detach().resolve_neg()
        return values.clone() if values.is_inference() else values  # autograd refuses to record those
    if hasattr(values, "getbands"):  # NumPy reads integers off it, as they lie in the file
        raise DataError(
            f"{name} holds pictures of type {type(values).__name__}; expected numbers. Pictures become numbers with "
            "torchvision.transforms.ToTensor() as the transform of the data set"
        )
    try:
        _refuse_masked(values, name)
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{name} is of type {type(values).__name__} and does not form an array ({error}); expected numbers in one "
            "rectangular array or tensor"
        ) from error
    if array.dtype.kind not in "biuf" and hasattr(values, "columns") and hasattr(values, "iloc"):
        name, array = _odd_column(values, array, name)
    if array.dtype.kind in "USO":
        raise DataError(_not_numbers(array, name))
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {array.dtype}; expected real numbers")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)  # torch has no arithmetic on wide unsigned integers
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # torch wants native byte order, positive strides and memory that it may write to; NumPy calls an axis of length one
    # contiguous whatever its stride
    array = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    return torch.from_numpy(
        array.copy() if any(stride % array.itemsize or stride < 0 for stride in array.strides) else array
    )


def column_names(values: Any) -> tuple[str, ...] | None:
    """The names of the columns of a data frame, in order; None for anything else.

    Example:
        >>> import pandas as pd
        >>> column_names(pd.DataFrame({"height": [1.7], "weight": [70.0]}))
        ('height', 'weight')
    """
    return tuple(map(str, values.columns)) if hasattr(values, "columns") and hasattr(values, "iloc") else None


def _odd_column(frame: Any, array: np.ndarray, name: str) -> tuple[str, np.ndarray]:
    """The first column of a data frame that is not numbers, and what to call it."""
    for k, label in enumerate(frame.columns):
        column = np.asarray(frame.iloc[:, k])
        if column.dtype.kind not in "biuf":
            odd = [entry for entry in column.tolist() if not isinstance(entry, numbers.Real)] or column.tolist()
            return f"column {label!r} of {name}", np.array(odd, dtype=object) if column.dtype.kind == "O" else column
    return name, array


def widened(values: Tensor) -> Tensor:
    """Floating point of fewer than four bytes as float32, which holds its values; anything else as it is.

    Example:
        >>> widened(torch.ones(2, dtype=torch.float8_e4m3fn)).dtype, widened(torch.ones(2, dtype=torch.int8)).dtype
        (torch.float32, torch.int8)
    """
    return values.float() if values.is_floating_point() and values.itemsize < 4 else values


def rounding(values: Tensor, name: str) -> str | None:
    """What to say of numbers far from zero that came in fewer than eight bytes, which round them by a part of their
    spread; None where nothing is lost.

    Example:
        >>> rounding(1000 + torch.arange(3.0), "y") is None
        True
        >>> rounding(1000 + torch.arange(3.0).half(), "y")
        'y is float16 and lies near 1e+03, where numbers are 1 apart, beside an own spread of 1: ...'
    """
    if values.dtype == torch.float64 or not values.is_floating_point() or len(values) < 2:
        return None
    flat = values.double().reshape(len(values), -1)
    spread, offset = flat.std(0).square().mean().sqrt(), flat.mean(0).abs().max()
    lost = float(torch.finfo(values.dtype).eps * offset)
    if spread == 0 or lost <= ROUNDING * float(spread) or offset <= OFFSET * spread:
        return None
    return (
        f"{name} is {str(values.dtype).removeprefix('torch.')} and lies near {float(offset):.3g}, where numbers are "
        f"{lost:.1g} apart, beside an own spread of {float(spread):.2g}: an offset has rounded them; subtract it "
        f"in float64: {name} = {name}.double() - {name}.double().mean(0), or read {name} as float64 from the start"
    )


def _refuse_masked(values: Any, name: str) -> None:
    """Raise where entries are masked, of which `numpy.asarray` would take what lies beneath."""
    values = _with_masks(values)
    where = np.argwhere(np.ma.getmaskarray(values) if np.ma.is_masked(values) else [])
    if len(where):
        raise DataError(
            f"{name} holds {len(where)} masked value{'s' * (len(where) > 1)}, the first at index "
            f"{tuple(where[0].tolist())}; expected a value everywhere. Drop those examples, or fill "
            f"them: {name}.filled(0)"
        )


def _with_masks(values: Any) -> Any:
    """Lists that hold masked arrays, at any depth, as one masked array; NumPy keeps masks of one level."""
    return np.ma.stack([np.ma.asarray(_with_masks(part)) for part in values]) if _holds_masks(values) else values


def _holds_masks(values: Any) -> bool:
    return isinstance(values, list | tuple) and any(
        isinstance(part, np.ma.MaskedArray) or _holds_masks(part) for part in values
    )


def _not_numbers(array: np.ndarray, name: str) -> str:
    """What is wrong with an array of text or of Python objects, and what to do."""
    entry = array.ravel()[0] if array.size else None
    if array.dtype.kind in "US" or isinstance(entry, str):
        return (
            f"{name} holds text, such as {str(entry)!r}; expected numbers. Columns of a table become such with "
            "pandas.get_dummies(x, dtype=float), or are left out: x.drop(columns=[...])"
            if name.startswith("column ")
            else f"{name} holds text, such as {str(entry)!r}; expected numbers. Labels of text are taken as one array, "
            "(x, y); item by item they become numbers with names.index(y) in the data set, and names, the list of all "
            "classes, its attribute `classes`"
        )
    return (
        f"{name} holds Python objects, such as one of type {type(entry).__name__}; expected numbers. Where all of them "
        "are numbers, .astype(float) or .astype(int) makes it an array of these; pictures become numbers with "
        "torchvision.transforms.ToTensor()"
    )


def _shown(shapes: set[tuple[int, ...]]) -> str:
    return ", ".join(map(str, sorted(shapes)))
