"""Extents, accuracy, log loss and calibration on scikit-learn's digits, by evidence and seed.

    python tests/benchmarks/digits.py                                  # the default evidence, seeds 0-4
    python tests/benchmarks/digits.py --evidences softmax softmax-average dirichlet gaussian-one-hot

Upright, turned within ±45°, and over the full circle; 500 training images at 16 x 16, the other 1,297 test.
"softmax-average" predicts with the average over EP's Gaussian in place of the most probable function,
"gaussian-one-hot" is the Gaussian evidence on one-hot targets, the cheapest alternative to a classification
likelihood; its predicted means are clipped to [0.001, 1] and normalised to give probabilities.
"""

import argparse
import math
import time
import warnings

from common import calibration_error, mean_and_range, print_table, provenance, side_by_side

SETS = {"upright": None, "±45°": math.radians(45), "full circle": math.pi}
EVIDENCES = {"gaussian-one-hot": lambda: "auto", "softmax-average": lambda: average_softmax()}
FIXED_OFF = dict.fromkeys(["translate_x", "translate_y", "rotation", "scale_x", "scale_y", "shear"], 0.0)


def average_softmax():
    """The softmax evidence with the other predictor."""
    from bayesinv.evidence import SoftmaxEvidence

    return SoftmaxEvidence(prediction="average")


def job(argument):
    """One fit and its test scores."""
    name, evidence, seed, invariant = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv

    train, test = bayesinv.datasets.digits(SETS[name], num_train=500, seed=seed)
    one_hot = evidence == "gaussian-one-hot"
    data = (train.x, torch.nn.functional.one_hot(train.y).double()) if one_hot else train
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(),
        "affine2d",
        likelihood="gaussian" if one_hot else "categorical",
        evidence=EVIDENCES.get(evidence, lambda: evidence)(),
        priors=None if invariant else FIXED_OFF,
    )
    began = time.perf_counter()
    posterior = bayesinv.fit(model, data, seed=seed)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    prediction = posterior.predict(test.x)
    predicting = time.perf_counter() - began
    if one_hot:
        probs = prediction.mean.clamp(1e-3, 1.0)
        probs = probs / probs.sum(-1, keepdim=True)
    else:
        probs = prediction.probs
    table = posterior.summary()
    return {
        "set": name,
        "evidence": evidence,
        "seed": seed,
        "invariant": invariant,
        "accuracy": 100.0 * float((probs.argmax(-1) == test.y).double().mean()),
        "log_loss": -float(probs[torch.arange(len(test)), test.y].log().mean()),
        "ece": calibration_error(probs, test.y),
        "rotation": float(table.loc["rotation", "median"]),
        "interval": (float(table.loc["rotation", "lower"]), float(table.loc["rotation", "upper"])),
        "others": float(table.drop(index="rotation")["median"].max()),
        "pareto_k": posterior.pareto_k if invariant else math.nan,
        "seconds": seconds,
        "steps": posterior.result.num_steps,
        "modes": [
            (m["evaluations"], round(m["log_joint"], 2), m["merged"]) for m in posterior.result.settings["modes"]
        ],
        "predicting": predicting,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evidences", nargs="+", default=["softmax"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    arguments = [(name, e, seed, True) for e in options.evidences for name in SETS for seed in options.seeds]
    arguments += [(name, "softmax", seed, False) for name in SETS for seed in options.seeds]
    results = list(side_by_side(job, arguments, options.jobs))
    print(provenance())
    print(f"seeds {options.seeds}, {options.jobs} jobs of one thread; mean [smallest, largest] over seeds\n")
    groups = [(e, True) for e in options.evidences] + [("softmax", False)]
    rows = []
    for name in SETS:
        for evidence, invariant in groups:
            these = [r for r in results if (r["set"], r["evidence"], r["invariant"]) == (name, evidence, invariant)]
            rows.append(
                [
                    name,
                    evidence if invariant else f"{evidence}, no invariance",
                    mean_and_range([r["rotation"] for r in these]) if invariant else "0",
                    mean_and_range([r["others"] for r in these]) if invariant else "0",
                    mean_and_range([r["accuracy"] for r in these]),
                    mean_and_range([r["log_loss"] for r in these], 3),
                    mean_and_range([r["ece"] for r in these], 3),
                    mean_and_range([r["pareto_k"] for r in these], 2) if invariant else "",
                    mean_and_range([r["seconds"] for r in these], 0),
                ]
            )
    names = ["set", "evidence", "rotation, °", "largest other extent, %", "test accuracy, %", "log loss, nat"]
    print_table([*names, "calibration error", "Pareto k̂", "seconds"], rows)
    print("\nevery fit:")
    for r in results:
        print(
            f"{r['set']:12} {r['evidence']:17} seed {r['seed']} {'' if r['invariant'] else 'no invariance '}"
            f"rotation {r['rotation']:.1f}° [{r['interval'][0]:.1f}, {r['interval'][1]:.1f}] "
            f"others < {r['others']:.1f} % "
            f"accuracy {r['accuracy']:.2f} % log loss {r['log_loss']:.3f} calibration {r['ece']:.3f} "
            f"k̂ {r['pareto_k']:.2f} "
            f"{r['steps']} evaluations, (evaluations, log joint, merged) of each start {r['modes']}, "
            f"{r['seconds']:.0f} s, "
            f"first prediction {r['predicting']:.0f} s"
        )


if __name__ == "__main__":
    main()
