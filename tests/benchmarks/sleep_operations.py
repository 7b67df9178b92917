"""Sleep stages: learned extents against none, and against each operation applied by hand.

    BAYESINV_DATA=... python tests/benchmarks/sleep_operations.py --out sleep.json

Data, network, extents by hand and training as in `models/sleep_staging.py`: 1,000 epochs of eight people to train on,
2,000 of four others to test on. "all by hand" applies all nine operations at once. The same training for every row;
copies are two for every element of the groups, in training and in prediction. "learned, longer" learns for as many
passes as "learned", and then trains on the likelihood alone for as many as the others have (twice the passes,
``finish=0.5``).
"""

import argparse
import json
import time
import warnings
from pathlib import Path

from common import mean_and_range, print_table, provenance, side_by_side

HAND = ("time_shift", "amplitude", "frequency_shift", "surrogate_phase", "time_mask", "band_stop", "noise")
HAND = (*HAND, "sign_flip", "time_reversal")


def job(argument):
    """One fit and its scores on people whom it has not seen."""
    method, seed, epochs, num_train = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv
    from bayesinv import metrics
    from models import sleep_staging as sleep

    torch.set_num_threads(1)
    inference = {"learned": "vi", "learned, longer": "vi", "none": "none"}.get(method)
    by_hand = None if inference else list(sleep.BY_HAND) if method == "all by hand" else [method]
    model, train, test = sleep.build(by_hand, num_train=num_train, seed=seed)
    if by_hand:
        inference = bayesinv.inference.Fixed({name: sleep.BY_HAND[name] for name in by_hand})
    began = time.perf_counter()
    longer = {"epochs": 2 * epochs, "finish": 0.5} if method == "learned, longer" else {"epochs": epochs}
    training = bayesinv.Training(weight_rate=sleep.WEIGHT_RATE, **longer)
    posterior = bayesinv.fit(model, train, inference, seed=seed, training=training)
    seconds = time.perf_counter() - began
    probs = posterior.predict(test.x, num_samples=8, seed=seed).probs
    summary = posterior.summary()
    return {
        "method": method,
        "seed": seed,
        "balanced": sleep.balanced_accuracy(probs, test.y),
        "nll": -float(probs.gather(1, test.y[:, None]).log().mean()),
        "ece": metrics.calibration_error(probs, test.y),
        "seconds": seconds,
        "in": sleep.operations_in(posterior),
        "extents": {
            str(name): [row["median"], row["lower"], row["upper"], row["unit"]] for name, row in summary.iterrows()
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = ["learned", "learned, longer", "none", "all by hand", *HAND]
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write every result to this JSON file")
    options = parser.parse_args()
    cases = [(m, k, options.epochs, options.num_train) for m in options.methods for k in options.seeds]
    results = side_by_side(job, cases, options.jobs)
    print(provenance())
    print()
    rows = []
    for method in options.methods:
        these = [r for r in results if r["method"] == method]
        each = ", ".join(f"{r['balanced']:.3f}" for r in these)
        scores = [mean_and_range([r[key] for r in these], 3) for key in ("balanced", "nll", "ece")]
        rows.append([method, each, *scores, mean_and_range([r["seconds"] for r in these], 0)])
    header = ["augmentation", "by seed", "balanced accuracy", "log loss, nat", "calibration error", "seconds"]
    print_table(header, rows)
    print()
    rows = [
        [r["method"], r["seed"], name, f"{median:.3g} [{low:.3g}, {high:.3g}] {unit}", "in" if name in r["in"] else ""]
        for r in results
        if r["method"].startswith("learned")
        for name, (median, low, high, unit) in r["extents"].items()
    ]
    print_table(["augmentation", "seed", "operation", "extent", ""], rows)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
