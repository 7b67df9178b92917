"""Time and peak memory on many images: one evaluation of the evidence with its gradient, or a whole fit.

    BAYESINV_DATA=... python tests/benchmarks/memory.py                          # evaluations at 1,000 to 50,000 images
    BAYESINV_DATA=... python tests/benchmarks/memory.py --fit --num-train 4000   # a fit and a prediction

MNIST at 28 x 28, all six affine extents, 24 copies, the default evidence. The first evaluation starts its inner
iteration from nothing, the second from the first, at extents 2 % larger, as steps of an optimiser do. Each size is a
process of its own; the limit is 4 GB, of which torch, Pyro and ArviZ take about 0.6 before anything is computed.
"""

import argparse
import math
import resource
import time
import warnings

from common import print_table, provenance, side_by_side


def job(argument):
    """One size."""
    num_train, options = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv
    from bayesinv.inference.target import Target

    torch.set_num_threads(options.threads)
    train, test = bayesinv.datasets.mnist(num_train=num_train, num_test=500, seed=0)
    process = bayesinv.GaussianProcess(num_features=options.num_features)
    model = bayesinv.InvarianceModel(
        process, "affine2d", num_orbit_samples=options.num_orbit_samples, evidence=options.evidence
    )
    seconds = []
    if options.fit:
        began = time.perf_counter()
        posterior = bayesinv.fit(
            model, train, seed=0, max_steps=options.max_steps, num_draws=options.num_draws, device="cpu"
        )
        seconds.append(time.perf_counter() - began)
        print(f"{num_train:,} images in {seconds[0]:.0f} s: {posterior}\n", flush=True)
        posterior.predict(test.x, num_samples=2)
        seconds.append(time.perf_counter() - began - seconds[0])
    else:
        model.initialise(train, 0)
        target = Target(model, train)
        for share in (1.0, 1.02):
            theta = target.start(0.1)
            theta[: target.num_extents] *= 1.0 / share
            began = time.perf_counter()
            target.with_gradient(theta)
            seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return num_train, seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-train", type=int, nargs="+", default=[1000, 4000, 16000, 50000])
    parser.add_argument("--num-orbit-samples", type=int, default=24)
    parser.add_argument("--num-features", type=int, help="the library's default if left out")
    parser.add_argument("--evidence", default="auto")
    parser.add_argument("--fit", action="store_true", help="a whole fit in place of two evaluations")
    parser.add_argument("--max-steps", type=int, help="of the fit")
    parser.add_argument("--num-draws", type=int, help="of the fit; as many as it takes if left out")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(provenance())
    print(f"S = {options.num_orbit_samples}, {options.num_features or 'default'} features, {options.threads} threads\n")
    results = []
    for size in options.num_train:  # a process each, for a peak of its own
        results += side_by_side(job, [(size, options)], 0)
    what = ["fit, s", "prediction of 500, s"] if options.fit else ["first evaluation, s", "next, s"]
    rows = [[f"{n:,}", *(f"{s:.1f}" for s in seconds), f"{peak:.2f}"] for n, seconds, peak in results]
    print_table(["images", *what, "peak memory, GiB"], rows)
    if len(results) > 1:
        (n0, s0, _), (n1, s1, _) = results[-2], results[-1]
        slope = math.log(s1[-1] / s0[-1]) / math.log(n1 / n0)
        print(f"\nslope of log time on log n between the last two: {slope:.2f}")


if __name__ == "__main__":
    main()
