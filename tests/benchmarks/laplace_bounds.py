"""How far the Laplace evidence's two bounds of the log determinant are from it, on one trained network.

    BAYESINV_DATA=... python tests/benchmarks/laplace_bounds.py

LeNet on 200 digits of MNIST moved by ±8 pixels, after a short fit. The exact determinant is that of all 2,000 rows; a
step of the fit sees m examples and one output. Bounds are means over outputs and 20 random batches.
"""

import argparse
import sys
import warnings
from pathlib import Path

from common import print_table, provenance

sys.path.insert(0, str(Path(__file__).parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-train", type=int, default=200)
    parser.add_argument("--epochs", type=float, default=40)
    options = parser.parse_args()
    import torch

    import bayesinv
    from bayesinv.evidence import LaplaceEvidence
    from models.networks import LeNet

    warnings.simplefilter("ignore")
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
