"""Predictions of networks: one stage, two stages, extents that are known, and none, at equal passes over the data.

    BAYESINV_DATA=... python tests/benchmarks/two_stages.py                         # 3 sets, 4 methods, seeds 20-24
    BAYESINV_DATA=... python tests/benchmarks/two_stages.py --sets "±8 px" --seeds 10 --methods two
        --second share=0.6 --second share=0.6,start=given                       # settings of the second stage

LeNet with tanh, MNIST, n = 1,000, S = 8 copies, 60 epochs of batches of 100, 2,000 test images, as in
``mnist_networks.py``: accuracy, log loss, calibration error and mean confidence, for plug-in weights and, with
``--linearised last all``, for the linearised network as well (same fit). The first stage takes a step of the extents
every ``--extent-every`` steps. ``fixed`` knows the true extents, and all of its passes are on the likelihood.
"""

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

from common import calibration_error, mean_and_range, print_table, provenance, side_by_side
from mnist_networks import SETS, make_split

sys.path.insert(0, str(Path(__file__).parents[2]))

METHODS = ("one", "two", "fixed", "none")


def fitted(method, case):
    """The posterior of one method."""
    import bayesinv
    from bayesinv.inference import Fixed, NoInvariance
    from models import networks

    train, _ = make_split(case["set"], case["n"], case["seed"])
    model = bayesinv.InvarianceModel(networks.LeNet(seed=case["seed"]), "affine2d", num_orbit_samples=8)
    options = {"seed": case["seed"], "training": bayesinv.Training(epochs=case["epochs"])}
    if method == "fixed":
        return bayesinv.fit(model, train, Fixed(SETS[case["set"]]), **options)
    if method == "none":
        return bayesinv.fit(model, train, NoInvariance(), **options)
    if method == "two":
        second = bayesinv.SecondStage(**case["second"])
        options["training"] = bayesinv.Training(
            epochs=case["epochs"], extent_every=case["extent_every"], second_stage=second
        )
    return bayesinv.fit(model, train, **options)


def job(case):
    """One fit, scored once for each kind of prediction."""
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    began, cpu = time.perf_counter(), time.process_time()
    posterior = fitted(case["method"], case)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    _, test = make_split(case["set"], case["n"], case["seed"])
    test = test.subset(slice(0, case["num_test"]))
    quantiles = posterior.quantile([0.05, 0.5, 0.95])
    extents = {name: [float(q) for q in quantiles[:, k]] for k, name in enumerate(posterior.symmetries)}
    rows = []
    for kind in ["plug-in", *(case["linearised"] if case["method"] in ("one", "two") else [])]:
        options = {} if kind == "plug-in" else {"prediction": linearised(kind)}
        start = time.perf_counter()
        p = posterior.predict(test.x, num_samples=8, **options).probs
        rows.append(
            {
                **case,
                "prediction": kind,
                "seconds": seconds,
                "cpu": cpu,
                "predict_seconds": time.perf_counter() - start,
                "accuracy": 100 * float((p.argmax(-1) == test.y).double().mean()),
                "nll": -float(p.gather(1, test.y[:, None]).clamp_min(1e-12).log().mean()),
                "ece": calibration_error(p, test.y),
                "confidence": float(p.amax(-1).mean()),
                "extents": extents,
            }
        )
    return rows


def linearised(kind):
    """ "last", "all" or "all:200", with a number of training examples."""
    from bayesinv import Linearised

    weights, _, number = kind.partition(":")
    return Linearised(weights=weights, num_examples=int(number) if number else None)


def second(text):
    """ "share=0.6,start=continued" as arguments of SecondStage."""
    pairs = [part.partition("=") for part in text.split(",")]
    return {name: value if name == "start" else float(value) for name, _, value in pairs}


def print_results(results):
    """A row a set, method and kind of prediction, over the seeds."""
    key = lambda r: (r["set"], name_of(r), r["prediction"])  # noqa: E731
    rows = []
    for this in dict.fromkeys(key(r) for r in results):
        these = [r for r in results if key(r) == this]
        scores = (("accuracy", 1), ("nll", 3), ("ece", 3), ("confidence", 3), ("cpu", 0))
        rows.append([*this, *(mean_and_range([r[name] for r in these], digits) for name, digits in scores)])
    print_table(["set", "method", "prediction", "accuracy, %", "log loss", "ECE", "confidence", "CPU s"], rows)
    print()
    header = ["set", "method", "seed", "rotation, °", "translate_x", "translate_y", "largest other"]
    rows = []
    for r in results:
        if r["prediction"] != "plug-in" or r["method"] in ("fixed", "none"):
            continue
        e, active = r["extents"], SETS[r["set"]]
        degrees = "{1:.0f} [{0:.0f}, {2:.0f}]".format(*(math.degrees(v) for v in e["rotation"]))
        shifts = ["{1:.2f} [{0:.2f}, {2:.2f}]".format(*e[name]) for name in ("translate_x", "translate_y")]
        others = max(e[name][1] for name in e if name not in active)
        rows.append([r["set"], name_of(r), r["seed"], degrees, *shifts, f"{others:.3f}"])
    print_table(header, rows)


def name_of(r):
    """The method with the settings of its second stage."""
    if r["method"] != "two":
        return r["method"]
    return f"two, {', '.join(f'{k} {v}' for k, v in r['second'].items())}, every {r['extent_every']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["±90°", "full circle", "±8 px"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[20, 21, 22, 23, 24])
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--num-test", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--extent-every", type=int, default=3)
    parser.add_argument("--second", action="append", type=second, help="NAME=VALUE,... of SecondStage; may be repeated")
    parser.add_argument("--linearised", nargs="*", default=[], metavar="last|all[:EXAMPLES]")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write every result to this JSON file")
    options = parser.parse_args()
    common = {
        "n": options.num_train,
        "num_test": options.num_test,
        "epochs": options.epochs,
        "extent_every": options.extent_every,
        "linearised": options.linearised,
    }
    cases = [
        {"set": name, "method": method, "seed": seed, "second": stage, **common}
        for name in options.sets
        for seed in options.seeds
        for method in options.methods
        for stage in ((options.second or [{"share": 0.5}]) if method == "two" else [{}])
    ]
    results = [row for rows in side_by_side(job, cases, options.jobs) for row in rows]
    print(provenance())
    print_results(results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
