"""What a report says about one fit, a section each."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from bayesinv.errors import ExtentError
from bayesinv.extents.priors import prior_config
from bayesinv.inference.modes import mode_in_words
from bayesinv.orbits.groups import spread_name
from bayesinv.plots.extents import drawn_in_rows
from bayesinv.plots.orbit import can_draw
from bayesinv.report.call import fit_call, load_call, needs_model
from bayesinv.report.page import Section, code, facts, figure, paragraph, table
from bayesinv.report.page import escape as escaped

if TYPE_CHECKING:
    import pandas as pd

    from bayesinv.checks.verdicts import Verdict
    from bayesinv.comparison.comparison import Comparison
    from bayesinv.model.invariance_model import InvarianceModel
    from bayesinv.posterior.invariance_posterior import InvariancePosterior
    from bayesinv.selection import Selection

PACKAGES = ("bayesinv", "torch", "pyro-ppl", "gpytorch", "arviz", "numpy")
LEVEL_WORDS = {"ok": "In order", "note": "Worth knowing", "serious": "Serious"}


def what_was_fitted(posterior: InvariancePosterior, classes: Sequence[str] = ()) -> Section:
    """Data, model and inference in words."""
    model, result, data = posterior.model, posterior.result, posterior.data
    n = result.settings.get("num_train", len(data))
    values: dict[str, object] = {
        "training examples": f"{n:,}" + (f" ({len(data):,} kept in the file)" if len(data) != n else ""),
        "one input": " × ".join(map(str, data.event_shape)) + f", {str(data.x.dtype).removeprefix('torch.')}",
    }
    if model.likelihood != "gaussian":
        names = f": {', '.join(classes)}" if classes else ""
        values["targets"] = f"labels of {data.num_outputs} classes{names}"
    else:
        values["targets"] = f"{data.num_outputs} real number{'s' * (data.num_outputs != 1)}"
    copies = model.network_orbit.num_copies
    values |= {
        "symmetries considered": ", ".join(posterior.symmetries),
        "held fixed": ", ".join(name for name in posterior.symmetries if name in model.extents.fixed) or "none",
        "free function": "network" if model.is_network else "Gaussian process",
        "evidence": f"{model.evidence_name}, for {model.likelihood} targets",
        "average": f"{model.average.replace('_', '-')} values over {copies} transformed copies of each input",
        "inference": method(posterior),
    }
    if result.log_evidence is not None:
        error = "" if not result.log_evidence_se else f" ± {result.log_evidence_se:.2f} (standard error)"
        reason = f" (no standard error: {result.why_no_standard_error})" if result.why_no_standard_error else ""
        values["log evidence"] = f"{result.log_evidence:.1f}{error} nats{reason}"
    return Section("fitted", "What was fitted", facts("Data, model and inference", values))


def method(posterior: InvariancePosterior) -> str:
    """The inference in half a line."""
    result = posterior.result
    name = result.inference if result.guide is None else f"{result.inference} ({result.guide})"
    total = result.num_chains * result.num_draws
    draws = "point estimate" if total == 1 else f"{total:,} draws"
    return f"{name}, {result.num_steps:,} steps, {draws}, {result.seconds:.0f} s"


def verdicts(found: Sequence[Verdict]) -> Section:
    """What the checks say, the worst first."""
    order = list(LEVEL_WORDS)
    items = []
    for verdict in sorted(found, key=lambda v: -order.index(v.level)):
        advice = f"<p><b>What to do:</b> {escaped(verdict.advice)}</p>" if verdict.advice else ""
        items.append(
            f'<li class="{verdict.level}"><p><span class="level">{LEVEL_WORDS[verdict.level]}</span> '
            f"({escaped(verdict.name)}): {escaped(verdict.message)}</p>{advice}</li>"
        )
    serious = sum(v.level == "serious" for v in found)
    head = (
        "Nothing serious was found. That is no proof of calibration, which only repeated simulation measures."
        if not serious
        else f"{serious} of {len(found)} checks put the result in doubt. Read the numbers below with that in mind."
    )
    return Section("verdicts", "Verdicts", paragraph(head) + f'<ul class="verdicts">{"".join(items)}</ul>')


def extents(posterior: InvariancePosterior, level: float, reweighted: bool | None) -> Section:
    """The table of extents and the figure of prior and posterior."""
    summary = posterior.summary(reweighted, level)
    percent = f"{100 * level:g} %"
    rows = [_extent_row(str(name), row, summary.attrs["prefixes"][name]) for name, row in summary.iterrows()]
    head = ["symmetry", "median", f"{percent} interval", "unit", "P(inactive)", "prior median", f"prior {percent}"]
    body = paragraph(
        "An extent with ± is a half-width: the model averages over transformations from minus to plus this much. One "
        "with “up to” goes one way only, and a percentage of copies is the probability of moving at all. P(inactive) "
        "is the probability that it is too small to see in an input of this size."
    )
    if summary.attrs["reweighted"]:
        body += paragraph(
            f"Medians and intervals are importance-weighted: draws of the guide, weighed by the posterior over the "
            f"guide (Pareto k̂ {posterior.result.pareto_k:.2f})."
        )
    scales = [c.name.replace("_", " ") for c in posterior.model.coordinates if c.extent_is == "scale"]
    if scales:
        body += paragraph(
            f"Of {', '.join(scales)}, drawn from a distribution without ends, it is the half-width of the uniform "
            "distribution that spreads as far."
        )
    pooling = posterior.model.pooling
    if pooling is not None and posterior.model.active:
        first, group = pooling.inner.names[0], pooling.groups[0]
        body += paragraph(
            f"“{first}” is the extent of a typical group, the population's median, and moves no example itself; "
            f"“{spread_name(first)}” is by how much groups differ, in standard deviations after the normal quantile of "
            f"the extent's share of its largest; “{first}[{group}]” is what moves the examples of {group}. Groups with "
            "few examples are drawn towards the population, and their prior here is that of a group nobody has seen."
        )
    body += table("Extents of the symmetries, in people's units", head, rows)
    if posterior.model.active:
        point = bool(summary["point"].any())
        what = "point estimate against prior" if point else "posterior against prior"
        body += figure(
            posterior.plot_extents(reweighted=reweighted),
            f"{what} for {', '.join(posterior.model.active)}; the numbers are in the table above",
            f"{what.capitalize()}, for each symmetry that was learned; "
            + ("a row each." if drawn_in_rows(posterior) else "densities are relative to their own peak."),
        )
    return Section("extents", "How far each symmetry reaches", body)


def _extent_row(name: str, row: pd.Series, sign: str) -> list[str]:
    if row["fixed"]:
        return [name, f"{sign}{number(row['median'])}", "fixed", row["unit"], "–", "–", "–"]
    interval = "point estimate" if row["point"] else f"{number(row['lower'])} to {number(row['upper'])}"
    inactive = "–" if row["point"] else f"{row['p_inactive']:.2f}"
    prior = f"{number(row['prior_lower'])} to {number(row['prior_upper'])}"
    return [
        name,
        f"{sign}{number(row['median'])}",
        interval,
        row["unit"],
        inactive,
        f"{sign}{number(row['prior_median'])}",
        prior,
    ]


def number(value: float) -> str:
    """Three significant digits, as people read them."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1g}"


def orbits(posterior: InvariancePosterior, reweighted: bool | None) -> Section | None:
    """Copies of training images or signals; None where `plot_orbit` does not draw the inputs."""
    if not can_draw(posterior.data.event_shape) or not posterior.model.active:
        return None
    body, kind = "", _kind(posterior)
    if posterior.model.transform is posterior.model.orbit.transform:  # else every output or group has its own
        body += figure(
            posterior.plot_orbit(posterior.data.x[0], reweighted=reweighted),
            f"the first training {kind} and copies of it under sampled transformations, a row each for the 5, 50 and "
            "95 % quantiles of the extents",
            f"The first training {kind} and copies of it as the model sees them. Ask of each: would its label still "
            "hold?",
        )
    widest = furthest(posterior)
    discrete = {c.name for c in posterior.model.transform.coordinates if c.order}
    if widest not in discrete:
        example, words = (0, f"the same {kind}") if body else _example_of(posterior, widest)
        body += figure(
            posterior.plot_orbit(posterior.data.x[example], symmetry=widest, reweighted=reweighted),
            f"{words} under {widest} alone, from one end of its extent to the other, a row for each quantile",
            f"{words[0].upper()}{words[1:]} under {widest.replace('_', ' ')} alone, from one end of its extent to the "
            "other.",
        )
    return Section("orbits", "What the transformations look like", body) if body else None


def _example_of(posterior: InvariancePosterior, symmetry: str) -> tuple[int, str]:
    """A training example of the group, or of the class, that has this extent, and what it is; else the first one."""
    model, data = posterior.model, posterior.data
    block = symmetry.partition("[")[2].removesuffix("]")
    belongs = None
    if model.groups is not None and data.groups is not None and block in model.groups:
        belongs, kind = data.groups == model.groups.index(block), "group"
    elif model.structure is not None and model.likelihood == "categorical" and data.y.ndim == 1:
        belongs, kind = data.y == model.structure.outputs.index(block), "class"
    if belongs is None or not bool(belongs.any()):
        return 0, f"the first training {_kind(posterior)}"
    return int(belongs.nonzero()[0, 0]), f"a training {_kind(posterior)} of {kind} {block}"


def _kind(posterior: InvariancePosterior) -> str:
    return "image" if len(posterior.data.event_shape) == 3 else "signal"


def furthest(posterior: InvariancePosterior) -> str:
    """The learned symmetry that reaches furthest, as a share of its largest sensible extent.

    With groups one of theirs: what the population does moves no example.
    """
    model = posterior.model
    largest = {c.name: float(c.largest) for c in model.transform.coordinates}
    skipped = 0 if model.pooling is None else 2 * model.pooling.inner.num_coordinates  # populations and spreads
    names = [name for name in model.symmetries[skipped:] if name in model.active] or model.active
    return max(names, key=lambda name: float(posterior[name].median()) / largest[name])


def course(posterior: InvariancePosterior) -> Section | None:
    """The objective at each step, and the evidence along the widest symmetry where that is cheap."""
    body = ""
    if posterior.trace:
        body += figure(
            posterior.plot_trace(),
            f"the objective over {len(posterior.trace)} steps, from {posterior.trace[0]:.0f} to "
            f"{posterior.trace[-1]:.0f} nats",
            "The objective against the step. A line that still climbs at its end wants more steps.",
        )
    if posterior.model.active and not posterior.model.evidence.minibatch and posterior.result.inference != "fixed":
        widest = furthest(posterior)
        body += figure(
            posterior.plot_evidence(widest, num_points=17),
            f"log evidence along {widest}, over its whole range and around the posterior",
            f"The evidence along {widest.replace('_', ' ')}, the other extents at their medians: what the data alone "
            "say, before the prior.",
        )
    return Section("course", "How the fit went", body) if body else None


def selection(selected: Selection) -> Section:
    """Inclusion probabilities and Bayes factors."""
    head = ["symmetry", "P(included)", "standard error", "prior", "log Bayes factor, nats", "in words"]
    rows = [
        [
            str(name),
            f"{row['probability']:.3f}",
            f"{row['standard_error']:.3f}",
            f"{row['prior']:.2f}",
            f"{row['log_bf']:+.1f} ± {row['log_bf_se']:.1f}",
            row["words"],
        ]
        for name, row in selected.summary().iterrows()
    ]
    body = table(f"Which symmetries the data call for ({selected.method})", head, rows, words=[5])
    body += "".join(paragraph(f"Warning: {text}") for text in selected.warnings)
    body += figure(
        selected.plot(),
        "inclusion probability of each symmetry beside the likeliest sets; the probabilities are in the table above",
        "Inclusion probabilities with standard errors, and the likeliest sets of symmetries.",
    )
    return Section("selection", "Which symmetries are called for", body)


def quality(comparison: Comparison | None, how: str) -> Section:
    """Scores on test data, or how to get them."""
    if comparison is None:
        body = paragraph("No test data were given, so this report says nothing about predictive quality. To add it:")
        return Section("quality", "Predictive quality", body + code(how))
    shown = comparison.text_table()
    body = table(
        "On the same test data; ± is a standard error over test examples",
        ["fit", *map(str, shown.columns)],
        [[str(name), *row] for name, row in zip(shown.index, shown.to_numpy(), strict=True)],
    )
    if len(shown) > 1:
        rows = [
            [str(name), f"{row['elpd_difference']:+.1f}", f"{row['standard_error']:.1f}"]
            for name, row in comparison.differences.iterrows()
        ]
        head = ["fit", "difference to the best, nats", "standard error"]
        body += table("Log predictive density summed over test examples, paired", head, rows)
        body += paragraph(
            "A difference below two standard errors says nothing. Log evidences rank fits of the same letter only."
        )
    body += "".join(paragraph(note) for note in comparison.notes)
    if len(shown) > 1:  # one fit's extents are drawn further up
        body += figure(
            comparison.plot(),
            "extents and test scores of each fit; the numbers are in the table above",
            "Extents with their intervals, then test scores. Filled: posterior; open: point estimate or fixed extent.",
        )
    return Section("quality", "Predictive quality", body)


def settings(posterior: InvariancePosterior, given: Mapping[str, str]) -> Section:
    """Settings of fit and model, and versions."""
    result = posterior.result
    values: dict[str, object] = {"seed": result.seed}
    for name, value in result.settings.items():
        if value is None:
            continue
        said = "; ".join(map(mode_in_words, value)) if name == "modes" else value
        values[name.replace("_", " ")] = json.dumps(said) if isinstance(said, dict | list) else said
    values |= priors(posterior.model)
    values["orbit"] = f"{posterior.model.orbit.num_samples} base draws, precision {posterior.model.precision}"
    body = facts("Settings of the fit", values)
    body += facts("Versions that wrote this report", {**versions(), **given})
    return Section("settings", "Settings and versions", body)


def priors(model: InvarianceModel) -> dict[str, str]:
    """What stands before each extent; for groups how they are pooled, in place of an entry for each."""
    pooling, fixed, found = model.pooling, model.extents.fixed, {}
    given = model.symmetries if pooling is None else model.symmetries[: 2 * pooling.inner.num_coordinates]
    for name in given:
        words = f"fixed at {fixed[name]:.4g}" if name in fixed else prior_words(name, model.extents.priors[name])
        found[f"prior of {name}"] = f"{words}; internal units"
    if pooling is None:
        return found
    for c in pooling.inner.coordinates:
        words = f"as {c.name} itself"
        own = {g: fixed[f"{c.name}[{g}]"] for g in pooling.groups if f"{c.name}[{g}]" in fixed}
        if any(value != fixed.get(c.name) for value in own.values()):  # by hand
            words = f"fixed at {', '.join(f'{value:.4g} ({g})' for g, value in own.items())}; internal units"
        if c.name in model.active:
            words = (
                f"pooled around the population: L Φ(Φ⁻¹({c.name} / L) + ({spread_name(c.name)}) z) with z ~ N(0, 1) "
                f"for each group and L = {float(c.largest):.4g}; internal units"
            )
        found[f"prior of {c.name} in each group"] = words
    return found


def prior_words(name: str, prior: Any) -> str:
    """A prior as one writes it, ``Truncated(base=HalfNormal(scale=0.5), high=2)``.

    Example:
        >>> from pyro.distributions import HalfNormal
        >>> from bayesinv.extents.priors import Truncated
        >>> prior_words("rotation", Truncated(HalfNormal(0.5), high=2.0))
        'Truncated(base=HalfNormal(scale=0.5), high=2)'
    """
    try:
        return _written(prior_config(name, prior))
    except ExtentError:  # one of the user's own
        return repr(prior)


def _written(config: Mapping[str, Any]) -> str:
    options = {**config.get("parameters", {}), **{k: v for k, v in config.items() if k not in ("type", "parameters")}}
    parts = []
    for key, value in options.items():
        number = isinstance(value, float)
        parts.append(f"{key}={_written(value) if isinstance(value, Mapping) else f'{value:.4g}' if number else value}")
    return f"{config['type']}({', '.join(parts)})"


def versions() -> dict[str, str]:
    """Of Python and the packages that numbers depend on."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def reproduce(posterior: InvariancePosterior, command: str | None) -> Section:
    """The command or the call that gives the same numbers, and the one that reads a saved file."""
    own = needs_model(posterior.model)
    if command:
        body = paragraph("The same command on the same data gives the same numbers on a CPU:") + code(command)
    else:
        body = paragraph(
            "With the same model and data, this call gives the same numbers on a CPU (and statistically the same on a "
            "GPU, whose sums are not ordered); what it leaves out is at its default:"
        )
        body += code("import bayesinv\n\n" + fit_call(posterior))
    body += paragraph(
        "A saved posterior holds model, data and draws; it answers every question again"
        + (", given a model built with the same code, which no file holds:" if own else ":")
    )
    body += code(f"{load_call(posterior)}\nposterior.summary()\nposterior.check()")
    return Section("reproduce", "How to reproduce it", body)
