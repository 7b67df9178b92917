"""An audit as one self-contained HTML page."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pandas as pd

import bayesinv
from bayesinv.io.files import check_writable, write_atomically
from bayesinv.report import page as html

if TYPE_CHECKING:
    import matplotlib.figure

HEAD = ("operation", "answer", "P(in)", "log BF", "needed", "90 % interval", "permitted", "90 % interval", "unit")


@runtime_checkable
class Reported(Protocol):
    """What the page shows; see `Audit`."""

    @property
    def kind(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def num_train(self) -> int: ...

    @property
    def num_held_out(self) -> int: ...

    @property
    def num_total(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def table(self) -> pd.DataFrame: ...

    @property
    def serious(self) -> str: ...

    @property
    def sentences(self) -> Mapping[str, str]: ...

    @property
    def recommendations(self) -> tuple[str, ...]: ...

    def plot_orbit(self, name: str) -> matplotlib.figure.Figure: ...


def write_audit(
    audit: Reported,
    path: str | os.PathLike[str],
    title: str = "Audit",
    command: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the serious note, if any, recommendations, the table, a picture of every operation, how it was done.

    Args:
        audit: what ``bayesinv.audit`` returned.
        path: the file; its folder must exist.
        title: the heading.
        command: the command line that made it, where one did.
        overwrite: whether an existing file may be replaced.

    Returns:
        The path written.

    Raises:
        FileExistsError: the file exists and ``overwrite`` is False. FileNotFoundError: its folder does not exist.
    """
    check_writable(path, overwrite)
    sections = [
        *([html.Section("serious", "Read this first", _serious(audit))] if audit.serious else []),
        html.Section("recommendations", "Recommendations", _list(tuple(audit.sentences.values()))),
        html.Section("table", "Needed and permitted", _table(audit)),
        *([] if audit.kind == "tables" else [html.Section("pictures", "What it looks like", _pictures(audit))]),
        html.Section("how", "How this was found", _how(audit, command)),
    ]
    subtitle = f"bayesinv {bayesinv.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return write_atomically(path, html.page(title, subtitle, sections).encode("utf-8", "replace"), overwrite)


def table_rows(audit: Reported) -> list[list[str]]:
    """The table as text, a cell for each of ``HEAD``."""
    rows = []
    for name, row in audit.table.iterrows():
        cells = [str(name), row["answer"], f"{row['inclusion']:.2f}", f"{row['log_bf']:+.1f}"]
        for what in ("needed", "permitted"):
            if math.isnan(row[what]):  # permitted, where nothing is predicted
                cells += ["–", "–"]
                continue
            cells += [f"{row[what]:.3g}", f"{row[f'{what}_lower']:.3g} to {row[f'{what}_upper']:.3g}"]
        rows.append([*cells, row["unit"]])
    return rows


def _serious(audit: Reported) -> str:
    return f'<ul class="verdicts"><li class="serious">{html.paragraph(audit.serious)}</li></ul>'


def _list(lines: tuple[str, ...]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _table(audit: Reported) -> str:
    words = (
        "P(in): probability that averaging over this operation explains the targets better than leaving it out, given "
        "the others. Needed: the extent that explains them best, if it is in. Permitted: how far one may go before "
        "left-out examples are predicted worse by 0.01 nat; its interval is over resampled examples. log BF: log Bayes "
        "factor on top of the others that are in, nats."
    )
    return html.table("Operations, the likeliest first", HEAD, table_rows(audit)) + html.paragraph(words)


def _pictures(audit: Reported) -> str:
    parts = []
    for name, sentence in audit.sentences.items():
        alternative = f"copies of one example under {name} at the 5, 50 and 95 % quantiles of the needed extent"
        parts.append(html.figure(audit.plot_orbit(name), alternative, sentence))
    return "".join(parts)


def _how(audit: Reported, command: str | None) -> str:
    values = {
        "examples": f"{audit.num_total}: {audit.num_train} for the evidence, {audit.num_held_out} left out to predict",
        **audit.settings,
        "seconds": f"{audit.seconds:.0f}",
    }
    if audit.classes:
        values["classes"] = ", ".join(audit.classes)
    text = html.facts("What was done", {name.replace("_", " "): value for name, value in values.items()})
    if notes := tuple(note for note in audit.notes if note != audit.serious):
        text += _list(notes)
    return text + (html.code(command) if command else "")
