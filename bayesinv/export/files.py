"""Read an augmentation from its file."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import torch as tensors

from bayesinv.errors import SavedFileError
from bayesinv.export.augmentation import Augmentation
from bayesinv.export.saving import FORMAT, VERSION
from bayesinv.transforms import from_config

__all__ = ["load"]


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
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    content = path.read_bytes()
    try:
        # The length of the header, then the header: https://huggingface.co/docs/safetensors
        size = int.from_bytes(content[:8], "little")
        metadata: dict[str, Any] = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        held = tensors.load(content)
        extents, scales = held.get("extents"), held.get("scales")
    except Exception as error:
        hint = ""
        if path.suffix == ".json":
            hint = f"; these are numbers for people: load {path.with_suffix('.safetensors').name} beside them"
        elif content.startswith(b"PK"):
            hint = "; for a posterior use bayesinv.load(path)"
        raise SavedFileError(
            f"{path} is not an augmentation saved by bayesinv, or it is damaged: {error}{hint}"
        ) from error
    if metadata.get("format") != FORMAT or extents is None:
        raise SavedFileError(f"{path} is not an augmentation saved by bayesinv; expected what augmentation.save wrote")
    if metadata.get("version") not in [str(version) for version in range(1, VERSION + 1)]:
        raise SavedFileError(
            f"{path} has version {metadata.get('version')} of the format, and this bayesinv reads up to {VERSION}; "
            "update it"
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
            None if scales is None else (scales[0], scales[1]),
            header.get("output_action"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SavedFileError(f"{path} cannot be rebuilt: {error}") from error
