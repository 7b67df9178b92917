"""Variational inference against NUTS on the same evidence: medians and 90 % intervals of every extent.

    python tests/benchmarks/vi_against_nuts.py

Digits turned within ±45°; Gaussian evidence on one-hot targets, and the softmax evidence of classes; hyperparameters
latent in both. A row passes when the medians differ by less than half of the half-width of NUTS's 90 % interval and
the interval widths by less than a factor of 1.3.
"""

import argparse
import math
import warnings

from common import print_table, provenance, side_by_side


def job(argument):
    """Both inferences on one evidence."""
    evidence, inference, seed, num_train, size, copies, num_draws = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv

    train, _ = bayesinv.datasets.digits(math.radians(45), size=size, num_train=num_train, seed=seed)
    gaussian = evidence == "gaussian"
    data = (train.x, torch.nn.functional.one_hot(train.y).double()) if gaussian else train
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(),
        "affine2d",
        likelihood="gaussian" if gaussian else "categorical",
        evidence=evidence,
        num_orbit_samples=copies,
    )
    options = {"num_draws": num_draws} if inference == "nuts" else {}
    posterior = bayesinv.fit(model, data, inference=inference, seed=seed, **options)
    quantiles = posterior.quantile([0.05, 0.5, 0.95])
    return posterior.model.symmetries, quantiles.tolist(), posterior.result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evidences", nargs="+", default=["gaussian", "softmax"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-train", type=int, default=150)
    parser.add_argument("--size", type=int, default=12, help="pixels on a side")
    parser.add_argument("--copies", type=int, default=12)
    parser.add_argument("--num-draws", type=int, default=200, help="of each of two chains")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    sizes = (options.seed, options.num_train, options.size, options.copies, options.num_draws)
    cases = [(e, i, *sizes) for i in ("nuts", "vi") for e in options.evidences]
    results = dict(zip([c[:2] for c in cases], side_by_side(job, cases, options.jobs), strict=True))
    print(provenance())
    print(f"n = {options.num_train}, {options.size} x {options.size}, {options.copies} copies, seed {options.seed};")
    print("internal units (half-widths, radians, log factors)\n")
    rows, passed = [], 0
    for evidence in options.evidences:
        names, vi, vi_result = results[evidence, "vi"]
        _, nuts, nuts_result = results[evidence, "nuts"]
        for k, name in enumerate(names):
            v, m = [q[k] for q in vi], [q[k] for q in nuts]
            ratio = (v[2] - v[0]) / (m[2] - m[0])
            close = abs(v[1] - m[1]) < 0.25 * (m[2] - m[0])
            good = close and 1 / 1.3 < ratio < 1.3 and nuts_result.rhat[k] < 1.05
            passed += good
            cells = [f"{q[1]:.3f} [{q[0]:.3f}, {q[2]:.3f}]" for q in (v, m)]
            rows.append([evidence, name, *cells, f"{ratio:.2f}", f"{nuts_result.rhat[k]:.3f}", "yes" if good else "NO"])
        k_hat = f"k̂ {vi_result.pareto_k:.2f}"
        seconds = [
            f"{r.seconds:.0f} s, log evidence {r.log_evidence:.1f} ± "
            + ("unknown" if r.log_evidence_se is None else f"{r.log_evidence_se:.1f}")
            for r in (vi_result, nuts_result)
        ]
        rows.append([evidence, "all", f"{seconds[0]}, {k_hat}", seconds[1], "", "", ""])
    print_table(["evidence", "extent", "VI", "NUTS", "width VI / NUTS", "R̂", "agrees"], rows)
    print(f"\n{passed} of {6 * len(options.evidences)} extents agree")


if __name__ == "__main__":
    main()
