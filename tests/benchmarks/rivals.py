"""Methods of the field side by side: extents, accuracy, log loss, calibration, seconds and copies on five problems.

    BAYESINV_DATA=... python tests/benchmarks/rivals.py --folder runs/ --jobs 2
    BAYESINV_DATA=... python tests/benchmarks/rivals.py --folder runs/ --problems sinusoids --methods posterior optima
    BAYESINV_DATA=... python tests/benchmarks/rivals.py --folder runs/ --prior-slopes

| problem | data, network | passes | truth |
|---|---|---|---|
| mnist | LILA's grid: 312 digits turned within ±90°, LeNet, six affine extents | 200 | rotation 90° |
| mario | 2,000 images of Mario & Iggy, small LeNet, six affine extents | 20 | labels break at 45° |
| sinusoids | 400 signals, a network of 2 × 1 units, three extents | 150 | frequency shift 0.5 Hz is harmless |
| qm9 | 500 molecules turned at random, energies less what elements explain, four extents | 40 | half a turn |
| sleep | 500 epochs of sleep of eight people, 2,000 of four others, seven extents | 40 | unknown |

Same data, network, passes, batches and copies for every method of a problem, save what a method has by definition: a
policy predicts on the input itself; those with a distribution over extents average predictions over eight draws of
them, with as many copies each. "posterior" is `bayesinv.fit` with the evidence of the weights. LILA steps its extents
once in three steps of the weights, after 15 % of them; the others are as published.
RandAugment and TrivialAugment are for images.

--prior-slopes: on mnist, by how much the learned rotation follows the mean of its prior (normal, standard deviation
0.3 rad, truncated to [0, π]), by three priors (0.5, 1, 1.5 rad) and three starts (quantiles 0.1, 0.5 and 0.9 of the
prior for OPTIMA, whose seed is 0; three seeds for the posterior): the slope of a line through the nine medians, 0 for
none and 1 for all.

A fit that is finished is kept in --folder and is not repeated, as long as this script stays as it is.
"""

import argparse
import math
import sys
import time
import warnings
from pathlib import Path

from common import calibration_error, kept, mean_and_range, print_table, provenance, side_by_side

sys.path.insert(0, str(Path(__file__).parents[2]))

PROBLEMS = ("mnist", "mario", "sinusoids", "qm9", "sleep")
METHODS = (
    *("posterior", "lila", "optima", "augerino", "augnet", "randaugment", "trivialaugment"),
    *("none", "by hand"),
)
IMAGES = ("mnist", "mario")
BURN_IN, EVERY = 0.15, 3
CONTINUOUS = ("time_shift", "amplitude", "frequency_shift", "surrogate_phase", "time_mask", "band_stop", "noise")
PRIOR_MEANS, PRIOR_SD, STARTS = (0.5, 1.0, 1.5), 0.3, (0.1, 0.5, 0.9)


def problem(name, seed, size):
    """Model, data, the extents by hand (the true ones where they are known), and how it is trained."""
    import bayesinv
    from models import mario_iggy, mnist_affine, molecule_dipole, sinusoids, sleep_staging

    few = {} if size is None else {"num_train": size, "num_test": size}
    if name == "mnist":
        sizes = {"num_train": 312, "num_test": 2000} | few
        return *mnist_affine.build("rotated_90", **sizes, seed=seed), {"rotation": math.pi / 2}, {"epochs": 200}
    if name == "mario":
        sizes = {"num_train": 2000, "num_test": 1000} | few
        built = mario_iggy.build("needed", **sizes, seed=seed)
        return *built, {"rotation": mario_iggy.ANGLE}, {"epochs": 20}
    if name == "sinusoids":
        sizes = {"num_train": 400, "num_test": 200} | few
        training = {"epochs": 150, "weight_rate": sinusoids.WEIGHT_RATE}
        return *sinusoids.build("needed", **sizes, seed=seed), {"frequency_shift": sinusoids.HALF_WIDTH}, training
    if name == "qm9":
        sizes = {"num_train": 500, "num_test": 1000} | few
        train, test = bayesinv.datasets.qm9(**sizes, seed=seed, remove_composition=True)
        model = bayesinv.InvarianceModel(
            energies(48, seed), molecule_dipole.candidates(), "gaussian", evidence="laplace", num_orbit_samples=8
        )
        return model, train, test, molecule_dipole.true_extents(), {"epochs": 40}
    sizes = {"num_train": 500, "num_test": 2000} | few
    built = sleep_staging.build(CONTINUOUS, **sizes, num_orbit_samples=4, seed=seed)
    by_hand = {name: sleep_staging.BY_HAND[name] for name in CONTINUOUS}
    return *built, by_hand, {"epochs": 40, "weight_rate": sleep_staging.WEIGHT_RATE}


def energies(width, seed):
    """A network for energies that knows nothing of rotations: a sum over atoms, each of which sees a sum over all."""
    import torch
    from torch import nn

    from bayesinv.datasets.molecules import ATOMIC_MASSES

    class AtomEnergies(nn.Module):
        def __init__(self):
            super().__init__()
            num_features = 3 + len(ATOMIC_MASSES)
            self.first = nn.Sequential(nn.Linear(num_features, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
            self.second = nn.Linear(num_features + width, width)
            self.last = nn.Sequential(nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

        def forward(self, x):
            present = (x[..., 3:] > 0).to(x)
            which = torch.stack([(x[..., 3] == number).to(x) for number in ATOMIC_MASSES], -1)
            features = torch.cat([x[..., :3] / 2.0, which], -1)  # ångström, on the scale of a bond or two
            size = present.sum(1).clamp_min(1.0).sqrt()
            context = (self.first(features) * present).sum(1) / size
            both = torch.cat([features, context[:, None].expand(-1, x.shape[1], -1)], -1)
            return (self.last(self.second(both)) * present).sum(1) / size

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AtomEnergies()


def inference(method, by_hand, copies, epochs, per_epoch, start):
    """What ``fit`` takes."""
    from bayesinv.inference import Augerino, AugNet, Fixed, Lila, Optima, Policy

    return {
        "posterior": "vi",
        "lila": Lila(burn_in=BURN_IN * epochs, steps_per_epoch=max(1, per_epoch // EVERY)),
        "optima": Optima(num_copies=copies, start=start),
        "augerino": Augerino(num_copies=copies, prediction_copies=copies),
        "augnet": AugNet(num_copies=copies, prediction_copies=copies),
        "randaugment": Policy("randaugment", num_copies=copies),
        "trivialaugment": Policy("trivialaugment", num_copies=copies),
        "none": "none",
        "by hand": Fixed(by_hand),
    }[method]


def job(case):
    """One fit, or what is kept of it."""
    return kept(fitted, case, __file__)


def fitted(case):
    """One fit and its scores."""
    warnings.simplefilter("ignore")
    import pyro.distributions as dist
    import torch

    import bayesinv
    from models.molecule_energy import KCAL_PER_HARTREE

    torch.set_num_threads(1)
    model, train, test, by_hand, training = problem(case["problem"], case["seed"], case["size"])
    if case["prior_mean"] is not None:
        prior = bayesinv.extents.Truncated(dist.Normal(case["prior_mean"], PRIOR_SD), high=math.pi)
        model = bayesinv.InvarianceModel(
            model.backbone.net,
            model.transform,
            likelihood="categorical",
            evidence="laplace",
            priors={"rotation": prior},
            num_orbit_samples=model.orbit.num_samples,
        )
    training["epochs"] = case["epochs"] or training["epochs"]
    copies, per_epoch = model.orbit.num_samples, math.ceil(len(train) / 100)
    method = inference(case["method"], by_hand, copies, training["epochs"], per_epoch, case["start"])
    began = time.perf_counter()
    posterior = bayesinv.fit(model, train, method, seed=case["seed"], training=bayesinv.Training(**training))
    seconds = time.perf_counter() - began
    found = case | {"seconds": seconds, "copies": copies, "units": posterior.summary()["unit"].to_dict()}
    quantiles = posterior.quantile([0.05, 0.5, 0.95])
    people = {c.name: c.to_people for c in model.coordinates}
    found["extents"] = {
        name: [float(people[name](float(q))) for q in quantiles[:, k]] for k, name in enumerate(posterior.symmetries)
    }
    found["is_point"] = posterior.result.num_draws == 1
    prediction = posterior.predict(test.x, num_samples=8, seed=case["seed"])
    if prediction.probs is None:
        mean, variance, y = prediction.mean.double(), prediction.variance, test.y.double()
        found["score"] = KCAL_PER_HARTREE * float((mean - y).square().mean().sqrt())
        found["log_loss"] = float(bayesinv.metrics.gaussian_log_loss(mean, variance, y).mean())
        found["calibration_error"] = math.nan
    else:
        found["score"] = 100 * float((prediction.labels == test.y).double().mean())
        found["log_loss"] = -float(prediction.probs.gather(1, test.y[:, None]).clamp_min(1e-12).log().mean())
        found["calibration_error"] = calibration_error(prediction.probs, test.y)
    return found


def extents(results):
    """The extent that the problem is about, or all, by seed."""
    names = {"mnist": ["rotation"], "mario": ["rotation"], "sinusoids": ["frequency_shift"]}.get(results[0]["problem"])
    if names is None:
        names = list(results[0]["extents"])
    cells = []
    for name in names:
        unit = results[0]["units"][name]
        each = []
        for r in results:
            low, median, high = r["extents"][name]
            each.append(f"{median:.3g}" if r["is_point"] else f"{median:.3g} [{low:.3g}, {high:.3g}]")
        cells.append(f"{name} {'; '.join(each)} {unit}")
    return ", ".join(cells)


def table(results, problems, methods):
    """A row for each problem and method."""
    rows = []
    for name in problems:
        for method in methods:
            these = [r for r in results if (r["problem"], r["method"]) == (name, method)]
            if not these:
                continue
            losses = mean_and_range([r["log_loss"] for r in these], 2)
            errors = [r["calibration_error"] for r in these]
            seconds = math.fsum(r["seconds"] for r in these) / len(these)
            rows.append(
                [
                    name,
                    method,
                    extents(these) if method not in ("none", "by hand", "randaugment", "trivialaugment") else "",
                    mean_and_range([r["score"] for r in these], 2 if name == "qm9" else 1),
                    losses,
                    "" if math.isnan(errors[0]) else mean_and_range(errors, 3),
                    these[0]["copies"],
                    f"{seconds:.0f}",
                ]
            )
    return rows


def slopes(results):
    """A row for each method: the medians, and the slope of a line through them."""
    rows = []
    for method in ("posterior", "optima"):
        these = [r for r in results if r["method"] == method]
        x = [math.degrees(r["prior_mean"]) for r in these]
        y = [r["extents"]["rotation"][1] for r in these]
        middle = math.fsum(x) / len(x)
        slope = math.fsum((a - middle) * b for a, b in zip(x, y, strict=True)) / math.fsum((a - middle) ** 2 for a in x)
        by_prior = [
            f"{math.degrees(mean):.0f}°: " + ", ".join(f"{r['extents']['rotation'][1]:.0f}" for r in group)
            for mean in PRIOR_MEANS
            if (group := [r for r in these if r["prior_mean"] == mean])
        ]
        rows.append([method, "; ".join(by_prior), f"{slope:.2f}"])
    return rows


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--prior-slopes", action="store_true")
    parser.add_argument("--epochs", type=float, help="of every problem, in place of its own")
    parser.add_argument("--size", type=int, help="training and test examples, in place of each problem's own")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True, help="of the fits that are finished")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    shared = {"folder": str(options.folder), "epochs": options.epochs, "size": options.size}
    if options.prior_slopes:
        cases = [
            shared
            | {"problem": "mnist", "method": method, "prior_mean": mean, "start": start}
            | {"seed": seed if method == "posterior" else 0}
            for method in ("posterior", "optima")
            for mean in PRIOR_MEANS
            for seed, start in enumerate(STARTS)
        ]
        found = list(side_by_side(job, cases, options.jobs))
        print(provenance() + "\n")
        print_table(["method", "medians by the prior's mean, °", "slope"], slopes(found))
        return
    cases = [
        shared | {"problem": name, "method": method, "seed": seed, "prior_mean": None, "start": STARTS[0]}
        for name in options.problems
        for method in options.methods
        for seed in options.seeds
        if name in IMAGES or "augment" not in method
    ]
    results = list(side_by_side(job, cases, options.jobs))
    print(provenance() + "\n")
    print_table(
        [
            *("problem", "method", "extents by seed [90 %]", "accuracy, % (qm9: error, kcal/mol)", "log loss, nat"),
            *("calibration error", "copies", "s, mean"),
        ],
        table(results, options.problems, options.methods),
    )


if __name__ == "__main__":
    main()
