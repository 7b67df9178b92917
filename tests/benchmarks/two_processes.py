"""A network fit on one process and on two (gloo, one thread each), same total batch: seconds and extents.

    python tests/benchmarks/two_processes.py [--epochs 8]

LeNet with tanh on images of 28×28, S = 8 copies, batches of 100, extent batches of 128. Runs of one process and of two
take turns; two of them need two idle cores. Beside other jobs the CPU seconds of a process, which waits without
spinning, say what idle cores would bring at the most. Both find the same extents up to the rounding of sums.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import common

sys.path.insert(0, str(Path(__file__).parents[2]))


def child(folder: str, epochs: float) -> None:
    """One process of a run; the first one writes seconds and extents."""
    import torch
    import torch.distributed as dist

    import bayesinv
    from bayesinv.inference import evidence_at_mode
    from models.networks import LeNet

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    generator = torch.Generator().manual_seed(0)
    patterns = torch.nn.functional.interpolate(torch.randn(4, 1, 6, 6, generator=generator), (28, 28), mode="bicubic")
    y = torch.arange(1000) % 4
    x = patterns[y] + torch.randn(1000, 1, 28, 28, generator=generator)
    model = bayesinv.InvarianceModel(LeNet(num_classes=4, seed=0), "affine2d", num_orbit_samples=8)
    data = bayesinv.Data(x, y, num_classes=4)
    # What follows the training is not shared, and is not what is measured.
    evidence_at_mode.FEW_DRAWS, evidence_at_mode.NUM_DRAWS = 2, 3
    marks: list[tuple[float, float]] = []
    training = bayesinv.Training(epochs=epochs)
    callbacks = [lambda step: marks.append((step.seconds, time.process_time()))]
    posterior = bayesinv.fit(model, data, seed=0, device="cpu", training=training, callbacks=callbacks)
    if rank == 0:
        (began, cpu), (ended, last) = marks[0], marks[-1]
        found = {"seconds": ended - began, "cpu": last - cpu, "extents": posterior.quantile(0.5).tolist()}
        Path(folder, "found.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def run(size: int, epochs: float) -> dict:
    """A fit of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", __file__, "--child", folder, "--epochs", str(epochs)]
        environment = {**os.environ, "WORLD_SIZE": str(size), "OMP_WAIT_POLICY": "PASSIVE"}
        started = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(size)]
        if any([process.wait() for process in started]):
            raise SystemExit("a process failed")
        return json.loads(Path(folder, "found.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.epochs)
        return
    pairs = [(run(1, options.epochs), run(2, options.epochs)) for _ in range(options.rounds)]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{common.provenance()}; load {load:.1f}\n")
    rows = []
    for name, key in (("seconds of the clock", "seconds"), ("CPU seconds of process 0", "cpu")):
        one, two = ([found[key] for found in runs] for runs in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
        rows.append([name, f"{statistics.median(one):.1f}", f"{statistics.median(two):.1f}", f"{ratio:.2f}"])
    common.print_table(["training", "one process", "two", "ratio"], rows)
    extents = [pairs[0][k]["extents"] for k in range(2)]
    print(f"\nlargest difference of a median extent: {max(abs(a - b) for a, b in zip(*extents, strict=True)):.2g}")


if __name__ == "__main__":
    main()
