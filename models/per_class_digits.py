"""MNIST 0, 6, 8 and 9 rotated within ±60°, with extents of their own for every class.

    python models/per_class_digits.py --num-train 400 --seed 0 --out run

Prints the rotation extent of each digit and, draw by draw, the mean extent of {0, 8} less that of {6, 9} with its 90 %
interval. Images are looked for in the folder that BAYESINV_DATA names, or --root; nothing is downloaded.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib.pyplot as plt
import numpy as np
import torch

import bayesinv
from bayesinv.data import Data
from bayesinv.posterior import InvariancePosterior
from models import common

__all__ = ["DIGITS", "build", "difference", "figure", "main"]

DIGITS = (0, 6, 8, 9)
MNIST_CLASSES = 10


def build(
    num_train: int = 400,
    num_test: int = 400,
    half_angle: float = 60.0,
    num_orbit_samples: int = 16,
    num_inducing: int = 100,
    seed: int = 0,
    root: str | None = None,
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model, and about ``num_train`` and ``num_test`` images of the four digits.

    Args:
        num_train: images to train on, about: what a random part of all ten digits holds of these four.
        num_test: the same of test images, moved alike.
        half_angle: the images are rotated by U[-half_angle, half_angle], degrees.
        num_orbit_samples: copies of an image.
        num_inducing: inducing inputs.
        seed: of the choice of images, their angles.
        root: the folder with MNIST.

    Raises:
        DataError: MNIST is not there.
    """
    share = MNIST_CLASSES / len(DIGITS)
    split = bayesinv.datasets.mnist(
        root,
        num_train=round(num_train * share),
        num_test=round(num_test * share),
        rotation=math.radians(half_angle),
        seed=seed,
    )
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=num_inducing),
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


def figure(posterior: InvariancePosterior) -> Any:
    """Extents by digit with 50 and 90 % intervals, beside the difference."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.2), layout="constrained")
    draws = np.degrees(posterior.result.draws.numpy())
    weights = posterior.result.log_weights
    shares = np.full(len(draws), 1 / len(draws)) if weights is None else weights.exp().numpy()
    for k, digit in enumerate(DIGITS):
        colour = "#0072B2" if digit in (0, 8) else "#D55E00"
        low, inner_low, middle, inner_high, high = (
            np.interp(q, np.cumsum(shares[np.argsort(draws[:, k])]), np.sort(draws[:, k]))
            for q in (0.05, 0.25, 0.5, 0.75, 0.95)
        )
        left.plot([low, high], [k, k], color=colour, lw=2)
        left.plot([inner_low, inner_high], [k, k], color=colour, lw=6, solid_capstyle="butt")
        left.plot(middle, k, "o", color="white", mec=colour, ms=7)
    left.set(yticks=range(len(DIGITS)), yticklabels=DIGITS, xlim=(0, 180), ylim=(3.5, -0.5))
    left.set(xlabel="rotation extent (°), 50 % and 90 %", ylabel="digit")
    values = difference(posterior)
    right.hist(values, bins=40, color="#777777")
    right.axvline(0.0, color="black", ls="--", lw=1)
    right.set(xlabel="extent of {0, 8} less that of {6, 9} (°)", ylabel="draws")
    return fig


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--num-train", type=common.positive(int), default=400, help="images (default: %(default)s)")
    parser.add_argument("--half-angle", type=common.in_range(0, 180), default=60.0, help="degrees (default: 60)")
    parser.add_argument("--num-orbit-samples", type=common.positive(int), default=16, help="copies of each image")
    parser.add_argument("--num-inducing", type=common.positive(int), default=100, help="(default: %(default)s)")
    parser.add_argument("--max-steps", type=common.positive(int), default=400, help="of the fit (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of images, angles and fit (default: %(default)s)")
    parser.add_argument("--root", help="folder with MNIST (default: $BAYESINV_DATA)")
    parser.add_argument("--out", type=Path, help="folder for the figure and results.json; nothing is written without")
    options = parser.parse_args(argv)
    try:
        model, train, test = build(
            options.num_train,
            half_angle=options.half_angle,
            num_orbit_samples=options.num_orbit_samples,
            num_inducing=options.num_inducing,
            seed=options.seed,
            root=options.root,
        )
    except (bayesinv.errors.DataError, ValueError) as error:
        common.stop(parser, error)
    posterior = bayesinv.fit(model, train, seed=options.seed, max_steps=options.max_steps)
    low, middle, high = np.quantile(difference(posterior), [0.05, 0.5, 0.95])
    accuracy = float((posterior.predict(test.x).probs.argmax(1) == test.y).double().mean())
    print(posterior.summary())
    print(f"extent of {{0, 8}} less that of {{6, 9}}: {middle:.1f}°, 90 % interval {low:.1f}° to {high:.1f}°")
    print(f"accuracy on {len(test)} test images: {accuracy:.3f}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        numbers = {"difference": [low, middle, high], "accuracy": accuracy, "num_train": len(train)}
        (options.out / common.RESULTS_FILE).write_text(json.dumps(numbers, indent=2), encoding="utf-8")
        fig = figure(posterior)
        fig.savefig(options.out / "per_class_digits.png", dpi=150)
        plt.close(fig)
    return 0


if __name__ == "__main__":
    sys.exit(main())
