"""Labels drawn from the model itself with known extents: how often the 90 % interval holds the truth.

    python tests/benchmarks/simulated_coverage.py

Inputs are 400 of scikit-learn's digits, each at an angle of its own over the full circle; the function is a draw
from the exact prior of the same finite orbit with rotation 60° and every other extent 0; three outputs with noise a
tenth of the variance and the default kernel's starting lengthscale, or six classes and two fifths of that lengthscale
(a smoother function gives nearly every image the same class). Seeds 0-19 draw function and targets.
"""

import argparse
import math
import warnings

from common import MAX_STEPS, gaussian_process, mean_and_range, print_table, provenance, side_by_side

TRUE_ROTATION = math.radians(60)
OUTPUTS = {"gaussian": 3, "dirichlet": 6, "softmax": 6}
VARIANCES = {"gaussian": 1.0, "dirichlet": 30.0, "softmax": 16.0}


def job(argument):
    """Simulate, fit, and say where the truth lies."""
    evidence, seed, num_train, process, max_steps = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv

    x = bayesinv.datasets.digits(math.pi, num_train=num_train, seed=seed).train.x
    likelihood = "gaussian" if evidence == "gaussian" else "categorical"

    def make(kind):
        return bayesinv.InvarianceModel(gaussian_process(kind), "affine2d", likelihood=likelihood, evidence=evidence)

    teacher = make("exact")
    teacher.backbone.initialise(x, output_variance=VARIANCES[evidence], seed=seed)
    if likelihood == "categorical":
        teacher.backbone.kernel.base_kernel.lengthscale *= 0.4
    else:
        teacher.evidence.noise_model.noise = 0.1
    eta = torch.tensor([0.0, 0.0, TRUE_ROTATION, 0.0, 0.0, 0.0], dtype=torch.float64)
    drawn = teacher.simulate(x, eta, num_outputs=OUTPUTS[evidence], seed=seed)
    data = bayesinv.Data(x, drawn.y, None if evidence == "gaussian" else OUTPUTS[evidence])
    posterior = bayesinv.fit(make(process), data, seed=seed, max_steps=max_steps)
    table = posterior.summary()
    rotation = table.loc["rotation"]
    return {
        "evidence": evidence,
        "seed": seed,
        "median": float(rotation["median"]),
        "interval": (float(rotation["lower"]), float(rotation["upper"])),
        "reweighted": tuple(float(v) for v in posterior.summary(reweighted=True).loc["rotation", ["lower", "upper"]]),
        "others": float(table.drop(index="rotation")["median"].max()),
        "pareto_k": posterior.pareto_k,
    }


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evidences", nargs="+", choices=OUTPUTS, default=["gaussian", "dirichlet"])
    parser.add_argument("--num-seeds", type=int, default=20)
    parser.add_argument("--num-train", type=int, default=400)
    parser.add_argument("--process", default="default", help="default, exact, inducing:NUMBER or features:NUMBER")
    parser.add_argument("--max-steps", type=int, default=MAX_STEPS)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    settings = (options.num_train, options.process, options.max_steps)
    cases = [(e, seed, *settings) for e in options.evidences for seed in range(options.num_seeds)]
    results = list(side_by_side(job, cases, options.jobs))
    print(provenance())
    print(f"n = {options.num_train}, process {options.process}, seeds 0-{options.num_seeds - 1}")
    print("true rotation 60°, all other extents 0\n")
    rows = []
    for evidence in options.evidences:
        these = [r for r in results if r["evidence"] == evidence]
        inside = sum(r["interval"][0] <= 60 <= r["interval"][1] for r in these)
        reweighted = sum(r["reweighted"][0] <= 60 <= r["reweighted"][1] for r in these)
        widths = [r["interval"][1] - r["interval"][0] for r in these]
        medians = mean_and_range([r["median"] for r in these])
        others = mean_and_range([r["others"] for r in these])
        counts = [f"{inside} of {len(these)}", f"{reweighted} of {len(these)}"]
        rows.append([evidence, *counts, medians, mean_and_range(widths), others])
    names = ["evidence", "60° inside", "inside, reweighted", "median, °", "interval width, °"]
    print_table([*names, "largest other median, %"], rows)
    print("\nevery fit:")
    for r in results:
        print(
            f"{r['evidence']:10} seed {r['seed']:2} "
            f"{r['median']:.1f}° [{r['interval'][0]:.1f}, {r['interval'][1]:.1f}] "
            f"others < {r['others']:.1f} % k̂ {r['pareto_k']:.2f}"
        )


if __name__ == "__main__":
    main()
