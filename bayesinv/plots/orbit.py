"""The figure of the copies of an image or a signal under the extents of a posterior."""

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.numerics.arguments import as_integer
from bayesinv.orbits.groups import spread_name
from bayesinv.plots.style import STYLE, as_written
from bayesinv.transforms.asymmetric import other_end
from bayesinv.transforms.base import LOWER_END, PART

MOST_CHANNELS = 8  # of a signal, whose lines are still told apart

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

    from bayesinv.fitted.fitted_model import FittedModel


def plot_orbit(
    posterior: "FittedModel",
    x: Any,
    symmetry: str | None = None,
    num_copies: int = 7,
    reweighted: bool | None = None,
) -> "matplotlib.figure.Figure":
    """Copies of one image or signal under the 5, 50 and 95 % posterior quantiles of the extents, a row each.

    Args:
        posterior: the posterior.
        x: one image, (channels, height, width), 1 or 3 channels; or one signal, (channels, time), up to 8 channels,
            drawn as a line each. A batch dimension of 1 may come first.
        symmetry: vary this one alone, evenly from one end of its extent to the other (an amount without a sign from
            zero on, and so does one end of a range; of a finite group every element, up to `num_copies`, with its share
            of the copies; what inputs near a landmark may do beyond others, as far as this input is near it). None
            shows all of them together, at the model's own base draws, which are the same in each row.
        num_copies: how many copies in a row.
        reweighted: whether to use the importance weights; None uses them where they are good.

    Raises:
        DataError: x does not look like the training inputs.
        TypeError: a name in the place of x.
        ValueError: x is neither one image of 1 or 3 channels nor one signal of up to 8, fewer
            than one copy, or a spread, which moves nothing.
        KeyError: no such symmetry.
    """
    import matplotlib
    import matplotlib.figure

    image = _one_input(posterior, x)  # (1, channels, height, width) or (1, channels, time)
    num_copies = as_integer("num_copies", num_copies)
    if symmetry is None and posterior.model.transform is not posterior.model.orbit.transform:
        raise ValueError(
            "every output or group of this model has an orbit of its own; choose one symmetry of one of them, such as "
            f"plot_orbit(x, {posterior.symmetries[-1]!r})"
        )
    pooling = posterior.model.pooling
    if pooling is not None and symmetry in [spread_name(name) for name in pooling.inner.names]:
        raise ValueError(
            f"plot_orbit: {symmetry!r} is by how much groups differ and moves no image; choose a symmetry of a group, "
            f"such as {posterior.symmetries[-1]!r}"
        )
    extents = posterior.quantile([0.05, 0.5, 0.95], reweighted=reweighted)  # (3, K)
    names = ("5 %", "median", "95 %")
    pictures = []  # per row: title and picture of each copy
    for eta in extents:
        t, titles = _coordinates(posterior, eta, symmetry, num_copies)
        with torch.no_grad():
            copies = posterior.model.transform.orbit(image, t.to(image))[:, 0]  # (copies, *event)
        row = list(zip(titles, copies, strict=True))
        pictures.append(row if symmetry is not None else [("original", image[0]), *row])
    low, high = float(image.min()), float(image.max())
    with matplotlib.rc_context(STYLE):
        columns = len(pictures[0])
        height, width = image.shape[-2:] if image.ndim == 4 else (3, 4)
        size = (1.25 * columns + 1.1, 3 * 1.25 * height / width + 1.3)
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        panels = figure.subplots(3, columns, squeeze=False)
        for i, row in enumerate(pictures):
            for panel, (title, picture) in zip(panels[i], row, strict=True):
                _show(panel, picture, low, high)
                if title and (i == 0 or symmetry is not None):
                    panel.set_title(title, fontsize=12)
            label = names[i]
            if symmetry is not None and not posterior.model.coordinates[posterior.index(symmetry)].is_discrete:
                k = posterior.index(symmetry)
                words = posterior.model.coordinates[k].words(float(extents[i, k]))
                # No longer than its own row is high.
                label = as_written("\n".join([label, *textwrap.wrap(words, max(8, int(12 * height / width)))]))
            panels[i, 0].set_ylabel(label)
        which = "all symmetries" if symmetry is None else symmetry.replace("_", " ")
        heading = f"{which}: copies at the 5, 50 and 95 % quantiles of the extents"
        figure.suptitle(as_written(textwrap.fill(heading, max(20, int(9 * figure.get_figwidth())))), fontsize=13)
    return figure


def can_draw(event: tuple[int, ...]) -> bool:
    """Whether `plot_orbit` draws inputs of this shape: images of 1 or 3 channels, signals of up to 8.

    Example:
        >>> can_draw((3, 32, 32)), can_draw((2, 128)), can_draw((20, 3)), can_draw((10,))
        (True, True, False, False)
    """
    is_signal = len(event) == 2 and event[0] <= MOST_CHANNELS and event[1] > event[0]
    return is_signal or (len(event) == 3 and event[0] in (1, 3))


def _one_input(posterior: "FittedModel", x: Any) -> Tensor:
    event = posterior.data.event_shape
    if not can_draw(event):
        raise ValueError(
            f"plot_orbit draws images of 1 or 3 channels and signals of up to {MOST_CHANNELS}; this model's inputs "
            f"have shape {event}"
        )
    if isinstance(x, str):
        raise TypeError(f"plot_orbit takes an input first: plot_orbit(x, {x!r})")
    image = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    image = posterior.check_inputs(image[None] if image.ndim == len(event) else image)
    if len(image) != 1:
        raise ValueError(f"plot_orbit draws one input; got {len(image)}: pass x[0]")
    return image


def _coordinates(
    posterior: "FittedModel",
    eta: Float[Tensor, " K"],
    symmetry: str | None,
    num_copies: int,
) -> tuple[Float[Tensor, "copies columns"], list[str]]:
    """Coordinates t of the copies and a title for each."""
    if symmetry is None:
        t = posterior.model.orbit.coordinates(eta)[:num_copies]  # (copies, K)
        return t, [f"copy {i + 1}" for i in range(len(t))]
    k = posterior.index(symmetry)
    transform, coordinate = posterior.model.transform, posterior.model.coordinates[k]
    column = transform.columns.index(k)
    num_copies = min(num_copies, coordinate.order) if coordinate.is_discrete else num_copies
    t = torch.zeros(num_copies, transform.num_columns, dtype=torch.float64)
    if transform is posterior.model.orbit.transform:  # where a mask lies, how noise falls: as in the model's first copy
        auxiliary = [i for i, of in enumerate(transform.columns) if of is None]
        t[:, auxiliary] = posterior.model.orbit.coordinates(eta)[0, auxiliary].to(t)
    if coordinate.is_discrete:
        t[:, column] = torch.arange(num_copies, dtype=torch.float64)
        shares = [1.0 - float(eta[k])] + [float(eta[k]) / (coordinate.order - 1)] * (num_copies - 1)
        return t, [f"{100 * share:.0f} %" for share in shares]
    first = 0.0 if coordinate.is_end or coordinate.distribution == "one_sided" else -1.0
    t[:, column] = torch.linspace(first, 1.0, num_copies, dtype=torch.float64) * eta[k]
    sign = "°" if coordinate.unit == "°" else ""
    values = [float(coordinate.to_people(float(v))) for v in t[:, column]]
    plus = "" if coordinate.distribution == "one_sided" else "+"
    if coordinate.distribution == PART:  # of a half-width, whose end is shown: this much at the landmark
        t[:, [i for i, of in enumerate(transform.columns) if of is None]] = 1.0
    if coordinate.is_end:  # a range of this one amount
        t[:, transform.columns.index(other_end(posterior.model.coordinates, k))] = -t[:, column]
    if coordinate.distribution == LOWER_END:
        values = [-value for value in values]
    return t, [f"{v:{plus}.1f}{sign}".replace("-", "−") if abs(v) >= 0.05 else f"0{sign}" for v in values]


def _show(panel: "matplotlib.axes.Axes", picture: Tensor, low: float, high: float) -> None:
    values = picture.detach().cpu().movedim(0, -1).numpy()  # (height, width, channels) or (time, channels)
    if values.ndim == 2:
        panel.plot(values, linewidth=0.8)
        margin = 0.05 * max(high - low, 1e-12)
        panel.set_ylim(low - margin, high + margin)  # that of the original, so that amplitudes can be compared
    elif values.shape[-1] == 1:
        panel.imshow(values[..., 0], cmap="gray", vmin=low, vmax=high)
    else:
        panel.imshow(np.clip((values - low) / max(high - low, 1e-12), 0, 1))
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_visible(False)
