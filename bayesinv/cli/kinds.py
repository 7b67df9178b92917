"""The transform that `bayesinv fit` learns, by kind of data, and the scales of a table."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bayesinv.auditing.operations import NUM_COLOURS, candidates, columns_tried, transform_of
from bayesinv.cli.inputs import Reading
from bayesinv.datasets import Examples
from bayesinv.errors import DataError
from bayesinv.numerics.arguments import meant
from bayesinv.transforms import Affine2d, Transform, from_config
from bayesinv.transforms.affine2d import AFFINE_COORDINATES
from bayesinv.transforms.warp import PADDINGS

__all__ = ["scales_of", "transform_for"]


def transform_for(options: argparse.Namespace, kind: str, examples: Examples | None = None) -> Transform | None:
    """The symmetries to learn: of images `Affine2d`, or any that `bayesinv.audit` tries; None where data are needed.

    Raises:
        ValueError: an unknown name or padding, or a padding that none of the symmetries knows.
    """
    names = options.symmetries
    if options.padding not in (None, *PADDINGS):
        raise ValueError(f"--padding: expected one of {', '.join(PADDINGS)}, got {options.padding}")
    if kind == "images":  # unknown names are refused before data are read
        _refuse_unknown(names, [o.name for o in candidates("images", torch.zeros(1, NUM_COLOURS, 4, 4))])
        if set(names or ()) <= set(AFFINE_COORDINATES):
            return Affine2d(names, padding=options.padding or PADDINGS[0])
    if examples is None:
        return None
    x = torch.as_tensor(np.asarray(examples.x))
    rate, columns = 1.0 if options.sampling_rate is None else options.sampling_rate, examples.columns or None
    chosen = None
    if kind == "tables":
        y, num_classes = torch.as_tensor(np.asarray(examples.y)).reshape(len(x), -1), None
        if options.likelihood != "gaussian":
            values, y = y[:, 0].unique(return_inverse=True)
            num_classes = len(values)
        chosen = columns_tried(x, y, num_classes, columns, names or ())
    tried = candidates(kind, x, rate, columns, chosen)
    _refuse_unknown(names, [o.name for o in tried])
    if names is None and kind == "tables":  # columns of several meanings have no order, and no sign of their own
        names = [o.name for o in tried if o.name.startswith("shift_")]
    transform = transform_of([o for o in tried if names is None or o.name in names])
    return transform if options.padding is None else _padded(transform, options.padding)


def _refuse_unknown(names: Sequence[str] | None, known: Sequence[str]) -> None:
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        said = f"--symmetries: expected some of {', '.join(known)}, got {', '.join(unknown)}"
        raise ValueError(said + meant(unknown, known))


def _padded(transform: Transform, padding: str) -> Transform:
    """The same with this padding in every part that has one."""
    config = transform.config()
    padded = _with_padding(config, padding)
    if padded == _with_padding(config, ""):  # no part took it
        raise ValueError(
            f"--padding {padding}: expected nothing, since {', '.join(transform.names)} read nothing outside an image; "
            "leave out --padding"
        )
    return from_config(padded)


def _with_padding(config: Mapping[str, Any], padding: str) -> dict[str, Any]:
    changed = {**config, **({"padding": padding} if "padding" in config else {})}
    if "transforms" in config:
        changed["transforms"] = [_with_padding(part, padding) for part in config["transforms"]]
    return changed


def scales_of(examples: Examples, reading: Reading, kind: str) -> Reading:
    """The same with the means and standard deviations of a table's columns put in."""
    if kind != "tables":
        return reading
    if examples.x.ndim != 2:
        raise DataError(f"x has shape {examples.x.shape}; expected a table (n, columns)")
    mean, sd = examples.x.mean(0), examples.x.std(0)
    return dataclasses.replace(
        reading,
        columns=list(examples.columns) or None,
        scales=[mean.tolist(), np.where(sd > 0, sd, 1.0).tolist()],
    )
