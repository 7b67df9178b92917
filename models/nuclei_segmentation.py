"""Which pixels belong to a cell nucleus: masks that turn with the microscope image.

    python models/nuclei_segmentation.py --question permitted --epochs 200 --out run
    python models/nuclei_segmentation.py --question needed
    python models/nuclei_segmentation.py --inference fixed             # turns and mirror images given by hand
    python models/nuclei_segmentation.py --inference none

A small U-Net under ``output_action="image"``: each copy's mask is taken back before masks are averaged. Latent are
rotation, both translations and the mirror image; a field of cells has no up and no left, so that the truth is a full
turn and both mirror images alike.

Permitted: the likelihood of moved copies, under a prior that pushes rotation and mirror images outwards, λ nats an
image over their whole range (--strength). Needed: the evidence, in which the weights are integrated out, asks how much
of it explains the masks best. Prints extents, the intersection over union on images that were not trained on, and how
far the network and its average are from being equivariant.

The images are segmentation/nuclei_dsb2018_128.npz in the folder that the environment variable BAYESINV_DATA names, or
--root; nothing is downloaded.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import bayesinv
from bayesinv.data import Data
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior import InvariancePosterior
from bayesinv.transforms import Affine2d, Compose, Flip, Transform
from models import common
from models.report import draw_extents, equivariance_line, publish

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["UNet", "build", "candidates", "main", "true_extents"]

QUESTIONS = ("permitted", "needed")
# λ, nats an image, which are 0.02 nats a pixel. On another seed (10) 2 nats were less than what the interpolation of
# turned masks costs: mirror images came out at half of the copies, and the rotation below 1°.
STRENGTH = 20.0
NUM_PIXELS = 4  # whose Jacobians one step of the evidence takes, of each image


class UNet(nn.Module):
    """Two levels down and up with skip connections, one logit a pixel.

    Args:
        width: channels of the first level; the others have twice as many.
        seed: of the initial weights.

    Example:
        >>> UNet(width=4)(torch.rand(2, 1, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(self, width: int = 8, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed):
            self.first = nn.Conv2d(1, width, 3, padding=1)
            self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
            self.bottom = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
            self.up = nn.Conv2d(4 * width, width, 3, padding=1)
            self.last = nn.Conv2d(2 * width, width, 3, padding=1)
            self.logit = nn.Conv2d(width, 1, 1)

    def forward(self, x: Float[Tensor, "n 1 height width"]) -> Float[Tensor, "n 1 height width"]:
        """Logits of being in a nucleus; height and width are multiples of four."""
        first = torch.tanh(self.first(x))
        second = torch.tanh(self.second(F.avg_pool2d(first, 2)))
        bottom = torch.tanh(self.bottom(F.avg_pool2d(second, 2)))
        up = torch.tanh(self.up(torch.cat([second, F.interpolate(bottom, scale_factor=2.0)], 1)))
        last = torch.tanh(self.last(torch.cat([first, F.interpolate(up, scale_factor=2.0)], 1)))
        return self.logit(last)


def candidates() -> Transform:
    """A mirror image, then rotation and translations in one warp."""
    return Compose([Flip(), Affine2d(["rotation", "translate_x", "translate_y"])])


def true_extents() -> dict[str, float]:
    """A full turn and mirror images; what is not named does not move."""
    return {"flip_x": 0.5, "rotation": math.pi}


def build(
    num_train: int = 100,
    num_test: int = 44,
    size: int = 32,
    width: int = 8,
    question: str = "needed",
    num_orbit_samples: int = 4,
    seed: int = 0,
    root: str | Path | None = None,
    strength: float = STRENGTH,
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The equivariant model, training and test images.

    Args:
        num_train, num_test: images, of 541 and 44.
        size: pixels a side, a divisor of 128 and a multiple of four.
        width: of the U-Net.
        question: "permitted" (plug-in likelihood, `Outward` priors on rotation and mirror images) or "needed" (Laplace
            evidence, flat priors).
        num_orbit_samples: S, draws of the warp; mirror images double the copies.
        seed: of the choice of images and the network's initial weights.
        root: folder of the data sets; None takes ``BAYESINV_DATA``.
        strength: λ of the outward priors.

    Raises:
        DataError: the images are not there. ValueError: an argument out of its range.
    """
    if question not in QUESTIONS:
        raise ValueError(f"question: expected one of {', '.join(QUESTIONS)}, got {question!r}")
    if size % 4:
        raise ValueError(f"size: expected a multiple of four, for two levels of the U-Net, got {size}")
    train, test = bayesinv.datasets.nuclei(root, num_train, num_test, size, seed)
    permitted = question == "permitted"
    laplace = bayesinv.evidence.LaplaceEvidence("bernoulli", num_outputs=NUM_PIXELS)
    model = bayesinv.InvarianceModel(
        UNet(width, seed),
        candidates(),
        likelihood="bernoulli",
        evidence="plugin" if permitted else laplace,
        priors=dict.fromkeys(("flip_x", "rotation"), bayesinv.Outward(strength)) if permitted else None,
        num_orbit_samples=num_orbit_samples,
        output_action="image",
    )
    return model, train, test


def scores(posterior: InvariancePosterior, test: Data, seed: int = 0) -> dict[str, float]:
    """Intersection over union (mean over images, and pooled), log loss of a pixel, and equivariance errors.

    The errors are under quarter turns and mirror images, which need no interpolation: of the network alone
    (``before``), and of the prediction (``after``); 1 is that of unrelated images.
    """
    predicted = posterior.predict(test.x, num_samples=4, seed=seed)
    probs, y = predicted.probs, test.y.cpu()
    if probs is None:
        raise TypeError("scores: expected class probabilities for every pixel")
    probs = probs.cpu()
    own = probs.gather(-1, y[..., None]).clamp(min=1e-12)
    exact = bayesinv.transforms.Dihedral(4)
    before, after = (
        bayesinv.metrics.equivariance_error(f, test.x, exact, "image", seed=seed)["all"]
        for f in (posterior.model.network, posterior)
    )
    return {
        "iou": float(bayesinv.metrics.intersection_over_union(probs, y).mean()),
        "pooled_iou": bayesinv.metrics.pooled_intersection_over_union(probs, y),
        "log_loss": -float(own.log().mean()),
        "equivariance_error_before": before,
        "equivariance_error_after": after,
    }


def figure(posterior: InvariancePosterior, test: Data, title: str) -> "matplotlib.figure.Figure":
    """The extents, and three test images with their true and predicted masks."""
    import matplotlib.figure

    fig = matplotlib.figure.Figure(figsize=(12.0, 5.4), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=[1.3, 1])
    axis = left.subplots()
    draw_extents(axis, posterior, true_extents(), "given by hand")
    axis.set_title(title, loc="left")
    fig.legend(*axis.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
    shown = test.y.flatten(1).double().mean(1).argsort(descending=True)[:3]  # those with most nuclei
    probs = posterior.predict(test.x[shown], num_samples=4).probs
    if probs is None:
        raise TypeError("figure: expected class probabilities for every pixel")
    panels = right.subplots(3, 3)
    for row, index in zip(panels, range(len(shown)), strict=False):
        pictures = (test.x[shown[index], 0], test.y[shown[index]], probs[index, ..., 1])
        for panel, picture, name in zip(row, pictures, ("image", "nuclei", "probability"), strict=True):
            panel.imshow(picture.cpu().numpy(), cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[], title=name if index == 0 else "")
    return fig


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = common.make_parser(__doc__ or "")
    count = common.positive(int)
    made.add_argument("--num-train", type=count, default=100, help="default: %(default)s")
    made.add_argument("--num-test", type=count, default=44, help="default: %(default)s")
    made.add_argument("--size", type=count, default=32, help="pixels a side (default: %(default)s)")
    made.add_argument("--width", type=count, default=8, help="of the U-Net (default: %(default)s)")
    made.add_argument("--question", choices=list(QUESTIONS), default="needed", help="default: %(default)s")
    made.add_argument(
        "--strength",
        type=common.in_range(1e-6, 1e4),
        default=STRENGTH,
        help="λ of the outward priors (default: %(default)g)",
    )
    made.add_argument("--root", type=Path, help="folder of the data sets (default: $BAYESINV_DATA)")
    common.add_fit_options(made, epochs=60, num_orbit_samples=4, batch_size=25)
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
            options.size,
            options.width,
            options.question,
            options.num_orbit_samples,
            options.seed,
            options.root,
            options.strength,
        )
        posterior = common.fit_options(options, model, train)
    except ValueError as error:
        common.stop(made, error)
    found = scores(posterior, test, options.seed)
    lines = [
        f"intersection over union {found['iou']:.3f} (pooled {found['pooled_iou']:.3f}), log loss "
        f"{found['log_loss']:.3f} nats a pixel on {len(test)} test images",
        equivariance_line(found),
    ]
    what = options.question if options.inference == "vi" else options.inference
    title = f"nuclei, {what}, {len(train)} images"
    publish(posterior, test, options, lines, {"nuclei.png": lambda: figure(posterior, test, title)}, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
