"""The evidence of a Gaussian process over shards: CPU seconds per example, and what a million of them would take.

    python tests/benchmarks/shards.py

Images of 16×16, S = 24 copies, 512 random features (513 with the offset), shards of 250, one thread; value
and gradient in six extents. CPU seconds, since those of a busy machine's clock say little.
"""

import argparse
import sys
import time
from pathlib import Path

from common import print_table, provenance

sys.path.insert(0, str(Path(__file__).parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000])
    options = parser.parse_args()
    import torch

    import bayesinv
    from bayesinv.model import initialise_on_shards, log_evidence_of_shards

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    whole = bayesinv.Data(
        torch.rand(max(options.sizes), 1, 16, 16, generator=generator),
        torch.randn(max(options.sizes), 1, generator=generator),
    )
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=512), "affine2d", likelihood="gaussian")
    rows, last = [], 0.0
    for size in options.sizes:
        shards = [whole.subset(slice(start, min(start + 250, size))) for start in range(0, size, 250)]
        initialise_on_shards(model, shards)
        eta = torch.full((6,), 0.2, dtype=torch.float64, requires_grad=True)
        began = time.process_time()
        with torch.no_grad():
            log_evidence_of_shards(model, eta, shards)
        value = time.process_time() - began
        began = time.process_time()
        log_evidence_of_shards(model, eta, shards).backward()
        last = time.process_time() - began
        rows.append([f"{size:,}", f"{value:.1f}", f"{last:.1f}", f"{1e3 * last / size:.2f}"])
    print(provenance() + "\n")
    print_table(["n", "value, CPU s", "value and gradient, CPU s", "ms an example"], rows)
    million = 1e6 * last / options.sizes[-1]
    print(f"\na million examples: {million:,.0f} CPU s; {million / 64:,.0f} s on 64 cores, messages apart")
    M = 512 + 1
    print(f"message of the statistics: {8 * (M * M + M) / 1e6:.1f} MB; of the gradient: {8 * (6 + 3)} bytes")


if __name__ == "__main__":
    main()
