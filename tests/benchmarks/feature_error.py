"""Random features against the exact evidence: error and cost by their number, from which the default is chosen.

    python tests/benchmarks/feature_error.py --num-features 256 512 1024 2048

scikit-learn's digits within ±45° at 12×12 (n = 150) and upright at 16×16 (n = 200), 12 copies, six affine extents. Both
evidences have the same kernel, at the default's starting values, and the same means; the extents are fixed. The
error is that of log p(D | η), and of its differences between extents, which are what moves a posterior. Seconds are of
one value with its gradient in extents and hyperparameters.
"""

import argparse
import math
import statistics
import time

from common import gaussian_process, print_table, provenance

SETS = {"±45°, 12×12": (math.radians(45), 12, 150), "upright, 16×16": (None, 16, 200)}
COPIES = 12
# translate_x, translate_y, rotation, scale_x, scale_y, shear; internal units
EXTENTS = (
    (0.02, 0.02, math.radians(10), 0.02, 0.02, 0.02),
    (0.1, 0.1, math.radians(45), 0.1, 0.1, 0.1),
    (0.05, 0.05, math.radians(80), 0.05, 0.05, 0.05),
    (0.3, 0.1, math.radians(20), 0.2, 0.05, 0.1),
)


def evaluated(model, data):
    """log p(D | η) at every one of the extents, and seconds of one value with its gradient (the median)."""
    import torch

    values, seconds = [], []
    for extents in EXTENTS:
        eta = torch.tensor(extents, dtype=torch.float64, requires_grad=True)
        began = time.perf_counter()
        value = model.log_evidence(eta, data)
        value.backward()
        seconds.append(time.perf_counter() - began)
        model.zero_grad()
        values.append(float(value.detach()))
    return values, statistics.median(seconds)


def made(kind, data, options, like=None, seed=0):
    """A model at its starting hyperparameters, or at those of another."""
    import bayesinv

    model = bayesinv.InvarianceModel(
        gaussian_process(kind, None if like is None else like.backbone.kernel),
        "affine2d",
        likelihood="categorical",
        evidence=options.evidence,
        num_orbit_samples=COPIES,
        precision=options.precision,
    )
    model.initialise(data, seed)
    if like is not None:
        model.evidence.load_state_dict(like.evidence.state_dict())
    return model


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-features", type=int, nargs="*", default=[256, 512, 1024, 2048])
    parser.add_argument("--num-seeds", type=int, default=5, help="draws of the frequencies")
    parser.add_argument("--evidence", default="dirichlet")
    parser.add_argument("--precision", choices=["mixed", "double"], default="mixed")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args(arguments)
    import bayesinv

    print(provenance())
    print(f"evidence {options.evidence}, {COPIES} copies, {len(EXTENTS)} extents, {options.num_seeds} seeds\n")
    rows = []
    for name in options.sets:
        rotation, size, num_train = SETS[name]
        data = bayesinv.datasets.digits(rotation, size=size, num_train=num_train, seed=0).train
        exact = made("exact", data, options)
        truth, seconds = evaluated(exact, data)
        shown = " ".join(f"{value:.1f}" for value in truth)
        rows.append([name, f"exact: {shown}", "", "", "", "", f"{seconds:.2f}"])
        for number in options.num_features:
            errors, relative, times = [], [], []
            for seed in range(options.num_seeds):
                values, seconds = evaluated(made(f"features:{number}", data, options, exact, seed), data)
                off = [value - right for value, right in zip(values, truth, strict=True)]
                errors += [abs(value) for value in off]
                relative += [abs(value - statistics.fmean(off)) for value in off]
                times.append(seconds)
            cells = [f(e) for e in (errors, relative) for f in (statistics.median, max)]
            rows.append([name, number, *(f"{cell:.2f}" for cell in cells), f"{statistics.median(times):.2f}"])
    header = ["digits", "features", "error, median", "largest", "less its mean over extents, median", "largest"]
    print_table([*header, "s per value and gradient"], rows)


if __name__ == "__main__":
    main()
