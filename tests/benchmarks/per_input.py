"""Extents as a function of the input: are they found, does the evidence prefer them, do they harm where there are none?

    python tests/benchmarks/per_input.py --folder runs/                      # every case
    python tests/benchmarks/per_input.py --cases digits --seeds 0 3

300 of scikit-learn's 0, 6, 8 and 9 at 8×8, each at an angle of its own within ±60°; rotation, 12 copies, four landmarks
at the centres of k-means among eight principal components; the floor's prior is flat, that of what is more half-normal
with a quarter of 180°.

- own: three real targets with noise a tenth of the variance, drawn from the exact process with a floor of 15° and 60°
  more near the first two landmarks.
- common: the same with 45° for every image.
- digits: the labels of the digits, softmax.

Every case is fitted twice, with extents by input and with one in common (every "more" 0); the Bayes factor is the
difference of the log evidences.
"""

import argparse
import json
import math
import time
import warnings
from pathlib import Path

from common import gaussian_process, mean_and_range, print_table, provenance, side_by_side

DIGITS, COPIES, LANDMARKS, NOISE = (0, 6, 8, 9), 12, 4, 0.1
CASES = {"own": (15, 60, 60, 0, 0), "common": (45, 0, 0, 0, 0), "digits": None}


def the_digits(seed, num_train):
    """Images of the four, and test images, with labels 0 to 3."""
    import torch

    import bayesinv

    split = bayesinv.datasets.digits(math.radians(60), size=8, num_train=1000, seed=seed)

    def only(data, most):
        chosen = torch.isin(data.y, torch.tensor(DIGITS)).nonzero()[:most, 0]
        return bayesinv.Data(data.x[chosen], torch.searchsorted(torch.tensor(DIGITS), data.y[chosen]), len(DIGITS))

    return only(split.train, num_train), only(split.test, 300)


def job(argument):
    """Both fits; from the folder if they are there."""
    name, seed, num_train, folder = argument
    path = Path(folder) / f"{name}_{num_train}_{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    warnings.simplefilter("ignore")
    import torch

    import bayesinv
    from bayesinv.extents import in_common, shrinkage
    from bayesinv.transforms import PerInput

    train, test = the_digits(seed, num_train)
    transform = PerInput.near("rotation", train.x, LANDMARKS, seed=seed)
    likelihood = "categorical" if name == "digits" else "gaussian"

    def built(priors, process="default"):
        return bayesinv.InvarianceModel(
            gaussian_process(process), transform, likelihood=likelihood, priors=priors, num_orbit_samples=COPIES
        )

    data = train
    if name != "digits":
        teacher = built({}, "exact")
        teacher.backbone.initialise(train.x, 1.0, seed)
        teacher.evidence.noise_model.noise = NOISE
        truth = torch.deg2rad(torch.tensor(CASES[name], dtype=torch.float64))
        data = bayesinv.Data(train.x, teacher.simulate(train.x, truth, num_outputs=3, seed=seed).y)
    begin = time.perf_counter()
    own = bayesinv.fit(built(shrinkage(transform)), data, seed=seed)
    common = bayesinv.fit(built(in_common(transform)), data, seed=seed)
    each = transform.extents(train.x, own.sample(400, seed=seed))[..., 0].rad2deg()  # (draws, n)
    if name == "digits":
        groups = [train.y == label for label in range(len(DIGITS))]
    else:  # near one of the first two landmarks, or not
        near = transform.responsibilities(train.x).argmax(1) < 2
        groups = [near, ~near]
    by_group = torch.stack([each[:, rows].mean(1) for rows in groups])  # (groups, draws)
    difference = (
        0.5 * (by_group[0] + by_group[2] - by_group[1] - by_group[3]) if name == "digits" else by_group[0] - by_group[1]
    )
    found = {
        "name": name,
        "seed": seed,
        "groups": by_group.median(1).values.tolist(),
        "difference": difference.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=difference.dtype)).tolist(),
        "common": float(common.summary()["median"].iloc[0]),
        "bayes_factor": own.log_evidence - common.log_evidence,
        "pareto_k": own.pareto_k,
        "seconds": time.perf_counter() - begin,
    }
    if name == "digits":
        accuracies = [(p.predict(test.x).probs.argmax(1) == test.y).double().mean() for p in (own, common)]
        found["accuracy"] = [float(a) for a in accuracies]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    print(f"{name} {seed}: {found}", flush=True)
    return found


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", nargs=2, type=int, default=[0, 3], help="the first, and the one after the last")
    parser.add_argument("--num-train", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("per-input-results"))
    options = parser.parse_args(arguments)
    cases = [(name, seed) for name in options.cases for seed in range(*options.seeds)]
    results = list(side_by_side(job, [(*case, options.num_train, str(options.folder)) for case in cases], options.jobs))
    print(provenance())
    rows = []
    for r in results:
        low, middle, high = r["difference"]
        cells = [
            r["name"],
            r["seed"],
            ", ".join(f"{v:.0f}" for v in r["groups"]),
            f"{middle:.0f} [{low:.0f}, {high:.0f}]",
            f"{r['common']:.0f}",
            f"{r['bayes_factor']:+.1f}",
        ]
        rows.append([*cells, ", ".join(f"{100 * a:.1f}" for a in r.get("accuracy", []))])
    header = [
        "case",
        "seed",
        "extents by group, °",
        "difference, °",
        "in common, °",
        "log Bayes factor",
        "accuracies, %",
    ]
    print_table(header, rows)
    for name in options.cases:
        print(f"{name}: {mean_and_range([r['bayes_factor'] for r in results if r['name'] == name])} nats")


if __name__ == "__main__":
    main()
