"""The neural benchmark on CUDA against the CPU: the same fit on both, seconds and extents.

    BAYESINV_DATA=... python tests/benchmarks/cuda_networks.py

LeNet, MNIST over the full circle, S = 8; CUDA once as it is and once in mixed precision. Without a GPU it says so and
ends with status 0. Sums run in another order on a GPU, so that extents agree within their intervals and not to the bit.
"""

import argparse
import math
import sys
import time
import warnings
from pathlib import Path

from common import print_table, provenance

sys.path.insert(0, str(Path(__file__).parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print(f"no CUDA device here (torch {torch.__version__}); nothing measured")
        return
    import bayesinv
    from models.networks import LeNet

    warnings.simplefilter("ignore")
    train, test = bayesinv.datasets.mnist(num_train=options.num_train, rotation=math.pi, seed=options.seed)
    rows = []
    for device, mixed in (("cpu", False), ("cuda", False), ("cuda", True)):
        model = bayesinv.InvarianceModel(LeNet(seed=options.seed), "affine2d", num_orbit_samples=8)
        training = bayesinv.Training(epochs=options.epochs, mixed_precision=mixed)
        for repeat in range(2 if device == "cuda" else 1):  # the first run on a GPU compiles and plans
            began = time.perf_counter()
            posterior = bayesinv.fit(model, train, seed=options.seed, device=device, training=training)
            seconds = time.perf_counter() - began
            if repeat:
                break
        low, median, high = (math.degrees(q) for q in posterior.quantile([0.05, 0.5, 0.95])[:, 2].tolist())
        accuracy = 100 * float((posterior.predict(test.x, num_samples=8).labels.cpu() == test.y).double().mean())
        name = f"{device}, bfloat16" if mixed else device
        rows.append([name, f"{seconds:.1f}", f"{median:.0f} [{low:.0f}, {high:.0f}]", f"{accuracy:.1f}"])
    print(provenance() + f"; {torch.cuda.get_device_name()}")
    print_table(["device", "seconds", "rotation, °", "test accuracy, %"], rows)


if __name__ == "__main__":
    main()
