"""How near each determinant of the Laplace evidence is to the exact one, and how its error changes with the extents.

    BAYESINV_DATA=... python tests/benchmarks/determinants.py
    BAYESINV_DATA=... python tests/benchmarks/determinants.py --num-train 1000 --seeds 0 1 --jobs 2

LeNet on digits of MNIST moved by ±8 pixels (0.571), at the weights of a short fit before they are trained on the
likelihood alone. At each extent of both translations the exact log det(I + K) is that of all rows (single precision,
its factor in double), and each choice sees the rows of ``--batch`` examples, ``--repeats`` times. What pushes extents
is no constant error and no constant factor but a ratio to the exact value that changes with the extent. "power law" is
D (N/m)^log2(D/H), with D the log det of m rows and H the mean of its halves'. The exact determinant of 10,000 rows
(1,000 digits) takes some minutes for each extent and 5 GB.
"""

import argparse
import functools
import math
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import print_table, provenance, side_by_side

sys.path.insert(0, str(Path(__file__).parents[2]))

if TYPE_CHECKING:
    from torch import Tensor

CHOICES = ("upper", "between", "lower", "power law", "equivalent")


def fitted(num_train: int, epochs: float, seed: int) -> tuple[Any, Any]:
    """A model at the weights before the last stretch of a fit, and its data."""
    import bayesinv
    from models.networks import LeNet

    train, _ = bayesinv.datasets.mnist(num_train=num_train, translation=8 / 14, seed=seed)
    model = bayesinv.InvarianceModel(LeNet(seed=seed), "affine2d", num_orbit_samples=8)
    training = bayesinv.Training(epochs=epochs, batch_size=min(100, num_train), finish=0.0)
    return bayesinv.fit(model, train, seed=seed, training=training).model, train


def all_rows(model: Any, eta: "Tensor", data: Any, block: int = 25) -> tuple["Tensor", "Tensor"]:
    """f (n, C), and K of all rows, (C, n, C, n), in float32."""
    import torch

    from bayesinv.backbones.per_example import example_gradients
    from bayesinv.evidence import LaplaceEvidence

    network, prior = model.network, model.at(eta)
    weights = {name: w.detach() for name, w in network.weights().items()}
    scales, rows = network.prior_scales(), LaplaceEvidence(num_outputs=None)._rows
    outputs, parts = [], []
    with torch.no_grad():
        for start in range(0, len(data), block):
            points = prior.points(data.x[start : start + block])
            f, found = example_gradients(network.net, weights, points, rows)
            outputs.append(f)
            parts.append(torch.cat([(scales[name] * J).flatten(2) for name, J in found.items()], -1))
        J = torch.cat(parts, 1)  # (C, n, numbers)
        del parts
        C, n, _ = J.shape
        flat = J.flatten(0, 1)
        return torch.cat(outputs), (flat @ flat.T).reshape(C, n, C, n)


def log_det(K: "Tensor") -> float:
    """log det(I + K) in double precision."""
    import torch

    A = K.to(torch.float64, copy=True)
    A.diagonal().add_(1.0)
    return 2.0 * float(torch.linalg.cholesky(A).diagonal().log().sum())


def estimates(f: "Tensor", K: "Tensor", chosen: "Tensor", generator: Any) -> dict[str, float]:
    """What each choice makes of the rows of some examples."""
    import torch

    from bayesinv.evidence import LaplaceEvidence

    C, n = K.shape[:2]
    m, some = len(chosen), f[chosen]
    c = int(torch.randint(C, (1,), generator=generator))
    alike = K[c][chosen][:, c][:, chosen].double()[None]  # one random output of all
    each = torch.randint(C, (m,), generator=generator)  # one of each
    index = each * n + chosen
    D, *halves = (log_det(K.reshape(C * n, C * n)[i][:, i]) for i in (index, index[: m // 2], index[m // 2 :]))
    found = {"power law": D * (n * C / m) ** math.log2(2 * D / sum(halves))}
    for name in ("upper", "between", "lower"):
        found[name] = float(LaplaceEvidence(determinant=name)._log_det(alike, some, n))
    evidence = LaplaceEvidence(determinant="equivalent")
    A = evidence._combined_rows(some.double())[0]  # (m, C), the root of a softmax times q
    q = (A / (0.5 * some.double().log_softmax(-1)).exp()).float()
    q = torch.einsum("mc,cmdk,kd->mk", q, K[:, chosen][..., chosen], q)
    found["equivalent"] = float(evidence._log_det(q.double()[None], some, n))
    return found


def of_seed(options: argparse.Namespace, seed: int) -> list[list[object]]:
    """Rows of the table."""
    import torch

    warnings.simplefilter("ignore")
    model, data = fitted(options.num_train, options.epochs, seed)
    generator = torch.Generator().manual_seed(seed)
    table = []
    for extent in options.extents:
        began = time.perf_counter()
        eta = torch.tensor([extent if "translate" in name else 0.0 for name in model.symmetries], dtype=torch.float64)
        f, K = all_rows(model, eta, data)
        exact = log_det(K.reshape(f.numel(), f.numel()))
        torch.manual_seed(seed)
        values: dict[str, list[float]] = {name: [] for name in CHOICES}
        for _ in range(options.repeats):
            chosen = torch.randperm(len(data), generator=generator)[: options.batch]
            for name, value in estimates(f, K, chosen, generator).items():
                values[name].append(value)
        cells: list[object] = [seed, f"{extent:g}", f"{exact:.1f}"]
        for name in CHOICES:
            ratios = torch.tensor(values[name], dtype=torch.float64) / exact
            cells.append(f"{float(ratios.mean()):.3f} ({float(ratios.std()):.3f})")
        table.append([*cells, f"{time.perf_counter() - began:.0f}"])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-train", type=int, default=250)
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--extents", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.571, 0.8, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    rows = side_by_side(functools.partial(of_seed, options), options.seeds, options.jobs)
    print(provenance())
    print("Ratio of the log determinant to the exact one (standard deviation of one batch).")
    print_table(["seed", "extent", "exact, nat", *CHOICES, "s"], [row for part in rows for row in part])


if __name__ == "__main__":
    main()
