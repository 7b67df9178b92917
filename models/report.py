"""What an experiment found: test scores, a table, a figure, a file."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from bayesinv.data import Data
from bayesinv.posterior import InvariancePosterior
from models.common import RESULTS_FILE

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = [
    "Scores",
    "draw_extents",
    "equivariance_line",
    "extents_figure",
    "extents_table",
    "publish",
    "report",
    "scores",
]

# Okabe and Ito's palette: apart in every common form of colour blindness, and in grey.
POSTERIOR_COLOUR, TRUTH_COLOUR = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class Scores:
    """On test images: share labelled right, mean negative log probability of the label in nats."""

    accuracy: float
    log_loss: float


def scores(posterior: InvariancePosterior, test: Data, num_samples: int = 8, seed: int = 0) -> Scores:
    """Accuracy and log loss of the predictions.

    Args:
        posterior: of a classification.
        test: images and labels.
        num_samples: draws of the extents to average over.
        seed: of these draws.
    """
    probs = posterior.predict(test.x, num_samples=num_samples, seed=seed).probs
    if probs is None:
        raise TypeError("scores: expected a classification, and the posterior predicts real numbers")
    probs, y = probs.cpu().double(), test.y.cpu()
    own = probs.gather(1, y[:, None]).clamp(min=torch.finfo(torch.float64).tiny)
    return Scores(float((probs.argmax(1) == y).double().mean()), float(-own.log().mean()))


def extents_table(posterior: InvariancePosterior, truth: Mapping[str, float] | None = None) -> str:
    """The summary as text, with the true extents beside it where there are any; people's units."""
    table = posterior.summary()[["median", "lower", "upper", "unit"]]
    if truth is not None:
        table.insert(0, "truth", [people[1] for people in _in_people(posterior, truth)])
    return table.to_string(float_format="{:.1f}".format)


def _in_people(posterior: InvariancePosterior, values: Mapping[str, float]) -> list[tuple[str, float]]:
    """By symmetry, internal units to people's; what is not named is zero."""
    coordinates = posterior.model.transform.coordinates
    return [(c.name, float(c.to_people(values.get(c.name, 0.0)))) for c in coordinates]


def draw_extents(
    panel: "matplotlib.axes.Axes",
    posterior: InvariancePosterior,
    truth: Mapping[str, float] | None = None,
    truth_label: str = "how the data were made",
) -> None:
    """A line a symmetry: median and 90 % interval of the extent as a share of the largest sensible one."""
    quantiles = posterior.quantile([0.05, 0.5, 0.95]).numpy()  # (3, K)
    coordinates = posterior.model.coordinates
    largest = [float(c.largest) for c in coordinates]
    rows = range(len(coordinates))
    if truth is not None:
        true = [truth.get(c.name, 0.0) / end for c, end in zip(coordinates, largest, strict=True)]
        panel.plot(true, rows, "|", color=TRUTH_COLOUR, ms=26, mew=3, label=truth_label)
    lower, median, upper = (quantiles[i] / largest for i in range(3))
    point = posterior.result.num_chains * posterior.result.num_draws == 1 or bool((upper == lower).all())
    panel.errorbar(
        median,
        rows,
        xerr=None if point else [median - lower, upper - median],
        fmt="o",
        color=POSTERIOR_COLOUR,
        ms=7,
        lw=2.5,
        capsize=5,
        capthick=2,
        label=posterior.result.inference if point else "posterior: median, 90 % interval",
    )
    names = []
    for k, coordinate in enumerate(coordinates):
        value = float(coordinate.to_people(float(quantiles[1, k])))
        unit = coordinate.unit if coordinate.unit == "°" else f" {coordinate.unit}"
        names.append(f"{coordinate.name.replace('_', ' ')}\n{coordinate.prefix}{value:.3g}{unit}")
    panel.set_yticks(list(rows), names)
    panel.set_ylim(len(coordinates) - 0.5, -0.5)
    panel.set_xlim(-0.02, max(1.02, float(upper.max()) * 1.02))
    panel.set_xlabel("extent / the largest sensible one")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", alpha=0.3)


def extents_figure(
    posterior: InvariancePosterior, title: str, truth: Mapping[str, float] | None = None
) -> "matplotlib.figure.Figure":
    """Extents against the truth, for a posterior and for a point estimate alike."""
    import matplotlib.figure

    height = 1.8 + 0.6 * len(posterior.symmetries)
    figure = matplotlib.figure.Figure(figsize=(8.0, height), layout="constrained")
    panel = figure.subplots()
    draw_extents(panel, posterior, truth)
    panel.set_title(title, loc="left")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def report(
    posterior: InvariancePosterior,
    test: Data,
    options: argparse.Namespace,
    figures: Mapping[str, "matplotlib.figure.Figure"],
    facts: Sequence[str] = (),
) -> Scores:
    """Print the table and the scores; with --out, write the figures and results.json.

    Args:
        posterior: what was fitted.
        test: test images.
        options: the command line, with ``truth`` by symmetry in internal units, or None.
        figures: by file name.
        facts: lines to print below the table.
    """
    achieved = scores(posterior, test, seed=options.seed)
    accuracy = f"accuracy {100 * achieved.accuracy:.1f} %, log loss {achieved.log_loss:.3f} nats"
    publish(posterior, test, options, [*facts, f"{accuracy} on {len(test)} test images"], figures, asdict(achieved))
    return achieved


def publish(
    posterior: InvariancePosterior,
    test: Data,
    options: argparse.Namespace,
    lines: Sequence[str],
    figures: Mapping[str, "matplotlib.figure.Figure | Callable[[], matplotlib.figure.Figure]"],
    found: Mapping[str, Any],
    inference: str | None = None,
) -> None:
    """Print the table of extents, lines of text, and how the fit went; with --out, write figures and results.json.

    Args:
        posterior: what was fitted.
        test: test examples.
        options: the command line, with ``truth`` by symmetry in internal units, or None.
        lines: of text below the table.
        figures: by file name; those that are functions are drawn only where they are written.
        found: what results.json says beside the facts of every fit.
        inference: what the fit is called; None takes the posterior's own word.
    """
    result = posterior.result
    print(extents_table(posterior, options.truth))
    for line in lines:
        print(line)
    if posterior.log_evidence is not None:
        error = "" if posterior.log_evidence_se is None else f" ± {posterior.log_evidence_se:.1f} (s.e.)"
        print(f"log evidence {posterior.log_evidence:.1f}{error} nats")
    print(f"{inference or result.inference}, {result.num_steps} steps, {result.seconds:.0f} s")
    for warning in result.warnings:
        print(f"warning: {warning}")
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        (figure() if callable(figure) else figure).savefig(options.out / name, dpi=150)
    document = {
        "options": {key: _jsonable(value) for key, value in vars(options).items() if key not in ("out", "truth")},
        "num_train": result.settings.get("num_train", len(posterior.data)),
        "num_test": len(test),
        "truth": options.truth,
        "extents": _extents(posterior),
        **found,
        "log_evidence": posterior.log_evidence,
        "log_evidence_se": posterior.log_evidence_se,
        "inference": inference or result.inference,
        "seconds": result.seconds,
        "num_steps": result.num_steps,
        "settings": _jsonable(result.settings),
        "warnings": list(result.warnings),
        "torch": torch.__version__,
    }
    (options.out / RESULTS_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


def equivariance_line(found: Mapping[str, float]) -> str:
    """The equivariance errors of a network, and of the average over its copies."""
    before, after = found["equivariance_error_before"], found["equivariance_error_after"]
    return f"equivariance error {before:.3f} (network) and {after:.3f} (prediction)"


def _extents(posterior: InvariancePosterior) -> dict[str, dict[str, Any]]:
    """Median and 90 % interval by symmetry: internal units, and people's with their name."""
    quantiles = posterior.quantile([0.05, 0.5, 0.95]).T.tolist()  # K rows
    found = {}
    for coordinate, levels in zip(posterior.model.transform.coordinates, quantiles, strict=True):
        internal = dict(zip(("lower", "median", "upper"), levels, strict=True))
        people = {key: float(coordinate.to_people(value)) for key, value in internal.items()}
        found[coordinate.name] = {**internal, "people": {**people, "unit": coordinate.unit}}
    return found


def _jsonable(value: Any) -> Any:
    """Paths and whatever else JSON does not know, as text."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
