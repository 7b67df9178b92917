"""Groups of digits that turn by different amounts: extents by group, and what partial pooling does to a small one.

    python tests/benchmarks/group_digits.py --figure docs/group_digits.png
    python tests/benchmarks/group_digits.py --backbone network --max-steps 600 --kinds pooled separate shared

scikit-learn's digits at 8×8 in three groups of 100 and one of 10 ("few"), in two settings: "different", turned within
0°, ±45°, over the full circle, and ±45° for the few; and "alike", all within ±45°. Each set is fitted with partial
pooling and with "separate extents", where every group has U(0°, 180°) of its own and only the function is shared; if
asked for also with one extent for all groups ("shared"). By a Gaussian process under the Dirichlet evidence, or by a
small convolutional network under the Laplace evidence. Seeds 0-2 draw images, groups and angles; the other digits,
turned as each group is, are the test data.
"""

import argparse
import json
import math
import time
import warnings

from common import print_table, provenance, side_by_side

SETTINGS = {"different": (0.0, 45.0, 180.0, 45.0), "alike": (45.0, 45.0, 45.0, 45.0)}  # half-widths, degrees
KINDS = ("pooled", "separate", "shared")
GROUPS = ("A", "B", "C", "few")
SIZES = (100, 100, 100, 10)
NUM_TEST = 100  # of every group
COLOURS = {"pooled": "#0072B2", "separate": "#E69F00"}  # Okabe and Ito


def simulate(setting, seed):
    """Training data with groups, and the test images of every group."""
    import torch

    import bayesinv

    total = sum(SIZES) + len(SIZES) * NUM_TEST
    upright = bayesinv.datasets.digits(None, size=8, num_train=total, seed=seed).train
    groups = torch.cat([torch.arange(4).repeat_interleave(torch.tensor(SIZES)), torch.arange(4).repeat(NUM_TEST)])
    half_widths = torch.tensor(SETTINGS[setting])[groups].deg2rad()
    angles = half_widths * (2 * torch.rand(total, generator=torch.Generator().manual_seed(seed)) - 1)
    x = bayesinv.transforms.Affine2d(["rotation"])(upright.x, angles[:, None])
    data = bayesinv.Data(x, upright.y, 10, groups)
    return data.subset(slice(0, sum(SIZES))), data.subset(slice(sum(SIZES), None))


def make(kind, backbone, seed):
    """The model; "separate" has a population that says nothing: π Φ(0 + 1·z) is U(0, π); "shared" has no groups."""
    import torch

    import bayesinv

    flat = bayesinv.UniformExtent(0.4999 * math.pi, 0.5001 * math.pi)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        features = (torch.nn.Conv2d(1, 8, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(288, 32))
        net = torch.nn.Sequential(*features, torch.nn.Tanh(), torch.nn.Linear(32, 10))
    return bayesinv.InvarianceModel(
        net if backbone == "network" else bayesinv.GaussianProcess(num_inducing=60),
        ["rotation"],
        num_orbit_samples=8,
        groups=None if kind == "shared" else GROUPS,
        priors={"rotation": flat, "rotation spread": 1.0} if kind == "separate" else None,
    )


def job(argument):
    """One fit: quantiles by group in degrees, and the accuracy on every group's test images."""
    setting, kind, seed, backbone, max_steps = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv

    torch.set_num_threads(1)
    train, test = simulate(setting, seed)
    shared = kind == "shared"
    data = bayesinv.Data(train.x, train.y, 10) if shared else train
    began = time.perf_counter()
    posterior = bayesinv.fit(make(kind, backbone, seed), data, seed=seed, max_steps=max_steps)
    seconds = time.perf_counter() - began
    names = [] if shared else [f"rotation[{group}]" for group in GROUPS]
    columns = [posterior.index(name) for name in [*(names or ["rotation"] * len(GROUPS)), "rotation"]]
    right = posterior.predict(test.x, num_samples=8, groups=None if shared else test.groups).labels == test.y
    table = posterior.summary()[["median", "lower", "upper"]]
    return {
        "setting": setting,
        "kind": kind,
        "seed": seed,
        "extents": posterior.quantile([0.05, 0.5, 0.95])[:, columns].rad2deg().T.tolist(),
        "spread": None if shared else table.loc["rotation spread"].tolist(),
        "accuracy": [100 * float(right[test.groups == g].double().mean()) for g in range(len(GROUPS))],
        "pareto_k": posterior.pareto_k,
        "converged": posterior.result.converged,
        "seconds": seconds,
    }


def draw(results, path):
    """Extents by group: a panel for each setting, a line for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    for panel, (setting, truth) in zip(panels, SETTINGS.items(), strict=True):
        for g, half_width in enumerate(truth):
            label = "images turned within ±" if g == 0 else None
            panel.plot([half_width] * 2, [g - 0.42, g + 0.42], color="black", ls="--", lw=1.5, label=label)
        for r in results:
            if r["setting"] != setting or r["kind"] == "shared":
                continue
            for g, (low, middle, high) in enumerate(r["extents"][: len(GROUPS)]):
                y = g + (0.2 if r["kind"] == "separate" else -0.2) + 0.1 * (r["seed"] - 1)
                panel.plot([low, high], [y, y], color=COLOURS[r["kind"]], lw=2.5)
                marker, name = ("o", "partial pooling") if r["kind"] == "pooled" else ("s", "separate extents")
                label = name if g == 0 and r["seed"] == 0 else None
                panel.plot(middle, y, marker, color="white", mec=COLOURS[r["kind"]], mew=2, label=label)
        panel.set(xlim=(-3, 183), xticks=range(0, 181, 45), xlabel="rotation extent (°): median and 90 %")
        panel.set_title({"different": "groups that differ", "alike": "groups alike"}[setting], loc="left")
        panel.set(yticks=range(len(GROUPS)), ylim=(3.5, -0.5))
        panel.set_yticklabels([f"{name}, n = {n}" for name, n in zip(GROUPS, SIZES, strict=True)])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS[:2]))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--backbone", choices=["gp", "network"], default="gp")
    parser.add_argument("--max-steps", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--figure", help="where to draw the extents (both settings are needed)")
    parser.add_argument("--json", help="where to keep the numbers")
    options = parser.parse_args()
    cases = [
        (setting, kind, seed, options.backbone, options.max_steps)
        for seed in options.seeds
        for setting in options.settings
        for kind in options.kinds
    ]
    results = list(side_by_side(job, cases, options.jobs))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file)
    print(provenance())
    print("rotation extent, °: median [5 %, 95 %]; accuracy on 100 test images of the group, %\n")
    rows = []
    for r in sorted(results, key=lambda r: (list(SETTINGS).index(r["setting"]), r["seed"])):
        cells = [
            f"{middle:.0f} [{low:.0f}, {high:.0f}]; {accuracy:.0f}"
            for (low, middle, high), accuracy in zip(r["extents"], r["accuracy"], strict=False)
        ]
        low, middle, high = r["extents"][-1]
        population = f"{middle:.0f} [{low:.0f}, {high:.0f}]" if r["kind"] == "pooled" else "-"
        spread = "{:.2f} [{:.2f}, {:.2f}]".format(*r["spread"]) if r["kind"] == "pooled" else "-"
        quality = ["-" if r["pareto_k"] is None else f"{r['pareto_k']:.2f}", f"{r['seconds']:.0f}"]
        rows.append([r["setting"], r["seed"], r["kind"], *cells, population, spread, *quality])
    header = [f"{name}, n = {n}" for name, n in zip(GROUPS, SIZES, strict=True)]
    print_table(["set", "seed", "extents", *header, "population", "spread", "k̂", "seconds"], rows)
    if options.figure:
        draw(results, options.figure)


if __name__ == "__main__":
    main()
