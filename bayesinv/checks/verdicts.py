"""A verdict on one thing that can go wrong with a fit, and a list of them that prints as a table."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from bayesinv.io.console import for_console

LEVELS = ("ok", "note", "serious")
_COLUMN = 88  # width of a message in the printed table


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Args:
        name: which check, such as "importance"; the same from fit to fit.
        level: "ok"; "note", worth knowing; or "serious", the intervals or the evidence may be wrong.
        message: what was found, with its number, and what it means.
        advice: what to do about it; empty where nothing needs doing.

    Raises:
        ValueError: an unknown level.

    Example:
        >>> Verdict("importance", "ok", "Pareto k̂ = 0.12: the weights can be trusted.").level
        'ok'
    """

    name: str
    level: str
    message: str
    advice: str = ""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level: expected one of {list(LEVELS)}, got {self.level!r}")

    @property
    def text(self) -> str:
        """Message and advice."""
        return f"{self.message} {self.advice}".strip()


class Verdicts(list[Verdict]):
    """Verdicts in the order of the checks; prints as a table.

    Example:
        >>> verdicts = Verdicts([Verdict("convergence", "serious", "It was still rising.", "Raise max_steps.")])
        >>> verdicts.level, len(verdicts.serious)
        ('serious', 1)
        >>> print(verdicts)
        serious  convergence  It was still rising.
                              -> Raise max_steps.
    """

    def __init__(self, verdicts: Iterable[Verdict] = ()) -> None:
        super().__init__(verdicts)

    @property
    def level(self) -> str:
        """The worst level among them; "ok" for none."""
        return max((v.level for v in self), key=LEVELS.index, default="ok")

    @property
    def serious(self) -> list[Verdict]:
        """Those that put the result in doubt."""
        return [v for v in self if v.level == "serious"]

    @property
    def notes(self) -> list[Verdict]:
        """Those worth knowing."""
        return [v for v in self if v.level == "note"]

    def named(self, name: str) -> list[Verdict]:
        """Those of one check; there may be one for each symmetry."""
        return [v for v in self if v.name == name]

    def __repr__(self) -> str:
        if not self:
            return "nothing to check"
        width = max(len(v.name) for v in self)
        lines = []
        for v in self:
            head = f"{v.level:<7}  {v.name:<{width}}  "
            body = textwrap.wrap(v.message, _COLUMN) + ["-> " + v.advice] * bool(v.advice)
            rows = [row for part in body for row in textwrap.wrap(part, _COLUMN)]
            lines += [(head if i == 0 else " " * len(head)) + row for i, row in enumerate(rows)]
        return for_console("\n".join(lines))

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in (v.level, v.name, v.message, v.advice))
            + "</tr>"
            for v in self
        )
        head = "".join(f"<th>{cell}</th>" for cell in ("level", "check", "what was found", "what to do"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
