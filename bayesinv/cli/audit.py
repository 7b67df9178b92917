"""`bayesinv audit`: read, audit, write a folder, print the table and the recommendations."""

import argparse
import shlex
import warnings

import bayesinv
from bayesinv.auditing.page import HEAD, table_rows
from bayesinv.cli.folder import goes_on_from, output_folder, write_run
from bayesinv.cli.inputs import READING_OPTIONS, Reading, kind_in, read_training
from bayesinv.cli.tables import columns
from bayesinv.datasets import Examples


def audit(options: argparse.Namespace) -> None:
    """`bayesinv audit`."""
    command = shlex.join(["bayesinv", *options.arguments])
    with goes_on_from(options.out) as checkpoint, output_folder(options.out, options.overwrite) as folder:
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
            checkpoint=checkpoint,
        )
        title = f"Audit of {options.data.resolve().name}"
        found.report(folder / "report.html", title=title, command=command)
        found.table.to_csv(folder / "table.csv")
        (folder / "recommendations.txt").write_text("\n".join(found.recommendations) + "\n", encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what the augmentation leaves out: the note below says why
            augmentation = found.augmentation()
        augmentation.save(folder / "augmentation.safetensors")
        write_run(folder, "audit", {"classes": list(examples.classes), "shell": command})
        text = columns([HEAD, *table_rows(found)])
    if found.serious:
        print(f"{found.serious}\n")
    print(text)
    print()
    notes = [note for note in found.notes if note != found.serious]
    for line in [*found.sentences.values(), *(f"note: {note}" for note in notes)]:
        print(line)
    print(f"\n{found.num_total} examples, {found.seconds:.0f} s; written to {options.out}")


def _read(options: argparse.Namespace) -> tuple[Examples, str]:
    """Examples with targets, and the kind of data."""
    labels = {"auto": None, "categorical": True, "gaussian": False}[options.likelihood]
    changes = {key: getattr(options, key) for key in READING_OPTIONS}
    reading = Reading(labels=labels).updated(changes)
    return read_training(options.data, reading), kind_in(options.data, reading)
