"""Ranges that are not centred: do 90 % intervals hold both ends?

    python tests/benchmarks/asymmetric.py --folder runs/                 # every case, 20 seeds each
    python tests/benchmarks/asymmetric.py --cases brightness --seeds 0 4 # seeds 0 to 3
    python tests/benchmarks/asymmetric.py --alone                        # is a side that is not there left out?

400 of scikit-learn's digits at 8×8 with pixels in [0, 1], each at an angle of its own over the full circle; 12 copies;
targets are a draw of the exact Gaussian process averaged over the orbit with the true ends, by seed:

- brightness: -5 % to +30 % of the range, pixels cut to [0, 1] before the kernel sees them, as cameras and libraries
  do; six outputs with noise of a twentieth of the variance.
- factor: brightness as torchvision has it, a factor: exp(-0.1) to exp(0.6), so -9.5 % to +82.2 %; nothing is cut. A
  factor on all inputs is another lengthscale: with --known the fit knows the hyperparameters.
- labels: the brightness of the first case, four classes through a softmax of amplitude 4.
- uncut: the first case without the cut. A constant added to all pixels moves all inputs alike, which a stationary
  kernel does not see: only down + up can be learned.

The fit has the default process (random features), flat priors of both ends over [0, largest], and hyperparameters of
its own. --alone: the truth without the lower end, and `bayesinv.select` says which ends are there.

Seeds that are finished are kept in --folder and are not repeated.
"""

import argparse
import json
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from common import gaussian_process, mean_and_range, print_table, provenance, side_by_side

SIZE, COPIES, NOISE, OUTPUTS, CLASSES, AMPLITUDE = 8, 12, 0.05, 6, 4, 4.0


@dataclass(frozen=True)
class Case:
    """What is drawn and fitted; ends in internal units."""

    symmetry: str
    ends: tuple[float, float]
    cuts: bool
    likelihood: str = "gaussian"


CASES = {
    "brightness": Case("brightness", (0.05, 0.30), True),
    "factor": Case("contrast", (0.1, 0.6), False),
    "labels": Case("brightness", (0.05, 0.30), True, "categorical"),
    "uncut": Case("brightness", (0.05, 0.30), False),
}


def built(case, process):
    """The model of a case."""
    import torch

    import bayesinv
    from bayesinv.transforms import Asymmetric, Colour

    backbone = gaussian_process(process)
    if case.cuts:  # the kernel sees pixels as they are stored
        backbone = bayesinv.GaussianProcess(features=torch.nn.Hardtanh(0.0, 1.0), **_options(backbone))
    transform = Asymmetric(Colour([case.symmetry], middle=0.0))
    return bayesinv.InvarianceModel(backbone, transform, likelihood=case.likelihood, num_orbit_samples=COPIES)


def _options(backbone):
    """How a process computes."""
    return {"num_inducing": None} if backbone.is_exact else {}


def started(model, case, x, seed):
    """The hyperparameters that draw the targets."""
    is_labels = case.likelihood == "categorical"
    model.backbone.initialise(x, AMPLITUDE**2 if is_labels else 1.0, seed)
    if is_labels:  # a smoother function gives nearly every image the same class
        model.backbone.kernel.base_kernel.lengthscale *= 0.5
    else:
        model.evidence.noise_model.noise = NOISE


def simulated(case, seed, ends, num_train):
    """Inputs and targets from the exact prior, with the true ends."""
    import torch

    import bayesinv

    x = bayesinv.datasets.digits(math.pi, size=SIZE, num_train=num_train, seed=seed).train.x
    teacher = built(case, "exact")
    is_labels = case.likelihood == "categorical"
    started(teacher, case, x, seed)
    eta = torch.tensor(ends, dtype=torch.float64)
    drawn = teacher.simulate(x, eta, num_outputs=CLASSES if is_labels else OUTPUTS, seed=seed)
    return bayesinv.Data(x, drawn.y, CLASSES if is_labels else None)


def job(argument):
    """Simulate, fit, and say where the truth lies; from the folder if it is there."""
    name, seed, alone, known, num_train, folder = argument
    path = Path(folder) / f"{name}{'_alone' * alone}{'_known' * known}_{num_train}_{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    warnings.simplefilter("ignore")
    import bayesinv

    case = CASES[name]
    ends = (0.0, case.ends[1]) if alone else case.ends
    data = simulated(case, seed, ends, num_train)
    begin = time.perf_counter()
    model = built(case, "default")
    if known:
        model.initialise(data, seed)
        started(model, case, data.x, seed)
        model = model.hold_hyperparameters()
    posterior = bayesinv.fit(model, data, seed=seed)
    seconds = time.perf_counter() - begin
    truth = [float(c.to_people(v)) for c, v in zip(posterior.model.coordinates, ends, strict=True)]
    table = posterior.summary()
    found = {
        "name": name,
        "seed": seed,
        "truth": truth,
        "unit": table["unit"].iloc[0],
        "median": table["median"].tolist(),
        "lower": table["lower"].tolist(),
        "upper": table["upper"].tolist(),
        "pareto_k": posterior.pareto_k,
        "seconds": seconds,
    }
    draws = posterior.sample(2000, seed=seed)
    found["correlation"] = float(draws.T.corrcoef()[0, 1])
    if alone:
        found["inclusion"] = bayesinv.select(posterior).inclusion.iloc[:, 0].tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    print(f"{name} {seed}: {seconds:.0f} s", flush=True)
    return found


def inside(result, k):
    """Whether the interval of an end holds the truth."""
    return result["lower"][k] <= result["truth"][k] <= result["upper"][k]


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", nargs=2, type=int, default=[0, 20], help="the first, and the one after the last")
    parser.add_argument("--alone", action="store_true", help="a truth without the lower end, and the selection")
    parser.add_argument("--known", action="store_true", help="hyperparameters are known to the fit")
    parser.add_argument("--num-train", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("asymmetric-results"))
    options = parser.parse_args(arguments)
    cases = [(name, seed) for name in options.cases for seed in range(*options.seeds)]
    fixed = (options.alone, options.known, options.num_train, str(options.folder))
    results = list(side_by_side(job, [(*case, *fixed) for case in cases], options.jobs))
    print(provenance())
    print(f"n = {options.num_train}, {COPIES} copies, seeds {options.seeds[0]}-{options.seeds[1] - 1}\n")
    rows = []
    for name in options.cases:
        these = [r for r in results if r["name"] == name]
        both = sum(inside(r, 0) and inside(r, 1) for r in these)
        for k, side in enumerate(("down", "up")):
            row = [
                name,
                f"{side}, {these[0]['truth'][k]:.1f} {these[0]['unit']}",
                f"{sum(inside(r, k) for r in these)} of {len(these)}",
                f"{both} of {len(these)}",
                mean_and_range([r["median"][k] for r in these]),
                mean_and_range([r["upper"][k] - r["lower"][k] for r in these]),
                mean_and_range([r["correlation"] for r in these], 2),
            ]
            rows.append([*row, mean_and_range([r["inclusion"][k] for r in these], 2)] if options.alone else row)
    header = ["case", "end, truth", "inside 90 %", "both inside", "median", "width", "correlation of the ends"]
    print_table([*header, "P(included)"] if options.alone else header, rows)
    print("\nevery fit:")
    for r in results:
        ends = ", ".join(
            f"{m:.1f} [{a:.1f}, {b:.1f}]" for m, a, b in zip(r["median"], r["lower"], r["upper"], strict=True)
        )
        print(f"{r['name']:10} seed {r['seed']:2} down and up {ends}; k̂ {r['pareto_k']:.2f}; {r['seconds']:.0f} s")


if __name__ == "__main__":
    main()
