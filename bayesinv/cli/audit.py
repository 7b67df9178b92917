"""`bayesinv audit`: read, audit, write a folder, print the table and the recommendations."""

import argparse
import shlex

import bayesinv
from bayesinv.auditing.page import HEAD, table_rows
from bayesinv.cli.folder import output_folder, write_run
from bayesinv.cli.inputs import Reading, read_examples
from bayesinv.cli.tables import columns
from bayesinv.datasets import Examples, load_npz, load_table
from bayesinv.datasets.columns import TABLE_SUFFIXES
from bayesinv.datasets.files import load_image_folder
from bayesinv.errors import DataError

READING_OPTIONS = ("x_key", "y_key", "layout", "divide_by", "size", "channels")


def audit(options: argparse.Namespace) -> None:
    """`bayesinv audit`."""
    command = shlex.join(["bayesinv", *options.arguments])
    with output_folder(options.out, options.overwrite) as folder:
        examples, kind = _read(options)
        found = bayesinv.audit(
            (examples.x, examples.y),
            likelihood=options.likelihood,
            kind=kind,
            operations=options.operations,
            classes=examples.classes,
            columns=examples.columns or None,
            sampling_rate=options.sampling_rate,
            num_examples=options.num_examples,
            size=options.image_size,
            num_orbit_samples=options.num_orbit_samples,
            num_features=options.num_features,
            prior_inclusion=options.prior_inclusion,
            seed=options.seed,
            progress=not options.quiet,
        )
        title = f"Audit of {options.data.resolve().name}"
        found.report(folder / "report.html", title=title, command=command)
        found.table.to_csv(folder / "table.csv")
        (folder / "recommendations.txt").write_text("\n".join(found.recommendations) + "\n", encoding="utf-8")
        found.augmentation().save(folder / "augmentation.safetensors")
        write_run(folder, "audit", {"classes": list(examples.classes), "shell": command})
        text = columns([HEAD, *table_rows(found)])
    print(text)
    print()
    for line in [*found.recommendations, *(f"note: {note}" for note in found.notes)]:
        print(line)
    print(f"\n{found.num_total} examples, {found.seconds:.0f} s; written to {options.out}")


def _read(options: argparse.Namespace) -> tuple[Examples, str]:
    """Examples with targets, and the kind of data."""
    reading = Reading().updated({key: getattr(options, key) for key in READING_OPTIONS})
    path = options.data
    if path.suffix.lower() in TABLE_SUFFIXES:
        if options.target is None:
            raise DataError(f"{path}: name the column to predict: --target COLUMN")
        labels = {"auto": None, "categorical": True, "gaussian": False}[options.likelihood]
        return load_table(path, options.target, options.columns, labels), "tables"
    kind = options.kind or "images"
    if path.is_dir():
        examples = load_image_folder(path, reading.size, reading.channels, skip_broken=options.skip_broken)
    elif kind == "images":
        examples = read_examples(path, reading)
    else:
        examples = load_npz(path, reading.x_key, reading.y_key)
    if examples.y is None:
        raise DataError(f"{path} has no targets; expected an array {reading.y_key!r}, or one sub-folder a class")
    return examples, kind
