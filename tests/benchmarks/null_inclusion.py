"""False inclusions on null data: no symmetry by construction, and how often selection still finds one.

    python tests/benchmarks/null_inclusion.py

150 digits at 8×8 turned over the full circle, so that the inputs themselves prefer no orientation; labels (or three
real outputs) drawn from the model's own finite-orbit prior with every extent at zero. Three candidates (rotation,
translate_x, shear) at prior probability one half each. A false inclusion is a probability above .95. Seeds 0-39 draw
digits, function and targets. The power rows do the same with a rotation of 60° in the teacher: misses are
probabilities below .5.
"""

import argparse
import math
import warnings

from common import MAX_STEPS, gaussian_process, mean_and_range, print_table, provenance, side_by_side

CANDIDATES = ("rotation", "translate_x", "shear")
OUTPUTS = {"gaussian": 3, "dirichlet": 6, "softmax": 6}
VARIANCES = {"gaussian": 1.0, "dirichlet": 30.0, "softmax": 16.0}
TRUE_ROTATION = math.radians(60)


def job(argument):
    """Simulate, fit, select."""
    evidence, seed, num_train, rotation, refit_steps, process, max_steps = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv

    x = bayesinv.datasets.digits(math.pi, num_train=num_train, size=8, seed=seed).train.x
    likelihood = "gaussian" if evidence == "gaussian" else "categorical"

    def make(kind):
        return bayesinv.InvarianceModel(
            gaussian_process(kind),
            list(CANDIDATES),
            likelihood=likelihood,
            evidence=evidence,
            num_orbit_samples=16,
        )

    teacher = make("exact")
    teacher.backbone.initialise(x, output_variance=VARIANCES[evidence], seed=seed)
    if likelihood == "categorical":
        # A smoother function gives nearly every image the same class.
        teacher.backbone.kernel.base_kernel.lengthscale *= 0.4
    else:
        teacher.evidence.noise_model.noise = 0.1
    eta = torch.tensor([rotation, 0.0, 0.0], dtype=torch.float64)
    drawn = teacher.simulate(x, eta, num_outputs=OUTPUTS[evidence], seed=seed)
    data = bayesinv.Data(x, drawn.y, None if evidence == "gaussian" else OUTPUTS[evidence])
    posterior = bayesinv.fit(make(process), data, seed=seed, max_steps=max_steps, num_draws=100)
    found = bayesinv.select(posterior, seed=seed, refit_steps=refit_steps)
    return {
        "probability": found.inclusion["probability"].tolist(),
        "error": found.inclusion["standard_error"].tolist(),
        "log_bf": found.bayes_factors["log_bf"].tolist(),
        "best": found.subsets.index[0],
        "rough": found.rough_share,
        "evaluations": sum(len(d.log_weights) for d in found.draws),
        "seconds": posterior.result.seconds,
        "select_seconds": found.seconds,
    }


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evidences", nargs="+", choices=OUTPUTS, default=["gaussian", "dirichlet"])
    parser.add_argument("--num-seeds", type=int, default=40)
    parser.add_argument("--num-train", type=int, default=150)
    parser.add_argument("--refit-steps", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--power-seeds", type=int, default=10)
    parser.add_argument("--process", default="inducing:75", help="default, exact, inducing:NUMBER or features:NUMBER")
    parser.add_argument("--max-steps", type=int, default=MAX_STEPS)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    groups = [(e, rotation) for e in options.evidences for rotation in (0.0, TRUE_ROTATION)]
    cases = [
        (evidence, seed, options.num_train, rotation, options.refit_steps, options.process, options.max_steps)
        for evidence, rotation in groups
        for seed in range(
            options.first_seed, options.first_seed + (options.num_seeds if rotation == 0.0 else options.power_seeds)
        )
    ]
    results = dict(zip(cases, side_by_side(job, cases, options.jobs), strict=True))
    print(provenance())
    print(f"n = {options.num_train}, 8×8, process {options.process}, prior inclusion 0.5")
    print(f"refit steps {options.refit_steps}\n")
    rows = []
    for evidence, rotation in groups:
        these = [r for case, r in results.items() if (case[0], case[3]) == (evidence, rotation)]
        if not these:
            continue
        absent = [r["probability"] if rotation == 0.0 else r["probability"][1:] for r in these]
        false_sets = sum(max(p) > 0.95 for p in absent)
        above_half = sum(value > 0.5 for p in absent for value in p)
        rows.append(
            [
                evidence,
                f"{math.degrees(rotation):.0f}°",
                f"{false_sets} of {len(these)}",
                f"{above_half} of {sum(len(p) for p in absent)}",
                mean_and_range([value for p in absent for value in p], 3),
                "" if rotation == 0.0 else f"{sum(r['probability'][0] > 0.95 for r in these)} of {len(these)}",
                "" if rotation == 0.0 else f"{sum(r['probability'][0] < 0.5 for r in these)} of {len(these)}",
                f"{max(value for r in these for value in r['error']):.3f}",
                mean_and_range([r["seconds"] for r in these], 0),
                mean_and_range([r["select_seconds"] for r in these], 0),
            ]
        )
    header = [
        "evidence",
        "true rotation",
        "sets with a false P(in) > .95",
        "absent with P(in) > .5",
        "P(in) of the absent",
    ]
    header += ["rotation > .95", "rotation < .5", "largest standard error", "fit, s", "selection, s"]
    print_table(header, rows)
    print("\nevery set:")
    for (evidence, seed, _, rotation, *_), r in results.items():
        values = ", ".join(f"{p:.3f} ± {e:.3f}" for p, e in zip(r["probability"], r["error"], strict=True))
        factors = ", ".join(f"{value:+.1f}" for value in r["log_bf"])
        print(
            f"{evidence:10} {math.degrees(rotation):3.0f}° seed {seed:2} P(in) {values}; log BF {factors}; "
            f"{r['best']}; {r['evaluations']} evaluations, rough {r['rough']:.2f}"
        )


if __name__ == "__main__":
    main()
