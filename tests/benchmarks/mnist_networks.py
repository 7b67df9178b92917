"""Networks on MNIST: learned extents, accuracy against the point estimates, and what learning costs.

    BAYESINV_DATA=... python tests/benchmarks/mnist_networks.py extents            # 4 sets, seeds 0-2
    BAYESINV_DATA=... python tests/benchmarks/mnist_networks.py methods            # 3 sets, 6 methods, seeds 0-4
    BAYESINV_DATA=... python tests/benchmarks/mnist_networks.py sizes              # n = 312 and 1,250, MLP and LeNet
    BAYESINV_DATA=... python tests/benchmarks/mnist_networks.py time               # ratio of wall times in one run

LeNet with tanh, S = 8 copies, Adam, 60 epochs of batches of 100, test accuracy on 2,000 images. The same optimiser,
schedule, split and number of copies in training and prediction for every method, but for ``none``, which has nothing to
copy, and the policy (RandAugment), which predicts on the image itself. ``fixed`` gets the true extents. Augerino and
AugNet have their published regularisers (0.05 and 0.5), and a rate of 0.01 for extents and magnitudes. ``--training``
sets fields of ``bayesinv.Training``, such as ``--training finish=0.4 extent_every=3``.
"""

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

from common import calibration_error, mean_and_range, print_table, provenance, side_by_side

sys.path.insert(0, str(Path(__file__).parents[2]))

# Truth by set: half-widths in internal units; what is not named is 0.
SETS = {
    "plain": {},
    "±90°": {"rotation": math.pi / 2},
    "full circle": {"rotation": math.pi},
    "±8 px": {"translate_x": 8 / 14, "translate_y": 8 / 14},
}
METHODS = ("vi", "fixed", "none", "policy", "augerino", "augnet")


def make_split(name, num_train, seed):
    """The digits of one set, 2,000 of them to test on."""
    from bayesinv.datasets import mnist

    truth = SETS[name]
    return mnist(
        num_train=num_train,
        num_test=2000,
        rotation=truth.get("rotation"),
        translation=truth.get("translate_x"),
        seed=seed,
    )


def make_method(name, truth):
    """What ``fit(inference=...)`` takes; published settings but for the number of copies."""
    from bayesinv.inference import Augerino, AugNet, Fixed, NoInvariance, Policy

    return {
        "vi": "vi",
        "fixed": Fixed(truth),
        "none": NoInvariance(),
        "policy": Policy("randaugment", num_copies=8),
        "augerino": Augerino(num_copies=8, prediction_copies=8, rate=0.01),
        "augnet": AugNet(num_copies=8, prediction_copies=8, rate=0.01),
    }[name]


def job(argument):
    """One fit; returns what the tables need."""
    set_name, method, num_train, network, seed, epochs, fields = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv
    from models import networks

    torch.set_num_threads(1)
    train, test = make_split(set_name, num_train, seed)
    net = networks.LeNet(seed=seed) if network == "lenet" else networks.MLP(seed=seed)
    training = bayesinv.Training(epochs=epochs, **fields)
    # A step of the extents is one block: the bound is of blocks, and the tighter the larger they are.
    evidence = bayesinv.evidence.LaplaceEvidence(block_size=max(256, training.extent_batch_size))
    model = bayesinv.InvarianceModel(net, "affine2d", evidence=evidence, num_orbit_samples=8)
    began = time.perf_counter()
    posterior = bayesinv.fit(model, train, make_method(method, SETS[set_name]), seed=seed, training=training)
    seconds = time.perf_counter() - began
    prediction = posterior.predict(test.x, num_samples=8)
    quantiles = posterior.quantile([0.05, 0.5, 0.95])
    return {
        "set": set_name,
        "method": method,
        "n": num_train,
        "network": network,
        "seed": seed,
        "seconds": seconds,
        "accuracy": 100 * float((prediction.labels == test.y).double().mean()),
        "nll": -float(prediction.probs.gather(1, test.y[:, None]).log().mean()),
        "ece": calibration_error(prediction.probs, test.y),
        "confidence": float(prediction.probs.amax(-1).mean()),
        "extents": {name: [float(q) for q in quantiles[:, k]] for k, name in enumerate(posterior.symmetries)},
    }


def field(text):
    """ "finish=0.4" as a field of Training and its number."""
    name, _, value = text.partition("=")
    try:
        return name, int(value) if value.isdecimal() else float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, such as finish=0.4, got {text!r}") from None


def print_extents(results):
    """A row a fit: the extents in internal units, rotation in degrees too."""
    header = [
        "set",
        "n",
        "network",
        "seed",
        "rotation, °",
        "translate_x",
        "translate_y",
        "largest other",
        "accuracy, %",
    ]
    rows = []
    for r in results:
        e = r["extents"]
        active = SETS[r["set"]]
        others = max(e[name][1] for name in e if name not in active)
        degrees = "{1:.0f} [{0:.0f}, {2:.0f}]".format(*(math.degrees(v) for v in e["rotation"]))
        shifts = ["{1:.3f} [{0:.3f}, {2:.3f}]".format(*e[name]) for name in ("translate_x", "translate_y")]
        rows.append(
            [r["set"], r["n"], r["network"], r["seed"], degrees, *shifts, f"{others:.3f}", f"{r['accuracy']:.1f}"]
        )
    print_table(
        ["method", *header, "seconds"],
        [[r["method"], *row, f"{r['seconds']:.0f}"] for row, r in zip(rows, results, strict=True)],
    )


def print_methods(results):
    """A row a set and method, over the seeds."""
    rows = []
    for name in dict.fromkeys(r["set"] for r in results):
        for method in dict.fromkeys(r["method"] for r in results):
            these = [r for r in results if (r["set"], r["method"]) == (name, method)]
            cells = [
                mean_and_range([r[key] for r in these], digits)
                for key, digits in (("accuracy", 1), ("nll", 3), ("ece", 3), ("seconds", 0))
            ]
            rows.append([name, method, *cells])
    print_table(["set", "method", "accuracy, %", "log loss, nat", "calibration error", "seconds"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["extents", "methods", "sizes", "time"])
    parser.add_argument("--sets", nargs="+", choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--training", nargs="+", type=field, default=[], metavar="NAME=NUMBER")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--add", nargs="*", type=Path, default=[], help="JSON files of earlier runs to join")
    parser.add_argument("--out", type=Path, help="write every result to this JSON file")
    options = parser.parse_args()
    sets = options.sets or (["±90°", "full circle", "±8 px"] if options.what == "methods" else list(SETS))
    seeds = options.seeds or (list(range(5)) if options.what == "methods" else [0, 1, 2])
    if options.what == "methods":
        cases = [(s, m, 1000, "lenet", k, options.epochs) for s in sets for m in options.methods for k in seeds]
    elif options.what == "sizes":
        # As many steps for the small set as for the large one.
        cases = [
            ("full circle", "vi", n, net, k, options.epochs * 1000 / n)
            for net in ("mlp", "lenet")
            for n in (312, 1250)
            for k in seeds
        ]
    elif options.what == "time":
        cases = [(s, m, 1000, "lenet", 0, options.epochs) for s in sets[:1] for m in ("fixed", "vi")]
    else:
        cases = [(s, "vi", 1000, "lenet", k, options.epochs) for s in sets for k in seeds]
    cases = [(*case, dict(options.training)) for case in cases]
    results = list(side_by_side(job, cases, 1 if options.what == "time" else options.jobs))
    for file in options.add:
        results += json.loads(file.read_text())
    print(provenance())
    if options.what == "methods" or options.training:
        print_methods(results)
    elif options.what == "time":
        fixed, vi = (r["seconds"] for r in results)
        print(f"fixed extents {fixed:.0f} s, learned {vi:.0f} s: ratio {vi / fixed:.2f}")
    print()
    print_extents(results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
