"""`bayesinv.audit` where the truth is known: nothing to find, digits within ±45°, CIFAR-10; and how long it takes.

    python tests/benchmarks/audit.py                        # all cases; CIFAR-10 is read from BAYESINV_DATA
    python tests/benchmarks/audit.py --cases null --seeds 0 --num-examples 40 --operations rotation flip_x

null     Digits turned over the full circle, so that the inputs prefer no orientation, with labels drawn from a Gaussian
         process on the pictures as they are: every extent is zero.
shuffled The same digits with their labels in a random order: no function of the picture, and no operation matters.
digits   Digits turned within ±45°: rotation is there, and a flip makes other characters of many of them.
cifar10  As it comes: a picture and its mirror image have one class; upside down is another matter.

Every case has `--num-images` pictures (2,000 of CIFAR-10) and runs the audit as it is called by default, all
operations on all seeds. "Yes" is P(in) of .95 and more. A seed's line is printed as soon as it is there. Processor time
is what one core needs if nothing else runs on it.
"""

import argparse
import math
import time
import warnings

from common import mean_and_range, print_table, provenance, side_by_side

CASES = ("null", "shuffled", "digits", "cifar10")
NULL = ("null", "shuffled")
NUM_IMAGES = {"null": 600, "shuffled": 600, "digits": 1200, "cifar10": 2000}
NUM_CLASSES, VARIANCE, LENGTHSCALES = 6, 16.0, 0.4  # of labels drawn from a process: see null_inclusion.py


def images(case, number, seed):
    """Pictures and labels of a case."""
    import torch

    import bayesinv

    if case == "cifar10":
        return bayesinv.datasets.cifar10(num_train=number, num_test=10, seed=seed).train
    rotation = math.radians(45) if case == "digits" else math.pi
    train = bayesinv.datasets.digits(rotation, num_train=number, size=16 if case == "digits" else 8, seed=seed).train
    if case == "shuffled":
        order = torch.randperm(number, generator=torch.Generator().manual_seed(seed))
        return bayesinv.Data(train.x, train.y[order], train.num_classes)
    if case == "null":
        return bayesinv.Data(train.x, labels_of(train.x, seed), NUM_CLASSES)
    return train


def labels_of(x, seed):
    """Drawn from a Gaussian process on the pictures, averaged over nothing."""
    import torch

    import bayesinv

    process = bayesinv.GaussianProcess(num_inducing=None)
    teacher = bayesinv.InvarianceModel(process, "rotation", likelihood="categorical", num_orbit_samples=1)
    process.initialise(x, output_variance=VARIANCE, seed=seed)
    process.kernel.base_kernel.lengthscale *= LENGTHSCALES
    return teacher.simulate(x, torch.zeros(1, dtype=torch.float64), num_outputs=NUM_CLASSES, seed=seed).y


def job(argument):
    """One audit, and its line."""
    case, seed, options = argument
    warnings.simplefilter("ignore")
    import bayesinv

    data = images(case, options.num_images or NUM_IMAGES[case], seed)
    settings = {"num_examples": options.num_examples, "num_features": options.num_features}
    settings["num_orbit_samples"] = options.num_orbit_samples
    began, began_cpu = time.perf_counter(), time.process_time()
    found = bayesinv.audit(data, operations=options.operations, seed=seed, **settings)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    table = found.table
    said = "; ".join(line for line in found.recommendations if ": yes" in line or ": perhaps" in line) or "nothing"
    flips = ", ".join(f"{name} {table.inclusion[name]:.3f}" for name in ("flip_x", "flip_y") if name in table.index)
    print(
        f"{case} seed {seed}, {len(data)} images, {seconds:.0f} s ({cpu:.0f} s of processor): {said}. P(in): {flips}",
        flush=True,
    )
    return {"inclusion": table.inclusion.to_dict(), "needed": table.needed.to_dict(), "seconds": seconds, "cpu": cpu}


def row(case, results):
    """One line of the table of a case."""
    rotation = [r["inclusion"].get("rotation", math.nan) for r in results]
    flips = [[r["inclusion"].get(name, math.nan) for r in results] for name in ("flip_x", "flip_y")]
    cells = [case, len(results)]
    if case in NULL:
        absent = [p for r in results for p in r["inclusion"].values()]
        sets = sum(max(r["inclusion"].values()) >= 0.95 for r in results)
        wrong = sum(p >= 0.95 for p in absent)
        likely = sum(p > 0.5 for p in absent)
        cells += [f"{wrong} of {len(absent)}", f"{likely} of {len(absent)}", f"{sets} of {len(results)}"]
        cells.append(mean_and_range(absent, 2))
    else:
        cells += [""] * 4
    return [
        *cells,
        *(f"{sum(p >= 0.95 for p in inclusion)} of {len(results)}" for inclusion in (rotation, *flips)),
        mean_and_range([r["needed"].get("rotation", math.nan) for r in results], 0),
        *(mean_and_range([r[what] for r in results], 0) for what in ("seconds", "cpu")),
    ]


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--num-images", type=int, default=None, help=f"({NUM_IMAGES})")
    parser.add_argument("--num-examples", type=int, default=400)
    parser.add_argument("--num-orbit-samples", type=int, default=16)
    parser.add_argument("--num-features", type=int, default=512)
    parser.add_argument("--operations", nargs="+", default=None, help="(all)")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    print(provenance())
    print(f"{options.num_examples} examples at most, {options.num_features} features, S = {options.num_orbit_samples}")
    print(f"seeds {options.seeds}\n")
    cases = [(case, seed, options) for case in options.cases for seed in options.seeds]
    results = dict(zip([key[:2] for key in cases], side_by_side(job, cases, options.jobs), strict=True))
    rows = [row(case, [results[case, seed] for seed in options.seeds]) for case in options.cases]
    header = ["images", "sets", "false yes", "false P(in) > .5", "sets with a false yes", "P(in) of the absent"]
    header += ["rotation yes", "flip_x yes", "flip_y yes", "needed rotation, ±°", "seconds", "processor, s"]
    print()
    print_table(header, rows)


if __name__ == "__main__":
    main()
