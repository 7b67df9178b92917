"""Put a report together and write it, whole or not at all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bayesinv.checks import diagnose
from bayesinv.comparison.comparison import Comparison, compare
from bayesinv.comparison.evidence_groups import fixed_at_medians
from bayesinv.data.container import Data, as_data
from bayesinv.data.groups import NEW_GROUP
from bayesinv.io.files import check_writable, write_atomically
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.report import sections
from bayesinv.report.page import Section, page, table
from bayesinv.selection import Selection


def write_report(
    posterior: InvariancePosterior,
    path: str | os.PathLike[str],
    *,
    title: str = "Invariance report",
    selection: Any = None,  # kinds are checked below, in words
    comparison: Any = None,
    test: Any = None,
    classes: Sequence[str] = (),
    command: str | None = None,
    level: float = 0.9,
    reweighted: bool | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML file about a fit.

    What was fitted, verdicts, extents, orbit pictures, the course of the fit, selection, predictive quality, settings
    and how to reproduce it. Images are inline; the page loads nothing and runs no script.

    Args:
        posterior: the fit.
        path: the file; its folder must exist.
        title: the heading.
        selection: what ``bayesinv.select`` returned for the same data.
        comparison: what ``bayesinv.compare`` returned, for predictive quality against other fits.
        test: data that the fit has not seen, whatever ``fit`` takes: the page then has the scores of this fit on them
            (accuracy or RMSE, log loss, calibration), and a verdict on its predictions.
        classes: names of the classes; those of the training data if empty.
        command: the command line that made the fit, where one did.
        level: the mass of the intervals.
        reweighted: whether to use the importance weights; None uses them where they are good.
        overwrite: whether an existing report may be replaced.

    Returns:
        The path written.

    Raises:
        FileExistsError: the file exists and ``overwrite`` is False, or is no report.
        FileNotFoundError: its folder does not exist.
        TypeError: ``selection`` or ``comparison`` is something else. ValueError: a level outside (0, 1), no weights to
            use, a selection among other symmetries, or both ``comparison`` and ``test``. DataError: test data that do
            not fit.

    Warns:
        UserWarning: the model has extents for groups, and the test data do not say which example is of which.
    """
    check_writable(path, overwrite)
    if selection is not None and not isinstance(selection, Selection):
        raise TypeError(
            f"selection: expected what bayesinv.select returns, got {type(selection).__name__}: "
            "report(path, selection=bayesinv.select(model, data))"
        )
    if comparison is not None and not isinstance(comparison, Comparison):
        raise TypeError(
            f"comparison: expected what bayesinv.compare returns, got {type(comparison).__name__}: "
            'report(path, comparison=bayesinv.compare({"posterior": posterior}, test))'
        )
    if selection is not None and not set(selection.symmetries) <= set(posterior.symmetries):
        raise ValueError(
            f"selection: expected one among {', '.join(posterior.symmetries)}, got one among "
            f"{', '.join(selection.symmetries)}"
        )
    if test is not None:
        if comparison is not None:
            raise ValueError("test, comparison: expected one of the two; a comparison has its test data already")
        test = _read(posterior, test)
        comparison = compare({"this fit": posterior}, test, reweighted=reweighted, level=level)
    grouped = posterior.model.groups is not None
    test_words = "bayesinv.Data(x_test, y_test, groups=groups_test)" if grouped else "(x_test, y_test)"
    parts = [
        sections.what_was_fitted(posterior, classes or posterior.data.classes or ()),
        sections.verdicts(diagnose(posterior, test=test)),
        sections.extents(posterior, level, reweighted),
        sections.orbits(posterior, reweighted),
        sections.course(posterior),
        None if selection is None else sections.selection(selection),
        sections.quality(
            comparison,
            "bayesinv report DIR --test TEST.npz --overwrite"
            if command
            else f'posterior.report("{Path(path).name}", test={test_words}, overwrite=True)',
        ),
        sections.settings(posterior, {}),
        sections.reproduce(posterior, command),
    ]
    text = page(title, _subtitle(), [part for part in parts if part is not None])
    return write_atomically(path, text.encode("utf-8", "replace"), overwrite)


def write_comparison_report(
    posteriors: Mapping[str, InvariancePosterior],
    path: str | os.PathLike[str],
    *,
    comparison: Comparison | None = None,
    title: str = "Fits side by side",
    level: float = 0.9,
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML file about several fits.

    Args:
        posteriors: the fits by name.
        path: the file; its folder must exist.
        comparison: what ``bayesinv.compare`` returned for them on test data.
        title: the heading.
        level: the mass of the intervals.
        overwrite: whether an existing report may be replaced.

    Returns:
        The path written.

    Raises:
        FileExistsError: the file exists and ``overwrite`` is False, or is no report.
        FileNotFoundError: its folder does not exist.
        ValueError: no fits, or a level outside (0, 1).
    """
    check_writable(path, overwrite)
    if not posteriors:
        raise ValueError("posteriors: expected at least one fit, got none")
    how = "bayesinv compare DIR DIR --test TEST.npz --report FILE, or comparison=bayesinv.compare(fits, test) in Python"
    parts = [_overview(posteriors), _extents_side_by_side(posteriors, level), sections.quality(comparison, how)]
    for i, (name, posterior) in enumerate(posteriors.items()):
        inner = [
            sections.what_was_fitted(posterior),
            sections.verdicts(diagnose(posterior)),
            sections.extents(posterior, level, False),
        ]
        body = "".join(f"<h3>{part.heading}</h3>{part.body}" for part in inner)
        parts.append(Section(f"fit-{i}", name, body))
    parts.append(
        Section("versions", "Versions", sections.facts("Versions that wrote this report", sections.versions()))
    )
    return write_atomically(path, page(title, _subtitle(), parts).encode("utf-8", "replace"), overwrite)


def _read(posterior: InvariancePosterior, test: Any) -> Data:
    """The test data, read once, since scores and verdict both want them, and told of once where they lack groups."""
    model = posterior.model
    data = as_data(
        test,
        model.likelihood,
        model.transform,
        num_classes=posterior.data.num_classes,
        one_class=True,
        with_groups=model.groups is not None,
        classes=posterior.data.classes,
    )
    if posterior.groups_of(data, stacklevel=5) is None and model.groups is not None:
        return dataclasses.replace(data, groups=torch.full((len(data),), NEW_GROUP))
    return data


def _overview(posteriors: Mapping[str, InvariancePosterior]) -> Section:
    rows, twice = [], fixed_at_medians(posteriors)
    for name, posterior in posteriors.items():
        result, found = posterior.result, diagnose(posterior)
        # That of extents which the same data chose may not stand beside the others.
        evidence = "–" if result.log_evidence is None or name in twice else f"{result.log_evidence:.1f}"
        rows.append([name, sections.method(posterior), posterior.model.evidence_name, evidence, len(found.serious)])
    head = ["fit", "inference", "evidence", "log evidence, nats", "serious verdicts"]
    return Section("overview", "The fits", table("One row a fit", head, rows, words=[1, 2]))


def _extents_side_by_side(posteriors: Mapping[str, InvariancePosterior], level: float) -> Section:
    names = list(dict.fromkeys(name for p in posteriors.values() for name in p.symmetries))
    summaries = {fit: p.summary(level=level) for fit, p in posteriors.items()}
    rows = []
    for name in names:
        cells = []
        for summary in summaries.values():
            if name not in summary.index:
                cells.append("not considered")
                continue
            row = summary.loc[name]
            interval = f" [{sections.number(row['lower'])}, {sections.number(row['upper'])}]"
            kind = " fixed" if row["fixed"] else " point" if row["point"] else interval
            cells.append(f"{summary.attrs['prefixes'][name]}{sections.number(row['median'])}{kind} {row['unit']}")
        rows.append([name, *cells])
    caption = f"Median and {100 * level:g} % interval of each extent"
    return Section("side-by-side", "Extents side by side", table(caption, ["symmetry", *posteriors], rows))


def _subtitle() -> str:
    return f"bayesinv {sections.versions().get('bayesinv', '')}, written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
