"""What the ready-made models share: options, and the fit."""

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import bayesinv
from bayesinv.data import Data
from bayesinv.inference import Fixed, PointMethod
from bayesinv.inference.fit import choose_device
from bayesinv.posterior import InvariancePosterior

__all__ = [
    "INFERENCES",
    "add_fit_options",
    "add_run_options",
    "checked",
    "fit_options",
    "in_range",
    "make_parser",
    "positive",
    "stop",
]

INFERENCES = ("vi", "augerino", "augnet", "fixed", "lila", "optima", "policy", "none")
RESULTS_FILE = "results.json"


def positive(kind: type) -> Callable[[str], Any]:
    """An argparse type: a number above zero, int or float."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not (value > 0 and math.isfinite(value)):
            what = "a whole number of at least 1" if kind is int else "a number above 0"
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
        return value

    return parse


def in_range(low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number in [low, high]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}, got {text!r}")
        return value

    return parse


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2**32 - 1, got {text!r}")
    return int(text)


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help starts with the docstring of a script."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of any run, whatever is fitted: those that `checked` looks at, the seed, and silence."""
    parser.add_argument("--seed", type=_seed, default=0, help="of data, weights and fit (default: %(default)s)")
    parser.add_argument("--device", default="auto", help='"auto", "cpu" or "cuda" (default: %(default)s)')
    parser.add_argument("--out", type=Path, help="folder for the figure and results.json; nothing is written without")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are in --out")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_fit_options(
    parser: argparse.ArgumentParser,
    epochs: float | Mapping[str, float],
    num_orbit_samples: int = 8,
    batch_size: int = 100,
) -> None:
    """The options that every experiment takes; where ``epochs`` depend on another option, theirs is None."""
    by_choice = isinstance(epochs, Mapping)
    default = None if by_choice else epochs
    said = ", ".join(f"{value:g} for {name}" for name, value in epochs.items()) if by_choice else f"{epochs:g}"
    parser.add_argument("--inference", choices=INFERENCES, default="vi", help="how (default: %(default)s)")
    parser.add_argument(
        "--num-orbit-samples",
        type=positive(int),
        default=num_orbit_samples,
        help="copies of each image (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=positive(float), default=default, help=f"passes over the data (default: {said})"
    )
    parser.add_argument(
        "--finish",
        type=in_range(0.0, 0.5),
        default=0.25,
        help="share of vi's passes, at the end, that train on the likelihood alone (default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=positive(int), default=batch_size, help="of a step (default: %(default)s)")
    add_run_options(parser)


def checked(parser: argparse.ArgumentParser, options: argparse.Namespace) -> argparse.Namespace:
    """Refuse what would otherwise only fail later."""
    try:
        choose_device(options.device)
    except ValueError as error:
        stop(parser, error)
    out = options.out
    if out is not None and out.exists() and not out.is_dir():
        parser.error(f"--out {out}: there is a file of that name; expected a folder, or a name that is free")
    if out is not None and (out / RESULTS_FILE).exists() and not options.overwrite:
        parser.error(f"--out {out}: holds results; choose another folder, or add --overwrite")
    return options


def fit_options(
    options: argparse.Namespace,
    model: bayesinv.InvarianceModel,
    train: Data,
    methods: Mapping[str, PointMethod] | None = None,
    **training: Any,
) -> InvariancePosterior:
    """Fit as the command line says.

    Args:
        options: the command line, with ``truth``, the extents that "fixed" takes, internal units.
        model: untrained.
        train: what ``build`` returned with it.
        methods: point methods with other options than their defaults, by name.
        training: further fields of `bayesinv.Training`.
    """
    known = {"fixed": Fixed(options.truth), **(methods or {})}
    inference = known.get(options.inference, options.inference)
    return bayesinv.fit(
        model,
        train,
        inference=inference,
        seed=options.seed,
        device=options.device,
        training=bayesinv.Training(
            epochs=options.epochs,
            finish=options.finish,
            batch_size=min(options.batch_size, len(train)),
            **training,
        ),
        progress=not options.quiet,
    )


def stop(parser: argparse.ArgumentParser, error: Exception) -> NoReturn:
    """Say what was wrong in the way of argparse, and end with its status."""
    parser.error(str(error))
