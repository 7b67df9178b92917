"""What the regressions with a Gaussian process share: options, the fit, scores, the report."""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import bayesinv
from bayesinv.data import Data
from bayesinv.posterior import InvariancePosterior
from models import common
from models.report import publish

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["EVIDENCES", "RegressionScores", "add_options", "fit", "regression_scores", "report"]

INFERENCES = ("vi", "nuts", "fixed", "none")
EVIDENCES = ("gaussian",)
DRAWS = 60  # of the posterior; each is weighed by one evaluation of the evidence


@dataclass(frozen=True)
class RegressionScores:
    """On test examples: mean absolute error and root mean square in the target's unit, and nats an example."""

    mae: float
    rmse: float
    log_loss: float


def regression_scores(
    posterior: InvariancePosterior, test: Data, scale: float = 1.0, num_samples: int = 8, seed: int = 0
) -> RegressionScores:
    """Errors of the predictive mean, and the mean negative log density of the targets.

    Args:
        posterior: of a regression.
        test: inputs and targets (n, outputs).
        scale: multiplies targets and predictions first, to change the unit.
        num_samples: draws of the extents to average over.
        seed: of these draws.
    """
    predicted = posterior.predict(test.x, num_samples=num_samples, seed=seed)
    if predicted.mean is None or predicted.variance is None:
        raise TypeError("regression_scores: expected a regression, and the posterior predicts classes")
    y = scale * test.y.double()
    mean, variance = scale * predicted.mean.cpu().double(), scale**2 * predicted.variance.cpu().double()
    error = mean - y
    log_loss = 0.5 * (error.square() / variance + variance.log() + math.log(2 * math.pi)).sum(1)
    return RegressionScores(float(error.abs().mean()), float(error.square().mean().sqrt()), float(log_loss.mean()))


def add_options(
    parser: argparse.ArgumentParser,
    max_steps: int,
    num_orbit_samples: int,
    num_inducing: int,
    inferences: Sequence[str] = INFERENCES,
) -> None:
    """The options that every such experiment takes."""
    count = common.positive(int)
    parser.add_argument("--inference", choices=inferences, default="vi", help="how (default: %(default)s)")
    parser.add_argument("--evidence", choices=EVIDENCES, default="gaussian", help="of the data (default: %(default)s)")
    parser.add_argument(
        "--num-orbit-samples", type=count, default=num_orbit_samples, help="copies of each example (%(default)s)"
    )
    parser.add_argument("--num-inducing", type=count, default=num_inducing, help="inducing inputs (%(default)s)")
    parser.add_argument("--max-steps", type=count, default=max_steps, help="of the optimiser, at most (%(default)s)")
    parser.add_argument("--seed", type=common._seed, default=0, help="of data and fit (default: %(default)s)")
    parser.add_argument("--device", default="auto", help='"auto", "cpu" or "cuda" (default: %(default)s)')
    parser.add_argument("--select", action="store_true", help="inclusion probabilities over all sets of symmetries")
    parser.add_argument("--out", type=common.Path, help="folder for the figure and results.json; none without")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are in --out")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def fit(options: argparse.Namespace, model: bayesinv.InvarianceModel, train: Data) -> InvariancePosterior:
    """Fit as the command line says; "fixed" and "none" are models whose priors fix every extent."""
    return bayesinv.fit(
        model,
        train,
        inference=options.inference if options.inference == "nuts" else "vi",
        seed=options.seed,
        device=options.device,
        max_steps=options.max_steps,
        num_draws=DRAWS,
        progress=not options.quiet,
    )


def report(
    posterior: InvariancePosterior,
    test: Data,
    options: argparse.Namespace,
    figures: Mapping[str, "matplotlib.figure.Figure"],
    unit: str,
    scale: float = 1.0,
    facts: Sequence[str] = (),
) -> RegressionScores:
    """Print the table and the scores; with --out, write the figures and results.json.

    Args:
        posterior: what was fitted.
        test: test examples.
        options: the command line, with ``truth`` by symmetry in internal units, or None.
        figures: by file name.
        unit: of the errors.
        scale: from the target's unit to that one.
        facts: lines to print below the table.
    """
    achieved = regression_scores(posterior, test, scale, seed=options.seed)
    lines: list[str] = []
    inclusion: dict[str, Any] | None = None
    if options.select and posterior.model.active:
        table = bayesinv.select(posterior, seed=options.seed).inclusion
        lines.append(table.to_string(float_format="{:.3f}".format))
        inclusion = {str(name): dict(row) for name, row in table.iterrows()}
    errors = f"mean absolute error {achieved.mae:.3g} {unit}, root mean square {achieved.rmse:.3g} {unit}"
    lines += [*facts, f"{errors}, log loss {achieved.log_loss:.3f} nats on {len(test)} test examples"]
    found = {"inclusion": inclusion, **asdict(achieved), "unit": unit}
    publish(posterior, test, options, lines, figures, found, options.inference)
    return achieved
