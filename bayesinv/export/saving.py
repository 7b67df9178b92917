"""An augmentation in two files: .safetensors to load, and a .json of its numbers to read."""

import json
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import torch as tensors

from bayesinv.export.conventions import Described
from bayesinv.io.files import check_writable, write_atomically
from bayesinv.transforms import from_config

__all__ = ["save"]

FORMAT = "bayesinv augmentation"
VERSION = 2  # of tables with scales, and of outputs that move; of all else 1


@runtime_checkable
class Written(Described, Protocol):
    """What the files hold; see `Augmentation`."""

    copies: int
    seed: int | None
    output_action: str | None

    def numbers(self) -> dict[str, Any]: ...


def save(augmentation: Written, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write an augmentation for `load`, and beside it, with the ending .json, its numbers in people's units.

    Args:
        augmentation: what to write.
        path: the file, such as "aug.safetensors"; its folder must exist.
        overwrite: whether existing files may be replaced.

    Returns:
        The path.

    Raises:
        ValueError: a path that ends in .json, or a transform that is not registered, which nothing could read back.
        OSError: as `io.files.check_writable`.
    """
    path = Path(path)
    beside = path.with_suffix(".json")
    if beside == path:
        raise ValueError(f"path: expected a name such as {path.with_suffix('.safetensors')}, got {path}")
    config = augmentation.transform_family.config()
    from_config(config)  # raises now, and not when it is loaded
    header = {
        "transform": config,
        "distributions": augmentation.orbit.augmentation,
        "event_shape": list(augmentation.event_shape),
        "copies": augmentation.copies,
        "draws": augmentation.draws,
        "seed": augmentation.seed,
    }
    held = {"extents": augmentation.extents.to("cpu", torch.float64).contiguous()}
    version = 1
    if augmentation.scales is not None:
        held["scales"], version = augmentation.scales.to("cpu", torch.float64).contiguous(), VERSION
    if augmentation.output_action is not None:
        header["output_action"], version = augmentation.output_action, VERSION
    metadata = {"format": FORMAT, "version": str(version), "header": json.dumps(header)}
    for file in (path, beside):
        check_writable(file, overwrite)
    content = tensors.save(held, metadata)
    write_atomically(path, content, overwrite)
    words = json.dumps(augmentation.numbers(), indent=2, ensure_ascii=False) + "\n"
    write_atomically(beside, words.encode(), overwrite)
    return path
