"""The angle of a turned digit: rotation is what the targets depend on, so its extent must go to zero.

    python models/rotation_regression.py --num-train 1000 --out run
    python models/rotation_regression.py --backbone network --images mnist

Digits are turned by an angle of their own within ±90° and moved by up to 15 % of the width; the target is the angle. A
model that averages over rotations cannot tell it, one that averages over translations can, and may need to. Prints the
extents of rotation and translations beside the truth, and the error of the angle on test images.

The images are scikit-learn's digits (16×16), or MNIST in the folder that the environment variable BAYESINV_DATA names,
or --root; nothing is downloaded.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from jaxtyping import Float
from torch import Tensor, nn

import bayesinv
from bayesinv.data import Data
from bayesinv.transforms import Affine2d
from models import common, regression
from models.networks import make_network
from models.report import extents_figure

IMAGES = ("digits", "mnist")
BACKBONES = ("gp", "network")
SYMMETRIES = ("rotation", "translate_x", "translate_y")
LARGEST_ANGLE = math.pi / 2
SHIFT = 0.3  # of half the width
DEGREES_PER_RADIAN = 180.0 / math.pi


def true_extents() -> dict[str, float]:
    """By symmetry, internal units: the angle is the target, and the position says nothing about it.

    Example:
        >>> true_extents()["rotation"]
        0.0
    """
    return {"rotation": 0.0, "translate_x": SHIFT, "translate_y": SHIFT}


def turned(x: Float[Tensor, "n channel height width"], generator: torch.Generator) -> Data:
    """Each image turned and moved by amounts of its own, with its angle (radians, counter-clockwise) as the target.

        angle ~ U[−90°, 90°],    shifts ~ U[−15 %, 15 %] of the width

    Args:
        x: upright images.
        generator: of the amounts.
    """
    half_widths = torch.tensor([LARGEST_ANGLE, SHIFT, SHIFT])
    t = half_widths * (2 * torch.rand(len(x), 3, generator=generator) - 1)
    # Turned about the middle, then moved: one exponential of both would move turned digits by less.
    turn, move = Affine2d(["rotation"]), Affine2d(["translate_x", "translate_y"])
    moved = bayesinv.Compose([turn, move]).transform(x, t)
    return Data(moved, t[:, :1].contiguous())


def build(
    num_train: int = 800,
    num_test: int = 800,
    images: str = "digits",
    backbone: str = "gp",
    num_orbit_samples: int = 16,
    num_inducing: int = 200,
    evidence: str = "auto",
    seed: int = 0,
    root: str | Path | None = None,
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model with rotation and translations latent, training and test images with their angles.

    Args:
        num_train, num_test: images.
        images: "digits" (bundled with scikit-learn), or "mnist".
        backbone: "gp", or "network" (a small LeNet).
        num_orbit_samples: S, copies of each image.
        num_inducing: M, of the Gaussian process.
        evidence: "auto" takes "gaussian" for the process and "laplace" for the network.
        seed: of images, angles, shifts and weights.
        root: folder of MNIST; None takes ``BAYESINV_DATA``.

    Raises:
        DataError: the images are not there. ValueError: an argument out of its range.
    """
    if images not in IMAGES:
        raise ValueError(f"images: expected one of {', '.join(IMAGES)}, got {images!r}")
    if backbone not in BACKBONES:
        raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {backbone!r}")
    if images == "mnist":
        upright = bayesinv.datasets.mnist(root, num_train=num_train, num_test=num_test, seed=seed)
    else:
        upright = bayesinv.datasets.digits(num_train=num_train, seed=seed)
        if not 1 <= num_test <= len(upright.test):
            raise ValueError(f"num_test is {num_test}; expected 1..{len(upright.test)} beside {num_train} to train on")
    generator = torch.Generator().manual_seed(seed)
    train = turned(upright.train.x, generator)
    test = turned(upright.test.x[:num_test], generator)
    size = train.x.shape[-1]
    h: bayesinv.GaussianProcess | nn.Module = bayesinv.GaussianProcess(num_inducing=num_inducing)
    if backbone == "network":
        h = make_network("small_lenet", channels=1, size=size, num_classes=1, seed=seed)
    model = bayesinv.InvarianceModel(
        h, Affine2d(SYMMETRIES), likelihood="gaussian", evidence=evidence, num_orbit_samples=num_orbit_samples
    )
    return model, train, test


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = common.make_parser(__doc__ or "")
    count = common.positive(int)
    made.add_argument("--images", choices=IMAGES, default="digits", help="default: %(default)s")
    made.add_argument("--backbone", choices=BACKBONES, default="gp", help="default: %(default)s")
    made.add_argument("--evidence", default="auto", help='"auto", "gaussian" (gp) or "laplace", "plugin" (network)')
    made.add_argument("--num-train", type=count, default=800, help="default: %(default)s")
    made.add_argument("--num-test", type=count, default=800, help="default: %(default)s")
    made.add_argument("--num-inducing", type=count, default=200, help="of the process (default: %(default)s)")
    made.add_argument("--max-steps", type=count, default=400, help="of the process (default: %(default)s)")
    made.add_argument("--select", action="store_true", help="inclusion probabilities over all sets of symmetries")
    made.add_argument("--root", type=Path, help="folder of the data sets (default: $BAYESINV_DATA)")
    common.add_fit_options(made, epochs=60, num_orbit_samples=16)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print, and write what was asked for."""
    made = parser()
    options = common.checked(made, made.parse_args(argv))
    options.truth = true_extents()
    try:
        model, train, test = build(
            options.num_train,
            options.num_test,
            options.images,
            options.backbone,
            options.num_orbit_samples,
            options.num_inducing,
            options.evidence,
            options.seed,
            options.root,
        )
        if options.backbone == "gp":
            posterior = bayesinv.fit(
                model,
                train,
                inference=options.inference,
                seed=options.seed,
                device=options.device,
                max_steps=options.max_steps,
                progress=not options.quiet,
            )
        else:
            posterior = common.fit_options(options, model, train)
    except ValueError as error:
        common.stop(made, error)
    title = f"The angle of a turned digit, {options.backbone}, {len(train)} training images"
    figure = extents_figure(posterior, title, options.truth)
    baseline = float((test.y - train.y.mean()).abs().mean()) * DEGREES_PER_RADIAN
    facts = [f"the mean angle of the training images errs by {baseline:.3g}°"]
    regression.report(posterior, test, options, {"extents.png": figure}, "°", DEGREES_PER_RADIAN, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
