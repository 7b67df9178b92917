"""Generators that nobody listed: how many are found, how close they are, and whether the cones hold the truth.

    python tests/benchmarks/discover.py
    python tests/benchmarks/discover.py --cases so2 null --seeds 0 20

n = 500 examples, noise of standard deviation 0.1 on targets of variance one, random inputs; a and b are drawn anew for
every seed. Dimensions and cones of `bayesinv.discover` at its defaults, without extents. The table in docs/discover.md
was made with `--points 200`.

| case | inputs | targets |
|---|---|---|
| so2, so3 | normal in R², R³ | sin(a r + b), a ~ U[1, 2], r the distance from the origin |
| so13 | momenta normal in R³, mass ~ U[0.5, 2.5], E = √(m² + p²) | sin(a m + b), m the invariant mass |
| table | normal in R⁴ | a Σ sin(x_i) cos(x_4) + b x_1 x_2 x_3, i = 1, 2, 3, a, b ~ U[0.5, 1.5] |
| null | normal in R³ | a draw of a Gaussian process of lengthscale 1 |
| digits | scikit-learn's digits at 16×16, turned over the full circle | their labels |

Right: the number of generators; of the table none, and the group of the six orders of x_1, x_2, x_3. The cone holds the
truth where the largest principal angle between the spaces is below it.
"""

import argparse
import json
import math
import warnings
from itertools import combinations, permutations
from pathlib import Path

from common import print_table, provenance, side_by_side

CASES = ("so2", "so3", "so13", "table", "null", "digits")
NUM_SEEDS = {"digits": 5}
DIMENSIONS = {"so2": 1, "so3": 3, "so13": 6, "table": 0, "null": 0, "digits": 1}


def examples(case, seed, num=500, noise=0.1):
    """x (n, d), y (n,), and the true generators, (k, d, d)."""
    import numpy as np
    import torch

    rng = np.random.default_rng(seed)
    d = {"so2": 2, "so3": 3, "so13": 4, "table": 4, "null": 3}[case]
    x = rng.normal(size=(num, d))
    truth = np.zeros((DIMENSIONS[case], d, d))
    for k, (i, j) in enumerate(combinations(range(d), 2) if len(truth) else ()):
        truth[k, i, j], truth[k, j, i] = (1.0 if case == "so13" and i == 0 else -1.0), 1.0
    if case in ("so2", "so3", "so13"):
        invariant = np.sqrt((x**2).sum(1))
        if case == "so13":
            invariant = rng.uniform(0.5, 2.5, num)
            x[:, 0] = np.sqrt(invariant**2 + (x[:, 1:] ** 2).sum(1))
        f = np.sin(rng.uniform(1.0, 2.0) * invariant + rng.uniform(0.0, 2.0 * np.pi))
    elif case == "table":
        a, b = rng.uniform(0.5, 1.5, 2)
        f = a * np.sin(x[:, :3]).sum(1) * np.cos(x[:, 3]) + b * x[:, :3].prod(1)
    else:
        W, phase = rng.normal(size=(d, 500)), rng.uniform(0.0, 2.0 * np.pi, 500)
        f = np.cos(x @ W + phase) @ rng.normal(size=500)
    y = (f - f.mean()) / f.std() + noise * rng.normal(size=num)
    return torch.as_tensor(x), torch.as_tensor(y), torch.as_tensor(truth)


def job(argument):
    """One data set."""
    case, seed, points = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv

    if case == "digits":
        data = bayesinv.datasets.digits(rotation=math.pi, num_train=500, size=16, seed=seed).train
        truth = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]])
    else:
        x, y, truth = examples(case, seed)
        data = (x, y)
    found = bayesinv.discover(
        None, data, extents=False, permutations=case in ("table", "null"), num_points=points, seed=seed
    )
    angle = float(found.angle_to(truth).max()) if len(truth) and found.dimension else None
    orders = set(found.permutation_group)
    three = {(*order, 3) for order in permutations(range(3))}
    right = found.dimension == DIMENSIONS[case]
    if case == "table":
        right = right and orders == three
    if case == "null":
        right = right and not orders
    return {
        "case": case,
        "seed": seed,
        "dimension": found.dimension,
        "probability": found.probabilities[found.dimension],
        "group": found.group,
        "permutations": [list(order) for order in sorted(orders)],
        "right": right,
        "angle": angle,
        "cone": found.cone,
        "inside": angle is not None and right and angle <= found.cone,
        "seconds": found.seconds,
    }


def row(case, results):
    """A line of the table."""
    cells = [case, f"{sum(r['right'] for r in results)} of {len(results)}"]
    if case in ("table", "null"):
        cells += ["", "", "", ""]
    else:
        right = [r for r in results if r["right"]]
        angles = sorted(r["angle"] for r in right)
        cones = sorted(r["cone"] for r in right)
        middle = angles[len(angles) // 2] if angles else math.nan
        cells += [
            f"{math.cos(math.radians(middle)):.4f}",
            f"{middle:.2f}° (largest {angles[-1]:.2f}°)" if angles else "",
            f"{cones[len(cones) // 2]:.2f}°" if cones else "",
            f"{sum(r['inside'] for r in results)} of {len(results)}",
        ]
    seconds = sorted(r["seconds"] for r in results)
    return [*cells, f"{seconds[len(seconds) // 2]:.0f}"]


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", nargs=2, type=int, metavar=("FIRST", "END"), help="0 20 by default; digits 0 5")
    parser.add_argument("--points", type=int, default=500, help="inputs at which functions may not change")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--record", type=Path, help="append a line of JSON for every data set, and skip those in it")
    options = parser.parse_args(arguments)
    known = {}
    if options.record is not None and options.record.exists():
        lines = [json.loads(line) for line in options.record.read_text(encoding="utf-8").splitlines()]
        known = {(r["case"], r["seed"]): r for r in lines}
    print(provenance())
    table = []
    for case in options.cases:
        first, end = options.seeds or (0, NUM_SEEDS.get(case, 20))
        results = []
        for start in range(first, end, options.jobs):
            seeds = range(start, min(start + options.jobs, end))
            new = side_by_side(job, [(case, s, options.points) for s in seeds if (case, s) not in known], options.jobs)
            for result in new:
                known[case, result["seed"]] = result
                if options.record is not None:
                    with options.record.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(result) + "\n")
            results += [known[case, s] for s in seeds]
        table.append(row(case, results))
    header = ["case", "right number", "cosine, median", "angle, median", "cone, median", "cone holds it", "s, median"]
    print_table(header, table)


if __name__ == "__main__":
    main()
