"""A selection in one file: arrays and JSON in a zip, and nothing that runs when it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bayesinv.errors import SavedFileError
from bayesinv.io.archives import pack, unpack
from bayesinv.io.console import ConsoleTable
from bayesinv.io.files import as_path, check_writable, write_atomically
from bayesinv.selection.relaxed import RelaxedSelection
from bayesinv.selection.result import Selection
from bayesinv.selection.subsets import SetDraws, SubsetSelection

FORMAT = "bayesinv.Selection"
FORMAT_VERSION = 1
_COMMON = ("prior_inclusion", "seed", "seconds")


def save(selection: Selection, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a selection to one file, completely or not at all.

    Args:
        selection: what to save. The fit under a relaxed selection is not in the file; save it by its own `save`.
        path: the file; its folder must exist. The name is used as given.
        overwrite: whether an existing file that bayesinv saved may be replaced.

    Returns:
        The path written.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
        FileNotFoundError: the folder does not exist.
    """
    check_writable(path, overwrite)
    header: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "method": selection.method}
    header |= {name: getattr(selection, name) for name in _COMMON}
    header |= {"symmetries": list(selection.symmetries), "settings": dict(selection.settings)}
    header["warnings"] = list(selection.warnings)
    more, arrays = _subset_parts(selection) if isinstance(selection, SubsetSelection) else _relaxed_parts(selection)
    header |= more
    arrays = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays}
    return write_atomically(path, pack(arrays), overwrite)


def load(path: str | os.PathLike[str]) -> Selection:
    """Read a selection that `save` wrote. No code in the file is run.

    Raises:
        FileNotFoundError: no such file.
        SavedFileError: the file is damaged, or written by something else or by a later version.
    """
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    arrays = unpack(path, "selection")
    try:
        header = json.loads(arrays["header"].tobytes().decode())
        if header["format"] != FORMAT or header["format_version"] != FORMAT_VERSION:
            raise ValueError(f"its format is {header['format']!r}, version {header['format_version']!r}")
        common = {name: header[name] for name in _COMMON}
        common |= {"symmetries": tuple(header["symmetries"]), "settings": header["settings"]}
        common["warnings"] = tuple(header["warnings"])
        make = {"subsets": _load_subsets, "relaxed": _load_relaxed}[header["method"]]
        return make(header, {k: torch.from_numpy(v) for k, v in arrays.items() if k != "header"}, common)
    # What is written in a header may be anything.
    except Exception as error:
        raise SavedFileError(f"{path} is not a selection saved by bayesinv, or it is damaged: {error}") from error


def _subset_parts(selection: SubsetSelection) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    draws = selection.draws
    header = {
        "places": list(selection.places),
        "slab_scales": dict(selection.slab_scales),
        "num_draws": [len(d.log_weights) for d in draws],
        "num_failed": [d.num_failed for d in draws],
        "scales": list(selection.slab_log_mass),
    }
    arrays = {
        "sets": selection.sets.numpy(),
        "extents": torch.cat([d.extents.flatten() for d in draws]).numpy(),
        "log_weights": torch.cat([d.log_weights for d in draws]).numpy(),
        "pareto_k": np.array([d.pareto_k for d in draws]),
        "fixed": selection.fixed.numpy(),
        "slab_high": selection.slab_high.numpy(),
        "log_mass": torch.stack(list(selection.slab_log_mass.values())).numpy(),
    }
    return header, arrays


def _load_subsets(header: dict[str, Any], arrays: dict[str, torch.Tensor], common: dict[str, Any]) -> SubsetSelection:
    sizes = arrays["sets"].sum(1).tolist()
    counts = header["num_draws"]
    extents = arrays["extents"].split([n * k for n, k in zip(counts, sizes, strict=True)])
    weights = arrays["log_weights"].split(counts)
    facts = zip(extents, weights, sizes, arrays["pareto_k"].tolist(), header["num_failed"], strict=True)
    draws = tuple(SetDraws(eta.reshape(len(w), k), w, k_hat, failed) for eta, w, k, k_hat, failed in facts)
    return SubsetSelection(
        **common,
        sets=arrays["sets"],
        draws=draws,
        fixed=arrays["fixed"],
        places=tuple(header["places"]),
        slab_high=arrays["slab_high"],
        slab_log_mass=dict(zip(header["scales"], arrays["log_mass"], strict=True)),
        slab_scales=header["slab_scales"],
    )


def _relaxed_parts(selection: Selection) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not isinstance(selection, RelaxedSelection):
        raise TypeError(f"save: expected a SubsetSelection or a RelaxedSelection, got {type(selection).__name__}")
    arrays = {"membership": selection.membership.numpy(), "weights": selection.weights.numpy()}
    paired = selection.paired
    if paired is not None:
        arrays["paired"] = paired.to_numpy(dtype=float)
    return {"paired": None if paired is None else [list(paired.index), list(paired.columns)]}, arrays


def _load_relaxed(header: dict[str, Any], arrays: dict[str, torch.Tensor], common: dict[str, Any]) -> RelaxedSelection:
    paired = None
    if header["paired"] is not None:
        names, columns = header["paired"]
        paired = ConsoleTable(arrays["paired"].numpy(), index=pd.Index(names, name="symmetry"), columns=columns)
    return RelaxedSelection(**common, membership=arrays["membership"], weights=arrays["weights"], paired=paired)
