"""Simulation-based calibration of the extents, on 8×8 digits: the tables of docs/calibration.md.

    python tests/benchmarks/calibration.py --case gaussian_known --simulations 200 --out runs/

Every simulation draws extents from their flat priors (rotation and both translations; rotation alone for networks) and
targets from the same finite-orbit model, fits, and ranks the truth. Finished simulations are kept under --out and are
not repeated; the table of every case is written to CASE.md there. ``make calibration`` runs all of it.
"""

import argparse
import contextlib
import functools
import io
import math
from dataclasses import dataclass
from pathlib import Path

from common import print_table, provenance

SYMMETRIES = ["rotation", "translate_x", "translate_y"]
CLASSES = 4


@dataclass(frozen=True)
class Size:
    """How large a run is; epochs, points and steps of refitting are those of networks."""

    num_train: int = 80
    copies: int = 8
    max_steps: int = 250
    exact_steps: int = 600
    num_draws: int = 200
    epochs: int = 400
    points: int = 10
    refit_steps: int = 150
    simulations: int = 200
    network_simulations: int = 100


FULL = Size()
SMALL = Size(16, 3, 10, 10, 30, 20, 4, 6, 2, 2)  # every line of the full run, and numbers that mean nothing


def prepare_gaussian(model, x, seed):
    """Twice the starting lengthscale: functions smooth enough for the bound to be tight, noise a tenth of them."""
    model.backbone.initialise(x, 1.0, seed)
    model.backbone.kernel.base_kernel.lengthscale *= 2.0
    model.evidence.noise_model.noise = 0.1


def prepare_dirichlet(model, x, seed):
    """Functions at the mean and scale that one-hot labels of four classes give pseudo-targets."""
    model.backbone.initialise(x, 8.0, seed)
    model.evidence.mean.data.fill_(-4.5)


def prepare_softmax(model, x, seed):
    """The same with labels drawn from the softmax: not what the evidence takes them to be."""
    import types

    import torch

    prepare_dirichlet(model, x, seed)

    def sample(evidence, f):
        return torch.distributions.Categorical(logits=f).sample()

    model.evidence.sample_targets = types.MethodType(sample, model.evidence)


def inputs(size):
    """Digits, each at an angle of its own over the full circle: none of the extents can be told from the inputs."""
    from bayesinv.datasets import digits

    return digits(math.pi, size=8, num_train=size.num_train, seed=0).train.x


def gp_case(size, evidence, hyperparameters, prepare=None, exact=False):
    """Arguments of ``simulation_based_calibration`` for a collapsed evidence, with inducing values or without."""
    import bayesinv

    likelihood = "gaussian" if evidence == "gaussian" else "categorical"
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=None if exact else size.num_train),
        SYMMETRIES,
        likelihood=likelihood,
        evidence=evidence,
        num_orbit_samples=size.copies,
    )
    return model, {
        "hyperparameters": hyperparameters,
        "prepare": prepare,
        "num_outputs": 3 if likelihood == "gaussian" else CLASSES,
        "fit_options": {"max_steps": size.exact_steps if exact else size.max_steps, "num_draws": size.num_draws},
    }


def small_network():
    """What is fitted to labels of teacher networks."""
    import torch

    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, CLASSES)
    )


def prepare_convolutional(model, x, seed):
    """A teacher of another architecture, its weights from a prior of the same form."""
    import torch

    import bayesinv

    model.backbone = bayesinv.NeuralNetwork(
        torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 8, 3, stride=2),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(72, CLASSES),
        )
    )


def widened(model, draws, factor):
    """Draws spread `factor` times as far around their mean, where the flat prior is a standard normal."""
    import torch

    E = model.extents.prior_quantile(1.0)
    z = torch.special.ndtri((draws / E).clamp(1e-6, 1 - 1e-6))
    return E * torch.special.ndtr(z.mean(0) + factor * (z - z.mean(0)))


def fit_and_mend(model, data, seed, size):
    """One fit of the Laplace evidence, and what was tried against intervals that are too narrow."""
    import bayesinv
    from bayesinv import checks
    from bayesinv.checks.simulations import fit_with

    training = bayesinv.Training(
        epochs=size.epochs, batch_size=len(data), extent_batch_size=len(data), extent_every=2, weight_rate=0.01
    )
    fitted = fit_with(model, data, seed, {"training": training, "num_draws": size.num_draws})
    options = {"num_points": size.points, "num_draws": size.num_draws, "seed": seed}
    refit = {"steps": size.refit_steps, **options}
    return {
        "as fitted": fitted.result.draws,
        "guide twice as wide": widened(model, fitted.result.draws, 2.0),
        "exact determinant, weights shared": checks.refitted_extents(
            fitted, steps=0, learn_scales=False, **options
        ).draws,
        "weights refitted": checks.refitted_extents(fitted, learn_scales=False, **refit).draws,
        "weights and scales refitted": checks.refitted_extents(fitted, **refit).draws,
    }


def network_case(size, prepare=None):
    """A small network with labels of teachers drawn from a weight prior, and one latent extent."""
    import torch

    import bayesinv

    torch.manual_seed(0)
    model = bayesinv.InvarianceModel(
        bayesinv.NeuralNetwork(small_network()), ["rotation"], num_orbit_samples=size.copies
    )
    return model, {"fit": functools.partial(fit_and_mend, size=size), "prepare": prepare}


CASES = {
    "gaussian_known": lambda size: gp_case(size, "gaussian", "known", prepare_gaussian),
    "gaussian_exact": lambda size: gp_case(size, "gaussian", "known", prepare_gaussian, exact=True),
    "gaussian_learned": lambda size: gp_case(size, "gaussian", "learned", prepare_gaussian),
    "dirichlet_known": lambda size: gp_case(size, "dirichlet", "known", prepare_dirichlet),
    "dirichlet_learned": lambda size: gp_case(size, "dirichlet", "learned", prepare_dirichlet),
    "dirichlet_softmax": lambda size: gp_case(size, "dirichlet", "learned", prepare_softmax),
    "laplace": network_case,
    "laplace_other_teacher": lambda size: network_case(size, prepare_convolutional),
}


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--simulations", type=int, help="of each case; 200, of networks 100")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=["full", "small"], default="full")
    parser.add_argument("--out", type=Path, default=Path("calibration-results"))
    options = parser.parse_args(arguments)
    from bayesinv import checks

    size = SMALL if options.size == "small" else FULL
    print(provenance())
    for name in options.case:
        model, case = CASES[name](size)
        planned = size.network_simulations if model.is_network else size.simulations
        simulations = checks.simulation_based_calibration(
            model,
            inputs(size),
            planned if options.simulations is None else options.simulations,
            jobs=options.jobs,
            seed=options.seed,
            folder=options.out / name,
            **case,
        )
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            report(name, simulations, checks)
        print(text.getvalue(), flush=True)
        (options.out / f"{name}.md").write_text(f"{provenance()}\n{text.getvalue()}", encoding="utf-8")


def report(name, simulations, checks) -> None:
    """The table of one case."""
    covered, uniform = checks.coverage(simulations), checks.uniformity(simulations)
    seconds, failed = float(simulations["seconds"].mean()), simulations.attrs["num_failed"]
    print(f"\n{name}: {simulations.sizes['simulation']} simulations, {failed} failed, {seconds:.1f} s each\n")
    rows = []
    for (weighting, symmetry), row in uniform.iterrows():
        at = {level: covered.loc[(weighting, symmetry, level)] for level in (0.5, 0.9)}
        rows.append(
            [
                symmetry,
                weighting,
                *(f"{100 * r['actual']:.0f} ± {100 * r['actual_se']:.0f} %" for r in at.values()),
                f"{at[0.9]['width']:.1f} {at[0.9]['unit']}",
                f"{at[0.9]['bias']:+.1f} ± {at[0.9]['bias_se']:.1f}",
                f"{row['p_value']:.3f}",
                f"{row['spread']:.2f}",
            ]
        )
    header = ["symmetry", "draws", "50 % interval", "90 % interval", "its width", "bias of the median", "p", "spread"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
