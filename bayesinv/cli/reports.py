"""`bayesinv report` and `bayesinv compare`: pages about saved fits."""

import argparse
import json
from pathlib import Path
from typing import Any

import bayesinv
from bayesinv.cli.folder import RUN_FILE, load_posterior, posterior_files, read_run
from bayesinv.cli.inputs import READING_OPTIONS, Reading, labels_in, read_examples
from bayesinv.cli.targets import with_whole_labels
from bayesinv.comparison.comparison import Comparison
from bayesinv.data.container import Data, as_data
from bayesinv.errors import DataError
from bayesinv.io.files import check_writable
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.report import write_comparison_report, write_report
from bayesinv.report.page import OURS
from bayesinv.selection import Selection

REPORT_FILE = "report.html"


def report(options: argparse.Namespace) -> None:
    """`bayesinv report`: one HTML file for each posterior in a folder."""
    files = posterior_files(options.folder)
    if options.out is not None and len(files) > 1:
        folders = ", ".join(str(file.parent) for file in files)
        raise ValueError(
            f"--out names one file, and {options.folder} holds several posteriors; choose one of {folders}"
        )
    paths = [options.out or file.parent / REPORT_FILE for file in files]
    for path in paths:
        check_writable(path, options.overwrite, OURS)
    selected = None if options.selection is None else Selection.load(options.selection)
    for file, path in zip(files, paths, strict=True):
        posterior, run = load_posterior(file), _run_of(file)
        comparison = None
        if options.test is not None:
            test = _test_data(options.test, posterior, run, options)
            fits = {"posterior": posterior}
            if not options.no_baselines:
                fits |= _baselines(posterior)
            comparison = bayesinv.compare(fits, test, reweighted=options.reweighted)
        write_report(
            posterior,
            path,
            title=f"Invariance report: {file.parent.resolve().name}",
            selection=selected,
            comparison=comparison,
            classes=run.get("classes", ()),
            command=run.get("shell"),
            level=options.level,
            reweighted=options.reweighted,
            overwrite=options.overwrite,
        )
        print(f"report written to {path}")


def compare(options: argparse.Namespace) -> None:
    """`bayesinv compare`: several saved fits side by side, on the terminal and on a page."""
    files: dict[str, Path] = {}
    for given in options.folders:
        for file in posterior_files(given):
            name = file.parent.resolve().name if file.name == "posterior.npz" else file.stem
            if file.resolve() in [known.resolve() for known in files.values()]:
                raise ValueError(f"{given} was named twice; name each fit once")
            if name in files:  # run-1/a and run-2/a
                name = str(file)
            files[name] = file
    if len(files) < 2:
        raise ValueError(f"expected at least two fits to compare, got {', '.join(files)}; for one: bayesinv report")
    if options.report is not None:
        check_writable(options.report, options.overwrite, OURS)
    elif options.test is None:
        raise ValueError("expected --test DATA to score the fits on, --report FILE to put them on a page, or both")
    fits = {name: load_posterior(file) for name, file in files.items()}
    comparison: Comparison | None = None
    if options.test is not None:
        first = next(iter(files))
        test = _test_data(options.test, fits[first], _run_of(files[first]), options)
        comparison = bayesinv.compare(fits, test)
        print(comparison)
    if options.report is not None:
        path = write_comparison_report(
            fits, options.report, comparison=comparison, level=options.level, overwrite=options.overwrite
        )
        print(f"report written to {path}")


def _run_of(file: Path) -> dict[str, Any]:
    """What made the folder of a posterior; empty for a file that was saved from Python."""
    return read_run(file.parent) if (file.parent / RUN_FILE).is_file() else {}


def _test_data(path: Path, posterior: InvariancePosterior, run: dict[str, Any], options: argparse.Namespace) -> Data:
    """Test data, read as the training data were."""
    changes = {key: getattr(options, key) for key in READING_OPTIONS}
    reading = Reading(**json.loads(json.dumps(run.get("reading", {})))).updated(changes)
    examples = with_whole_labels(read_examples(path, reading), posterior.model.likelihood)
    targets = labels_in(examples, tuple(run.get("classes", ())))
    if targets is None:
        raise DataError(f"{path} has no targets; expected test data with an array {reading.y_key!r} to score against")
    model, classes = posterior.model, posterior.data.num_classes
    given = (examples.x, targets)
    return as_data(given, model.likelihood, model.transform, num_classes=classes, one_class=True)


def _baselines(posterior: InvariancePosterior) -> dict[str, InvariancePosterior]:
    """Point estimates beside a posterior, refitted on its data: its medians held fixed, and no invariance."""
    if not posterior.model.active or posterior.model.is_network:  # whose fits would take a training each
        return {}
    medians = dict(zip(posterior.symmetries, posterior.quantile(0.5).tolist(), strict=True))
    settings = posterior.result.settings
    fits = {}
    for name, extents in {"medians held fixed": medians, "no invariance": dict.fromkeys(medians, 0.0)}.items():
        priors = bayesinv.Extents(posterior.model.transform.coordinates, extents).config()
        fits[name] = bayesinv.fit(
            bayesinv.InvarianceModel.from_config({**posterior.model.config(), "priors": priors}),
            posterior.data,
            seed=posterior.result.seed,
            max_steps=settings.get("max_steps"),
            device=settings.get("device", "cpu"),
        )
    return fits
