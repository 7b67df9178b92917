"""What the commands take, and the help that explains it."""

import argparse
import importlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from bayesinv.cli.audit_parser import KINDS, add_audit
from bayesinv.cli.words import LAYOUTS

DESCRIPTION = """\
Learn which symmetries hold in data, how far each one reaches, and how sure the data make us.

A symmetry is a way of changing an input (turning, moving, enlarging an image) that leaves its label
as it was. Its extent is a half-width: a rotation extent of 45° means that the model averages over
turns between -45° and 45°. `fit` finds a posterior distribution over how far the average should
reach, for all symmetries at once and from the training data alone; predictions are averaged over it.
"""

DATA = "folder of pictures, .npz file, .csv or .parquet table"

EXAMPLES = """\
examples:
  bayesinv demo                                 two minutes, no data needed
  bayesinv fit photos/ --out run --size 32      photos/cat/1.png, photos/dog/1.png, ...
  bayesinv fit train.npz --out run              arrays x (n, channels, height, width) and y (n,)
  bayesinv fit rows.csv --out run --target y    a table; y is a column
  bayesinv audit photos/ --out audit --size 32  which operations to use, and how far
  bayesinv show run                             the table again
  bayesinv predict run new.npz --out new.csv    class probabilities for new images
  bayesinv report run                           run/report.html, all about the fit on one page
  bayesinv compare run-a run-b --report ab.html several fits side by side

`bayesinv COMMAND --help` says more about each.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; after parsing, `options.run(options)` does the work."""
    parser = argparse.ArgumentParser(
        prog="bayesinv",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bayesinv {metadata.version('bayesinv')}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from, to report a bug")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _demo(subparsers)
    _fit(subparsers)
    _show(subparsers)
    _predict(subparsers)
    _report(subparsers)
    _compare(subparsers)
    add_audit(subparsers, _add, _later, _reading)
    return parser


def _later(module: str, command: str) -> Callable[[argparse.Namespace], None]:
    """A command whose module, and torch with it, is imported when it runs: help is to come at once."""

    def run(options: argparse.Namespace) -> None:
        getattr(importlib.import_module(f"bayesinv.cli.{module}"), command)(options)

    return run


def _add(
    subparsers: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    help: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _demo(subparsers: Any) -> None:
    parser = _add(
        subparsers,
        "demo",
        _later("commands", "demo"),
        "fit three sets of handwritten digits and compare",
        """\
Fit scikit-learn's bundled digits three times: upright, turned within ±45°, and over the full
circle. For each, print the posterior over six extents and the test accuracy against the same
Gaussian process with no invariance and with an augmentation fixed by hand. Figures and posteriors
go to the folder.

The hand-fixed extents are those that one might set for digits without looking: turns of ±15°,
moves of ±10 % of the width, scalings of ±10 %, no shear; the same for all three sets.
""",
        "bayesinv demo --out demo-results",
    )
    _output(parser, default=Path("demo-results"))
    parser.set_defaults(max_steps=200)
    parser.add_argument("--num-train", type=int, default=300, help="training images a set (300)")
    parser.add_argument("--num-test", type=int, help="test images a set (all left of 1,797)")
    _sizes(parser)
    parser.add_argument("--seed", type=int, default=0, help="of data and fits (0)")


def _fit(subparsers: Any) -> None:
    parser = _add(
        subparsers,
        "fit",
        _later("commands", "fit"),
        "fit a posterior to your own data",
        """\
Fit the posterior over the extents of symmetries, with a Gaussian process or a network as the free
function, and write it to a folder: posterior.npz, summary.csv, augmentation.safetensors, run.json and figures.

DATA is an .npz file with x and y (--kind signals, points or tables where x is no images), a folder of
pictures with one sub-folder a class, or a .csv or .parquet table with --target. Up to a few thousand
examples are practical. Columns of tables are standardised.
""",
        "bayesinv fit photos/ --out run --size 32 --fix shear=0 --fix scale_x=10",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA)
    _output(parser)
    _reading(parser)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--symmetries",
        nargs="+",
        metavar="NAME",
        help="which to learn: of images out of translate_x translate_y rotation scale_x scale_y shear (all six), or "
        "flip_x, hue and others that audit tries; of other data out of those that audit tries (all; of tables shifts)",
    )
    model.add_argument(
        "--fix",
        action="append",
        default=[],
        metavar="NAME=EXTENT",
        help="fix an extent instead of learning it, in ° or %% as the tables show it; 0 switches "
        "it off; may be repeated",
    )
    model.add_argument(
        "--likelihood",
        default="auto",
        help="categorical: targets are classes; gaussian: real numbers; auto (default): classes where they are names, "
        "or whole numbers of at most 20 values, or 0 ... C-1; the output says which",
    )
    model.add_argument(
        "--evidence",
        default="auto",
        help="auto, softmax (default for classes), dirichlet (fast, its intervals are not calibrated) or gaussian",
    )
    model.add_argument(
        "--padding",
        help="what lies outside an image: zeros (default), border or reflection",
    )
    _sizes(parser)
    parser.add_argument(
        "--num-inducing",
        type=_inducing,
        help="auto: random features, exact and fast (default); none: the exact covariance, for a few hundred images; "
        "a number: so many inducing points",
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--network",
        metavar="NAME",
        help="in place of the Gaussian process: lenet, resnet8, or module:attr, a network or a function that makes "
        "one, from your own Python; an interrupted training goes on when the command is repeated",
    )
    network.add_argument("--epochs", type=float, help="passes over the data (60)")
    network.add_argument("--batch-size", type=int, help="examples in a step (100)")
    inference = parser.add_argument_group("inference")
    inference.add_argument("--sampling-rate", type=float, help="of signals, samples a second (1)")
    inference.add_argument(
        "--inference",
        default="vi",
        help="vi: variational, fast (default); nuts: Markov chains, slow, the referee",
    )
    inference.add_argument(
        "--guide",
        default="full_rank",
        help="shape of the variational posterior: full_rank (default), mean_field or flow",
    )
    inference.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    inference.add_argument("--device", default="auto", help="auto (default), cpu, cuda, ...")


def _show(subparsers: Any) -> None:
    parser = _add(
        subparsers,
        "show",
        _later("commands", "show"),
        "print a saved posterior and its settings",
        "Print table and settings of a folder that `bayesinv fit` or `bayesinv demo` wrote, or of a saved file.",
        "bayesinv show run --level 0.5",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder, or the file of a saved posterior")
    parser.add_argument("--level", type=float, default=0.9, help="mass of the intervals (0.9)")
    _reweighted(parser)


def _predict(subparsers: Any) -> None:
    parser = _add(
        subparsers,
        "predict",
        _later("commands", "predict"),
        "predict for new images",
        """\
Predict for new images with the posterior in a folder, averaged over extents, orbit and function.
They are read as the training images were, unless the options say otherwise. Where DATA has targets,
the accuracy is printed too.
""",
        "bayesinv predict run new.npz --out new.csv",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder that `bayesinv fit` wrote")
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all predictions as CSV")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if bayesinv wrote it before")
    parser.add_argument("--num-samples", type=int, default=32, help="posterior draws to average over (32)")
    _reweighted(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    _reading(parser)


def _report(subparsers: Any) -> None:
    parser = _add(
        subparsers,
        "report",
        _later("reports", "report"),
        "write all about a fit on one HTML page",
        """\
Write one self-contained HTML file: what was fitted, verdicts on the fit, extents with intervals and prior, pictures of
the orbit, predictive quality, settings, versions and how to reproduce it. It loads nothing from elsewhere.

With test data it also scores the fit, beside two point estimates that are refitted for it: the posterior's medians held
fixed, and no invariance.
""",
        "bayesinv report run --test test.npz",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder that `bayesinv fit` or `demo` wrote, or a saved file"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (DIR/report.html)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if bayesinv wrote it before")
    parser.add_argument("--test", type=Path, metavar="DATA", help=f"{DATA} to score on")
    parser.add_argument("--no-baselines", action="store_true", help="refit no point estimates for the scores")
    parser.add_argument("--selection", type=Path, metavar="FILE", help="a saved selection of symmetries to show")
    parser.add_argument("--level", type=float, default=0.9, help="mass of the intervals (0.9)")
    _reweighted(parser)
    _reading(parser)


def _compare(subparsers: Any) -> None:
    parser = _add(
        subparsers,
        "compare",
        _later("reports", "compare"),
        "put several saved fits side by side",
        """\
Put several saved fits side by side: their extents, and with --test their scores on the same test data, with paired
differences. The terminal gets the table, --report FILE a self-contained HTML page.
""",
        "bayesinv compare run-a run-b --test test.npz --report ab.html",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folders or files of saved fits")
    parser.add_argument("--report", type=Path, metavar="FILE", help="HTML file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if bayesinv wrote it before")
    parser.add_argument("--test", type=Path, metavar="DATA", help=f"{DATA} to score on")
    parser.add_argument("--level", type=float, default=0.9, help="mass of the intervals on the page (0.9)")
    _reading(parser)


def _output(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out",
        type=Path,
        default=default,
        required=default is None,
        metavar="DIR",
        help="folder to write" + (f" ({default})" if default else ""),
    )
    group.add_argument("--overwrite", action="store_true", help="replace DIR if bayesinv wrote it before")
    group.add_argument("--no-figures", action="store_true", help="write no figures")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def _inducing(text: str) -> int | str:
    """ "auto", "none", or a number."""
    if text in ("auto", "none"):
        return text
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected auto, none or a whole number, got {text!r}")
    return int(text)


def _sizes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("size of the computation")
    group.add_argument("--num-features", type=int, help="random features of the Gaussian process (1024)")
    group.add_argument("--num-orbit-samples", type=int, default=24, help="copies of each image in its orbit (24)")
    group.add_argument("--max-steps", type=int, help="most evaluations of the evidence from each start (200)")
    group.add_argument("--num-draws", type=int, help="posterior draws (as many as are worth 100 independent ones)")


def _reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reading the data")
    group.add_argument("--x-key", help="name of the inputs in an .npz file (x)")
    group.add_argument("--y-key", help="name of the targets in an .npz file (y)")
    group.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="axes of the inputs in an .npz file: n examples, c channels, h height, w width (nchw)",
    )
    group.add_argument(
        "--divide-by",
        type=float,
        help="the grey level that becomes 1: 255 for arrays of bytes; for pictures the largest of 8 or 16 bits",
    )
    group.add_argument(
        "--size", type=int, help="side in pixels that pictures are brought to, where they have several sizes: 32, say"
    )
    group.add_argument("--channels", type=int, choices=(1, 3), help="1 (grey) or 3 (RGB) for pictures")
    group.add_argument(
        "--skip-broken", action="store_true", default=None, help="leave out broken pictures, and list them"
    )
    group.add_argument("--kind", choices=KINDS, help="of the inputs in an .npz file (images)")
    group.add_argument("--target", dest="y_key", metavar="COLUMN", help="of a .csv or .parquet table: what to predict")
    group.add_argument("--columns", nargs="+", metavar="COLUMN", help="of a table: the inputs (all but the target)")


def _reweighted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reweighted",
        action=argparse.BooleanOptionalAction,
        help="correct the variational posterior by its importance weights (where Pareto k̂ says they are good)",
    )
