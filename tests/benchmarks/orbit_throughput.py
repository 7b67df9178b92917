"""How many transformed images a second: our two paths, kornia and torchvision.

    python tests/benchmarks/orbit_throughput.py [--threads N] [--device cpu|cuda] [--compiled]

The setting is that of the project's target: 128 images × 16 copies of 28×28, float32, one channel.
All methods take turns inside every round of one run, so that a busy machine slows them alike; the
table gives the median round, the quickest, and the median over rounds of the ratio to kornia's.
kornia and torchvision draw their parameters inside the timed call, as they do in use; ours are
scaled from base draws there (t = η·ε). Without kornia its row and its ratios are left out. ``--compiled`` adds our two
paths through ``torch.compile``, which takes a minute once.
"""

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch

from bayesinv.orbits.orbit import base_draws
from bayesinv.transforms import Affine2d

BATCH, COPIES, SIZE = 128, 16, 28
KORNIA = "kornia RandomAffine, forward"


def methods(device: torch.device, compiled: bool = False) -> dict[str, Callable[[], object]]:
    """The timed calls by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kornia scripts functions at import
        try:
            import kornia
        except ImportError:
            kornia = None
        from torchvision.transforms import InterpolationMode, v2

    x = torch.rand(BATCH, 1, SIZE, SIZE, device=device)
    copies = x.repeat(COPIES, 1, 1, 1)
    affine = Affine2d().to(device)
    eta = torch.tensor([0.1, 0.1, 0.7, 0.2, 0.2, 0.2], device=device)
    leaf = eta.clone().requires_grad_()
    shared = base_draws(COPIES, 6, dtype=torch.float32, device=device)
    each = base_draws(COPIES * BATCH, 6, dtype=torch.float32, device=device)
    each = each.reshape(COPIES, BATCH, 6)
    weight = torch.randn(COPIES, BATCH, 1, SIZE, SIZE, device=device)
    ranges = {"degrees": 40.0, "translate": (0.05, 0.05), "scale": (0.8, 1.25)}
    shear = (-11.0, 11.0)
    random_torchvision = v2.RandomAffine(**ranges, shear=shear, interpolation=InterpolationMode.BILINEAR)

    def with_gradient(path: Callable, eps: torch.Tensor) -> None:
        leaf.grad = None
        path(x, leaf * eps).backward(weight)

    calls: dict[str, Callable[[], object]] = {
        "shared orbit, forward": lambda: affine.orbit(x, eta * shared),
        "shared orbit, forward + gradient in η": lambda: with_gradient(affine.orbit, shared),
        "one draw per image, forward": lambda: affine.orbit_per_example(x, eta * each),
        "one draw per image, forward + gradient in η": lambda: with_gradient(affine.orbit_per_example, each),
        # It draws once per call, so one draw per image means one call per image.
        "torchvision v2 RandomAffine, forward": lambda: [random_torchvision(i) for i in copies],
    }
    if kornia is not None:
        random_kornia = kornia.augmentation.RandomAffine(**ranges, shear=shear, p=1.0)
        calls[KORNIA] = lambda: random_kornia(copies)
    if compiled:
        orbit, per_image = torch.compile(affine.orbit), torch.compile(affine.orbit_per_example)
        calls["shared orbit, forward, compiled"] = lambda: orbit(x, eta * shared)
        calls["shared orbit, forward + gradient in η, compiled"] = lambda: with_gradient(orbit, shared)
        calls["one draw per image, forward, compiled"] = lambda: per_image(x, eta * each)
        calls["one draw per image, forward + gradient in η, compiled"] = lambda: with_gradient(per_image, each)
    return calls


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def machine(device: torch.device) -> str:
    """What it ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="rounds of all methods")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--compiled", action="store_true", help="our paths through torch.compile too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    calls = methods(device, options.compiled)
    times: dict[str, list[float]] = {name: [] for name in calls}
    slow = "torchvision v2 RandomAffine, forward"
    for round_ in range(-3, options.rounds):
        for name, call in calls.items():
            if name == slow and round_ >= 3:
                continue  # about a quarter of a second a call, and steady
            spent = seconds(call, device)
            if round_ >= 0:  # the first three warm up
                times[name].append(spent)

    images = BATCH * COPIES
    reference = times.get(KORNIA, [])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{BATCH} images x {COPIES} copies of {SIZE}x{SIZE}, float32, median of {options.rounds}")
    print(f"{machine(device)}, {options.threads} threads, load {load:.1f}")
    print(f"{datetime.date.today()}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    print()
    print("| method | images/s (median) | images/s (best) | x kornia |")
    print("|---|---:|---:|---:|")
    for name, spent in times.items():
        median = statistics.median(spent)
        ratios = [theirs / ours for theirs, ours in zip(reference, spent, strict=False)]
        shown = f"{statistics.median(ratios):.2g}" if ratios else ""
        print(f"| {name} | {images / median:,.0f} | {images / min(spent):,.0f} | {shown} |")


if __name__ == "__main__":
    main()
