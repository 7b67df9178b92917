"""What each command does. Nothing is written before everything has been computed."""

import argparse
import dataclasses
import re
import shlex
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from tqdm import tqdm

import bayesinv
from bayesinv.cli import demo as demonstration
from bayesinv.cli.folder import (
    POSTERIOR_FILE,
    goes_on_from,
    load_posterior,
    output_folder,
    posterior_files,
    read_run,
    write_run,
)
from bayesinv.cli.inputs import READING_OPTIONS, Reading, kind_in, labels_in, read_examples, read_training
from bayesinv.cli.kinds import scales_of, transform_for
from bayesinv.cli.networks import network_facts, network_for, training_for
from bayesinv.cli.tables import columns, facts_text, settings_text, summary_text
from bayesinv.cli.targets import likelihood_line, likelihood_of, with_whole_labels
from bayesinv.cli.unused import refuse_unused
from bayesinv.data.container import as_data
from bayesinv.datasets import Examples
from bayesinv.errors import DataError
from bayesinv.evidence.prediction import Prediction
from bayesinv.inference import Step
from bayesinv.io.files import check_writable, write_atomically
from bayesinv.numerics.threads import is_small
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.transforms import Transform

SHOWN_PREDICTIONS = 10
AUGMENTATION_FILE = "augmentation.safetensors"  # and .json beside it
OUR_TABLE = re.compile(rb"index,(file|predicted|mean)")


def fit(options: argparse.Namespace) -> None:
    """`bayesinv fit`: read, fit, write a folder, print the table."""
    # The checkpoint outside: it goes once the folder has its name, so that no fit is lost in between.
    with goes_on_from(options.out) as checkpoint, output_folder(options.out, options.overwrite) as folder:
        labels = None if options.likelihood == "auto" else options.likelihood != "gaussian"
        reading = Reading(labels=labels).updated({key: getattr(options, key) for key in READING_OPTIONS})
        kind = kind_in(options.data, reading)
        refuse_unused(options, kind)
        found = transform_for(options, kind)
        if found is not None and options.network is None:
            # Refuses before images are read, which may take minutes; any likelihood that goes with the evidence.
            first = "gaussian" if options.evidence == "gaussian" else "categorical"
            _model(options, found, first if options.likelihood == "auto" else options.likelihood)
        examples = read_training(options.data, reading)
        likelihood = likelihood_of(examples, options.likelihood)
        line = likelihood_line(examples, likelihood, options.likelihood)
        if options.likelihood == "auto" and not options.quiet:
            print(f"bayesinv: {line}", file=sys.stderr)  # at once: the fit may take hours
        options = argparse.Namespace(**{**vars(options), "likelihood": likelihood})
        reading = dataclasses.replace(scales_of(examples, reading, kind), labels=likelihood != "gaussian")
        examples = read_examples(options.data, reading) if reading.scales is not None else examples
        examples = with_whole_labels(examples, likelihood)
        transform = cast(Transform, found or transform_for(options, kind, examples))
        model = _model(options, transform, likelihood, examples)
        data = as_data(
            (examples.x, examples.y),
            likelihood,
            transform,
            num_classes=len(examples.classes) or None,
            classes=examples.classes or None,
        )
        posterior = bayesinv.fit(
            model,
            data,
            options.inference,
            seed=options.seed,
            device=options.device,
            guide=options.guide,
            max_steps=options.max_steps,
            checkpoint=checkpoint if options.network is None else None,
            training=training_for(options, checkpoint),
            num_draws=options.num_draws,
            progress=not options.quiet,
        )
        fixed = _fixed(options.fix, transform)
        facts = {
            "reading": {**reading.to_json(), "dtype": examples.dtype},
            "classes": list(examples.classes),
            "shell": shlex.join(["bayesinv", *options.arguments]),
            **({} if options.network is None else {"network": network_facts(options, examples, transform, fixed)}),
        }
        _write(folder, posterior, "fit", facts, figures=not options.no_figures, scales=reading.scales)
        text = f"{summary_text(posterior.summary())}\n\n{line}\n{facts_text(posterior)}"
    try:
        _print_fit(text, options.out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the fit is in {options.out}") from None


def _model(
    options: argparse.Namespace, transform: Transform, likelihood: str, examples: Examples | None = None
) -> bayesinv.InvarianceModel:
    """The model that the options describe; a network, which takes its shape from examples, or a Gaussian process."""
    inducing = {None: "auto", "none": None}.get(options.num_inducing, options.num_inducing)
    return bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=inducing, num_features=options.num_features)
        if options.network is None or examples is None
        else network_for(options, examples),
        transform,
        likelihood=likelihood,
        evidence=options.evidence,
        priors=_fixed(options.fix, transform),
        num_orbit_samples=options.num_orbit_samples,
    )


def _print_fit(text: str, out: Path) -> None:
    print(text)
    print(f"\nwritten to {out}")


def _fixed(settings: list[str], transform: Transform) -> dict[str, float]:
    """Extents given as NAME=EXTENT in people's units, in internal units."""
    coordinates = {coordinate.name: coordinate for coordinate in transform.coordinates}
    fixed = {}
    for setting in settings:
        name, equals, number = setting.partition("=")
        if name not in coordinates:
            raise ValueError(f"--fix {setting}: expected one of {', '.join(coordinates)}")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        largest = coordinates[name].to_people(coordinates[name].largest)
        if not equals or not 0 <= value <= largest * (1 + 1e-9):
            raise ValueError(
                f"--fix {setting}: expected {name}=EXTENT with a number from 0 to {largest:g} "
                f"({coordinates[name].unit})"
            )
        fixed[name] = float(coordinates[name].from_people(value))
    return fixed


def show(options: argparse.Namespace) -> None:
    """`bayesinv show`: print the table of a folder again."""
    for file in posterior_files(options.folder):
        posterior = load_posterior(file)
        if file.parent != options.folder and file != options.folder:
            print(f"{file.parent.name}\n")
        print(summary_text(posterior.summary(options.reweighted, options.level)))
        print(f"\n{facts_text(posterior)}")
        print(f"data          {len(posterior.data)} training examples\n")
        print(f"{settings_text(posterior)}\n")


def predict(options: argparse.Namespace) -> None:
    """`bayesinv predict`: class probabilities, or means and standard deviations, for new inputs."""
    run = read_run(options.folder)
    if run["command"] == "demo":
        inside = ", ".join(str(options.folder / name) for name in run["sets"])
        raise ValueError(f"{options.folder} holds several posteriors; choose one of {inside}")
    if options.out is not None:
        check_writable(options.out, options.overwrite, OUR_TABLE)
    posterior = load_posterior(options.folder / POSTERIOR_FILE)
    reading = Reading(**run["reading"]).updated({key: getattr(options, key) for key in READING_OPTIONS})
    examples = with_whole_labels(read_examples(options.data, reading), posterior.model.likelihood)
    classes = tuple(run["classes"])
    targets = labels_in(examples, classes)
    prediction = posterior.predict(
        examples.x,
        num_samples=options.num_samples,
        reweighted=options.reweighted,
        seed=options.seed,
    )
    prediction = prediction.as_rows()
    table = _table(prediction, classes)
    if examples.files:
        table.insert(0, "file", list(examples.files))
    score = "" if targets is None else _score(prediction, np.asarray(targets))
    if options.out is None:
        print(table.head(SHOWN_PREDICTIONS).to_string(float_format="{:.3f}".format))
        if len(table) > SHOWN_PREDICTIONS:
            print(f"... {len(table) - SHOWN_PREDICTIONS} more; write all with --out FILE.csv")
    else:
        write_atomically(options.out, table.to_csv().encode(), options.overwrite)
        print(f"{len(table)} predictions written to {options.out}")
    if score:
        print(score)


def _table(prediction: Prediction, classes: tuple[str, ...]) -> pd.DataFrame:
    """One row an input."""
    table: dict[str, Any] = {}
    if prediction.probs is not None:
        probs = prediction.probs.cpu().numpy()
        labels = probs.argmax(1)
        table["predicted"] = [classes[label] for label in labels] if classes else labels
        names = classes or tuple(str(c) for c in range(probs.shape[1]))
        table |= {f"p({name})": probs[:, c] for c, name in enumerate(names)}
    elif prediction.mean is not None:
        means, deviations = prediction.mean.cpu().numpy(), prediction.variance.sqrt().cpu().numpy()
        for k in range(means.shape[1]):
            suffix = f"_{k}" if means.shape[1] > 1 else ""
            table |= {f"mean{suffix}": means[:, k], f"sd{suffix}": deviations[:, k]}
    return pd.DataFrame(table).rename_axis("index")


def _score(prediction: Prediction, targets: np.ndarray) -> str:
    """How well the predictions do where the targets are known."""
    if len(targets) != len(prediction):
        raise DataError(f"the data hold {len(prediction)} inputs and {len(targets)} targets")
    if prediction.probs is not None:
        probs = prediction.probs.cpu().numpy()
        num_classes = probs.shape[1]
        if targets.ndim != 1 or targets.dtype.kind not in "iu":
            raise DataError(
                f"targets have shape {targets.shape} and dtype {targets.dtype}; expected integer "
                f"labels 0..{num_classes - 1} of shape (n,). Without targets: --y-key none"
            )
        if targets.min() < 0 or targets.max() >= num_classes:
            raise DataError(
                f"targets reach from {targets.min()} to {targets.max()}; expected labels "
                f"0..{num_classes - 1}. Without targets: --y-key none"
            )
        accuracy = float((probs.argmax(1) == targets).mean())
        own = np.maximum(probs[np.arange(len(targets)), targets], np.finfo(float).tiny)
        return f"accuracy {100 * accuracy:.1f} %, log loss {-np.log(own).mean():.3f} nats"
    means = prediction.mean.cpu().numpy() if prediction.mean is not None else np.empty(0)
    if targets.size != means.size:
        raise DataError(f"targets have shape {targets.shape}; expected {means.shape}")
    error = float(np.sqrt(np.mean((means - targets.reshape(means.shape)) ** 2)))
    return f"root mean squared error {error:.4g}"


def demo(options: argparse.Namespace) -> None:
    """`bayesinv demo`: three sets of digits, one table each, a folder of figures."""
    sets = demonstration.SETS
    texts = []
    with output_folder(options.out, options.overwrite) as folder:
        # Two starts for a fit that learns extents, one where they are fixed.
        steps = {m: options.max_steps * (1 if extents else 2) for m, extents in demonstration.METHODS.items()}
        total = len(sets) * sum(steps.values())
        with tqdm(total=total, disable=options.quiet, dynamic_ncols=True, unit="evaluation") as bar:
            results = demonstration.run(
                seed=options.seed,
                num_train=options.num_train,
                max_steps=options.max_steps,
                num_features=options.num_features,
                num_orbit_samples=options.num_orbit_samples,
                num_draws=options.num_draws,
                num_test=options.num_test,
                on_step=_Bar(bar, steps),
            )
            for result in results:
                inside = folder / result.digit_set.name
                inside.mkdir()
                facts = {"reading": Reading().to_json(), "classes": [str(c) for c in range(10)]}
                _write(inside, result.posterior, "fit", facts, figures=not options.no_figures)
                text = _demo_text(result)
                texts.append(text)
                tqdm.write(f"{text}\n", file=sys.stdout)
                sys.stdout.flush()  # a pipe would otherwise hold the first table to the end
        (folder / "tables.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
        write_run(folder, "demo", {"sets": [each.name for each in sets], "seed": options.seed})
    print(f"figures, tables and posteriors are in {options.out}")


class _Bar:
    """One bar for all fits of the demo; a fit that converges early moves it to its own end."""

    def __init__(self, bar: Any, steps: dict[str, int]) -> None:
        self.bar = bar
        self.steps = steps
        self.current: tuple[str, str] | None = None
        self.begins = 0
        self.ends = 0

    def __call__(self, name: str, method: str, step: Step) -> None:
        if (name, method) != self.current:
            self.current = (name, method)
            self.begins, self.ends = self.ends, self.ends + self.steps[method]
            self.bar.set_description(f"{name}, {method}")
        self.bar.update(self.begins + step.step - self.bar.n)


def _demo_text(result: demonstration.DemoResult) -> str:
    digit_set = result.digit_set
    title = f"{digit_set.title}: {len(result.posterior.data)} training images"
    rows = [["method", "test accuracy", "log evidence"]]
    for method, accuracy in result.accuracy.items():
        rows.append([method, f"{100 * accuracy:.1f} %", f"{result.log_evidence[method]:.1f}"])
    return "\n".join(
        [
            title,
            "=" * len(title),
            summary_text(result.posterior.summary()),
            *([digit_set.remark] if digit_set.remark else []),
            "",
            facts_text(result.posterior),
            "",
            columns(rows),
            f"{len(result.test)} test images; three fits in {result.seconds:.0f} s",
        ]
    )


def _write(
    folder: Path,
    posterior: InvariancePosterior,
    command: str,
    facts: dict[str, Any],
    figures: bool,
    scales: list[list[float]] | None = None,
) -> None:
    """Write posterior, table, augmentation and figures; `scales` are those of a table's columns."""
    posterior.save(folder / POSTERIOR_FILE)
    posterior.summary().to_csv(folder / "summary.csv")
    augmentation = posterior.augmentation(scales=None if scales is None else (scales[0], scales[1]))
    augmentation.save(folder / AUGMENTATION_FILE)
    if figures:
        _write_figures(folder / "figures", posterior)
    write_run(folder, command, {**facts, "seed": posterior.result.seed})


def _write_figures(folder: Path, posterior: InvariancePosterior) -> None:
    folder.mkdir()
    drawn: dict[str, Any] = {}
    model, x = posterior.model, posterior.data.x
    if model.active:
        # The symmetry that reaches furthest, as a share of its largest sensible extent.
        largest = {c.name: c.largest for c in model.transform.coordinates}
        widest = max(model.active, key=lambda name: float(posterior[name].median()) / largest[name])
        drawn["extents"] = posterior.plot_extents()
        num_points = 25 if is_small(x) else 12  # on large data each takes seconds
        drawn[f"evidence-{widest}"] = posterior.plot_evidence(widest, num_points)
    if x.ndim == 4 and x.shape[1] in (1, 3):
        drawn["orbit"] = posterior.plot_orbit(x[0])
    if posterior.trace:
        drawn["trace"] = posterior.plot_trace()
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
