"""How near to its fixed point expectation propagation stops, and what that takes.

    python tests/benchmarks/propagation.py                      # labels in order, or at random
    BAYESINV_DATA=... python tests/benchmarks/propagation.py --digits 1500 3000

Values at the tolerance of values against those at 1e-5. Rows: exp(-d²/2l²) on [0, 3] with the outputscale times it;
labels in the order of x, or at random. Digits: MNIST at 28 x 28, 24 copies, outputscale 5,600.
"""

import argparse
import itertools
import math
import time

from common import print_table, provenance

SIZES, CLASSES, SCALES, LENGTHS = (40, 200), (2, 4, 10, 30), (10.0, 1e3, 1e5), (0.1, 1.0)
# Near a mode of 3,000 digits: coordinates of six extents, log outputscale, log lengthscale.
NEAR_A_MODE = (-1.28, -1.2, -1.05, 0.49, -1.79, -0.33, 8.63, 1.71)


def measured(white, data):
    """Steps of λ, integrals for all labels, seconds and error; infinite where the sites do not settle."""
    import torch

    from bayesinv.errors import NotSettledError
    from bayesinv.evidence import SoftmaxEvidence, propagation, softmax

    counts = {"matched": 0, "expected_slopes": 0}
    originals = {name: getattr(propagation, name) for name in counts}

    def counting(name):
        def count(*arguments):
            counts[name] += 1
            return originals[name](*arguments)

        return count

    def value(tolerance):
        kept, softmax.VALUE_TOLERANCE = softmax.VALUE_TOLERANCE, tolerance or softmax.VALUE_TOLERANCE
        evidence = SoftmaxEvidence()
        evidence.initialise(data)
        try:
            with torch.no_grad():
                return float(evidence.bound(white, data))
        except NotSettledError:
            return math.inf
        finally:
            softmax.VALUE_TOLERANCE = kept

    for name in counts:
        setattr(propagation, name, counting(name))
    began = time.perf_counter()
    found = value(None)
    seconds = time.perf_counter() - began
    for name, original in originals.items():
        setattr(propagation, name, original)
    return counts["matched"], counts["expected_slopes"], seconds, abs(found - value(1e-5))


def row(case, white, data):
    steps, integrals, seconds, error = measured(white, data)
    return [*case, steps, integrals, f"{1e3 * seconds:.0f}", f"{error:.4f}" if math.isfinite(error) else "not settled"]


def synthetic():
    """A row for each covariance and set of labels."""
    import torch

    from bayesinv.data.container import Data
    from bayesinv.evidence.collapsed import Whitened

    for n, C, scale, length, kind in itertools.product(SIZES, CLASSES, SCALES, LENGTHS, ("in order", "random")):
        t = torch.linspace(0, 3, n, dtype=torch.float64)
        K = scale * (torch.exp(-0.5 * ((t[:, None] - t) / length).square()) + 1e-10 * torch.eye(n))
        white = Whitened(torch.linalg.cholesky(K).T.contiguous(), torch.zeros(n, dtype=torch.float64))
        generator = torch.Generator().manual_seed(0)
        y = torch.arange(n) * C // n if kind == "in order" else torch.randint(C, (n,), generator=generator)
        yield row([n, C, f"{scale:g}", length, kind], white, Data(torch.zeros(n, 1), y, num_classes=C))


def digits(sizes):
    """A row for each number of images."""
    import torch

    import bayesinv
    from bayesinv.evidence import SoftmaxEvidence
    from bayesinv.inference.target import Target

    class Keeping(SoftmaxEvidence):
        """With the features that it was asked about last."""

        def bound(self, white, data):
            self.white = white
            return super().bound(white, data)

    for n in sizes:
        train, _ = bayesinv.datasets.mnist(num_train=n, num_test=1, seed=0)
        model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(), "affine2d", evidence=Keeping())
        model.initialise(train, 0)
        Target(model, train)(torch.tensor(NEAR_A_MODE, dtype=torch.float64))
        yield row([n, 10, "5600", "-", "digits"], model.evidence.white, train)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    print(provenance(), f"\n{options.threads} threads\n")
    rows = list(digits(options.digits) if options.digits else synthetic())
    names = ["examples", "classes", "outputscale", "lengthscale", "labels", "steps", "integrals", "ms", "error, nats"]
    print_table(names, [[str(cell) for cell in cells] for cells in rows])


if __name__ == "__main__":
    main()
