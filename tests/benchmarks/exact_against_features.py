"""Do random features find the extents and the evidence of the exact covariance, from any start?

    python tests/benchmarks/exact_against_features.py                 # seeds 0-4, both sets
    python tests/benchmarks/exact_against_features.py --seeds 0 --sets upright

Digits turned within ±45° (150 at 12 x 12) and upright ones (200 at 16 x 16), 12 copies, six extents, softmax evidence,
hyperparameters free. For each way of computing: the highest mode of log p(D, η, u) over the starts, what lies between
the modes that the starts end in, and Laplace's log evidence there. "exact" climbs from one start.
"""

import argparse
import math
import time
import warnings

from common import print_table, provenance, side_by_side

SETS = {"±45°": (12, math.radians(45), 150), "upright": (16, None, 200)}
WAYS = {"features": {}, "50 inducing values": {"num_inducing": 50}, "exact": {"num_inducing": None}}
STARTS = (0.1, 0.5, 0.8)
COPIES = 12


def job(argument):
    """Modes of one model on one data set."""
    name, way, seed = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv
    from bayesinv.inference.modes import find_modes
    from bayesinv.inference.target import Target

    torch.set_num_threads(1)
    size, rotation, num_train = SETS[name]
    train = bayesinv.datasets.digits(rotation, size=size, num_train=num_train, seed=seed).train
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(**WAYS[way]), "affine2d", num_orbit_samples=COPIES)
    model.initialise(train, seed)
    target = Target(model, train)
    began = time.perf_counter()
    modes = find_modes(target, 200, STARTS if way == "features" else STARTS[:1])
    best = modes[0]
    extents = [target.extents(mode.theta[: target.num_extents]).tolist() for mode in modes]
    return {
        "set": name,
        "way": way,
        "seed": seed,
        "extents": extents[0],
        "rotations": [math.degrees(e[2]) for e in extents],
        "values": [mode.value for mode in modes],
        "merged": [mode.merged for mode in modes],
        "evaluations": [mode.evaluations for mode in modes],
        "log_evidence": best.log_mass,
        "converged": best.converged and not best.ended,
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["features", "exact"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    arguments = [(name, way, seed) for name in options.sets for seed in options.seeds for way in options.ways]
    print(provenance() + "\n")
    rows = []
    found = {}
    for r in side_by_side(job, arguments, options.jobs):
        found[r["set"], r["seed"], r["way"]] = r
    for (name, seed, way), r in found.items():
        exact = found.get((name, seed, "exact"), r)
        away = max(abs(a - b) for k, (a, b) in enumerate(zip(r["extents"], exact["extents"], strict=True)) if k != 2)
        rows.append(
            [
                name,
                seed,
                way,
                ", ".join(
                    f"{v:.1f}°" + (" (merged)" if m else "") for v, m in zip(r["rotations"], r["merged"], strict=True)
                ),
                f"{r['rotations'][0] - exact['rotations'][0]:+.1f}°",
                f"{away:.3f}",
                f"{max(r['values']) - min(r['values']):.2f}",
                f"{r['log_evidence']:.1f} ({r['log_evidence'] - exact['log_evidence']:+.1f})",
                ", ".join(map(str, r["evaluations"])),
                "yes" if r["converged"] else "no",
                f"{r['seconds']:.0f}",
            ]
        )
    header = ["set", "seed", "way", "rotation at the modes", "less exact", "largest other difference, internal units"]
    print_table([*header, "starts apart, nats", "Laplace log evidence", "evaluations", "converged", "s"], rows)


if __name__ == "__main__":
    main()
