"""Sinusoids: accuracy, invariance and the permitted frequency shift, by the size of the network.

    python tests/benchmarks/sinusoid_capacity.py

AugNet's capacity study on the problem of `models/sinusoids.py` (400 training and 200 test signals, 150 passes), for
networks of layers × units 1×1 to 2×3, with learned extents ("permitted", the plug-in likelihood under an outward
prior) and without augmentation. Copies: S in training and prediction. Invariance is AugNet's metric, 1 for an
invariant function.
"""

import argparse
import time
import warnings

from common import print_table, provenance, side_by_side


def job(argument):
    """One fit: accuracy, invariance, extent."""
    size, method, seed, copies, epochs = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv
    from models import sinusoids

    torch.set_num_threads(1)
    model, train, test = sinusoids.build("permitted", *size, num_orbit_samples=copies, seed=seed)
    began = time.perf_counter()
    training = bayesinv.Training(epochs=epochs, weight_rate=sinusoids.WEIGHT_RATE)
    posterior = bayesinv.fit(model, train, method, seed=seed, training=training)
    seconds = time.perf_counter() - began
    labels = posterior.predict(test.x, num_samples=8, seed=seed).labels
    k = posterior.symmetries.index("frequency_shift")
    return {
        "size": size,
        "method": method,
        "seed": seed,
        "accuracy": float((labels == test.y).double().mean()),
        "invariance": sinusoids.shift_invariance(posterior, test),
        "extent": posterior.quantile([0.05, 0.5, 0.95])[:, k].tolist(),
        "seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["vi", "none"], choices=["vi", "none"])
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=150)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    import models.sinusoids as sinusoids

    cases = [
        (size, method, seed, options.copies, options.epochs)
        for size in sinusoids.SIZES
        for method in options.methods
        for seed in options.seeds
    ]
    results = side_by_side(job, cases, options.jobs)
    print(f"{provenance()}; S = {options.copies}")
    print()
    rows = []
    for r in results:
        layers, units = r["size"]
        low, median, high = r["extent"]
        extent = f"{median:.3f} [{low:.3f}, {high:.3f}]" if r["method"] == "vi" else ""
        scores = [f"{r['accuracy']:.3f}", f"{r['invariance']:.3f}"]
        rows.append([f"{layers}×{units}", r["method"], r["seed"], extent, *scores, f"{r['seconds']:.0f}"])
    header = ["layers × units", "method", "seed", "frequency shift, Hz", "accuracy", "invariance", "seconds"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
