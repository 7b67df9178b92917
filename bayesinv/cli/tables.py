"""Tables as text, for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bayesinv.cli.words import in_shell_words
from bayesinv.inference.modes import mode_in_words
from bayesinv.numerics.psis import weights_are_good
from bayesinv.posterior.invariance_posterior import InvariancePosterior


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines: the first column to the left, the others to the right.

    Example:
        >>> for line in columns([["name", "n"], ["a", "10"]]).splitlines():
        ...     line
        'name   n'
        'a     10'
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def summary_text(table: pd.DataFrame) -> str:
    """`InvariancePosterior.summary()` as lines; medians carry the sign of their symmetry, ± for half-widths."""
    level = f"{100 * table.attrs['level']:g} % interval"
    rows = [["symmetry", "median", level, "unit", "P(inactive)", "prior median"]]
    for name, row in table.iterrows():
        interval = "fixed" if row["fixed"] else f"{row['lower']:.1f} to {row['upper']:.1f}"
        inactive = "" if row["fixed"] else f"{row['p_inactive']:.2f}"
        sign = table.attrs["prefixes"][str(name)]
        middle = row["prior_median"]
        prior = "" if row["fixed"] else f"{sign}{middle:.0f}" if middle >= 10 else f"{sign}{middle:.2g}"
        median = f"{sign}{row['median']:.1f}"
        rows.append([str(name), median, interval, row["unit"], inactive, prior])
    note = "\n(importance-weighted)" if table.attrs["reweighted"] else ""
    return columns(rows) + note


def facts_text(posterior: InvariancePosterior) -> str:
    """Pareto k̂, log evidence and the warnings of a fit, a line each."""
    result = posterior.result
    lines = []
    if result.pareto_k is not None:
        good = weights_are_good(result.pareto_k, result.num_draws)
        verdict = "reliable" if good else "not reliable, see the warning"
        if not result.converged:
            verdict += ", for the fit as it stopped"
        lines.append(f"Pareto k̂      {result.pareto_k:.2f} (importance weights {verdict})")
    if result.rhat is not None:
        finite = [value for value in result.rhat if value == value]  # NaN where fixed
        lines.append(f"largest R̂     {max(finite):.3f}" if finite else "largest R̂     none")
    if result.log_evidence is not None:
        error = "" if not result.log_evidence_se else f" ± {result.log_evidence_se:.2f} (s.e.)"
        reason = f" (no s.e.: {result.why_no_standard_error})" if result.why_no_standard_error else ""
        lines.append(f"log evidence  {result.log_evidence:.1f}{error} nats{reason}")
    stopped = ""
    if not result.converged:
        longer = "--epochs" if posterior.model.is_network else "--max-steps"
        stopped = "; the chains disagree" if result.rhat else f"; ended before the optimum: raise {longer}"
    lines.append(f"inference     {result.inference}, {result.num_steps} steps{stopped}")
    return "\n".join([*lines, *(f"warning: {in_shell_words(warning)}" for warning in result.warnings)])


def settings_text(posterior: InvariancePosterior) -> str:
    """Model and settings of a fit, a line each."""
    model, result = posterior.model, posterior.result
    rows = {
        "evidence": f"{model.evidence_name}, {model.likelihood} targets",
        "orbit": f"{model.orbit.num_copies} copies",
        "guide": result.guide,
        "seed": result.seed,
        **result.settings,
    }
    if rows.get("modes"):
        rows["modes"] = "; ".join(map(mode_in_words, rows["modes"]))
    lines = (f"{name.replace('_', ' '):<13} {_in_words(value)}" for name, value in rows.items() if value is not None)
    return "\n".join(lines)


def _in_words(value: Any) -> str:
    """A setting as text, whatever it is made of.

    Example:
        >>> _in_words({"batch_size": 64, "rates": [0.1, 0.05], "mixed_precision": False})
        'batch size 64, rates 0.1 0.05, mixed precision no'
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {_in_words(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_in_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
