"""An augmentation in two files: .safetensors to load, and a .json of its numbers to read."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as tensors

from bayesinv.errors import SavedFileError
from bayesinv.export.augmentation import Augmentation
from bayesinv.io.files import check_writable, write_atomically
from bayesinv.transforms import from_config

__all__ = ["load", "save"]

FORMAT = "bayesinv augmentation"
VERSION = 1


def save(augmentation: Augmentation, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write an augmentation for `load`, and beside it, with the ending .json, its numbers in people's units.

    Args:
        augmentation: what to write.
        path: the file, such as "aug.safetensors"; its folder must exist.
        overwrite: whether existing files may be replaced.

    Returns:
        The path.

    Raises:
        ValueError: a path that ends in .json, or a transform that is not registered, which nothing could read back.
        OSError: as `files.check_writable`.
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
    metadata = {"format": FORMAT, "version": str(VERSION), "header": json.dumps(header)}
    for file in (path, beside):
        check_writable(file, overwrite)
    content = tensors.save({"extents": augmentation.extents.to("cpu", torch.float64).contiguous()}, metadata)
    write_atomically(path, content, overwrite)
    words = json.dumps(augmentation.numbers(), indent=2, ensure_ascii=False) + "\n"
    write_atomically(beside, words.encode(), overwrite)
    return path


def load(path: str | os.PathLike[str]) -> Augmentation:
    """Read an augmentation that `save` wrote. Nothing in the file is run, and Pyro, GPyTorch and ArviZ are not needed.

    Transforms of your own have to be imported first, their class decorated with `bayesinv.transforms.register`.

    Args:
        path: the .safetensors file.

    Raises:
        FileNotFoundError: no such file.
        SavedFileError: it is damaged, foreign, or of a later version.

    Example:
        >>> aug = bayesinv.export.load("aug.safetensors")  # doctest: +SKIP
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        # The length of the header, then the header: https://huggingface.co/docs/safetensors
        size = int.from_bytes(content[:8], "little")
        metadata: dict[str, Any] = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        extents = tensors.load(content).get("extents")
    except Exception as error:
        raise SavedFileError(f"{path} is not an augmentation saved by bayesinv, or it is damaged: {error}") from error
    if metadata.get("format") != FORMAT or extents is None:
        raise SavedFileError(f"{path} is not an augmentation saved by bayesinv; expected what augmentation.save wrote")
    if metadata.get("version") != str(VERSION):
        raise SavedFileError(
            f"{path} has version {metadata.get('version')} of the format, and this bayesinv reads {VERSION}; update it"
        )
    try:
        header = json.loads(metadata["header"])
        return Augmentation(
            from_config(header["transform"]),
            extents,
            tuple(header["event_shape"]),
            header["distributions"],
            header["copies"],
            header["draws"],
            header["seed"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SavedFileError(f"{path} cannot be rebuilt: {error}") from error
