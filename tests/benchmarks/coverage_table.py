"""Do 90 % intervals hold the truth nine times in ten? The coverage table, by full fits.

    python tests/benchmarks/coverage_table.py --jobs 2 --folder runs/             # every case
    python tests/benchmarks/coverage_table.py --cases softmax4 --amplitudes 4 --hyperparameters known
    python tests/benchmarks/coverage_table.py --dense | --null | --known

100 of scikit-learn's digits at 8×8, each at an angle of its own over the full circle, 12 copies; rotation and both
translations from their flat priors; targets from the model's own prior, three real ones with noise a tenth of the
variance, or labels of 4 or 10 classes through a softmax whose functions have the given amplitude (outputscale its
square). Hyperparameters are known to the fit, or learned by it: the same in all simulations ("learned"), or drawn from
the weak priors that a fit has on them, around the same ("drawn"). Where they are learned the functions are draws of the
exact Gaussian process; known ones come with the random features that drew the function.

--dense: the teacher is another model than the one that is fitted: the exact prior on an orbit of 64 copies, lengthscale
and amplitude drawn for every simulation and unknown to the fit. --null: data without any symmetry, and with a rotation
of 60°, through ``bayesinv.select`` (null_inclusion.py). --known: a rotation of 60° in 400 examples
(simulated_coverage.py).

Simulations that are finished are kept in --folder and are not repeated; one process is one thread.
"""

import argparse
import functools
import math
from dataclasses import dataclass
from pathlib import Path

from common import gaussian_process, print_table, provenance

SYMMETRIES = ["rotation", "translate_x", "translate_y"]
NOISE = 0.1
DENSE_COPIES = 64
DENSE_LENGTHSCALES, DENSE_AMPLITUDES = (0.35, 1.0), (1.0, 4.0)  # of the teachers; the first in starting lengthscales


@dataclass(frozen=True)
class Case:
    """What is drawn and fitted."""

    likelihood: str
    num_outputs: int
    lengthscale: float  # in starting lengthscales, the median distance between inputs


CASES = {
    "gaussian": Case("gaussian", 3, 1.0),
    "softmax4": Case("categorical", 4, 0.5),  # a smoother function gives nearly every image the same class
    "softmax10": Case("categorical", 10, 0.5),
}


def start(model, x, seed, amplitude, lengthscale, exact=False):
    """Hyperparameters that draw the targets, from the exact prior or from random features."""
    if exact:
        model.backbone = gaussian_process("exact")
    model.backbone.initialise(x, amplitude**2, seed)
    model.backbone.kernel.base_kernel.lengthscale *= lengthscale
    noise = getattr(model.evidence, "noise_model", None)
    if noise is not None:
        noise.noise = NOISE * amplitude**2


def start_drawn(model, x, seed, **scales):
    """Hyperparameters from the weak priors, around those of `start`."""
    import torch

    from bayesinv.model.hyperparameters import assign, vector

    start(model, x, seed, **scales)
    hyper = model.hyperparameters
    sd = torch.tensor([h.sd for h in hyper for _ in range(h.size)], dtype=torch.float64)
    noise = torch.randn(len(sd), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assign(hyper, vector(hyper).detach() + sd * noise)


def start_dense(model, x, seed, likelihood):
    """A teacher on a denser orbit, without the approximation of the model that is fitted, its kernel drawn."""
    import numpy as np

    from bayesinv.orbits.orbit import Orbit

    model.backbone = gaussian_process("exact")
    model.orbit = Orbit(model.orbit.transform, DENSE_COPIES, seed=seed)
    rng = np.random.default_rng(seed)
    lengthscale, amplitude = (math.exp(rng.uniform(*np.log(r))) for r in (DENSE_LENGTHSCALES, DENSE_AMPLITUDES))
    start(model, x, seed, amplitude if likelihood == "categorical" else 1.0, lengthscale)


def planned(options):
    """(name, case, amplitude, hyperparameters, prepare) of everything to run."""
    for name in options.cases:
        case = CASES[name]
        if options.dense:
            yield name, case, "1-4 (drawn)", "learned", functools.partial(start_dense, likelihood=case.likelihood)
            continue
        for amplitude in options.amplitudes if case.likelihood == "categorical" else [1.0]:
            for hyperparameters in options.hyperparameters:
                begin = start_drawn if hyperparameters == "drawn" else start
                prepare = functools.partial(
                    begin, amplitude=amplitude, lengthscale=case.lengthscale, exact=hyperparameters != "known"
                )
                yield name, case, f"{amplitude:g}", hyperparameters, prepare


def simulate(name, case, amplitude, hyperparameters, prepare, options):
    """The simulations of one row of the table."""
    import bayesinv
    from bayesinv import checks

    evidence = "gaussian" if case.likelihood == "gaussian" else options.evidence
    model = bayesinv.InvarianceModel(
        gaussian_process(options.process),
        options.symmetries,
        likelihood=case.likelihood,
        evidence=evidence,
        num_orbit_samples=options.copies,
    )
    fit_options = {"hyperparameters": options.fit_hyperparameters}
    if options.num_draws is not None:
        fit_options["num_draws"] = options.num_draws
    if options.max_steps is not None:
        fit_options["max_steps"] = options.max_steps
    kind = "dense" if options.dense else f"{amplitude}_{hyperparameters}"
    if options.fit_hyperparameters != "latent":
        kind += f"_{options.fit_hyperparameters}"
    return checks.simulation_based_calibration(
        model,
        bayesinv.datasets.digits(math.pi, size=8, num_train=options.num_train, seed=0).train.x,
        options.num or (60 if options.dense else 100),
        fit_options=fit_options,
        hyperparameters="known" if hyperparameters == "known" else "learned",
        prepare=prepare,
        num_outputs=case.num_outputs,
        folder=options.folder / f"{name}_{kind}",
        jobs=options.jobs,
        seed=options.seed,
    )


def rows_of(label, simulations, checks):
    """One row for every symmetry and weighting."""
    covered, uniform = checks.coverage(simulations), checks.uniformity(simulations)
    width = (simulations["upper"] - simulations["lower"]).sel(level=0.9).median("simulation")
    seconds = float(simulations["seconds"].median())
    failed, done = simulations.attrs["num_failed"], simulations.sizes["simulation"]
    for (weighting, symmetry), row in uniform.iterrows():
        at = covered.loc[(weighting, symmetry, 0.9)]
        yield [
            *label,
            symmetry,
            weighting,
            f"{100 * at['actual']:.0f} ± {100 * at['actual_se']:.0f} %",
            f"{row['p_value']:.3f}" + ("" if row["inside"] else " (outside)"),
            f"{float(width.sel(weighting=weighting, symmetry=symmetry)):.1f} {at['unit']}",
            f"{at['bias']:+.1f} ± {at['bias_se']:.1f}",
            f"{done} ({failed} failed)",
            f"{seconds:.1f}",
        ]


def other_script(options):
    """--null and --known: scripts of their own."""
    import null_inclusion
    import simulated_coverage

    given = ["--process", options.process, "--jobs", str(options.jobs)]
    if options.max_steps is not None:
        given += ["--max-steps", str(options.max_steps)]
    if options.null:
        number = ["--num-seeds", str(options.num or 40), "--power-seeds", str(min(options.num or 10, 10))]
        number += ["--first-seed", str(options.seed)]
        null_inclusion.main(["--evidences", options.evidence, *number, *given])
    else:
        number = ["--num-seeds", str(options.num or 20)]
        simulated_coverage.main(["--evidences", "gaussian", options.evidence, *number, *given])


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--dense", action="store_true")
    mode.add_argument("--null", action="store_true")
    mode.add_argument("--known", action="store_true")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--amplitudes", nargs="+", type=float, default=[1.0, 4.0], help="of the softmax cases")
    kinds = ["known", "learned", "drawn"]
    parser.add_argument("--hyperparameters", nargs="+", choices=kinds, default=kinds[:2])
    parser.add_argument("--evidence", default="softmax", help="of the cases with labels")
    parser.add_argument("--process", default="default", help="default, exact, inducing:NUMBER or features:NUMBER")
    parser.add_argument("--symmetries", nargs="+", default=SYMMETRIES)
    parser.add_argument("--num", type=int, help="simulations of each row: 100; --dense 60, --null 40, --known 20")
    parser.add_argument("--num-train", type=int, default=100)
    parser.add_argument("--copies", type=int, default=12)
    parser.add_argument("--num-draws", type=int, help="of each fit; the library's default")
    parser.add_argument("--fit-hyperparameters", choices=["latent", "optimised"], default="latent", help="of each fit")
    parser.add_argument("--max-steps", type=int, help="of each fit; the library's default")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("coverage-results"))
    options = parser.parse_args(arguments)
    if options.null or options.known:
        other_script(options)
        return
    from bayesinv import checks

    print(provenance())
    print(f"n = {options.num_train}, {options.copies} copies, process {options.process}, seed {options.seed}\n")

    def rows():  # printed as they are finished
        for name, case, amplitude, hyperparameters, prepare in planned(options):
            simulations = simulate(name, case, amplitude, hyperparameters, prepare, options)
            yield from rows_of([name, amplitude, hyperparameters], simulations, checks)

    header = ["targets", "amplitude", "hyperparameters", "symmetry", "draws", "90 % interval", "uniform, p"]
    print_table([*header, "median width", "bias of the median", "simulations", "s each"], rows())


if __name__ == "__main__":
    main()
