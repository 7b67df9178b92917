"""The orbit of one operation at small, middling and large extents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.auditing.operations import Operation, transform_of
from bayesinv.orbits.orbit import Orbit
from bayesinv.plots.style import POSTERIOR, PRIOR, STYLE, as_written
from bayesinv.transforms import Coordinate

if TYPE_CHECKING:
    import matplotlib.figure


NUM_COPIES = 5
MOST_ELEMENTS = 6  # of a finite group that are drawn: all orders of three channels
ROWS = ("5 %", "median", "95 %")


@runtime_checkable
class Pictured(Protocol):
    """Whose example is moved; see `Audit`."""

    @property
    def kind(self) -> str: ...

    @property
    def example(self) -> Tensor: ...


@runtime_checkable
class Drawn(Protocol):
    """How it is moved; see `Finding`."""

    @property
    def operation(self) -> Operation: ...

    @property
    def coordinate(self) -> Coordinate: ...

    @property
    def needed(self) -> tuple[float, float, float]: ...


def plot_orbit(audit: Pictured, finding: Drawn) -> matplotlib.figure.Figure:
    """Copies of one example at the 5, 50 and 95 % quantiles of the needed extent, a row each.

    Columns go evenly from one end of the extent to the other; from zero on for amounts without a sign; over the
    elements of a finite group (at most six), whose share of the copies stands above. Images are drawn, signals as
    lines over the original, points as seen along z.

    Raises:
        ValueError: a table, whose rows have no picture.
    """
    import matplotlib
    import matplotlib.figure

    if audit.kind == "tables":
        raise ValueError("plot_orbit: rows of a table have no picture; see the extents in .table")
    transform = transform_of([finding.operation])
    rows = []
    for eta in finding.needed:
        t, titles = _coordinates(transform, finding, eta)
        with torch.no_grad():
            rows.append((titles, transform.orbit(audit.example, t.to(audit.example))[:, 0]))
    columns = len(rows[0][0])
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(1.5 * columns + 1.2, 5.0), layout="constrained")
        panels = figure.subplots(len(rows), columns, squeeze=False)
        for i, (titles, copies) in enumerate(rows):
            for panel, title, copy in zip(panels[i], titles, copies, strict=True):
                _draw(panel, audit.kind, audit.example[0], copy)
                panel.set_title(title, fontsize=11)
            panels[i, 0].set_ylabel(as_written(ROWS[i]))
        c = finding.coordinate
        title = c.name.replace("_", " ") + ("" if c.is_discrete else f", {c.unit}")
        figure.suptitle(as_written(title), fontsize=13)
    return figure


def _coordinates(transform: Any, finding: Drawn, eta: float) -> tuple[Float[Tensor, "copies columns"], list[str]]:
    """t of the copies, and what is written above each."""
    c = finding.coordinate
    orbit = Orbit(transform, num_samples=NUM_COPIES)
    if c.is_discrete:
        t = torch.arange(min(MOST_ELEMENTS, c.order), dtype=torch.float64)[:, None]
        shares = [1.0 - eta] + [eta / (c.order - 1)] * (len(t) - 1)
        return t, [as_written(f"{100 * share:.0f} %") for share in shares]
    t = orbit.coordinates(torch.tensor([eta], dtype=torch.float64)).clone()  # with auxiliary columns, if there are any
    first = 0.0 if c.distribution == "one_sided" else -1.0
    t[:, transform.columns.index(0)] = torch.linspace(first, 1.0, len(t), dtype=t.dtype) * eta
    values = [float(c.to_people(float(v))) for v in t[:, transform.columns.index(0)]]
    return t, [_number(value) for value in values]


def _number(value: float) -> str:
    """Two digits, and whole numbers in full.

    Example:
        >>> _number(-106.2), _number(0.714), _number(42.0)
        ('−106', '0.71', '42')
    """
    return (f"{value:.0f}" if abs(value) >= 10.0 else f"{value:.2g}").replace("-", "−")


def _draw(panel: Any, kind: str, original: Tensor, copy: Tensor) -> None:
    values, before = copy.numpy(), original.numpy()
    if kind == "images":
        low, high = float(before.min()), float(before.max())
        shown = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
        shown = shown[:3].transpose(1, 2, 0) if len(shown) == 3 else shown[0]
        panel.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0)
    elif kind == "signals":
        panel.plot(before[0], color=PRIOR, linewidth=1.0)
        panel.plot(values[0], color=POSTERIOR, linewidth=1.0)
    else:
        panel.scatter(before[:, 0], before[:, 1], s=6, color=PRIOR)
        panel.scatter(values[:, 0], values[:, 1], s=6, color=POSTERIOR)
        panel.set_aspect("equal")
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_visible(False)
