"""Everything on one GPU, in at most eight minutes: checks against the CPU, fits, throughput; one JSON.

    python tests/benchmarks/gpu.py --out gpu.json          # all of it on a GPU; small sizes on the CPU without one
    python tests/benchmarks/gpu.py --sections checks waits --out gpu.json

Sections: `checks` (orbit and evidences on the device against the CPU, values and gradients), `copies` (the orbit's
bytes a second against those of a plain copy), `waits` (how often a step of a training makes the host wait), `process`
(fit of a Gaussian process on digits), `lenet` (the same fit of a network on both devices) and `resnet` (ResNet-18 on
10,000 coloured images, both stages, bfloat16). One that fails is an entry with its error, and no other section suffers;
one that would start after ``--limit`` seconds is left out and named. Sums run in another order on a GPU, so that fits
agree within their intervals and not to the bit.
"""

import argparse
import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

# Of values and gradients in float32 against the CPU, relative to the largest entry.
TOLERANCE = 1e-3


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """The quickest of some calls; one more warms up."""
    times = []
    for _ in range(rounds + 1):
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, relative to the largest entry."""
    one, other = one.detach().double().cpu(), other.detach().double().cpu()
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))


def striped(num: int, size: int, channels: int = 1, classes: int = 3, seed: int = 0) -> Any:
    """Images whose class is that of a smooth pattern, turned by up to ±45° and under noise; CIFAR-like in size."""
    import bayesinv
    from bayesinv.transforms import Affine2d

    coarse = torch.randn(classes, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    patterns = nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    generator = torch.Generator().manual_seed(1 + seed)
    y = torch.arange(num) % classes
    angle = 1.57 * (torch.rand(num, 1, generator=generator) - 0.5)
    turn = Affine2d(["rotation"])
    parts = zip(y.split(2000), angle.split(2000), strict=True)
    x = torch.cat([turn(patterns[some], t) for some, t in parts])
    return bayesinv.Data(x + 0.5 * torch.randn(x.shape, generator=generator), y, num_classes=classes)


def small_net(channels: int, size: int, classes: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * (size - 2) ** 2, classes)
        )


def checks(device: torch.device, small: bool) -> dict[str, Any]:
    """Values and gradients on the device against the CPU."""
    import bayesinv
    from bayesinv.evidence import LaplaceEvidence
    from bayesinv.transforms import Affine2d

    num, size = (12, 8) if small else (60, 16)
    data = striped(num, size)
    found: dict[str, float] = {}
    eta = torch.tensor([0.2, 0.1, 0.7, 0.1, 0.1, 0.1])
    eps = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, t in (("shared orbit", eps), ("orbit per image", eps[:, None].expand(8, num, 6))):
        values, slopes = [], []
        for place in (torch.device("cpu"), device):
            leaf = eta.to(place).requires_grad_()
            affine = Affine2d().to(place)
            call = affine.orbit if t.ndim == 2 else affine.orbit_per_example
            moved = call(data.x.to(place), leaf * t.to(place))
            values.append(moved)
            slopes.append(torch.autograd.grad(moved.square().sum(), leaf)[0])
        found |= {name: difference(values[1], values[0]), f"{name}, gradient": difference(slopes[1], slopes[0])}
    regression = bayesinv.Data(data.x, data.x.mean((1, 2, 3))[:, None].double())
    models = {
        "evidence, gaussian": (bayesinv.GaussianProcess(num_features=32), "gaussian", "auto", regression),
        "evidence, softmax": (bayesinv.GaussianProcess(num_features=32), "categorical", "auto", data),
        "evidence, laplace": (small_net(1, size, 3), "categorical", LaplaceEvidence(num_outputs=None), data),
    }
    for name, (backbone, likelihood, evidence, given) in models.items():
        values, slopes = [], []
        model = bayesinv.InvarianceModel(
            backbone, "affine2d", likelihood, evidence, num_orbit_samples=4, precision="double"
        )
        model.initialise(given)
        for place in (torch.device("cpu"), device):
            leaf = eta.double().requires_grad_()
            value = model.to(place).log_evidence(leaf, given.to(place))
            values.append(value)
            slopes.append(torch.autograd.grad(value, leaf)[0])
        found |= {name: difference(values[1], values[0]), f"{name}, gradient": difference(slopes[1], slopes[0])}
    return {"relative differences": found, "tolerance": TOLERANCE, "passed": max(found.values()) <= TOLERANCE}


def copies(device: torch.device, small: bool) -> dict[str, Any]:
    """Bytes a second of the orbit, which reads its inputs and writes its copies, against those of a copy."""
    from bayesinv.transforms import Affine2d

    batch, num, size, rounds = (16, 4, 28, 2) if small else (1024, 16, 32, 10)
    x = torch.rand(batch, 3, size, size, device=device)
    affine = Affine2d().to(device)
    eta = torch.tensor([0.1, 0.1, 0.7, 0.2, 0.2, 0.2], device=device)
    eps = torch.rand(num, 6, device=device) * 2 - 1
    each = torch.rand(num, batch, 6, device=device) * 2 - 1
    weight = torch.rand(num, batch, 3, size, size, device=device)
    leaf = eta.clone().requires_grad_()
    into = torch.empty_like(weight)
    bound = 2 * weight.nbytes / seconds(lambda: into.copy_(weight), device, rounds)
    calls = {
        "shared, forward": lambda: affine.orbit(x, eta * eps),
        "shared, with gradient": lambda: affine.orbit(x, leaf * eps).backward(weight),
        "per image, forward": lambda: affine.orbit_per_example(x, eta * each),
        "per image, with gradient": lambda: affine.orbit_per_example(x, leaf * each).backward(weight),
    }
    rows = {}
    for name, call in calls.items():
        spent = seconds(call, device, rounds)
        moved = x.nbytes + weight.nbytes  # the least that has to be read and written, whatever is kept between
        rows[name] = {"images/s": num * batch / spent, "share of the copy bound": moved / spent / bound}
    return {"copy, bytes/s": bound, "orbit": rows}


def waits(device: torch.device, small: bool) -> dict[str, Any]:
    """Warnings of CUDA's own count of waits, over the steps of a fit; nothing to count on the CPU."""
    import bayesinv

    size = 8 if small else 16
    model = bayesinv.InvarianceModel(small_net(1, size, 3), ["rotation", "scale_x"], num_orbit_samples=4)
    num_steps = 20 if small else 60
    training = bayesinv.Training(batch_size=20, extent_batch_size=20)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            data = striped(60, size)
            posterior = bayesinv.fit(model, data, seed=0, device=device, max_steps=num_steps, training=training)
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    count = sum("synchronizing" in str(warning.message) for warning in caught)
    return {"steps": posterior.result.num_steps, "waits of the whole fit": count if device.type == "cuda" else None}


def summary(posterior: Any, spent: float) -> dict[str, Any]:
    quantiles = posterior.quantile([0.05, 0.5, 0.95])
    extents = {name: quantiles[:, k].tolist() for k, name in enumerate(posterior.symmetries)}
    return {"seconds": spent, "extents, 5 / 50 / 95 %": extents, "converged": posterior.result.converged}


def process(device: torch.device, small: bool) -> dict[str, Any]:
    """A Gaussian process on digits, on the device and on the CPU."""
    import bayesinv

    num, features, copies_ = (40, 24, 4) if small else (500, 512, 24)
    train = bayesinv.datasets.digits(rotation=0.785, num_train=num, seed=0).train
    found = {}
    for place in dict.fromkeys([str(device), "cpu"]):
        model = bayesinv.InvarianceModel(
            bayesinv.GaussianProcess(num_features=features),
            "rotation" if small else "affine2d",
            num_orbit_samples=copies_,
        )
        began = time.perf_counter()
        posterior = bayesinv.fit(model, train, seed=0, device=place, num_draws=30 if small else None)
        found[place] = summary(posterior, time.perf_counter() - began)
    return found


def lenet(device: torch.device, small: bool) -> dict[str, Any]:
    """A network on both devices, and on a GPU in bfloat16 too."""
    import bayesinv

    num, size, epochs = (40, 8, 2) if small else (2000, 28, 12)
    data, test = striped(num, size), striped(200, size, seed=1)
    runs = [(str(device), False)] + ([("cuda", True), ("cpu", False)] if device.type == "cuda" else [])
    found = {}
    for place, mixed in runs:
        net = small_net(1, size, 3)
        if not small:
            from models.networks import LeNet

            net = LeNet(num_classes=3, seed=0)
        model = bayesinv.InvarianceModel(net, "affine2d", num_orbit_samples=2 if small else 8)
        training = bayesinv.Training(epochs=epochs, batch_size=20 if small else 100, mixed_precision=mixed)
        began = time.perf_counter()
        posterior = bayesinv.fit(model, data, seed=0, device=place, training=training)
        spent = time.perf_counter() - began
        probs = posterior.predict(test.x, num_samples=4).probs.cpu()
        accuracy = float((probs.argmax(-1) == test.y).double().mean())
        name = f"{place}, bfloat16" if mixed else place
        found[name] = {**summary(posterior, spent), "accuracy": accuracy}
    return found


def resnet(device: torch.device, small: bool) -> dict[str, Any]:
    """ResNet-18 on CIFAR-like images, both stages."""
    from torchvision.models import resnet18

    import bayesinv

    num, epochs, size = (24, 1, 32) if small else (10_000, 3, 32)
    data = striped(num, size, 3, 3 if small else 10)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: Any = small_net(3, size, 3) if small else resnet18(num_classes=10)
    if not small:
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    model = bayesinv.InvarianceModel(net, "rotation", num_orbit_samples=2 if small else 4, memory_budget=2**34)
    training = bayesinv.Training(
        epochs=epochs,
        batch_size=12 if small else 128,
        extent_batch_size=6 if small else 32,
        extent_every=4,
        mixed_precision=device.type == "cuda",
        second_stage=bayesinv.SecondStage(share=0.5),
    )
    began = time.perf_counter()
    posterior = bayesinv.fit(model, data, seed=0, device=device, training=training)
    spent = time.perf_counter() - began
    steps = posterior.result.num_steps
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {**summary(posterior, spent), "steps": steps, "images/s": num * epochs / spent, "bytes at most": memory}


SECTIONS = {f.__name__: f for f in (checks, copies, waits, process, lenet, resnet)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--limit", type=float, default=400.0, help="seconds after which no section starts (400)")
    options = parser.parse_args(argv)
    small = not torch.cuda.is_available()
    device = torch.device("cpu" if small else "cuda")
    warnings.simplefilter("ignore")
    began, found = time.perf_counter(), dict[str, Any]()
    for name in options.sections:
        start = time.perf_counter()
        if start - began > options.limit:
            found[name] = {"left out": f"{start - began:.0f} s had passed"}
            write(options.out, found, small, began)
            continue
        try:
            found[name] = SECTIONS[name](device, small)
        except Exception as error:  # one section tells nothing of the others, and a GPU is not often at hand
            found[name] = {"error": f"{type(error).__name__}: {error}", "where": traceback.format_exc()[-2000:]}
        found[name]["section seconds"] = time.perf_counter() - start
        print(name, json.dumps(found[name], ensure_ascii=False), flush=True)
        write(options.out, found, small, began)


def write(path: Path, found: dict[str, Any], small: bool, began: float) -> None:
    """All that was found until now."""
    content = {
        "made": common.provenance(),
        "device": "CPU, small sizes: the numbers mean nothing" if small else torch.cuda.get_device_name(),
        "seconds": time.perf_counter() - began,
        "sections": found,
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
