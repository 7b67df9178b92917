"""Finished simulations: a JSON file each, and all of them as one dataset."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesinv.io.files import write_atomically

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
WEIGHTINGS = ("draws", "reweighted")
_SETTINGS = "settings.json"


def read_records(folder: Path, facts: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Finished simulations of a folder by index; makes the folder, and writes down what they are simulations of.

    Raises:
        ValueError: the folder holds simulations of something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _SETTINGS
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(key for key in {*kept, *facts} if kept.get(key) != facts.get(key))
        if differing:
            raise ValueError(
                f"folder: {folder} holds simulations with other {', '.join(differing)}; use a folder of its own"
            )
    else:
        _write(path, dict(facts))
    found = (json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("simulation_*.json")))
    return {record["index"]: record for record in found}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """One finished simulation; there in full or not at all."""
    _write(folder / f"simulation_{record['index']:05d}.json", dict(record))


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content).encode())


def load_simulations(
    folder: str | os.PathLike[str], symmetries: Sequence[str], units: Mapping[str, str] | None = None
) -> xr.Dataset:
    """The dataset of the simulations that a folder holds, finished or not.

    Args:
        folder: what ``simulation_based_calibration(folder=...)`` wrote.
        symmetries: names of the latent extents, in the order of the model.
        units: by symmetry; empty if left out.

    Raises:
        ValueError: no simulations there.
    """
    path = Path(folder)
    if not (path / _SETTINGS).exists():
        raise ValueError(f"folder: {path} holds no simulations")
    facts = json.loads((path / _SETTINGS).read_text(encoding="utf-8"))
    records = read_records(path, facts)
    return dataset_of([records[i] for i in sorted(records)], symmetries, units or {}, facts)


def dataset_of(
    records: Sequence[Mapping[str, Any]],
    symmetries: Sequence[str],
    units: Mapping[str, str],
    facts: Mapping[str, Any],
) -> xr.Dataset:
    """Records as one dataset; see ``simulation_based_calibration``.

    Raises:
        ValueError: every simulation failed.
    """
    good = [r for r in records if r["error"] is None]
    failed = [r for r in records if r["error"] is not None]
    if not good:
        first = failed[0]["error"] if failed else "there are none"
        raise ValueError(f"all {len(records)} simulations failed, the first with: {first}")
    named = good[0].get("weightings", WEIGHTINGS)
    weightings = [w for w in named if all(w in r for r in good)]

    def stacked(name: str) -> np.ndarray:
        return np.array([[r[w][name] for r in good] for w in weightings])

    of_each = ("weighting", "simulation", "symmetry")
    variables: dict[str, Any] = {
        "rank": (of_each, stacked("rank")),
        "median": (of_each, stacked("median")),
        "lower": (("weighting", "simulation", "level", "symmetry"), stacked("lower")),
        "upper": (("weighting", "simulation", "level", "symmetry"), stacked("upper")),
        "truth": (("simulation", "symmetry"), np.array([r["truth"] for r in good])),
        "largest": ("symmetry", np.array(good[0]["largest"])),
        "seconds": ("simulation", np.array([r["seconds"] for r in good])),
    }
    for name in ("pareto_k", "converged", "log_evidence"):
        if any(r.get(name) is not None for r in good):
            values = [np.nan if r.get(name) is None else float(r[name]) for r in good]
            variables[name] = ("simulation", np.array(values))
    coords = {
        "simulation": [r["index"] for r in good],
        "symmetry": list(symmetries),
        "level": list(LEVELS),
        "weighting": weightings,
        "unit": ("symmetry", [units.get(name, "") for name in symmetries]),
    }
    errors = json.dumps({str(r["index"]): r["error"] for r in failed})
    return xr.Dataset(variables, coords, attrs={**facts, "num_failed": len(failed), "errors": errors})
