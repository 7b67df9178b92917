"""Extents of groups in the data, on targets drawn from the model: are they found, and does pooling help?

    python tests/benchmarks/group_extents.py

Digits at 8×8, each turned by an angle of its own over the full circle, in four groups of 60, 60, 60 and 12. Three real
outputs are drawn from the finite-orbit model with rotation 15°, 60° and 150° in the first three groups and 60° in the
last. Three fits of each set: extents by group with partial pooling; one extent for everyone; and one model for each
group alone, with its own function. Seeds 0-2 draw digits, function and noise.
"""

import argparse
import math
import warnings

from common import print_table, provenance, side_by_side

GROUPS = ("first", "second", "third", "small")
TRUTH = (15.0, 60.0, 150.0, 60.0)
SIZES = (60, 60, 60, 12)
NUM_TEST = 100


def simulate(seed):
    """Data with groups, and the test data of every group, from one function."""
    import torch

    import bayesinv

    groups = torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES))
    test_groups = torch.arange(4).repeat_interleave(NUM_TEST)
    x = bayesinv.datasets.digits(math.pi, num_train=len(groups) + len(test_groups), size=8, seed=seed).train.x
    every = torch.cat([groups, test_groups])
    teacher = make(GROUPS)
    teacher.backbone.initialise(x[: len(groups)], 1.0, seed)
    teacher.backbone.kernel.base_kernel.lengthscale *= 2.0
    teacher.evidence.noise_model.noise = 0.1
    eta = torch.tensor([0.0, 0.0, *(math.radians(angle) for angle in TRUTH)], dtype=torch.float64)
    y = teacher.simulate(x, eta, num_outputs=3, seed=seed, groups=every).y
    n = len(groups)
    return bayesinv.Data(x[:n], y[:n], groups=groups), bayesinv.Data(x[n:], y[n:], groups=test_groups)


def make(groups=None):
    """The model that draws and the model that is fitted."""
    import bayesinv

    return bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=192),
        ["rotation"],
        likelihood="gaussian",
        num_orbit_samples=12,
        groups=groups,
    )


def job(argument):
    """One fit: 90 % intervals by group in degrees, and the error on every group's test data."""
    kind, seed = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv

    train, test = simulate(seed)
    intervals, errors = [], []
    if kind != "alone":
        posterior = bayesinv.fit(make(GROUPS if kind == "pooled" else None), train, seed=seed, max_steps=1000)
        seconds, names = posterior.result.seconds, [f"rotation[{name}]" for name in GROUPS]
    for g in range(4):
        part = test.subset(test.groups == g)
        if kind == "alone":
            data = train.subset(train.groups == g)
            posterior = bayesinv.fit(make(), bayesinv.Data(data.x, data.y), seed=seed, max_steps=1000)
            seconds = posterior.result.seconds + (seconds if g else 0.0)
        symmetry = names[g] if kind == "pooled" else "rotation"
        levels = posterior.quantile([0.05, 0.5, 0.95])[:, posterior.index(symmetry)]
        intervals.append([math.degrees(float(v)) for v in levels])
        predicted = posterior.predict(part.x, groups=part.groups if kind == "pooled" else None).mean
        errors.append(float((predicted - part.y).square().mean().sqrt()))
    population = None
    if kind == "pooled":
        population = posterior.summary()[["median", "lower", "upper"]].iloc[:2].to_numpy().tolist()
        fresh = posterior.predict(test.x).mean  # as if every input came from a group that training has not seen
        errors.append(float((fresh - test.y).square().mean().sqrt()))
    torch.set_num_threads(1)
    return {"intervals": intervals, "errors": errors, "population": population, "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    cases = [(kind, seed) for seed in options.seeds for kind in ("pooled", "shared", "alone")]
    results = dict(zip(cases, side_by_side(job, cases, options.jobs), strict=True))
    print(provenance())
    print("rotation, °: median [5 %, 95 %]; then the root mean square error on the test data of the group\n")
    names = {"pooled": "by group", "shared": "one for all", "alone": "separate fits"}
    header = [f"{g}: {t:.0f}°, n = {n}" for g, t, n in zip(GROUPS, TRUTH, SIZES, strict=True)]
    rows = []
    for (kind, seed), r in results.items():
        cells = [
            f"{median:.0f} [{low:.0f}, {high:.0f}]; {error:.3f}"
            for (low, median, high), error in zip(r["intervals"], r["errors"], strict=False)
        ]
        rows.append([seed, names[kind], *cells, f"{r['seconds']:.0f}"])
    print_table(["seed", "extents", *header, "seconds"], rows)
    print("\nthe population, and the error if every test input is taken for one of a new group:")
    for (kind, seed), r in results.items():
        if kind == "pooled":
            (median, low, high), (spread, s_low, s_high) = r["population"]
            print(
                f"seed {seed}: {median:.0f}° [{low:.0f}, {high:.0f}], "
                f"spread {spread:.2f} [{s_low:.2f}, {s_high:.2f}] sd; {r['errors'][4]:.3f}"
            )


if __name__ == "__main__":
    main()
