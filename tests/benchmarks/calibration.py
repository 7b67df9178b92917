"""Simulation-based calibration of the extents, on 8×8 digits: the tables of docs/calibration.md.

    python tests/benchmarks/calibration.py --case gaussian_known --simulations 200 --out runs/

Every simulation draws three extents (rotation and both translations) from their flat priors and targets from the same
finite-orbit model, fits, and ranks the truth. Finished simulations are kept under --out and are not repeated.
"""

import argparse
import math
from pathlib import Path

from common import print_table, provenance

NUM_TRAIN, COPIES, NUM_INDUCING = 80, 8, 80
MAX_STEPS = 250
SYMMETRIES = ["rotation", "translate_x", "translate_y"]
CLASSES = 4


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


def inputs():
    """Digits, each at an angle of its own over the full circle: none of the extents can be told from the inputs."""
    from bayesinv.datasets import digits

    return digits(math.pi, size=8, num_train=NUM_TRAIN, seed=0).train.x


def gp_case(evidence, hyperparameters, prepare=None, **fit_options):
    """Arguments of ``simulation_based_calibration`` for a collapsed evidence."""
    import bayesinv

    likelihood = "gaussian" if evidence == "gaussian" else "categorical"
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=NUM_INDUCING),
        SYMMETRIES,
        likelihood=likelihood,
        evidence=evidence,
        num_orbit_samples=COPIES,
    )
    return model, {
        "hyperparameters": hyperparameters,
        "prepare": prepare,
        "num_outputs": 3 if likelihood == "gaussian" else CLASSES,
        "fit_options": {"max_steps": MAX_STEPS, "num_draws": 200} | fit_options,
    }


def network_case():
    """A small network with labels of teachers drawn from its own weight prior, and one latent extent."""
    import torch

    import bayesinv

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, CLASSES)
    )
    model = bayesinv.InvarianceModel(bayesinv.NeuralNetwork(net), ["rotation"], num_orbit_samples=8)
    training = bayesinv.Training(epochs=120, batch_size=NUM_TRAIN, extent_batch_size=NUM_TRAIN, extent_every=2)
    return model, {"fit_options": {"training": training, "num_draws": 200}}


CASES = {
    "gaussian_known": lambda: gp_case("gaussian", "known", prepare_gaussian),
    "gaussian_learned": lambda: gp_case("gaussian", "learned", prepare_gaussian),
    "dirichlet_known": lambda: gp_case("dirichlet", "known", prepare_dirichlet),
    "dirichlet_learned": lambda: gp_case("dirichlet", "learned", prepare_dirichlet),
    "dirichlet_softmax": lambda: gp_case("dirichlet", "learned", prepare_softmax),
    "laplace": network_case,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("calibration"))
    options = parser.parse_args()
    from bayesinv import checks

    print(provenance())
    for name in options.case:
        model, arguments = CASES[name]()
        simulations = checks.simulation_based_calibration(
            model,
            inputs(),
            options.simulations,
            jobs=options.jobs,
            seed=options.seed,
            folder=options.out / name,
            **arguments,
        )
        report(name, simulations, checks)


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
