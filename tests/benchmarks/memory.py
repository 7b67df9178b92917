"""Peak memory of the collapsed evidence on many images.

    BAYESINV_DATA=... python tests/benchmarks/memory.py [--num-train 5000 --num-orbit-samples 32 --num-inducing 500]

MNIST at 28 x 28, all six affine extents, a few optimiser steps and importance draws, and a prediction. The limit is
4 GB, of which torch, Pyro and ArviZ take about 0.6 before anything is computed.
"""

import argparse
import resource
import time
import warnings

from common import print_table, provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-train", type=int, nargs="+", default=[4000, 5000])
    parser.add_argument("--num-orbit-samples", type=int, nargs="+", default=[24, 32])
    parser.add_argument("--num-inducing", type=int, nargs="+", default=[150, 500])
    parser.add_argument("--max-steps", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import bayesinv

    rows = []
    sizes = zip(options.num_train, options.num_orbit_samples, options.num_inducing, strict=True)
    for num_train, num_samples, num_inducing in sizes:
        train, test = bayesinv.datasets.mnist(num_train=num_train, num_test=500, seed=0)
        model = bayesinv.InvarianceModel(
            bayesinv.GaussianProcess(num_inducing=num_inducing), "affine2d", num_orbit_samples=num_samples
        )
        began = time.perf_counter()
        posterior = bayesinv.fit(model, train, seed=0, max_steps=options.max_steps, num_draws=5, device="cpu")
        posterior.predict(test.x, num_samples=2)
        seconds = time.perf_counter() - began
        # Peak of the process so far: sizes are run in rising order.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        rows.append([num_train, num_samples, num_inducing, options.max_steps, f"{seconds:.0f}", f"{peak:.2f}"])
    print(provenance() + "\n")
    print_table(["images", "orbit samples S", "inducing points M", "steps", "seconds", "peak memory, GiB"], rows)


if __name__ == "__main__":
    main()
