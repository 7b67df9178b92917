"""Extents of groups in the data, on targets drawn from the model: are they found, and does pooling help?

    python tests/benchmarks/group_extents.py
    python tests/benchmarks/group_extents.py --backbone network
    python tests/benchmarks/group_extents.py --backbone network --likelihood categorical

Digits at 8×8, each turned by an angle of its own over the full circle, in four groups of 60, 60, 60 and 12, or for a
network of 200, 200, 200 and 40. Three real outputs, or the logits of three classes, are drawn from the finite-orbit
model with rotation 15°, 60° and 150° in the first three groups and 60° in the last; the network that draws has other
weights than those that training starts from. Three fits of each set: extents by group with partial pooling; one extent
for everyone; and one model for each group alone, with its own function. Seeds 0-2 draw digits, function and noise.
"""

import argparse
import math
import warnings

from common import print_table, provenance, side_by_side

GROUPS = ("first", "second", "third", "small")
TRUTH = (15.0, 60.0, 150.0, 60.0)
SIZES = {"gp": (60, 60, 60, 12), "network": (200, 200, 200, 40)}
NUM_TEST = 100
NOISE = 0.05  # variance, of the network's targets
SCALE = {"gaussian": 1.0, "categorical": 5.0}  # standard deviation of what the network that draws gives without turning


def simulate(case):
    """Data with groups, and the test data of every group, from one function."""
    import torch

    import bayesinv

    backbone, likelihood, seed = case
    groups = torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES[backbone]))
    test_groups = torch.arange(4).repeat_interleave(NUM_TEST)
    x = bayesinv.datasets.digits(math.pi, num_train=len(groups) + len(test_groups), size=8, seed=seed).train.x
    every = torch.cat([groups, test_groups])
    teacher = make((backbone, likelihood, seed + 1000), GROUPS)
    if backbone == "gp":
        teacher.backbone.initialise(x[: len(groups)], 1.0, seed)
        teacher.backbone.kernel.base_kernel.lengthscale *= 2.0
        teacher.evidence.noise_model.noise = 0.1
    else:
        teacher.network.sample_weights(seed)
        with torch.no_grad():
            last, deviation = teacher.network.net[-1], teacher.network(x).std(0) / SCALE[likelihood]
            last.weight /= deviation[:, None]
            last.bias /= deviation
            teacher.evidence.log_noise.fill_(math.log(NOISE))
    eta = torch.tensor([0.0, 0.0, *(math.radians(angle) for angle in TRUTH)], dtype=torch.float64)
    num_outputs = 3 if backbone == "gp" else None
    y = teacher.simulate(x, eta, num_outputs=num_outputs, seed=seed, groups=every).y
    y = y.to(x.dtype) if backbone == "network" and likelihood == "gaussian" else y
    data = bayesinv.Data(x, y, 3 if likelihood == "categorical" else None, every)
    n = len(groups)
    return data.subset(slice(0, n)), data.subset(slice(n, None))


def make(case, groups=None):
    """The model that draws and the model that is fitted, which differ in where the weights of a network start."""
    import torch

    import bayesinv

    backbone, likelihood, seed = case
    if backbone == "gp":
        process = bayesinv.GaussianProcess(num_inducing=192)
        return bayesinv.InvarianceModel(
            process, ["rotation"], likelihood="gaussian", num_orbit_samples=12, groups=groups
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
        net = bayesinv.NeuralNetwork(torch.nn.Sequential(torch.nn.Flatten(), *layers), start_gain=2.0)
    return bayesinv.InvarianceModel(net, ["rotation"], likelihood=likelihood, num_orbit_samples=8, groups=groups)


def error(posterior, data, groups=None):
    """Root mean square error, or the share of wrong labels in percent."""
    predicted = posterior.predict(data.x, groups=groups)
    if predicted.probs is not None:
        return 100 * float((predicted.labels != data.y).double().mean())
    return float((predicted.mean - data.y).square().mean().sqrt())


def job(argument):
    """One fit: 90 % intervals by group in degrees, and the error on every group's test data."""
    kind, case, max_steps = argument
    seed = case[-1]
    warnings.simplefilter("ignore")
    import torch

    import bayesinv

    train, test = simulate(case)
    intervals, errors = [], []
    if kind != "alone":
        data = train if kind == "pooled" else bayesinv.Data(train.x, train.y, train.num_classes)
        posterior = bayesinv.fit(make(case, GROUPS if kind == "pooled" else None), data, seed=seed, max_steps=max_steps)
        seconds, names = posterior.result.seconds, [f"rotation[{name}]" for name in GROUPS]
    for g in range(4):
        part = test.subset(test.groups == g)
        if kind == "alone":
            data = train.subset(train.groups == g)
            data = bayesinv.Data(data.x, data.y, data.num_classes)
            posterior = bayesinv.fit(make(case), data, seed=seed, max_steps=max_steps)
            seconds = posterior.result.seconds + (seconds if g else 0.0)
        symmetry = names[g] if kind == "pooled" else "rotation"
        levels = posterior.quantile([0.05, 0.5, 0.95])[:, posterior.index(symmetry)]
        intervals.append([math.degrees(float(v)) for v in levels])
        errors.append(error(posterior, part, part.groups if kind == "pooled" else None))
    population = None
    if kind == "pooled":
        population = posterior.summary()[["median", "lower", "upper"]].iloc[:2].to_numpy().tolist()
        errors.append(error(posterior, test))  # as if every input came from a group that training has not seen
    torch.set_num_threads(1)
    return {"intervals": intervals, "errors": errors, "population": population, "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=list(SIZES), default="gp")
    parser.add_argument("--likelihood", choices=list(SCALE), default="gaussian", help="of a network")
    parser.add_argument("--max-steps", type=int, help="1000, or 800 for a network")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    network = options.backbone == "network"
    likelihood = options.likelihood if network else "gaussian"
    max_steps = options.max_steps or (800 if network else 1000)
    cases = [
        (kind, (options.backbone, likelihood, seed), max_steps)
        for seed in options.seeds
        for kind in ("pooled", "shared", "alone")
    ]
    results = dict(zip(cases, side_by_side(job, cases, options.jobs), strict=True))
    print(provenance())
    what = "root mean square error" if likelihood == "gaussian" else "share of wrong labels in %"
    print(f"rotation, °: median [5 %, 95 %]; then the {what} on the test data of the group\n")
    names = {"pooled": "by group", "shared": "one for all", "alone": "separate fits"}
    header = [f"{g}: {t:.0f}°, n = {n}" for g, t, n in zip(GROUPS, TRUTH, SIZES[options.backbone], strict=True)]
    rows = []
    for (kind, (*_, seed), _steps), r in results.items():
        cells = [
            f"{median:.0f} [{low:.0f}, {high:.0f}]; {wrong:.3g}"
            for (low, median, high), wrong in zip(r["intervals"], r["errors"], strict=False)
        ]
        rows.append([seed, names[kind], *cells, f"{r['seconds']:.0f}"])
    print_table(["seed", "extents", *header, "seconds"], rows)
    print("\nthe population, and the error if every test input is taken for one of a new group:")
    for (kind, (*_, seed), _steps), r in results.items():
        if kind == "pooled":
            (median, low, high), (spread, s_low, s_high) = r["population"]
            print(
                f"seed {seed}: {median:.0f}° [{low:.0f}, {high:.0f}], "
                f"spread {spread:.2f} [{s_low:.2f}, {s_high:.2f}] sd; {r['errors'][4]:.3g}"
            )


if __name__ == "__main__":
    main()
