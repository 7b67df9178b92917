"""Do the intervals of networks hold the truth? As fitted, and with weights of their own at every extent.

    python tests/benchmarks/network_coverage.py --jobs 2 --folder runs/                  # one, two and three extents
    python tests/benchmarks/network_coverage.py --extents 1 --num 20 --other-teacher

The 64-32-4 network of calibration.py, 80 digits at 8×8, each at an angle of its own over the full circle, 8 copies;
extents from their flat priors, labels from teachers whose weights are draws from the prior, of the same architecture
or, with --other-teacher, of a small convolutional one. Rows "guide" are the draws as fitted, rows "own weights" those
of the same fit with ``Training(own_weights=True)``. Labels that are all alike count like others.

Simulations that are finished are kept in --folder and are not repeated; one process is one thread.
"""

import argparse
import functools
import math
import time
import warnings
from pathlib import Path

import calibration
from common import print_table, provenance

SYMMETRIES = {1: ["rotation"], 2: ["rotation", "translate_x"], 3: ["rotation", "translate_x", "translate_y"]}


def fit(model, data, seed, epochs, extent_every, num_draws):
    """Draws as fitted and with own weights, from one fit."""
    import bayesinv

    training = bayesinv.Training(
        epochs=epochs,
        batch_size=len(data),
        extent_batch_size=len(data),
        extent_every=extent_every,
        weight_rate=0.01,
        own_weights=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = bayesinv.fit(model, data, seed=seed, training=training, num_draws=num_draws).result
    guide = result.extents if result.guide_extents is None else result.guide_extents
    return {"guide": guide[0], "own weights": result.draws}


def simulate(number, options):
    """The simulations with so many extents."""
    import torch

    import bayesinv
    from bayesinv import checks

    torch.manual_seed(0)
    model = bayesinv.InvarianceModel(
        bayesinv.NeuralNetwork(calibration.small_network()), SYMMETRIES[number], num_orbit_samples=options.copies
    )
    own = functools.partial(fit, epochs=options.epochs, extent_every=options.extent_every, num_draws=options.num_draws)
    teacher = "other" if options.other_teacher else "same"
    return checks.simulation_based_calibration(
        model,
        bayesinv.datasets.digits(math.pi, size=8, num_train=options.num_train, seed=0).train.x,
        options.num,
        fit=own,
        prepare=calibration.prepare_convolutional if options.other_teacher else None,
        folder=options.folder / f"{number}_{teacher}_{options.epochs}_{options.extent_every}",
        jobs=options.jobs,
        seed=options.seed,
    )


def rows_of(number, simulations, checks):
    """One row for every extent and kind of draws."""
    covered, uniform = checks.coverage(simulations), checks.uniformity(simulations)
    failed, done = simulations.attrs["num_failed"], simulations.sizes["simulation"]
    width = (simulations["upper"] - simulations["lower"]).sel(level=0.9).median("simulation")
    seconds = float(simulations["seconds"].median())
    for (kind, symmetry), row in uniform.iterrows():
        at = {level: covered.loc[(kind, symmetry, level)] for level in (0.5, 0.9)}
        yield [
            number,
            symmetry,
            kind,
            *(f"{100 * r['actual']:.0f} ± {100 * r['actual_se']:.0f} %" for r in at.values()),
            f"{float(width.sel(weighting=kind, symmetry=symmetry)):.1f} {at[0.9]['unit']}",
            f"{at[0.9]['bias']:+.1f} ± {at[0.9]['bias_se']:.1f}",
            f"{row['p_value']:.3f}",
            f"{done} ({failed} failed)",
            f"{seconds:.1f}",
        ]


def cost(number, options):
    """Seconds of processor time of one fit without and with own weights."""
    import torch

    import bayesinv

    torch.manual_seed(0)
    model = bayesinv.InvarianceModel(
        bayesinv.NeuralNetwork(calibration.small_network()), SYMMETRIES[number], num_orbit_samples=options.copies
    )
    x = bayesinv.datasets.digits(math.pi, size=8, num_train=options.num_train, seed=0).train.x
    model.network.sample_weights(options.seed)
    data = bayesinv.Data(x, model.simulate(x, seed=options.seed).y, calibration.CLASSES)
    seconds = []
    for own_weights, epochs in ((True, 4), (False, options.epochs), (True, options.epochs)):  # the first warms up
        training = bayesinv.Training(
            epochs=epochs,
            batch_size=len(x),
            extent_batch_size=len(x),
            extent_every=options.extent_every,
            weight_rate=0.01,
            own_weights=own_weights,
        )
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bayesinv.fit(model, data, seed=options.seed, training=training)
        seconds.append(time.process_time() - began)
    return [number, *(f"{s:.2f}" for s in seconds[1:]), f"{seconds[2] / seconds[1]:.2f}"]


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extents", nargs="+", type=int, choices=SYMMETRIES, default=list(SYMMETRIES))
    parser.add_argument("--num", type=int, default=100, help="simulations of each row")
    parser.add_argument("--other-teacher", action="store_true", help="labels of a convolutional network")
    parser.add_argument("--num-train", type=int, default=80)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--extent-every", type=int, default=2)
    parser.add_argument("--num-draws", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("network-coverage-results"))
    options = parser.parse_args(arguments)
    from bayesinv import checks

    print(provenance())
    print(f"n = {options.num_train}, {options.copies} copies, {options.epochs} steps, seed {options.seed}\n")
    header = ["extents", "seconds as fitted", "with own weights", "ratio"]
    print_table(header, [cost(number, options) for number in options.extents])
    print()

    def rows():  # printed as they are finished
        for number in options.extents:
            yield from rows_of(number, simulate(number, options), checks)

    header = ["extents", "symmetry", "draws", "50 % interval", "90 % interval", "median width", "bias of the median"]
    print_table([*header, "uniform, p", "simulations", "s each"], rows())


if __name__ == "__main__":
    main()
