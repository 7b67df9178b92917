"""Two characters, turned within ±45°, upright or inverted: how far is turning permitted, and how far is it needed?

    python models/mario_iggy.py --question permitted --out run
    python models/mario_iggy.py --question needed --average probabilities --out run
    python models/mario_iggy.py --inference augerino --out run

Permitted: how far can images turn before labels break? The likelihood of turned inputs under a prior that pushes the
extent of rotation outwards, λ nats an image over its whole range (--strength; 0 is a flat prior, and then only the
upper limit means something). The answer should be 45°: turned that much further, an image is still on its own side of
the middle. The other five extents are latent under flat priors. Pushed outwards as well (--outward all), shear and
scale take the room: together with a shear of 100 %, which leans an image by 45°, less turning is permitted.

Needed: how much turning explains the labels best? The evidence, in which the weights are integrated out. There is no
right answer; a network that has no trouble with the turned images needs none.

Augerino and AugNet run as published, with the network they were published with (--network small_simple_conv is faster).

The pictures are mario-iggy/images.npz in the folder that BAYESINV_DATA names, any two given with --pictures, or else
two of scikit-learn's digits.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import bayesinv
from bayesinv.data import Data
from bayesinv.inference import Augerino, AugNet
from bayesinv.posterior import InvariancePosterior
from bayesinv.transforms.affine2d import AFFINE_COORDINATES
from models import common
from models.networks import NETWORKS, make_network
from models.report import POSTERIOR_COLOUR, TRUTH_COLOUR, draw_extents, report

if TYPE_CHECKING:
    import matplotlib.figure

ANGLE = math.radians(45)  # of the data, and the answer to "permitted"
AVERAGES = ("function", "probabilities", "log_likelihood")
# By question: the evidence, and what is averaged over copies unless the command line says otherwise.
QUESTIONS = {"permitted": ("plugin", "log_likelihood"), "needed": ("laplace", "function")}
# λ, nats an image over an extent's whole range. Past 45° by δ degrees two classes share 4δ²/(180·45) of the turned
# copies, at about half a nat each; the slope of that is λ/180° at δ = 12.5 λ°.
STRENGTH = 0.1

# The published settings for this problem: of the methods, their training, batches and network.
METHODS = {
    "augerino": Augerino(regularisation=0.2, initial_width=math.pi / 4),
    "augnet": AugNet(weight_decay=1.0),
}
TRAINING: dict[str, dict[str, Any]] = {
    "augerino": {"weight_rate": 0.01, "schedule": "constant", "clip_norm": None},
    "augnet": {"weight_rate": 5e-4, "schedule": "constant", "clip_norm": None},
}
BATCH_SIZE, PUBLISHED_BATCH_SIZE = 100, 128
NETWORK, PUBLISHED_NETWORK = "small_lenet", "simple_conv"

# Share of the steps before the first one of the extents, by question. While the network knows nothing, turning costs no
# likelihood, and an outward prior alone would carry the extent to its end.
BURN_IN = {"permitted": 0.25, "needed": 0.15}
# Passes over the data, by question. The network knows these pictures after three; the extents need more where a prior
# pushes them.
EPOCHS = {"permitted": 20.0, "needed": 8.0}


def build(
    question: str = "permitted",
    average: str | None = None,
    num_train: int = 10_000,
    num_test: int = 5_000,
    network: str = NETWORK,
    num_orbit_samples: int = 2,
    seed: int = 0,
    pictures: Sequence[Any] | None = None,
    strength: float = STRENGTH,
    outward: Sequence[str] = ("rotation",),
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model with all six affine extents latent, training and test images.

    Args:
        question: "permitted" (plug-in likelihood, `Outward` prior) or "needed" (Laplace evidence, flat priors).
        average: over the copies of an image: "function", "probabilities" or, for "permitted" only,
            "log_likelihood"; None takes "log_likelihood" for "permitted" and "function" for "needed".
        num_train, num_test: images.
        network: a key of `models.networks.NETWORKS`.
        num_orbit_samples: S, copies of each image.
        seed: of the angles and the network's initial weights.
        pictures: two arrays or paths, see `bayesinv.datasets.mario_iggy`.
        strength: λ of the outward priors; 0 leaves them flat.
        outward: which extents they push, for "permitted"; the others have flat priors.

    Raises:
        DataError: pictures that are not usable. ValueError: an argument out of its range.
    """
    if question not in QUESTIONS:
        raise ValueError(f"question: expected one of {', '.join(QUESTIONS)}, got {question!r}")
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength: expected a number of at least 0, got {strength!r}")
    evidence, usual = QUESTIONS[question]
    transform = bayesinv.Affine2d()
    priors = {}
    if question == "permitted" and strength > 0:
        priors = {name: bayesinv.Outward(strength) for name in outward}
    model = bayesinv.InvarianceModel(
        make_network(network, channels=3, size=32, num_classes=4, seed=seed),
        transform,
        likelihood="categorical",
        evidence=evidence,
        priors=priors,
        num_orbit_samples=num_orbit_samples,
        average=usual if average is None else average,
    )
    train, test = bayesinv.datasets.mario_iggy(pictures, num_train, num_test, seed, ANGLE)
    return model, train, test


def rotation_figure(posterior: InvariancePosterior, title: str) -> "matplotlib.figure.Figure":
    """The posterior of the rotation extent, 45° marked, and all six extents beside it."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(12.0, 5.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    degrees = np.degrees(posterior["rotation"].numpy())
    low, median, high = np.quantile(degrees, [0.05, 0.5, 0.95])
    if len(np.unique(degrees)) > 1:
        left.hist(degrees, bins=30, density=True, color=POSTERIOR_COLOUR, label="posterior")
        words = f"{median:.1f}° [{low:.1f}, {high:.1f}]"
    else:
        left.axvline(median, color=POSTERIOR_COLOUR, lw=3, label=posterior.result.inference)
        words = f"{median:.1f}°"
    left.axvline(math.degrees(ANGLE), color=TRUTH_COLOUR, lw=2.5, ls="--", label="45°: as far as labels hold")
    left.set_xlim(min(0.9 * math.degrees(ANGLE), low - 5), max(1.1 * math.degrees(ANGLE), high + 5))
    left.set_xlabel("half-width of rotation (°)")
    left.set_ylabel("density")
    left.set_title(f"rotation: {words}", loc="left")
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    draw_extents(right, posterior)
    right.set_title("all extents", loc="left")
    right.legend(frameon=False, loc="lower right")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = common.make_parser(__doc__ or "")
    count = common.positive(int)
    made.add_argument("--question", choices=list(QUESTIONS), default="permitted", help="default: %(default)s")
    made.add_argument(
        "--average",
        choices=AVERAGES,
        help="over the copies of an image (default: log_likelihood for permitted, function for needed)",
    )
    made.add_argument(
        "--strength",
        type=common.in_range(0, 100),
        default=STRENGTH,
        help="λ of the outward prior (default: %(default)g)",
    )
    made.add_argument(
        "--outward",
        nargs="+",
        choices=["all", *AFFINE_COORDINATES],
        default=["rotation"],
        help="extents that it pushes (default: rotation)",
    )
    made.add_argument("--pictures", nargs=2, type=Path, metavar="FILE", help="two image files, upright")
    made.add_argument("--num-train", type=count, default=10_000, help="default: %(default)s")
    made.add_argument("--num-test", type=count, default=5_000, help="default: %(default)s")
    made.add_argument(
        "--network",
        choices=list(NETWORKS),
        help=f"default: {NETWORK}, and {PUBLISHED_NETWORK} for {' and '.join(METHODS)}",
    )
    common.add_fit_options(made, epochs=EPOCHS, num_orbit_samples=2, batch_size=BATCH_SIZE)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print, and write what was asked for."""
    made = parser()
    options = common.checked(made, made.parse_args(argv))
    if options.question == "needed" and options.average == "log_likelihood":
        made.error("--average log_likelihood: goes with --question permitted; needed takes function or probabilities")
    options.truth = {"rotation": ANGLE}
    if options.epochs is None:  # the point estimates are published with as many as "permitted" has
        options.epochs = EPOCHS[options.question if options.inference == "vi" else "permitted"]
    is_published = options.inference in TRAINING
    if options.network is None:
        options.network = PUBLISHED_NETWORK if is_published else NETWORK
    if is_published and options.batch_size == BATCH_SIZE:
        options.batch_size = PUBLISHED_BATCH_SIZE
    try:
        model, train, test = build(
            options.question,
            options.average,
            options.num_train,
            options.num_test,
            options.network,
            options.num_orbit_samples,
            options.seed,
            options.pictures,
            options.strength,
            list(AFFINE_COORDINATES) if "all" in options.outward else options.outward,
        )
    except ValueError as error:
        common.stop(made, error)
    settings = TRAINING.get(options.inference, {"burn_in": BURN_IN[options.question]})
    posterior = common.fit_options(options, model, train, METHODS, **settings)
    asked = f"{options.question}, {model.average.replace('_', ' ')} averages"
    what = asked if options.inference == "vi" else options.inference
    figure = rotation_figure(posterior, f"{what}, {len(train)} images")
    facts = []
    if options.question == "permitted" and options.strength == 0 and options.inference == "vi":
        limit = posterior.upper_limit().loc["rotation", "upper_limit"]
        facts.append(
            f"rotation below {limit:.1f}° with probability 0.95; under a flat prior that is all there is to say"
        )
    report(posterior, test, options, {"rotation.png": figure}, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
