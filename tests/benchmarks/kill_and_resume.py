"""A network fit that is killed at random moments and gone on from, against one that is left alone.

    python tests/benchmarks/kill_and_resume.py

A small network on scikit-learn's digits, a checkpoint every five steps. The process is killed with SIGKILL ten times,
each time after a random while (seed 0) that ends in the middle of its training, and started again; in the end extents,
trace and predictions have to be the same to the bit.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import provenance


def child(checkpoint: str) -> None:
    """One fit, from its checkpoint on where there is one; prints a digest of everything that came out."""
    import torch
    from torch import nn

    import bayesinv
    from bayesinv.datasets import digits

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 10))
    train, test = digits(0.8, num_train=300, seed=0)
    training = bayesinv.Training(epochs=40, batch_size=50, extent_batch_size=60, extent_every=2)
    if checkpoint:
        import dataclasses

        training = dataclasses.replace(training, checkpoint=checkpoint, checkpoint_every=5)
    model = bayesinv.InvarianceModel(net, "affine2d", num_orbit_samples=6)
    print("started", flush=True)
    posterior = bayesinv.fit(model, train, seed=1, device="cpu", training=training)
    digest = hashlib.sha256()
    for tensor in (
        posterior.result.extents,
        torch.tensor(posterior.trace),
        posterior.predict(test.x[:200], num_samples=4).probs,
        *posterior.model.state_dict().values(),
    ):
        digest.update(tensor.detach().numpy().tobytes())
    print(f"digest {digest.hexdigest()}", flush=True)


def start(checkpoint: str) -> subprocess.Popen:
    """The child, past its imports."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", checkpoint]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()  # "started"
    return process


def finish(process: subprocess.Popen) -> str:
    """Its digest."""
    return process.communicate()[0].split()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        child(options.child)
        return
    began = time.perf_counter()
    alone = finish(start(""))
    whole = time.perf_counter() - began
    draws = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = str(Path(folder) / "fit.checkpoint")
        kills = 0
        while kills < options.kills:
            process = start(checkpoint)
            time.sleep(draws.uniform(0.0, 1.5 * whole / options.kills))
            if process.poll() is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        killed = finish(start(checkpoint))
    print(provenance())
    print(f"one run in {whole:.0f} s; killed {kills} times; digests {alone[:12]} and {killed[:12]}")
    print("identical" if alone == killed else "DIFFERENT")
    sys.exit(alone != killed)


if __name__ == "__main__":
    main()
