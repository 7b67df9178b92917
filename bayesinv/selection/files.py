"""A selection in one file: arrays and JSON in a zip, and nothing that runs when it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesinv.errors import SavedFileError
from bayesinv.io.archives import pack, unpack
from bayesinv.io.files import as_path, check_writable, write_atomically

FORMAT = "bayesinv.Selection"
FORMAT_VERSION = 1


def write(
    path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], overwrite: bool
) -> Path:
    """Write a header and arrays completely or not at all; errors as for `Selection.save`."""
    check_writable(path, overwrite)
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, **header}
    written = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays}
    return write_atomically(path, pack(written), overwrite)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and arrays of a file that `write` wrote.

    Raises:
        FileNotFoundError: no such file.
        SavedFileError: written by something else or by a later version, damaged, or more than memory holds.
    """
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    arrays = unpack(path, "selection")
    try:
        header = json.loads(arrays["header"].tobytes().decode())
        if header["format"] != FORMAT or header["format_version"] != FORMAT_VERSION:
            raise ValueError(f"its format is {header['format']!r}, version {header['format_version']!r}")
    except Exception as error:
        raise damaged(path, error) from error
    return header, {k: torch.from_numpy(v) for k, v in arrays.items() if k != "header"}


def damaged(path: str | os.PathLike[str], error: Exception) -> SavedFileError:
    """The error for a file that holds something else than a selection."""
    return SavedFileError(f"{path} is not a selection saved by bayesinv, or it is damaged: {error}")
