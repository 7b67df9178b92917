"""Nominal against actual coverage of central intervals, their width and the bias, with Monte-Carlo errors."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import xarray as xr


def coverage(simulations: xr.Dataset) -> pd.DataFrame:
    """How often central intervals hold the truth, symmetry by symmetry.

        actual = 1/N Σ_i [ lower_i <= η_i <= upper_i ],    error = √( p̃ (1 - p̃) / (N + 4) )

    with p̃ = (N actual + 2) / (N + 4). The error is that of Agresti and Coull (1998), which does not vanish where all
    or none cover.

    Args:
        simulations: of ``simulation_based_calibration``, or `recorded` of ones made elsewhere.

    Returns:
        Index weighting, symmetry and level; ``actual`` and ``actual_se``; ``width``, the mean one, ``bias``, the mean
        of median - truth, and ``bias_se``, all in people's units, named by ``unit``; ``relative_width``, of all that
        the symmetry can do; ``simulations``.

    Example:
        >>> made = recorded(
        ...     truth=[[1.0], [2.0]],
        ...     lower=[[[0.5]], [[2.5]]],
        ...     upper=[[[1.5]], [[3.5]]],
        ...     median=[[1.0], [3.0]],
        ...     symmetries=["rotation"],
        ...     levels=[0.9],
        ... )
        >>> float(coverage(made).loc[("draws", "rotation", 0.9), "actual"])
        0.5
    """
    N = simulations.sizes["simulation"]
    inside = (simulations["lower"] <= simulations["truth"]) & (simulations["truth"] <= simulations["upper"])
    actual = inside.mean("simulation")
    adjusted = (N * actual + 2) / (N + 4)
    off = simulations["median"] - simulations["truth"]
    width = (simulations["upper"] - simulations["lower"]).mean("simulation")
    columns = {
        "actual": actual,
        "actual_se": np.sqrt(adjusted * (1 - adjusted) / (N + 4)),
        "width": width,
        "bias": off.mean("simulation"),
        "bias_se": off.std("simulation", ddof=1) / math.sqrt(N) if N > 1 else off.mean("simulation") * math.nan,
    }
    if "largest" in simulations:
        columns["relative_width"] = width / simulations["largest"]
    table = xr.Dataset(columns).drop_vars("unit", errors="ignore").to_dataframe()
    table = table.reorder_levels(["weighting", "symmetry", "level"])
    if "unit" in simulations.coords:
        units = simulations["unit"].to_series().astype(str)
        table["unit"] = [units[symmetry] for _, symmetry, _ in table.index]
    table["simulations"] = N
    order = pd.MultiIndex.from_product(
        [simulations[name].values.tolist() for name in ("weighting", "symmetry", "level")],
        names=["weighting", "symmetry", "level"],
    )
    return table.loc[order]


def recorded(
    truth: object,
    lower: object,
    upper: object,
    median: object,
    symmetries: list[str],
    levels: list[float],
    units: list[str] | None = None,
    weighting: str = "draws",
) -> xr.Dataset:
    """Intervals that were recorded elsewhere, in the layout that `coverage` reads.

    Args:
        truth, median: (simulations, symmetries).
        lower, upper: (simulations, levels, symmetries).
        symmetries, levels, units: names, masses of the intervals, units.
        weighting: what to call them.

    Raises:
        ValueError: shapes that do not fit.
    """
    arrays = {name: np.asarray(v, float) for name, v in (("truth", truth), ("median", median))}
    ends = {name: np.asarray(v, float) for name, v in (("lower", lower), ("upper", upper))}
    N = len(arrays["truth"])
    for wanted, group in (((N, len(symmetries)), arrays), ((N, len(levels), len(symmetries)), ends)):
        for name, value in group.items():
            if value.shape != wanted:
                raise ValueError(f"{name}: expected shape {wanted}, got {value.shape}")
    return xr.Dataset(
        {
            "truth": (("simulation", "symmetry"), arrays["truth"]),
            "median": (("weighting", "simulation", "symmetry"), arrays["median"][None]),
            **{name: (("weighting", "simulation", "level", "symmetry"), v[None]) for name, v in ends.items()},
        },
        {
            "symmetry": symmetries,
            "level": levels,
            "weighting": [weighting],
            "unit": ("symmetry", units or [""] * len(symmetries)),
        },
    )
