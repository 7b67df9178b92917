"""Inputs that a fitted model is given later: of the shape, the columns and the scale of the training inputs."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bayesinv.data.arrays import column_names
from bayesinv.data.container import Data, as_inputs
from bayesinv.errors import DataError
from bayesinv.transforms import Transform

# Images of 8 bits that were scaled and others that were not are 255 apart; one bright pixel is not 20 times as bright.
LARGEST_RATIO = 20.0
# A byte divided as if it had 12 bits is at most a sixteenth; where this share of the training data is as dark, it is
# usual.
SMALLEST_RATIO, USUAL = 0.25, 0.05


def _inputs_of(data: Any) -> str:
    """How to take the inputs out of what holds more."""
    if isinstance(data, DataLoader):
        return "torch.cat([x for x, *_ in loader])"
    if isinstance(data, tuple):
        return "x, without y"
    return "test.x" if isinstance(data, Data) else "torch.stack([x for x, *_ in dataset])"


def _missing_axes(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What to do with inputs that lack axes: the batch, those of length one, or others."""
    if shape == expected:
        return "for a single input pass x[None]"
    inner = expected[next((i for i, size in enumerate(expected) if size != 1), 0) :]
    single = shape == inner
    if single or shape[1:] == inner:
        what = "a single input" if single else "inputs without their axes of length one"
        return f"for {what} pass x.reshape({', '.join(map(str, (1 if single else -1, *expected)))})"
    return "give it the axes that the training inputs have"


def checked_inputs(x: Any, data: Data, transform: Transform, stacklevel: int = 2) -> Float[Tensor, n * event]:
    """New inputs as a tensor on the device and in the dtype of the training inputs.

    Args:
        x: (n, *event) tensor, array or data frame.
        data: the training data.
        transform: of the model.
        stacklevel: of warnings; 2 is the line that calls this function.

    Raises:
        DataError: x is of another shape or type than the training inputs, a data frame with other columns, empty,
            or not finite.

    Warns:
        UserWarning: images that reach far beyond those of the training data, or not nearly as far, as where one of
            the two is not scaled.
    """
    if isinstance(x, Data | tuple | Dataset | DataLoader):
        raise DataError(f"x is a {type(x).__name__}; expected inputs alone, a tensor or an array: {_inputs_of(x)}")
    expected = data.event_shape
    wanted = f"({', '.join(('n', *map(str, expected)))})"
    shape = tuple(getattr(x, "shape", ()))
    if shape and len(shape) <= len(expected):
        raise DataError(f"x has shape {shape}; expected a batch, {wanted}: {_missing_axes(shape, expected)}")
    names, known = column_names(x), data.columns
    if known is not None and names is not None and names != known:
        raise DataError(
            f"x has the columns {', '.join(names)}; expected {', '.join(known)}, in this order, as the training "
            "inputs: x[list(posterior.data.columns)]"
        )
    inputs = as_inputs(x, transform)
    if inputs.shape[1:] != expected:
        raise DataError(
            f"x has shape {tuple(inputs.shape)}; expected {wanted}, as the training "
            "inputs: resize or crop it as they were"
        )
    if inputs.ndim == 4 and float(inputs.min()) >= 0:
        _warn_of_scale(float(inputs.max()), data.x, stacklevel + 1)
    return inputs.to(data.x.device, data.x.dtype)


def _warn_of_scale(largest: float, trained: Tensor, stacklevel: int) -> None:
    """Warn where images reach far beyond those of training, or not nearly as far as almost all of them."""
    seen = max(abs(float(end)) for end in torch.aminmax(trained))  # without a copy of them
    darkest = float(trained.flatten(1).amax(1).float().quantile(USUAL))
    if 0 < seen * LARGEST_RATIO < largest or 0 < largest < min(SMALLEST_RATIO * seen, darkest):
        how = "such as x / 255" if largest > seen else "and divide by what is white in them"
        warnings.warn(
            f"x holds images with values up to {largest:.3g}, and those trained on reach {seen:.3g}; scale them in "
            f"the same way, {how}",
            UserWarning,
            stacklevel=stacklevel,
        )
