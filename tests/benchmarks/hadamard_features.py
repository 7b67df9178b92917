"""Dense orthogonal frequencies against structured ones (SORF): time of X W, and of its gradient in X, at equal error.

    python tests/benchmarks/hadamard_features.py [--rows 12000] [--threads 2] [--rounds 7]

Structured frequencies are √d H D₁ H D₂ H D₃ of d = 2^k ≥ D inputs, H the normalised Walsh-Hadamard matrix and D_i
random signs (Yu et al., 2016, arXiv:1610.09072), whose columns come in blocks of d. The error is that of the squared
exponential at the median distance of the points, root mean square over pairs and seeds; it goes as 1/√R, so that "R of
equal error" is R times the ratio of the two mean squares; R itself if that is within their noise. Times are the
fastest of the rounds, in milliseconds. Both products end in R columns for cosines and sines, which
cost either of them the same and are timed apart. Two ways to take the transform: k additions of halves, and √d x √d
matrices on both sides of a square (a Kronecker product), which leaves the work to the matrix product.
"""

import argparse
import math
import os
import time
from collections.abc import Callable

import torch
from common import print_table, provenance
from gpytorch.kernels import RBFKernel
from torch import Tensor

from bayesinv.backbones.spectral import Frequencies

SIZES = [(256, 512), (256, 1024), (784, 512), (784, 1024)]
NUM_POINTS, NUM_SEEDS = 60, 20
NOISE = 0.05  # relative, of the ratio of two mean squares


def hadamard(d: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The normalised Walsh-Hadamard matrix, d a power of two."""
    H = torch.ones(1, 1, dtype=dtype)
    while len(H) < d:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)]) / math.sqrt(2.0)
    return H


def by_additions(x: Tensor) -> Tensor:
    """x H for rows x of 2^k numbers, in k passes."""
    shape, d = x.shape, x.shape[-1]
    half = 1
    while half < d:
        pairs = x.reshape(-1, d // (2 * half), 2, half)
        x = torch.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], 2)
        half *= 2
    return x.reshape(shape) / math.sqrt(d)


def by_squares(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """x H, H = left ⊗ right."""
    square = x.reshape(-1, len(left), len(right))
    return (left @ (square @ right)).reshape(x.shape)


class Structured:
    """x ↦ x W for W of R structured columns of a unit lengthscale."""

    def __init__(self, D: int, R: int, seed: int, squares: bool, dtype: torch.dtype = torch.float32):
        self.D, self.R = D, R
        self.d = 2 ** math.ceil(math.log2(D))
        blocks = math.ceil(R / self.d)
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (blocks, 3, self.d), generator=generator)
        self.signs = (2 * signs - 1).to(dtype)
        k = int(math.log2(self.d))
        left, right = hadamard(2 ** (k // 2), dtype), hadamard(2 ** (k - k // 2), dtype)
        self.transform: Callable[[Tensor], Tensor] = (lambda x: by_squares(x, left, right)) if squares else by_additions

    def __call__(self, x: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, (0, self.d - self.D))
        parts = []
        for signs in self.signs:
            y = padded
            for s in signs:
                y = self.transform(y * s)
            parts.append(y)
        return torch.cat(parts, -1)[..., : self.R] * math.sqrt(self.d)


def mean_square_error(project: Callable[[int, int], Callable[[Tensor], Tensor]], D: int, R: int) -> float:
    """Of the squared exponential of unit lengthscale, points at a median distance of √2."""
    x = torch.randn(NUM_POINTS, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / math.sqrt(D)
    truth = (-0.5 * torch.cdist(x, x).square()).exp()
    upper = torch.triu_indices(NUM_POINTS, NUM_POINTS, offset=1).unbind()
    total = 0.0
    for seed in range(NUM_SEEDS):
        phase = project(R, seed)(x)
        phi = torch.cat([phase.cos(), phase.sin()], -1) / math.sqrt(R)
        total += (phi @ phi.T - truth)[upper].square().mean().item()
    return total / NUM_SEEDS


def seconds(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Seconds of the fastest round of each call; they take turns, since other processes may share the cores."""
    spent: list[list[float]] = [[] for _ in calls]
    for round_ in range(-1, rounds):
        for call, times in zip(calls, spent, strict=True):
            start = time.perf_counter()
            call()
            if round_ >= 0:  # the first warms up
                times.append(time.perf_counter() - start)
    return [min(times) for times in spent]


@torch.no_grad()
def dense(kernel: RBFKernel, D: int, R: int, seed: int) -> Callable[[Tensor], Tensor]:
    W = Frequencies(kernel, D, R, seed)(kernel)[0]
    return lambda x: x @ W.to(x.dtype)


def with_gradient(project: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    leaf = x.clone().requires_grad_()
    return lambda: torch.autograd.grad(project(leaf).sum(), leaf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{options.rows} rows, float32, milliseconds; forward / forward and gradient in X")
    print(f"{provenance()}; {options.threads} threads, load {load:.1f}\n")
    kernel = RBFKernel()
    kernel.lengthscale = 1.0
    rows = []
    for D, R in SIZES:
        ours = mean_square_error(lambda R, seed, D=D: dense(kernel, D, R, seed), D, R)
        structured = mean_square_error(
            lambda R, seed, D=D: Structured(D, R, seed, squares=True, dtype=torch.float64), D, R
        )
        ratio = structured / ours
        needed = R if abs(ratio - 1.0) < NOISE else math.ceil(R * ratio)
        x = torch.randn(options.rows, D, generator=torch.Generator().manual_seed(0)) / math.sqrt(D)
        projections = [
            dense(kernel, D, R, 0),
            Structured(D, needed, 0, squares=False),
            Structured(D, needed, 0, squares=True),
        ]
        forward = seconds([lambda project=project, x=x: project(x) for project in projections], options.rounds)
        backward = seconds([with_gradient(project, x) for project in projections], options.rounds)
        phase = torch.randn(options.rows, R, generator=torch.Generator().manual_seed(0))
        (rest,) = seconds([lambda phase=phase: (phase.cos(), phase.sin())], options.rounds)
        rows.append(
            [
                D,
                R,
                f"{math.sqrt(ours):.4f}",
                f"{math.sqrt(structured):.4f}",
                needed,
                *[f"{1e3 * f:.1f} / {1e3 * b:.1f}" for f, b in zip(forward, backward, strict=True)],
                f"{1e3 * rest:.1f}",
            ]
        )
    print_table(
        ["D", "R", "error", "structured", "R of equal error", "dense", "additions", "squares", "cos and sin"], rows
    )


if __name__ == "__main__":
    main()
