"""Transformed examples a second, for every registered transform: forward, and with the gradient in the extents.

    python tests/benchmarks/transform_throughput.py [--batch 64] [--copies 16] [--threads 1] [--device cpu|cuda]

float32; "shared" is one orbit for the batch, "own" one draw for each copy of each example. Draws of the coordinates are
scaled from base draws inside the timed call, as in use. All calls of one transform take turns, and the median round
counts. Finite groups have no gradient in t: their weights carry it.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from common import print_table, provenance
from transform_examples import examples

from bayesinv.orbits.orbit import base_draws
from bayesinv.testing.transforms import TransformCase
from bayesinv.transforms import Transform


def calls(transform: Transform, x: torch.Tensor, copies: int) -> list[Callable[[], object] | None]:
    """Shared forward, shared with gradient, own forward, own with gradient; None where there is none."""
    case = TransformCase(transform, x)
    batch, columns = len(x), transform.num_columns
    eta = case.extents().to(x)
    leaf = eta.clone().requires_grad_()
    weight = torch.randn(copies, *x.shape, device=x.device)
    shared = base_draws(copies, columns, dtype=x.dtype, device=x.device)
    own = base_draws(copies * batch, columns, dtype=x.dtype, device=x.device).reshape(copies, batch, columns)

    def forward(path: Callable, eps: torch.Tensor) -> Callable[[], object]:
        return lambda: path(x, case.at(eta, eps))

    def with_gradient(path: Callable, eps: torch.Tensor) -> Callable[[], object] | None:
        if not case.continuous:
            return None
        return lambda: torch.autograd.grad((weight * path(x, case.at(leaf, eps))).sum(), leaf)

    return [
        forward(transform.orbit, shared),
        with_gradient(transform.orbit, shared),
        forward(transform.orbit_per_example, own),
        with_gradient(transform.orbit_per_example, own),
    ]


def medians(timed: list[Callable[[], object] | None], rounds: int, device: torch.device) -> list[float | None]:
    """Seconds of a call."""
    spent: list[list[float]] = [[] for _ in timed]
    for round_ in range(-1, rounds):
        for call, times in zip(timed, spent, strict=True):
            if call is None:
                continue
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_ >= 0:  # the first warms up
                times.append(time.perf_counter() - start)
    return [statistics.median(times) if times else None for times in spent]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(
        f"{options.batch} examples × {options.copies} copies, float32, thousands of copies a second, {options.device}"
    )
    print(f"{provenance()}; {options.threads} threads, load {load:.1f}\n")
    rows = []
    for _, shape, transform, make in examples():
        x = make(options.batch).to(device)
        times = medians(calls(transform.to(device), x, options.copies), options.rounds, device)
        rate = ["–" if t is None else f"{options.batch * options.copies / t / 1000:,.3g}" for t in times]
        rows.append([type(transform).__name__, shape, *rate])
    print_table(["transform", "example", "shared", "shared + gradient", "own", "own + gradient"], rows)


if __name__ == "__main__":
    main()
