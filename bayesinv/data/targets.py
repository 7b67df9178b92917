"""Labels, real targets and the values of inputs: checked, and in the dtype that a fit takes."""

import warnings
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bayesinv.data.arrays import rounding, widened
from bayesinv.errors import DataError, DataWarning

LARGEST_VALUE, SMALLEST_VALUE = 1e15, 1e-18  # whose squares single precision holds


def checked_labels(y: Tensor, num_classes: int | None, one_class: bool) -> tuple[Int64[Tensor, "n *cells"], int]:
    """Class labels 0..C−1, one an example or a map of them, and C."""
    if y.ndim in (0, 2) or y.numel() == 0:  # two axes are one-hot rows or a column more often than labels along a line
        cure = ""
        if y.ndim == 2:
            cure = " Drop the axis with y[:, 0]." if y.shape[1] == 1 else " Turn one-hot rows into labels: y.argmax(1)."
        raise DataError(f"y has shape {tuple(y.shape)}; expected labels of shape (n,), or (n, height, width).{cure}")
    if y.is_floating_point():
        check_finite(y, "y")
        odd = torch.nonzero(y != y.round())
        came = f"{float(y[tuple(odd[0])]):g} at index {int(odd[0, 0])}" if len(odd) else "whole numbers"
        raise DataError(
            f"y has dtype {dtype_name(y.dtype)} ({came}); expected integer labels. Use y.long() (an "
            "array: y.astype(int)) if they are labels, likelihood='gaussian' if they are real targets."
        )
    y = y.to(torch.int64)
    negative = torch.nonzero(y < 0)
    if len(negative):
        first = int(negative[0, 0])
        raise DataError(
            f"y holds {len(negative)} negative labels, the first {int(y[tuple(negative[0])])} at index {first}; "
            "expected 0..C-1. Drop examples without a class, or give them a class of their own."
        )
    present = torch.unique(y).tolist()
    if num_classes is None:
        num_classes = len(present)
        if present[-1] >= num_classes and len(present) > 1:
            shown = ", ".join(map(str, present[:8])) + (", ..." if len(present) > 8 else "")
            raise DataError(
                f"the labels {{{shown}}} are not 0..C-1 with every class present. Map them to "
                "0..C-1 with numpy.unique(y, return_inverse=True)[1], or state how many classes "
                "there are: bayesinv.Data(x, y, num_classes=...)."
            )
    elif present[-1] >= num_classes:
        where = tuple(torch.nonzero(y >= num_classes)[0].tolist())
        raise DataError(
            f"label {int(y[where])} at index {where[0]} is out of range; expected "
            f"0..{num_classes - 1} for {num_classes} classes"
        )
    if len(present) < 2 and not one_class:
        raise DataError(
            f"every label is {present[0]}; expected at least 2 classes, since one class says "
            "nothing about symmetries. Check how the examples were selected."
        )
    return y, num_classes


def checked_targets(y: Tensor) -> Float[Tensor, "n outputs"]:
    """Real targets as (n, outputs)."""
    if y.dtype == torch.bool:
        raise DataError("y holds booleans; expected real targets, or likelihood='categorical'")
    if y.ndim not in (1, 2) or y.numel() == 0:
        raise DataError(f"y has shape {tuple(y.shape)}; expected real targets of shape (n,) or (n, outputs)")
    y = read_half(y, "y") if y.is_floating_point() else y.double()
    check_finite(y, "y")
    check_not_tiny(y, "y")
    return y[:, None] if y.ndim == 1 else y


def read_half(values: Tensor, name: str, stacklevel: int = 5) -> Tensor:
    """Half precision as float32; anything else as it is.

    Warns:
        DataWarning: half precision has rounded an offset, which no longer shows afterwards.
    """
    wide = widened(values)
    if wide is not values and wide.ndim and bool(wide.isfinite().all()):
        text = rounding(values, name)
        if text is not None:
            warnings.warn(text, DataWarning, stacklevel=stacklevel)
    return wide


def check_finite(values: Tensor, name: str) -> None:
    bad = ~torch.isfinite(values)
    count = int(bad.sum())
    if count == 0:
        largest = float(values.abs().max())
        if largest > LARGEST_VALUE:
            raise DataError(
                f"{name} reaches {largest:.3g}; expected numbers below {LARGEST_VALUE:g}, whose squares can be summed: "
                f"scale it, such as {name} / {name}.std()"
            )
        return
    first = tuple(torch.nonzero(bad)[0].tolist())
    num_nan = int(torch.isnan(values).sum())
    raise DataError(
        f"{name} holds {count} value{'s' * (count > 1)} that {'are' if count > 1 else 'is'} not "
        f"finite ({num_nan} NaN, {count - num_nan} infinite), the first at index {first}; expected "
        "finite numbers. Drop or fill them first."
    )


def check_not_tiny(values: Tensor, name: str) -> None:
    """Raise where the unit is so large that all numbers vanish in squares."""
    largest = float(values.abs().max())
    if 0 < largest < SMALLEST_VALUE:
        raise DataError(
            f"{name} reaches {largest:.3g} in this unit; expected numbers above {SMALLEST_VALUE:g}, whose squares do "
            f"not vanish: scale it, such as {name} / abs({name}).max()"
        )


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def kind_of(value: Any) -> str:
    return f"of type {type(value).__name__}"
