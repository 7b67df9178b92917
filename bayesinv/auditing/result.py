"""What an audit says: a table, a sentence for each operation, pictures, a report and an augmentation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.auditing.baseline import Baseline
from bayesinv.auditing.operations import Operation, transform_of
from bayesinv.auditing.page import write_audit
from bayesinv.auditing.pictures import plot_orbit
from bayesinv.export import Augmentation
from bayesinv.io.console import for_console
from bayesinv.io.tables import ConsoleTable
from bayesinv.transforms import Coordinate

if TYPE_CHECKING:
    import matplotlib.figure

YES, PERHAPS = 0.95, 0.5  # P(in) from which the answer is yes, or perhaps
WHOLE = 0.95  # share of the largest extent from which it counts as all of it
HARDLY = 0.1  # and below which as nothing


@dataclass(frozen=True)
class Finding:
    """What was found of one operation; extents as 5, 50 and 95 % quantiles in internal units.

    Attributes:
        operation: which.
        coordinate: its unit and words.
        probability: P(in) given the data.
        log_bf_alone: log Bayes factor against none at all, nats.
        log_bf_given: the same on top of the others that are in, nats.
        needed: quantiles of the posterior of the extent, given that the operation is in.
        permitted: up to where left-out examples are predicted as well; over resampled examples.
        explained: whether the fit explains the targets better than a constant; if not, nothing is recommended.
        predicted: whether it also predicts left-out examples better; if not, nothing is called harmless.
    """

    operation: Operation
    coordinate: Coordinate
    probability: float
    log_bf_alone: float
    log_bf_given: float
    needed: tuple[float, float, float]
    permitted: tuple[float, float, float]
    explained: bool = True
    predicted: bool = True

    @property
    def answer(self) -> str:
        """ "yes", "perhaps" or "no"."""
        return "yes" if self.probability >= YES else "perhaps" if self.probability > PERHAPS else "no"

    @property
    def sentence(self) -> str:
        """The recommendation."""
        name, c, share = self.coordinate.name, self.coordinate, self.permitted[1] / self.coordinate.largest
        if not self.predicted and self.answer == "no":
            why = "not needed" if self.explained else "no evidence for it"
            return f"{name}: {why}; whether it harms cannot be said"
        if not self.explained:
            sure = f"P(in) = {self.probability:.2f}"
            return f"{name}: no recommendation; {sure}, but the fit explains no more than a constant"
        if self.answer != "no":
            low, high = (float(c.to_people(v)) for v in (self.needed[0], self.needed[2]))
            within = c.words(self.needed[1]).removeprefix("up to ")
            how = f"in {within}" if c.is_discrete else f"within {within}"
            sure = "" if self.answer == "yes" else f" (P = {self.probability:.2f})"
            beyond = self.predicted and share < WHOLE and self.permitted[1] > self.needed[1]
            tail = f"; harmless up to {self._far()}" if beyond else ""
            return f"{name}: {self.answer}{sure}, {how} (90 % interval {low:.1f} to {high:.1f}){tail}"
        if c.is_discrete:
            if share >= WHOLE:
                return f"{name}: no; it would do no harm"
            clear = self.permitted[2] < WHOLE * c.largest
            return f"{name}: no; " + ("predictions get worse with it" if clear else "whether it harms is not clear")
        if share >= WHOLE:
            return f"{name}: not needed; harmless"
        if share <= HARDLY:
            return f"{name}: no; predictions get worse with it"
        return f"{name}: not needed; harmless up to {self._far()}"

    def _far(self) -> str:
        return self.coordinate.words(self.permitted[1]).removeprefix("up to ")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Audit:
    """What may be done to inputs of a data set, and how far; made by ``bayesinv.audit``.

    Attributes:
        kind: "images", "signals", "points" or "tables".
        findings: one for each operation.
        inside: those with P(in) > 0.5.
        draws: of their extents, averaged over sets, internal units, (J, |inside|).
        example: one input as it was used, (1, *event), for pictures.
        event_shape: of the inputs as they came.
        num_train, num_held_out, num_total: examples of the evidence, left out, and all.
        classes: their names, if there are any.
        scales: means and standard deviations of a table's columns.
        settings: what it was done with.
        seconds: wall-clock time.
        baseline: the model against a constant; None where that was not asked.
        notes: what was done to the data, and what degrades the result.
    """

    kind: str
    findings: tuple[Finding, ...]
    inside: tuple[Operation, ...]
    draws: Float[Tensor, "J inside"]
    example: Tensor
    event_shape: tuple[int, ...]
    num_train: int
    num_held_out: int
    num_total: int
    classes: tuple[str, ...] = ()
    scales: tuple[np.ndarray, np.ndarray] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    baseline: Baseline | None = None
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """One row an operation, the likeliest first.

        Index `operation`; columns `inclusion` (P(in)), `log_bf` (on top of the others that are in) and
        `log_bf_alone`, nats, `needed`, `needed_lower`, `needed_upper` (median and 90 % interval), `permitted`,
        `permitted_lower`, `permitted_upper`, `unit` and `answer`. Extents in people's units. `permitted` is NaN where
        left-out examples are predicted no better than by a constant.
        """
        rows = {}
        for f in self.findings:
            to_people = f.coordinate.to_people
            row: dict[str, Any] = {"inclusion": f.probability, "log_bf": f.log_bf_given, "log_bf_alone": f.log_bf_alone}
            for what, (low, middle, high) in (("needed", f.needed), ("permitted", f.permitted)):
                row |= {what: to_people(middle), f"{what}_lower": to_people(low), f"{what}_upper": to_people(high)}
            if not f.predicted:
                row |= dict.fromkeys(("permitted", "permitted_lower", "permitted_upper"), np.nan)
            rows[f.coordinate.name] = {**row, "unit": f.coordinate.unit, "answer": f.answer}
        table = ConsoleTable.from_dict(rows, orient="index").rename_axis("operation")
        return table.sort_values(["inclusion", "log_bf"], ascending=False, kind="stable")

    @property
    def serious(self) -> str:
        """The note of a fit that knows no more than a constant; empty otherwise."""
        return "" if self.baseline is None else self.baseline.note

    @property
    def sentences(self) -> dict[str, str]:
        """One sentence for each operation, by its name, in the order of the table."""
        sentences = {f.coordinate.name: f.sentence for f in self.findings}
        return {name: sentences[name] for name in self.table.index}

    @property
    def recommendations(self) -> tuple[str, ...]:
        """The serious note, if there is one, and a sentence for each operation."""
        return (*([self.serious] if self.serious else []), *self.sentences.values())

    def augmentation(self, copies: int = 1, seed: int | None = None) -> Augmentation:
        """What is in, as an augmentation for any pipeline: see `bayesinv.export.Augmentation`.

        Each copy draws extents from their posterior, and an operation with P(in) = 0.97 is out in 3 % of the draws.
        Where nothing is in, or the fit explains the targets no better than a constant, inputs stay as they are; in the
        second case with a warning of what is left out. Rows of a table are taken as they came.

        Args:
            copies: how many copies of an input.
            seed: of a generator of its own; None for torch's global one.
        """
        explained = self.baseline is None or self.baseline.explained
        if self.inside and not explained:
            names = ", ".join(o.name for o in self.inside)
            warnings.warn(f"The augmentation leaves out {names}. {self.serious}", stacklevel=2)
        if not self.inside or not explained:  # the identity
            transform = transform_of([self.findings[0].operation])
            rows = torch.zeros(1, 1)
            return Augmentation(transform, rows, self.event_shape, None, copies, "posterior", seed, self.scales)
        rows, transform = self.draws[:: max(1, len(self.draws) // 1000)], transform_of(self.inside)
        return Augmentation(transform, rows, self.event_shape, None, copies, "posterior", seed, self.scales)

    def plot_orbit(self, name: str) -> matplotlib.figure.Figure:
        """Copies of one input at the 5, 50 and 95 % quantiles of an operation's needed extent, a row each.

        Raises:
            KeyError: no such operation. ValueError: a table, which has no picture.
        """
        found = {f.coordinate.name: f for f in self.findings}
        if name not in found:
            raise KeyError(f"operation: expected one of {', '.join(found)}, got {name!r}")
        return plot_orbit(self, found[name])

    def report(
        self, path: str | os.PathLike[str], title: str = "Audit", command: str | None = None, overwrite: bool = False
    ) -> Path:
        """Write one self-contained HTML page; see `auditing.page.write_audit`."""
        return write_audit(self, path, title, command, overwrite)

    def __repr__(self) -> str:
        head = f"Audit of {self.num_total} {self.kind} ({len(self.findings)} operations, {self.seconds:.0f} s)"
        return for_console("\n".join([head, *(f"  {line}" for line in self.recommendations)]))

    def _repr_html_(self) -> str:
        return f"<div><p><b>Audit</b> of {self.num_total} {self.kind}</p>{self.table.round(3).to_html()}</div>"
