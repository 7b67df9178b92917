"""Evidences of class labels against the referee, over rotation extents: do they prefer the same extents?

    python tests/benchmarks/softmax_referee.py softmax

80 of scikit-learn's digits at 8×8, turned over the full circle; labels of four classes drawn through a softmax from the
exact prior at rotation 60°, with amplitude 1 and 4 (outputscale 1 and 16) and half the default kernel's starting
lengthscale. For every extent of a grid: log p(D | η) of the evidence minus the referee's
(:mod:`bayesinv.testing.softmax_reference`) for the same covariance, relative to the mean of these differences over the
grid, since only differences between extents move a posterior. The error is the referee's.
"""

import argparse
import math
import time

from common import print_table, provenance


def labels(K, num_classes, seed):
    """y ~ softmax(f), f ~ N(0, K) for every class."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    jitter = 1e-8 * K.diagonal().mean() * torch.eye(len(K), dtype=K.dtype)
    f = torch.linalg.cholesky(K + jitter) @ torch.randn(len(K), num_classes, generator=generator, dtype=K.dtype)
    return torch.multinomial(f.softmax(1), 1, generator=generator)[:, 0]


def compare(evidence, amplitude, seed, options):
    """(extent in degrees, evidence, referee, its error) for every extent of the grid."""
    import torch

    import bayesinv
    from bayesinv.testing.softmax_reference import reference_log_evidence

    x = bayesinv.datasets.digits(math.pi, size=8, num_train=options.num_train, seed=0).train.x
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=None),
        ["rotation"],
        likelihood="categorical",
        evidence=evidence,
        precision="double",
        num_orbit_samples=8,
    )

    def set_kernel():
        model.backbone.initialise(x, amplitude**2, 0)
        model.backbone.kernel.base_kernel.lengthscale *= 0.5

    rows = []
    with torch.no_grad():
        set_kernel()
        truth = torch.tensor([math.radians(60)], dtype=torch.float64)
        data = bayesinv.Data(x, labels(model.at(truth).covariance(x), options.num_classes, seed), options.num_classes)
        model.initialise(data)  # means, and what else the evidence starts from labels
        set_kernel()
        for degrees in options.extents:
            eta = torch.tensor([math.radians(degrees)], dtype=torch.float64)
            value = float(model.log_evidence(eta, data))
            K = model.at(eta).covariance(x) + getattr(model.evidence, "offset_variance", 0.0)
            mean = model.evidence.constant_mean.detach().expand(options.num_classes)
            referee = reference_log_evidence(
                K, data.y, options.num_classes, mean, num_steps=options.num_steps, path=options.path, **options.rule
            )
            rows.append((degrees, value, *referee))
    return rows


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evidences", nargs="*", default=["softmax"])
    parser.add_argument("--amplitudes", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--extents", type=float, nargs="+", default=[5.0, 30.0, 60.0, 90.0, 135.0, 180.0])
    parser.add_argument("--num-train", type=int, default=80)
    parser.add_argument("--num-classes", type=int, default=4)
    parser.add_argument("--num-steps", type=int, default=1000, help="of the referee's chains")
    parser.add_argument("--path", choices=["laplace", "prior"], default="laplace", help="of the referee")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the labels")
    options = parser.parse_args(arguments)
    options.rule = {"num_temperatures": 24} if options.path == "prior" else {}
    print(provenance())
    print(f"n = {options.num_train}, C = {options.num_classes}, true rotation 60°\n")
    rows, summary = [], []
    for evidence in options.evidences:
        for amplitude in options.amplitudes:
            for seed in options.seeds:
                began = time.perf_counter()
                found = compare(evidence, amplitude, seed, options)
                seconds = time.perf_counter() - began
                differences = [value - referee for _, value, referee, _ in found]
                centre = math.fsum(differences) / len(differences)
                name = [evidence, f"{amplitude:g}", seed]
                for (degrees, value, referee, error), difference in zip(found, differences, strict=True):
                    relative = f"{difference - centre:+.2f} ± {error:.2f}"
                    rows.append([*name, f"{degrees:g}°", f"{value:.2f}", f"{referee:.2f} ± {error:.2f}", relative])
                spread = max(differences) - min(differences)
                summary.append([*name, f"{centre:+.2f}", f"{spread:.2f}", f"{seconds:.0f}"])
    header = ["evidence", "amplitude", "seed"]
    print_table([*header, "rotation", "log p(D | η)", "referee", "difference less its mean, nats"], rows)
    print()
    print_table([*header, "mean difference, nats", "largest less smallest, nats", "seconds"], summary)


if __name__ == "__main__":
    main()
