"""How far the Laplace evidence's two bounds of the log determinant are from it, on one trained network.

    BAYESINV_DATA=... python tests/benchmarks/laplace_bounds.py
    BAYESINV_DATA=... python tests/benchmarks/laplace_bounds.py quarter

LeNet on 200 digits of MNIST moved by ±8 pixels, after a short fit. The exact determinant is that of all 2,000 rows; a
step of the fit sees m examples and one output. Bounds are means over outputs and 20 random batches. ``quarter``: the
estimates of the evidence itself from a quarter of the data at a time, on a network of 1,122 weights and 120 digits
turned by up to 86°, seeds 0-2.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from common import print_table, provenance

sys.path.insert(0, str(Path(__file__).parents[2]))

if TYPE_CHECKING:
    import torch


SETTINGS = (
    {"num_outputs": 1, "anchors": 0.0},
    {"num_outputs": 1},
    {"num_outputs": 1, "determinant": "between"},
    {"num_outputs": None, "anchors": 0.5},
    {"num_outputs": None, "anchors": 0.9},
)


def small_net(seed: int) -> "torch.nn.Module":
    """Two small convolutions and a linear layer."""
    from torch import nn

    from bayesinv.numerics.randomness import seeded

    with seeded(seed):
        layers = [nn.Conv2d(1, 8, 5, stride=2), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.Tanh()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))


def quarter(num_rounds: int = 40) -> None:
    """The evidence of all rows, and its estimates from a quarter of the data, at the same weights and extents."""
    import torch

    import bayesinv
    from bayesinv.evidence import LaplaceEvidence

    rows = []
    for seed in (0, 1, 2):
        train, _ = bayesinv.datasets.mnist(num_train=120, rotation=1.5, seed=seed)
        model = bayesinv.InvarianceModel(small_net(seed), "rotation", num_orbit_samples=8)
        training = bayesinv.Training(epochs=40, batch_size=30, extent_batch_size=60)
        posterior = bayesinv.fit(model, train, seed=seed, training=training)
        prior = posterior.model.at(posterior.quantile(0.5))
        with torch.no_grad():
            exact = float(LaplaceEvidence(num_outputs=None).log_evidence(prior, train))
            for setting in SETTINGS:
                evidence = LaplaceEvidence(**setting)
                torch.manual_seed(seed)
                batches = [part for _ in range(num_rounds) for part in torch.randperm(len(train)).chunk(4)]
                values = torch.stack([evidence.log_evidence(prior, train.subset(b), len(train)) for b in batches])
                mean, error = float(values.mean()), float(values.std()) / len(values) ** 0.5
                name = ", ".join(f"{key}={value}" for key, value in setting.items())
                share = 100 * (mean - exact) / abs(exact)
                rows.append([seed, name, f"{exact:.1f}", f"{mean:.1f} ± {error:.1f}", f"{share:+.1f}"])
    print(provenance())
    print_table(["seed", "LaplaceEvidence(...)", "all rows, nat", "a quarter, nat", "difference, %"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["determinant", "quarter"], default="determinant")
    parser.add_argument("--num-train", type=int, default=200)
    parser.add_argument("--epochs", type=float, default=40)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.what == "quarter":
        quarter()
    else:
        determinant(options)


def determinant(options: argparse.Namespace) -> None:
    """The table of the bounds."""
    import torch

    import bayesinv
    from bayesinv.evidence import LaplaceEvidence
    from models.networks import LeNet

    n = options.num_train
    train, _ = bayesinv.datasets.mnist(num_train=n, translation=8 / 14, seed=0)
    model = bayesinv.InvarianceModel(LeNet(seed=0), "affine2d", num_orbit_samples=8)
    training = bayesinv.Training(epochs=options.epochs, batch_size=50, extent_batch_size=100)
    posterior = bayesinv.fit(model, train, seed=0, training=training)
    fitted, eta = posterior.model, posterior.quantile(0.5)
    weights = {name: w.detach() for name, w in fitted.network.weights().items()}
    exact = LaplaceEvidence(num_outputs=None)
    with torch.no_grad():
        f, K = exact._kernel(fitted.at(eta), weights, train)
    C = f.shape[1]
    K = K[0].reshape(C, n, C, n)  # rows are outputs first

    def log_det(matrix: torch.Tensor) -> float:
        return float(torch.linalg.slogdet(torch.eye(len(matrix), dtype=matrix.dtype) + matrix)[1])

    generator = torch.Generator().manual_seed(0)
    rows = []
    for m in (25, 50, 100, n):
        above, anchored, below = [], [], []
        for _ in range(1 if m == n else 20):
            chosen = torch.randperm(n, generator=generator)[:m]
            for c in range(C):
                block = K[c][chosen][:, c][:, chosen]
                whole, first = log_det(block), log_det(block[: m // 2, : m // 2])
                above.append(C * n / m * whole)
                anchored.append(C * (first + (n - m // 2) / (m - m // 2) * (whole - first)))
                below.append(log_det(C * n / m * block))
        rows.append([m, *(f"{sum(v) / len(v):.0f}" for v in (above, anchored, below))])
    print(provenance())
    print(f"log det(I + K) of all {C * n} rows: {log_det(K.reshape(C * n, C * n)):.0f}")
    print_table(["m", "from above", "from above, half of them anchors", "from below"], rows)


if __name__ == "__main__":
    main()
