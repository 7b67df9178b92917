"""What the benchmark scripts share: the line that says where numbers come from, jobs side by side, tables."""

import datetime
import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# One thread a job: side-by-side jobs that each spin two threads on two cores run ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# The same for every script, and less than a plateau takes on some sets (about 500): the tables can be rerun in minutes.
MAX_STEPS = 400


def provenance() -> str:
    """Machine, versions and date in one line."""
    import gpytorch
    import pyro
    import torch

    import bayesinv

    versions = f"bayesinv {bayesinv.__version__}, torch {torch.__version__}, Pyro {pyro.__version__}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{datetime.date.today()}; {machine}; {versions}, GPyTorch {gpytorch.__version__}"


def write_picture(draw: Callable[[], Any], doc: str | None) -> int:
    """The program of a script that draws one picture: its only argument is the path; the exit status."""
    if len(sys.argv) != 2:
        print(doc)
        return 2
    draw().savefig(sys.argv[1], dpi=100)
    return 0


def side_by_side(job: Callable[[Any], Any], arguments: Iterable[Any], num_jobs: int) -> Iterable[Any]:
    """Results in order, `num_jobs` processes at a time by joblib's backend; 1 is this process, 0 a fresh one."""
    if num_jobs == 1:
        return [job(argument) for argument in arguments]
    if num_jobs == 0:  # whose memory nobody has used before
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return list(pool.map(job, list(arguments)))
    import joblib

    return list(joblib.Parallel(n_jobs=num_jobs)(joblib.delayed(job)(argument) for argument in arguments))


def kept(compute: Callable[[dict[str, Any]], dict[str, Any]], case: dict[str, Any], script: str) -> dict[str, Any]:
    """What a job finds, or what is kept of it in case["folder"], by case and by the state of the script."""
    made_of = [*sorted((name, value) for name, value in case.items() if name != "folder"), Path(script).read_text()]
    file = Path(case["folder"]) / f"{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.json"
    if not file.exists():
        unfinished = file.with_suffix(f".{os.getpid()}.part")
        unfinished.write_text(json.dumps(compute(case)))
        unfinished.replace(file)
    return json.loads(file.read_text())


def gaussian_process(kind: str, kernel: Any = None) -> Any:
    """ "default"; "exact", without inducing values; "inducing:75", with 75; or "features:1024", random ones."""
    import bayesinv

    name, _, number = kind.partition(":")
    options = {
        "default": {},
        "exact": {"num_inducing": None},
        "inducing": {"num_inducing": int(number or 0)},
        "features": {"num_features": int(number or 0)},
    }
    if name not in options or (name in ("inducing", "features")) != bool(number):
        raise ValueError(f'expected "default", "exact", "inducing:NUMBER" or "features:NUMBER", got {kind!r}')
    return bayesinv.GaussianProcess(kernel, **options[name])


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def calibration_error(probs: Any, labels: Any) -> float:
    """Expected calibration error, once the threads are set."""
    from bayesinv import metrics

    return metrics.calibration_error(probs, labels)


def mean_and_range(values: Sequence[float], digits: int = 1) -> str:
    """ "93.8 [93.1, 94.4]": mean, smallest and largest."""
    mean = math.fsum(values) / len(values)
    return f"{mean:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"
