"""Dipole moments of molecules in random orientations: vectors that turn with the molecule.

    python models/molecule_dipole.py --num-train 1000 --inference vi --out run
    python models/molecule_dipole.py --inference none

The network reads coordinates and elements as they come and knows nothing of rotations. With ``output_action="vector"``
its outputs are turned back before they are averaged, f_η(x) = E_t R(t)⁻¹ h(R(t) x), so that a large rotation extent
makes f equivariant. Prints the extents beside the truth (180° about each axis, 0 for scale), the error on molecules
that were not trained on, and how far the network and its average are from being equivariant.

The molecules are molecules/qm9_mp2_10k.npz in the folder that the environment variable BAYESINV_DATA names, or --root;
nothing is downloaded.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from jaxtyping import Float
from torch import Tensor, nn

import bayesinv
from bayesinv.data import Data
from bayesinv.datasets.molecules import ATOMIC_MASSES
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior import InvariancePosterior
from bayesinv.transforms import Compose, Rotation3d, Scale3d, Transform
from models import common
from models.report import draw_extents, equivariance_line, publish

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["AtomSums", "build", "candidates", "main", "true_extents"]

DEBYE_PER_ATOMIC_UNIT = 2.541746
AXES = ("rotation_x", "rotation_y", "rotation_z")
EVIDENCES = ("laplace", "plugin")


class AtomSums(nn.Module):
    """Sums over atoms of functions of their coordinates, element and molecule; permutations are all it knows.

        g = Σ_a φ(r_a, z_a),    μ = Σ_a (q_a - mean q) r_a + W Σ_a ψ_a,    q_a, ψ_a functions of r_a, z_a and g

    Charges that sum to zero times positions, as in the definition of a dipole, and a correction. The charges depend on
    the coordinates as they come, so that nothing makes μ turn with the molecule. Padded rows (z = 0) count nothing.

    Args:
        width: of every hidden layer.
        seed: of the initial weights.

    Example:
        >>> AtomSums(width=8)(torch.rand(2, 29, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, width: int = 48, seed: int = 0) -> None:
        super().__init__()
        num_features = 3 + len(ATOMIC_MASSES)
        with seeded(seed):
            self.first = nn.Linear(num_features, width)
            self.context = nn.Linear(width, width)
            self.second = nn.Linear(num_features, width)
            self.of_context = nn.Linear(width, width, bias=False)
            self.third = nn.Linear(width, width)
            self.charge = nn.Linear(width, 1, bias=False)
            self.dipole = nn.Linear(width, 3)

    def forward(self, x: Float[Tensor, "n atoms 4"]) -> Float[Tensor, "n 3"]:
        """μ, (n, 3)."""
        x = x[:, : max(1, int((x[..., 3] > 0).sum(1).max()))]  # rows that are padding everywhere
        present = (x[..., 3:] > 0).to(x)
        which = torch.stack([(x[..., 3] == number).to(x) for number in ATOMIC_MASSES], -1)
        features = torch.cat([x[..., :3] / 2.0, which], -1)  # ångström, on the scale of a bond or two
        size = present.sum(1).clamp_min(1.0).sqrt()
        g = (torch.tanh(self.context(torch.tanh(self.first(features)))) * present).sum(1) / size
        hidden = torch.tanh(self.second(features) + self.of_context(g)[:, None])
        last = torch.tanh(self.third(hidden)) * present
        q = self.charge(last)
        q = (q - q.sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp_min(1.0)) * present
        return (q * x[..., :3]).sum(1) + self.dipole(last.sum(1) / size)


def candidates() -> Transform:
    """Rotations about x, then y, then z, each with an extent of its own, and a scale that nothing asks for."""
    return Compose([*(Rotation3d(name, mask=3) for name in AXES), Scale3d(mask=3)])


def true_extents() -> dict[str, float]:
    """Half a turn about each axis; what is not named does not move."""
    return dict.fromkeys(AXES, math.pi)


def build(
    num_train: int = 1000,
    num_test: int = 1000,
    width: int = 48,
    evidence: str = "laplace",
    num_orbit_samples: int = 8,
    seed: int = 0,
    root: str | Path | None = None,
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The equivariant model with rotations and scale latent, training and test molecules in random orientations.

    Args:
        num_train, num_test: molecules.
        width: of the network.
        evidence: "laplace", or "plugin" (no reward for any extent).
        num_orbit_samples: S, copies of each molecule.
        seed: of the molecules, their orientations and the network's initial weights.
        root: folder of the data sets; None takes ``BAYESINV_DATA``.

    Raises:
        DataError: the molecules are not there. ValueError: an argument out of its range.
    """
    train, test = bayesinv.datasets.qm9(root, target="dipole", num_train=num_train, num_test=num_test, seed=seed)
    model = bayesinv.InvarianceModel(
        AtomSums(width, seed),
        candidates(),
        likelihood="gaussian",
        evidence=evidence,
        num_orbit_samples=num_orbit_samples,
        output_action="vector",
    )
    return model, train, test


def errors(posterior: InvariancePosterior, test: Data, seed: int = 0) -> dict[str, float]:
    """RMSE of a component and mean length of the error in debye, log loss, and equivariance errors.

    Under rotations about the three axes together over the full circle: of the network alone (``before``), and of the
    prediction (``after``); 1 is that of unrelated molecules.
    """
    predicted = posterior.predict(test.x, num_samples=8, seed=seed)
    if predicted.mean is None:
        raise TypeError("errors: expected a regression")
    mean, y = predicted.mean.double().cpu(), test.y.double().cpu()
    loss = bayesinv.metrics.gaussian_log_loss(mean, predicted.variance.cpu(), y)
    turned = dict.fromkeys(posterior.symmetries, 0.0) | true_extents()
    some = test.x[:300]
    network = posterior.model.network
    action = bayesinv.transforms.as_action("vector", posterior.model.transform)
    before, after = (
        bayesinv.metrics.equivariance_error(f, some, posterior.model.transform, action, turned, seed=seed)["all"]
        for f in (network, posterior)
    )
    return {
        "rmse_debye": DEBYE_PER_ATOMIC_UNIT * bayesinv.metrics.rmse(mean, y),
        "vector_error_debye": DEBYE_PER_ATOMIC_UNIT * float((mean - y).norm(dim=1).mean()),
        "log_loss": float(loss.mean()),
        "equivariance_error_before": before,
        "equivariance_error_after": after,
    }


def figure(posterior: InvariancePosterior, test: Data, title: str) -> "matplotlib.figure.Figure":
    """The extents, and predicted against true components."""
    import matplotlib.figure

    fig = matplotlib.figure.Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=[1.2, 1])
    draw_extents(left, posterior, true_extents())
    mean = posterior.predict(test.x, num_samples=8).mean
    if mean is None:
        raise TypeError("figure: expected a regression")
    true, found = (DEBYE_PER_ATOMIC_UNIT * values.flatten().double().cpu() for values in (test.y, mean))
    end = 1.05 * float(true.abs().max())
    right.plot([-end, end], [-end, end], color="0.6", lw=1, zorder=0)
    right.plot(true, found, ".", ms=3, alpha=0.4, color="#0072B2", rasterized=True)
    right.set(xlabel="component of the dipole, debye", ylabel="predicted, debye", xlim=(-end, end), ylim=(-end, end))
    right.set_aspect("equal")
    right.spines[["top", "right"]].set_visible(False)
    left.set_title(title, loc="left")
    handles, labels = left.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False)
    return fig


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = common.make_parser(__doc__ or "")
    count = common.positive(int)
    made.add_argument("--num-train", type=count, default=1000, help="default: %(default)s")
    made.add_argument("--num-test", type=count, default=1000, help="default: %(default)s")
    made.add_argument("--width", type=count, default=48, help="of the network (default: %(default)s)")
    made.add_argument("--evidence", choices=EVIDENCES, default="laplace", help="default: %(default)s")
    made.add_argument("--root", type=Path, help="folder of the data sets (default: $BAYESINV_DATA)")
    common.add_fit_options(made, epochs=60)
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
            options.width,
            options.evidence,
            options.num_orbit_samples,
            options.seed,
            options.root,
        )
        posterior = common.fit_options(options, model, train)
    except ValueError as error:
        common.stop(made, error)
    report(posterior, test, options, f"dipoles, {len(train)} molecules in random orientations")
    return 0


def report(posterior: InvariancePosterior, test: Data, options: argparse.Namespace, title: str) -> dict[str, Any]:
    """Print extents and errors; with --out, write the figure and results.json."""
    found: dict[str, Any] = errors(posterior, test, options.seed)
    lines = [
        f"RMSE {found['rmse_debye']:.3f} D a component, mean error {found['vector_error_debye']:.3f} D, log loss "
        f"{found['log_loss']:.3f} nats on {len(test)} test molecules",
        equivariance_line(found),
    ]
    publish(posterior, test, options, lines, {"dipoles.png": lambda: figure(posterior, test, title)}, found)
    return found


if __name__ == "__main__":
    sys.exit(main())
