"""How figures look: one palette, one size of letters, and names as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bayesinv.orbits.groups import spread_name

if TYPE_CHECKING:
    from bayesinv.fitted.fitted_model import FittedModel

# Okabe and Ito's palette without its yellow, which is too light; markers differ as well, for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "<", ">")
POSTERIOR, PRIOR = COLOURS[0], COLOURS[5]
GREY = "#595959"

# Print at half size brings 13 points to 6.5, the smallest that reads without effort.
STYLE: Any = {
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2.0,
}


def axis_label(posterior: FittedModel, k: int, symmetry: str = "") -> str:
    """What the k-th extent is, of which symmetry, and its unit: "half-width of rotation (°)"."""
    model = posterior.model
    coordinate = model.coordinates[k]
    spreads = () if model.pooling is None else [spread_name(name) for name in model.pooling.inner.names]
    if coordinate.name in spreads:
        return f"{symmetry or 'spread of the groups'} ({as_written(coordinate.unit)})"
    what = f"{coordinate.extent_is} of {symmetry}" if symmetry else coordinate.extent_is
    return f"{what} ({as_written(coordinate.unit)})"


def shown(name: str) -> str:
    """A name as a figure shows it: blanks for underscores, and dollar signs as they are, not as TeX."""
    return as_written(name.replace("_", " "))


def as_written(text: str) -> str:
    """Text whose dollar signs Matplotlib takes as dollar signs.

    Example:
        >>> print(as_written("US$ per $"))
        US\\$ per \\$
    """
    return text.replace("$", r"\$")
