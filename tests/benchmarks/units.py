"""x and y in random units, with random offsets: the same extents, or a warning that names the cure.

    python tests/benchmarks/units.py              # 50 draws, about ten minutes on one core
    python tests/benchmarks/units.py --num 5 --first-seed 3

A draw is a function of its seed alone: a Gaussian process (random features, inducing values, exact) or a network
(Laplace evidence, Augerino), classes or real targets, images, signals or tables; a scale from 1e-6 to 1e6 for x and
another for y, and offsets of up to a thousand spreads, in float64. Images and signals are scaled only, where an offset
is another picture to the transform that fills what it moves in.

"Same" is a posterior within Monte Carlo error of the other (the Kolmogorov-Smirnov distance of the weighted draws, at
the 0.1 % level of as many independent draws as each is worth; a point estimate: a fiftieth of the range), predictions
that moved by less than a tenth of the targets' spread (probabilities: a tenth), and a log evidence that moved by less
than two nats besides the n log s of the targets. "Told" is a warning of ``fit`` on the unit; "untrusted" is a
difference where either fit warns that its draws are poor.
"""

import argparse
import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel, Training
from bayesinv.transforms import ColumnShift, TimeShift, Transform

N = 30
BACKBONES = {
    "features": lambda: GaussianProcess(num_features=256),
    "inducing": lambda: GaussianProcess(num_inducing=12),
    "exact": lambda: GaussianProcess(num_inducing=None),
    "laplace": None,
    "augerino": None,
}
WORDS = ("scale them", "float32 and lies")
# The Kolmogorov-Smirnov distance of two samples of n and m draws exceeds this times sqrt(1/n + 1/m) once in a thousand.
KOLMOGOROV = 1.95


@dataclass
class Draw:
    """One configuration: what is fitted, and in which units."""

    backbone: str
    likelihood: str
    kind: str
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float


def drawn(seed: int) -> Draw:
    """The configuration of a seed."""
    rng = np.random.default_rng(seed)
    backbone, kind = rng.choice(list(BACKBONES)), rng.choice(["images", "signals", "table"])
    scale_x, scale_y = (float(10 ** rng.uniform(-6, 6)) for _ in range(2))
    offset_x, offset_y = (float(size * 10 ** rng.uniform(-1, 3)) for size in (scale_x, scale_y))
    likelihood = str(rng.choice(["categorical", "gaussian"]))
    return Draw(str(backbone), likelihood, str(kind), scale_x, scale_y, offset_x if kind == "table" else 0.0, offset_y)


def examples(draw: Draw, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, y = g(x) + noise and labels, in units of about one."""
    generator = torch.Generator().manual_seed(seed)
    shape = {"images": (1, 6, 6), "signals": (1, 30), "table": (3,)}[draw.kind]
    x = torch.randn(N, *shape, generator=generator, dtype=torch.float64)
    flat = x.flatten(1)
    half = flat.shape[1] // 2
    g = torch.sin(2 * flat[:, 0]) if draw.kind == "table" else flat[:, :half].mean(1) * half**0.5
    y = g + 0.1 * torch.randn(N, generator=generator, dtype=torch.float64)
    return x, y, (y > y.median()).long()


def network(inputs: int, outputs: int) -> nn.Module:
    """Small, with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


def fitted(draw: Draw, x: torch.Tensor, y: torch.Tensor, unit: float) -> tuple[Any, list[str]]:
    """A fit, and what it said of units."""
    transform: Transform | str = {
        "images": "rotation",
        "signals": TimeShift(30.0, largest=0.3),
        "table": ColumnShift([1], largest=2.0 * unit),
    }[draw.kind]
    make = BACKBONES[draw.backbone]
    backbone: Any = make() if make else network(x[0].numel(), 1 if draw.likelihood == "gaussian" else 2)
    model = InvarianceModel(backbone, transform, likelihood=draw.likelihood, num_orbit_samples=4)
    options: dict[str, Any] = {"seed": 0}
    if make is None:
        options["training"] = Training(epochs=40, batch_size=15, extent_every=2)
        options["inference"] = "augerino" if draw.backbone == "augerino" else "vi"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = bayesinv.fit(model, (x, y), **options)
    told = [str(each.message) for each in caught if any(word in str(each.message) for word in WORDS)]
    return posterior, told


def weighted(posterior: Any, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Extents in units of about one, and the weights of the draws."""
    values = posterior[posterior.symmetries[0]].double().numpy() / unit
    log_weights = posterior.log_weights()
    weights = np.ones(len(values)) if log_weights is None else np.exp(log_weights - log_weights.max())
    return values, weights / weights.sum()


def different_extents(one: Any, other: Any, unit: float) -> list[str]:
    """What differs between the posteriors of the extent by more than chance."""
    (a, u), (b, v) = weighted(one, 1.0), weighted(other, unit)
    if a.std() == b.std() == 0:
        largest = float(one.model.coordinates[0].largest)
        return [f"extent {b[0]:.3g} in place of {a[0]:.3g}"] if abs(a[0] - b[0]) > 0.02 * largest else []
    at = np.concatenate([a, b])
    distance = np.abs(u @ (a[:, None] <= at) - v @ (b[:, None] <= at)).max()
    allowed = KOLMOGOROV * math.sqrt((u**2).sum() + (v**2).sum())
    return [f"extents by a distance of {distance:.2f}, {allowed:.2f} by chance"] if distance > allowed else []


def verdict(draw: Draw, seed: int) -> str:
    """ "same", "told", or what differs."""
    x, real, labels = examples(draw, seed)
    regression = draw.likelihood == "gaussian"
    scale, offset = (draw.scale_y, draw.offset_y) if regression else (1.0, 0.0)
    y = real if regression else labels
    one, _ = fitted(draw, x, y, 1.0)
    moved = draw.scale_x * x + draw.offset_x
    other, told = fitted(draw, moved, scale * y + offset if regression else y, draw.scale_x)
    if told:
        return "told"
    unit = draw.scale_x if draw.kind == "table" else 1.0
    differs = different_extents(one, other, unit)
    before, after = one.predict(x), other.predict(moved)
    if regression:
        error = float(((after.mean - offset) / scale - before.mean).abs().mean() / real.std())
    else:
        error = float((after.probs - before.probs).abs().mean())
    if error > 0.1:
        differs.append(f"predictions by {error:.2g}")
    if one.log_evidence is not None:
        nats = abs(other.log_evidence + N * math.log(scale) - one.log_evidence)
        if nats > 2.0:
            differs.append(f"evidence by {nats:.2g} nats")
    poor = any(each.pareto_k is not None and not each.uses_weights() for each in (one, other))
    return ("untrusted: " if differs and poor else "") + ", ".join(differs) or "same"


def main() -> None:
    """Print a line for each draw and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    counts = dict.fromkeys(["same", "told", "untrusted", "other"], 0)
    for seed in range(options.first_seed, options.first_seed + options.num):
        draw, began = drawn(seed), time.perf_counter()
        found = verdict(draw, seed)
        counts[found.split(":")[0] if found.split(":")[0] in counts else "other"] += 1
        units = f"x {draw.scale_x:.1e} + {draw.offset_x:.1e}, y {draw.scale_y:.1e} + {draw.offset_y:.1e}"
        seconds = time.perf_counter() - began
        print(
            f"{seed:4d} {draw.backbone:9s} {draw.likelihood:11s} {draw.kind:8s} {units}: {found} ({seconds:.0f} s)",
            flush=True,
        )
    print(counts)


if __name__ == "__main__":
    main()
