"""MNIST 0, 6, 8 and 9 rotated within ±60°, with extents of their own for every class.

    python models/per_class_digits.py --num-train 400 --seed 0 --out run
    python models/per_class_digits.py --backbone network --num-orbit-samples 8 --seed 0

A Gaussian process with its Dirichlet evidence, or a small LeNet (15,536 weights) with the Laplace evidence.
Prints the rotation extent of each digit and, draw by draw, the mean extent of {0, 8} less that of {6, 9} with its 90 %
interval. That difference and the figure take the importance weights of the draws; the table has the draws as
they are. Images are looked for in the folder that BAYESINV_DATA names, or --root; nothing is downloaded.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import bayesinv
from bayesinv.data import Data
from bayesinv.posterior import InvariancePosterior
from models import common
from models.networks import SmallLeNet
from models.report import POSTERIOR_COLOUR, TRUTH_COLOUR, extents_table

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["DIGITS", "build", "difference", "figure", "main"]

DIGITS = (0, 6, 8, 9)
BACKBONES = ("gp", "network")
MNIST_CLASSES = 10


def build(
    num_train: int = 400,
    num_test: int = 400,
    half_angle: float = 60.0,
    num_orbit_samples: int = 16,
    num_inducing: int = 100,
    seed: int = 0,
    root: str | Path | None = None,
    backbone: str = "gp",
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model, and about ``num_train`` and ``num_test`` images of the four digits.

    Args:
        num_train: images to train on, about: what a random part of all ten digits holds of these four.
        num_test: the same of test images, moved alike.
        half_angle: the images are rotated by U[-half_angle, half_angle], degrees.
        num_orbit_samples: copies of an image.
        num_inducing: inducing inputs.
        seed: of the choice of images, their angles, and the network's first weights.
        root: the folder with MNIST.
        backbone: "gp" or "network".

    Raises:
        DataError: MNIST is not there. ValueError: an unknown backbone.
    """
    share = MNIST_CLASSES / len(DIGITS)
    split = bayesinv.datasets.mnist(
        root,
        num_train=round(num_train * share),
        num_test=round(num_test * share),
        rotation=math.radians(half_angle),
        seed=seed,
    )
    if backbone not in BACKBONES:
        raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {backbone!r}")
    net = SmallLeNet(num_classes=len(DIGITS), seed=seed) if backbone == "network" else None
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=num_inducing) if net is None else net,
        "rotation",
        num_orbit_samples=num_orbit_samples,
        outputs=[str(digit) for digit in DIGITS],
    )
    return model, _only(split.train), _only(split.test)


def _only(data: Data) -> Data:
    """The four digits, relabelled 0..3."""
    chosen = torch.isin(data.y, torch.tensor(DIGITS))
    return Data(data.x[chosen], torch.searchsorted(torch.tensor(DIGITS), data.y[chosen]), num_classes=len(DIGITS))


def difference(posterior: InvariancePosterior) -> np.ndarray:
    """Draws of mean(η_0, η_8) - mean(η_6, η_9), degrees; resampled by the importance weights, where there are any."""
    draws = posterior.result.draws
    if posterior.result.log_weights is not None:
        generator = torch.Generator().manual_seed(posterior.result.seed)
        shares = posterior.result.log_weights.exp()
        draws = draws[torch.multinomial(shares, len(draws), replacement=True, generator=generator)]
    zero, six, eight, nine = np.degrees(draws.numpy()).T
    return 0.5 * (zero + eight) - 0.5 * (six + nine)


def figure(posterior: InvariancePosterior, half_angle: float | None = None) -> "matplotlib.figure.Figure":
    """Extents by digit with 50 and 90 % intervals, beside the difference.

    Args:
        posterior: of the model of `build`.
        half_angle: a line where the images were rotated by up to this, degrees; None draws none.
    """
    import matplotlib.figure

    fig = matplotlib.figure.Figure(figsize=(9.0, 3.9), layout="constrained")
    left, right = fig.subplots(1, 2)
    weighted = posterior.result.log_weights is not None
    levels = np.degrees(posterior.quantile([0.05, 0.25, 0.5, 0.75, 0.95], reweighted=weighted).numpy())  # (5, digits)
    for k, digit in enumerate(DIGITS):
        low, inner_low, middle, inner_high, high = levels[:, k]
        looks_alike = digit in (0, 8)  # after half a turn
        colour = POSTERIOR_COLOUR if looks_alike else "#009E73"
        left.plot([low, high], [k, k], color=colour, lw=2)
        left.plot([inner_low, inner_high], [k, k], color=colour, lw=7, solid_capstyle="butt")
        name = "0 and 8, alike after half a turn" if looks_alike else "6 and 9, each other after half a turn"
        marker = "o" if looks_alike else "s"
        left.plot(middle, k, marker, color="white", mec=colour, ms=8, mew=2, label=name if digit in (0, 6) else None)
    if half_angle is not None:
        left.axvline(half_angle, color=TRUTH_COLOUR, ls="--", lw=1.5, label=f"images rotated within ±{half_angle:g}°")
    left.set(yticks=range(len(DIGITS)), yticklabels=DIGITS, xlim=(0, 180), xticks=range(0, 181, 30), ylim=(3.5, -0.5))
    left.set(xlabel="rotation extent (°): median, 50 % and 90 %", ylabel="digit")
    values = difference(posterior)
    low, high = np.quantile(values, [0.05, 0.95])
    right.hist(values, bins=40, color="#999999")
    right.axvspan(low, high, color=POSTERIOR_COLOUR, alpha=0.15, lw=0, zorder=0, label="90 % interval")
    right.axvline(0.0, color="black", ls=":", lw=1.5, label="no difference")
    right.set(xlabel="extent of {0, 8} less that of {6, 9} (°)", ylabel="draws")
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside lower center", ncols=3, frameon=False)
    return fig


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.make_parser(__doc__)
    count = common.positive(int)
    parser.add_argument("--num-train", type=count, default=400, help="images, about (default: %(default)s)")
    parser.add_argument("--num-test", type=count, default=400, help="images, about (default: %(default)s)")
    parser.add_argument(
        "--half-angle", type=common.in_range(0, 180), default=60.0, help="degrees (default: %(default)s)"
    )
    parser.add_argument(
        "--num-orbit-samples", type=count, default=16, help="copies of each image (default: %(default)s)"
    )
    parser.add_argument("--num-inducing", type=count, default=100, help="inducing inputs (default: %(default)s)")
    parser.add_argument("--backbone", choices=BACKBONES, default="gp", help="of the model (default: %(default)s)")
    parser.add_argument("--max-steps", type=count, default=400, help="of the fit (default: %(default)s)")
    parser.add_argument("--root", type=Path, help="folder with MNIST (default: $BAYESINV_DATA)")
    common.add_run_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: fit, print, and write what was asked for."""
    parser = _parser()
    options = common.checked(parser, parser.parse_args(argv))
    try:
        model, train, test = build(
            options.num_train,
            options.num_test,
            options.half_angle,
            options.num_orbit_samples,
            options.num_inducing,
            options.seed,
            options.root,
            options.backbone,
        )
    except ValueError as error:
        common.stop(parser, error)
    posterior = bayesinv.fit(
        model,
        train,
        seed=options.seed,
        device=options.device,
        max_steps=options.max_steps,
        progress=not options.quiet,
    )
    low, middle, high = np.quantile(difference(posterior), [0.05, 0.5, 0.95]).tolist()
    accuracy = float((posterior.predict(test.x).probs.argmax(1).cpu() == test.y).double().mean())
    print(extents_table(posterior))
    print(f"extent of {{0, 8}} less that of {{6, 9}}: {middle:.1f}°, 90 % interval {low:.1f}° to {high:.1f}°")
    print(f"accuracy on {len(test)} test images: {accuracy:.3f}")
    for warning in posterior.result.warnings:
        print(f"warning: {warning}")
    if options.out is None:
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    figure(posterior, options.half_angle).savefig(options.out / "per_class_digits.png", dpi=150)
    table = posterior.summary()[["median", "lower", "upper"]]
    document = {
        "options": {
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(options).items()
            if key != "out"
        },
        "extents": {name: row.to_dict() for name, row in table.iterrows()},
        "difference": [low, middle, high],
        "accuracy": accuracy,
        "num_train": len(train),
        "num_test": len(test),
        "warnings": list(posterior.result.warnings),
    }
    (options.out / common.RESULTS_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
