"""The candidate operations of each kind of data, and the transform of any subset of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.transforms import (
    Affine2d,
    AmplitudeScale,
    BandStop,
    ChannelDropout,
    Colour,
    ColumnPermutation,
    ColumnShift,
    Compose,
    CyclicRotation,
    Elastic,
    Flip,
    FourierSurrogate,
    FrequencyShift,
    GaussianBlur,
    GaussianNoise,
    Jitter3d,
    Permutation,
    Perspective,
    Reflection3d,
    Rotation3d,
    Scale3d,
    SignFlip,
    TimeMask,
    TimeShift,
    TimeWarp,
    Transform,
    Translation3d,
)

KINDS = ("images", "signals", "points", "tables")
MOST_COLUMNS = 20  # of a table that are candidates: those that say most about y, or the first that vary at all
NUM_COLOURS = 3
IMAGE_NOISE = 0.3  # largest standard deviation, as a share of the range of the pixels


@dataclass(frozen=True)
class Operation:
    """One candidate: a symmetry, and the transform that has it.

    Args:
        name: of the symmetry.
        family: makes the transform of some symmetries that are sampled together, from their names.
    """

    name: str
    family: Callable[[Sequence[str]], Transform]


def transform_of(operations: Iterable[Operation]) -> Transform:
    """One transform with these symmetries, in the order of the operations; a family is one stage.

    Example:
        >>> chosen = [o for o in candidates("images", torch.rand(2, 3, 8, 8)) if o.name in ("rotation", "shear", "hue")]
        >>> transform_of(chosen).names
        ('rotation', 'shear', 'hue')
    """
    grouped = itertools.groupby(operations, key=lambda operation: operation.family)
    stages = [family([operation.name for operation in group]) for family, group in grouped]
    return stages[0] if len(stages) == 1 else Compose(stages)


def kind_of(x: Tensor) -> str:
    """The kind of data that a shape says: four axes images, two a table, three with a last one of 3 points, else
    signals.

    Raises:
        DataError: another number of axes.

    Example:
        >>> kind_of(torch.zeros(5, 1, 8, 8)), kind_of(torch.zeros(5, 20, 3)), kind_of(torch.zeros(5, 2, 100))
        ('images', 'points', 'signals')
    """
    if x.ndim == 4:
        return "images"
    if x.ndim == 3:
        return "points" if x.shape[2] == 3 else "signals"
    if x.ndim == 2:
        return "tables"
    raise DataError(
        f"inputs have shape {tuple(x.shape)}; expected images (n, channels, height, width), signals (n, channels, "
        "time), points (n, atoms, 3 + features) or a table (n, columns)"
    )


def candidates(
    kind: str,
    x: Tensor,
    sampling_rate: float = 1.0,
    columns: Sequence[str] | None = None,
    chosen: Sequence[str] | None = None,
) -> tuple[Operation, ...]:
    """What is tried on data of this kind.

    Args:
        kind: "images", "signals", "points" or "tables".
        x: inputs, whose range and shape say how large the largest extents are and what makes sense.
        sampling_rate: of signals, samples a second.
        columns: names of the columns of a table.
        chosen: names of those that are moved, such as those of `columns_tried`; None for the first 20 that vary.
    """
    makers = {"images": _images, "points": _points}
    if kind in makers:
        return makers[kind](x)
    return _signals(x, sampling_rate) if kind == "signals" else _tables(x, columns, chosen)


def _images(x: Tensor) -> tuple[Operation, ...]:
    channels, height, width = x.shape[1:]
    low, high = float(x.min()), float(x.max())
    span = max(high - low, 1e-6)

    def colour(names: Sequence[str]) -> Transform:
        return Colour(names, middle=0.5 * (low + high))

    colours = ["brightness", "contrast", *(["saturation", "hue"] if channels == NUM_COLOURS else [])]
    affine = ["translate_x", "translate_y", "rotation", "scale_x", "scale_y", "shear"]
    operations = [
        *(Operation(name, Affine2d) for name in affine),
        *(Operation(name, Perspective) for name in ("perspective_x", "perspective_y")),
        _single(Elastic()),
        _single(Flip(-1)),
        _single(Flip(-2)),
        *([_single(CyclicRotation(4))] if height == width else []),
        *(Operation(name, colour) for name in colours),
        *([_single(Permutation.symmetric(3, -3, "channel_order"))] if channels == NUM_COLOURS else []),
        _single(GaussianBlur()),
        _single(GaussianNoise(IMAGE_NOISE * span, "grey levels")),
    ]
    return tuple(operations)


def _signals(x: Tensor, sampling_rate: float) -> tuple[Operation, ...]:
    channels, time = x.shape[1:]
    seconds = time / sampling_rate
    operations = [
        TimeShift(sampling_rate, largest=0.5 * seconds),
        TimeWarp(),
        AmplitudeScale(),
        FrequencyShift(sampling_rate),
        FourierSurrogate(),
        TimeMask(sampling_rate, largest=0.5 * seconds),
        BandStop(sampling_rate, largest=0.25 * sampling_rate),
        *([ChannelDropout()] if channels > 1 else []),
        SignFlip(),
        Flip(-1, "time_reversal"),
        GaussianNoise(float(x.std()), "units of the data"),
    ]
    return tuple(map(_single, operations))


def _points(x: Tensor) -> tuple[Operation, ...]:
    spread = float(x[..., :3].std())

    def moves(names: Sequence[str]) -> Transform:
        return Translation3d(names, largest=2.0 * spread)

    return (
        *(Operation(f"rotation_{axis}", Rotation3d) for axis in "xyz"),
        *(Operation(f"translate_{axis}", moves) for axis in "xyz"),
        _single(Scale3d()),
        *(_single(Reflection3d(axis)) for axis in "xyz"),
        _single(Jitter3d(largest=0.5 * spread)),
    )


def _tables(x: Tensor, columns: Sequence[str] | None, chosen: Sequence[str] | None) -> tuple[Operation, ...]:
    names = [str(c) for c in (range(x.shape[1]) if columns is None else columns)]
    if chosen is None:
        chosen = [name for name, sd in zip(names, x.std(0).tolist(), strict=True) if sd > 0][:MOST_COLUMNS]

    def shift(given: Sequence[str]) -> Transform:
        return ColumnShift([name.removeprefix("shift_") for name in given], table=names)

    swap = _single(ColumnPermutation(chosen, names, "cyclic", "column_order"))
    return (
        *(Operation(f"shift_{name}", shift) for name in chosen),
        *([swap] if len(chosen) > 1 else []),
        _single(SignFlip()),
        _single(GaussianNoise(1.0, "sd")),
    )


def columns_tried(
    x: Float[Tensor, "n columns"],
    y: Tensor,
    num_classes: int | None,
    columns: Sequence[str] | None = None,
    asked: Sequence[str] = (),
) -> list[str]:
    """Names of the 20 columns that say most about y, each on its own, and of those asked for; in the table's order.

    Classes: the variance between them over the total. Real targets: the absolute rank correlation, the largest of all
    outputs. Columns that do not vary are left out; of equal ones the first is taken.

    Args:
        x: rows.
        y: labels (n,), or real targets (n, outputs).
        num_classes: how many; None for real targets.
        columns: names; numbers by default.
        asked: names of operations; the column of each `shift_COLUMN` is taken.

    Example:
        >>> columns_tried(torch.eye(3), torch.tensor([0, 1, 1]), 2, ["a", "b", "c"])
        ['a', 'b', 'c']
    """
    names = [str(c) for c in (range(x.shape[1]) if columns is None else columns)]
    varying = torch.nonzero(x.std(0) > 0)[:, 0].tolist()
    values = x[:, varying].double().numpy()
    if num_classes is None:
        ranks, targets = _ranks(values), _ranks(y.double().numpy())
        strength = np.abs(ranks.T @ targets / len(ranks)).max(1)
    else:
        values = values - values.mean(0)
        members = np.eye(num_classes)[y.numpy()]  # (n, classes)
        strength = ((members.T @ values) ** 2 / np.maximum(members.sum(0), 1.0)[:, None]).sum(0) / (values**2).sum(0)
    first = np.argsort(-strength, kind="stable")[:MOST_COLUMNS]
    chosen = {names[varying[i]] for i in first}
    return [names[i] for i in varying if names[i] in chosen or f"shift_{names[i]}" in set(asked)]


def _ranks(values: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "n columns"]:
    """Ranks with mean 0 and variance 1, equal ones averaged; zeros where nothing varies."""
    ranks = rankdata(values, axis=0)
    ranks = ranks - ranks.mean(0)
    spread = ranks.std(0)
    return ranks / np.where(spread > 0, spread, 1.0)


def _single(transform: Transform) -> Operation:
    (name,) = transform.names
    return Operation(name, lambda names: transform)


def standardised(x: Tensor) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Columns with mean 0 and standard deviation 1, and the means and deviations that they had."""
    mean, sd = x.mean(0), x.std(0)
    sd = torch.where(sd > 0, sd, torch.ones_like(sd))
    return (x - mean) / sd, mean.numpy(), sd.numpy()
