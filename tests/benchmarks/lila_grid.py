"""LILA's grid: extents learned from moved images, over the true ones, by LILA, OPTIMA, Augerino and the posterior.

    BAYESINV_DATA=... python tests/benchmarks/lila_grid.py --jobs 2 --folder runs/           # MNIST, seeds 0-2
    BAYESINV_DATA=... python tests/benchmarks/lila_grid.py --sets mnist fashion_mnist --folder runs/ --methods vi lila
    BAYESINV_DATA=... python tests/benchmarks/lila_grid.py --sizes 312 --steps 60 --moves rotated_90 --folder quick/

Each set of images plain, turned within ±90° or over the full circle, shifted by up to ±8 pixels, or scaled by
exp U(±log 2); n = 312, 1,250 and 5,000; an MLP of 1,000 tanh units and LeNet; all six affine extents latent. As many
steps for every n, on batches of 100, and 8 copies for every method (published are 31). LILA steps its extents once in
three steps of the weights after 15 % of them, since once a pass would be 12 steps at n = 5,000; all else is as
published.

Sets that are not in BAYESINV_DATA are left out, with a line that says so. A fit that is finished is kept in --folder
and is not repeated; --jobs processes of one thread each. A cell is the mean over the seeds of the learned extent over
the true one [of the ends of 90 % intervals], and in how many seeds the interval holds the truth; where nothing moves,
it is the largest extent as a share of the largest sensible one.
"""

import argparse
import importlib
import math
import sys
import time
import warnings
from pathlib import Path

from common import calibration_error, kept, print_table, provenance, side_by_side

sys.path.insert(0, str(Path(__file__).parents[2]))

SETS = ("mnist", "fashion_mnist", "cifar10")
MOVES = ("plain", "rotated_90", "rotated_180", "translated_8", "scaled")
METHODS = ("vi", "lila", "optima", "augerino", "fixed", "none")
BATCH_SIZE, BURN_IN, EVERY = 100, 0.15, 3


def make_method(name, truth, n, steps, copies):
    """What ``fit(inference=...)`` takes."""
    from bayesinv.inference import Augerino, Fixed, Lila, Optima

    per_epoch = max(1, n // min(BATCH_SIZE, n))
    return {
        "lila": Lila(burn_in=BURN_IN * steps / per_epoch, steps_per_epoch=max(1, per_epoch // EVERY)),
        "optima": Optima(num_copies=copies),
        "augerino": Augerino(num_copies=copies, prediction_copies=copies),
        "fixed": Fixed(truth),
    }.get(name, name)


def job(case):
    """One fit, or what is kept of it."""
    return kept(fitted, case, __file__)


def fitted(case):
    """One fit and its scores."""
    warnings.simplefilter("ignore")
    import torch

    import bayesinv
    from models.affine_grid import true_extents

    torch.set_num_threads(1)
    experiment = importlib.import_module(f"models.{case['set']}_affine")
    model, train, test = experiment.build(
        case["moves"],
        num_train=case["n"],
        num_test=case["num_test"],
        network=case["network"],
        num_orbit_samples=case["copies"],
        seed=case["seed"],
    )
    truth = true_extents(case["moves"], train.x.shape[-1])
    began = time.perf_counter()
    posterior = bayesinv.fit(
        model,
        train,
        make_method(case["method"], truth, case["n"], case["steps"], case["copies"]),
        seed=case["seed"],
        max_steps=case["steps"],
        training=bayesinv.Training(batch_size=BATCH_SIZE),
    )
    seconds = time.perf_counter() - began
    prediction = posterior.predict(test.x, num_samples=8)
    quantiles = posterior.quantile([0.05, 0.5, 0.95])
    names = posterior.symmetries
    return case | {
        "seconds": seconds,
        "truth": truth,
        "largest": {c.name: c.largest for c in model.coordinates},
        "extents": {name: [float(q) for q in quantiles[:, k]] for k, name in enumerate(names)},
        "is_point": posterior.result.num_draws == 1,
        "accuracy": 100 * float((prediction.labels == test.y).double().mean()),
        "log_loss": -float(prediction.probs.gather(1, test.y[:, None]).log().mean()),
        "calibration_error": calibration_error(prediction.probs, test.y),
    }


def key(case):
    """What makes a fit the same."""
    return {name: value for name, value in case.items() if name != "folder"}


def ratios(results):
    """The cells of one row: learned over true, for every symmetry that moves, or the largest share where none does."""
    truth = results[0]["truth"]
    if not truth:
        shares = [max(q[1] / r["largest"][name] for name, q in r["extents"].items()) for r in results]
        return f"largest {mean(shares):.2f} of its range"
    cells = []
    for name, true in truth.items():
        low, median, high = (mean([r["extents"][name][i] / true for r in results]) for i in range(3))
        cell = f"{name} {median:.2f}"
        if not results[0]["is_point"]:
            held = sum(r["extents"][name][0] <= true * (1 + 1e-9) and true <= r["extents"][name][2] for r in results)
            cell += f" [{low:.2f}, {high:.2f}] {held}/{len(results)}"
        cells.append(cell)
    return ", ".join(cells)


def others(results):
    """The largest extent that should be nothing, as a share of its range."""
    shares = [
        max(q[1] / r["largest"][name] for name, q in r["extents"].items() if name not in r["truth"]) for r in results
    ]
    return f"{mean(shares):.2f}"


def mean(values):
    """Their mean."""
    return math.fsum(values) / len(values)


def available(names):
    """The sets that are there; a line for each that is not."""
    from bayesinv.errors import DataError

    for name in names:
        try:
            importlib.import_module(f"models.{name}_affine").build("plain", num_train=10, num_test=10, network="mlp")
        except DataError as error:
            print(f"{name} is left out: {error}\n")
        else:
            yield name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["mnist", "fashion_mnist"])
    parser.add_argument("--moves", nargs="+", choices=MOVES, default=list(MOVES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[312, 1250, 5000])
    parser.add_argument("--networks", nargs="+", default=["mlp", "lenet"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["vi", "lila", "optima", "augerino"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--num-test", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True, help="of the fits that are finished")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    shared = {name: getattr(options, name) for name in ("steps", "copies", "num_test")} | {
        "folder": str(options.folder)
    }
    rows = [
        {"set": s, "moves": m, "n": n, "network": net, "method": method} | shared
        for s in available(options.sets)
        for m in options.moves
        for n in options.sizes
        for net in options.networks
        for method in options.methods
    ]
    cases = [row | {"seed": seed} for row in rows for seed in options.seeds]
    results = list(side_by_side(job, cases, options.jobs))
    print(provenance() + "\n")
    table = []
    for row in rows:
        these = [r for r in results if all(r[name] == value for name, value in key(row).items())]
        scores = [mean([r[name] for r in these]) for name in ("accuracy", "log_loss", "calibration_error", "seconds")]
        first = [row[name] for name in ("set", "moves", "n", "network", "method")]
        accuracy, loss, ece, seconds = scores
        cells = [ratios(these), others(these), f"{accuracy:.1f}", f"{loss:.3f}", f"{ece:.3f}", f"{seconds:.0f}"]
        table.append([*first, *cells])
    print_table(
        [
            "set",
            "moves",
            "n",
            "network",
            "method",
            "learned over true",
            "largest other, of its range",
            "accuracy, %",
            "log loss, nat",
            "calibration error",
            "seconds",
        ],
        table,
    )


if __name__ == "__main__":
    main()
