"""Saves, checkpoints and output folders, each killed with SIGKILL at 30 random moments while it is written.

    python tests/benchmarks/kill_while_writing.py

After every kill the file or folder has to be there and whole, and after the next write nothing else may be.
"""

import argparse
import functools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import bayesinv
from bayesinv.cli.folder import output_folder, posterior_files, read_run, write_run
from bayesinv.io.checkpoints import Checkpoint, CheckpointFile


def save(posterior: bayesinv.InvariancePosterior, path: Path) -> None:
    posterior.save(path, overwrite=True)


def checkpoint(path: Path) -> None:
    file = CheckpointFile(path, {"seed": 0})
    file.write(Checkpoint(5, False, [{"w": torch.rand(500, 500)}], [], (1.0, 2.0), 0.1))


def folder(posterior: bayesinv.InvariancePosterior, path: Path) -> None:
    with output_folder(path, overwrite=True) as part:
        posterior.save(part / "posterior.npz")
        write_run(part, "fit", {"reading": {}, "classes": []})


def read_checkpoint(path: Path) -> None:
    assert CheckpointFile(path, {"seed": 0}).read().step == 5


def read_folder(path: Path) -> None:
    read_run(path)
    for file in posterior_files(path):
        bayesinv.load(file)


def kill_while(write: Callable[[Path], None], read: Callable[[Path], None], kills: int, draws: random.Random) -> int:
    """How often there was a part of a file when the writer was killed; raises if something was lost or is left."""
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent) / "run"
        began = time.perf_counter()
        for _ in range(3):
            write(path)
        each = (time.perf_counter() - began) / 3
        left = 0
        for _ in range(kills):
            child = os.fork()
            if child == 0:
                while True:
                    write(path)
            time.sleep(0.01 + draws.uniform(0.0, 3.0 * each))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            left += len(os.listdir(parent)) > 1
            read(path)
            write(path)
            found = os.listdir(parent)
            if found != ["run"]:
                raise RuntimeError(f"expected the file alone, found {found}")
        return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a child has none of the threads of its parent
    torch.manual_seed(0)
    x, y = torch.rand(16, 1, 28, 28), torch.arange(16) % 2
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_inducing=5), "rotation", num_orbit_samples=3)
    posterior = bayesinv.fit(model, (x, y), seed=0, max_steps=3, num_draws=100)
    writers = {
        "saves": (functools.partial(save, posterior), bayesinv.load),
        "checkpoints": (checkpoint, read_checkpoint),
        "output folders": (functools.partial(folder, posterior), read_folder),
    }
    draws = random.Random(0)
    for name, (write, read) in writers.items():
        left = kill_while(write, read, options.kills, draws)
        print(f"{name}: {options.kills} kills, {left} of them in the middle: nothing lost, nothing left", flush=True)


if __name__ == "__main__":
    sys.exit(main())
