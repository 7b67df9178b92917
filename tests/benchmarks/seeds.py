"""Does another seed of the fit give another answer? The same simulated data, fitted from several seeds.

    python tests/benchmarks/seeds.py --num 10             # about five minutes on one core
    python tests/benchmarks/seeds.py --cases softmax4 --amplitude 4 --num-train 300

Data as in coverage_table.py, hyperparameters of the teacher drawn around those of an amplitude of one, which gives
targets from nearly pure noise to nearly none. A seed draws random frequencies, the population that looks for modes, and
the draws. For each simulation: the range of the log evidence over seeds, and the largest distance between two medians,
in half-widths of the 90 % interval.
"""

import argparse
import copy
import math
import warnings

import coverage_table
import numpy as np
from common import gaussian_process, print_table, provenance

SEEDS = (0, 1, 2)


def simulated(case, amplitude, num_train, index):
    """The model to fit, and data of one simulation."""
    import bayesinv
    from bayesinv.data.container import Data

    evidence = "gaussian" if case.likelihood == "gaussian" else "softmax"
    model = bayesinv.InvarianceModel(
        gaussian_process("default"),
        coverage_table.SYMMETRIES,
        likelihood=case.likelihood,
        evidence=evidence,
        num_orbit_samples=12,
    )
    x = bayesinv.datasets.digits(math.pi, size=8, num_train=num_train, seed=0).train.x
    teacher = copy.deepcopy(model)
    coverage_table.start_drawn(teacher, x, index, amplitude=amplitude, lengthscale=case.lengthscale, exact=True)
    drawn = teacher.simulate(x, num_outputs=case.num_outputs, seed=index)
    return model, Data(x, drawn.y, case.num_outputs if case.likelihood == "categorical" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=coverage_table.CASES, default=["gaussian"])
    parser.add_argument("--amplitude", type=float, default=1.0)
    parser.add_argument("--num", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--num-train", type=int, default=100)
    options = parser.parse_args()
    import bayesinv

    warnings.simplefilter("ignore")
    print(provenance())
    rows = []
    for name in options.cases:
        for index in range(options.first, options.first + options.num):
            model, data = simulated(coverage_table.CASES[name], options.amplitude, options.num_train, index)
            fits = [bayesinv.fit(copy.deepcopy(model), data, seed=seed) for seed in SEEDS]
            evidences = [posterior.log_evidence for posterior in fits]
            low, medians, high = np.stack([posterior.quantile([0.05, 0.5, 0.95]).numpy() for posterior in fits], 1)
            apart = float((np.ptp(medians, 0) / (0.5 * (high - low)).mean(0)).max())
            k = ", ".join(f"{posterior.pareto_k:.2f}" for posterior in fits)
            weighed = fits[0].result.settings["weighed_by"]
            rows.append([name, index, f"{max(evidences) - min(evidences):.2f}", f"{apart:.2f}", k, weighed])
            print(*rows[-1], flush=True)
    print_table(
        ["targets", "simulation", "evidences apart, nats", "medians apart, half-widths", "k̂", "weighed by"], rows
    )


if __name__ == "__main__":
    main()
