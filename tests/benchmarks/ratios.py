"""One table of ratios, each measured side by side in one run, against the last one that was committed.

    make bench
    python tests/benchmarks/ratios.py --small --json bench.json --page bench.md

What is compared takes turns inside every round, so that a busy machine slows both alike; a ratio is the median over
rounds. kornia is measured where it is installed (``pip install "bayesinv[benchmarks]"``). Augerino's formulation is
written here: one matrix exponential and one ``grid_sample`` for every copy of every image.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from common import provenance

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

BATCH, COPIES, SIZE = 128, 16, 28
# What a fit by Adam on inducing values took in the first version, whose tables name 260 to 420 and more.
FORMER_EVALUATIONS = 400
WORSE = 0.8  # of the committed ratio: below that a line of the comparison says so


@dataclass(frozen=True)
class Row:
    """One ratio: how many times as fast as the reference; above 1 is better. `asked` is what issues asked for."""

    name: str
    ours: float
    reference: float
    ratio: float
    against: str
    asked: str = ""


def by_turns(
    ours: Callable[[], Any], other: Callable[[], Any], rounds: int, share: float = 1.0, warm: bool = True
) -> list[float]:
    """Median seconds of both and the median of their ratio; the other one's call does `share` of the work."""
    times: list[tuple[float, float]] = []
    for round_ in range(-1 if warm and rounds > 1 else 0, rounds):
        pair = []
        for call in (ours, other):
            began = time.perf_counter()
            call()
            pair.append(time.perf_counter() - began)
        if round_ >= 0:  # the first one warms up
            times.append((pair[0], pair[1] / share))
    ratio = statistics.median(b / a for a, b in times)
    return [statistics.median(a for a, _ in times), statistics.median(b for _, b in times), ratio]


def augerino(x: torch.Tensor, t: torch.Tensor, generators: torch.Tensor) -> torch.Tensor:
    """Each of n images under its own t: exp(Σ_k t_k G_k), a grid, and its values."""
    matrices = torch.linalg.matrix_exp(torch.einsum("nk,kij->nij", t, generators))
    grid = torch.nn.functional.affine_grid(matrices[:, :2], list(x.shape), align_corners=True)
    return torch.nn.functional.grid_sample(x, grid, align_corners=True)


def orbit_rows(small: bool) -> Iterator[Row]:
    """The orbit of a batch against kornia, torchvision and Augerino's, with one thread and with all."""
    from bayesinv.orbits.orbit import base_draws
    from bayesinv.transforms import Affine2d

    batch, copies, rounds = (8, 4, 1) if small else (BATCH, COPIES, 9)
    torch.manual_seed(0)
    x = torch.rand(batch, 1, SIZE, SIZE)
    affine, eta = Affine2d(), torch.tensor([0.1, 0.1, 0.7, 0.2, 0.2, 0.2])
    leaf = eta.clone().requires_grad_()
    shared = base_draws(copies, 6, dtype=torch.float32)
    each = base_draws(copies * batch, 6, dtype=torch.float32)
    many = x.repeat(copies, 1, 1, 1)
    weight = torch.randn(copies * batch, 1, SIZE, SIZE)
    generators = affine.generators.float()
    others = dict(_random_affine(many, small))
    per_image = each.reshape(copies, batch, 6)
    for threads in (1,) if small else (1, os.cpu_count() or 1):
        torch.set_num_threads(threads)
        said = f"{threads} thread{'s' if threads > 1 else ''}"
        for name, (call, share) in others.items():
            found = by_turns(lambda: affine.orbit(x, eta * shared), call, 1 if share < 1 else rounds, share)
            yield Row(f"orbit, forward, {said}", *found, name, "≥ 5" if name == "kornia" else "")
        found = by_turns(lambda: affine.orbit(x, eta * shared), lambda: augerino(many, eta * each, generators), rounds)
        yield Row(f"orbit, forward, {said}", *found, "Augerino's grids")

        def ours() -> None:
            affine.orbit(x, leaf * shared).backward(weight.view(copies, batch, 1, SIZE, SIZE))

        found = by_turns(ours, lambda: augerino(many, leaf * each, generators).backward(weight), rounds)
        yield Row(f"orbit with gradient to the extents, {said}", *found, "Augerino's grids", "≥ 20")
        found = by_turns(
            lambda: affine.orbit_per_example(x, eta * per_image),
            lambda: augerino(many, eta * each, generators),
            rounds,
        )
        yield Row(f"one draw per image, forward, {said}", *found, "Augerino's grids")
    torch.set_num_threads(1)


def _random_affine(many: torch.Tensor, small: bool) -> Iterator[tuple[str, tuple[Callable[[], Any], float]]]:
    """Calls of other libraries, and the share of the images that each works on."""
    ranges: dict[str, Any] = {"degrees": 40.0, "translate": (0.05, 0.05), "scale": (0.8, 1.25)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kornia scripts functions at import
        try:
            import kornia
        except ImportError:
            kornia = None
        from torchvision.transforms import InterpolationMode, v2
    if kornia is not None:
        random = kornia.augmentation.RandomAffine(**ranges, shear=(-11.0, 11.0), p=1.0)
        yield "kornia", (lambda: random(many), 1.0)
    one = v2.RandomAffine(**ranges, shear=(-11.0, 11.0), interpolation=InterpolationMode.BILINEAR)
    few = many[: 8 if small else 128]  # it draws once a call: one draw per image is one call per image
    yield "torchvision v2", (lambda: [one(image) for image in few], len(few) / len(many))


def process_rows(small: bool) -> Iterator[Row]:
    """A fit of a Gaussian process in evaluations of its evidence, and its predictions."""
    import bayesinv
    from bayesinv.datasets import digits
    from bayesinv.inference.target import Target

    n, features = (40, 32) if small else (250, 256)
    split = digits(rotation=0.785, num_train=n, seed=0)
    options = {"num_orbit_samples": 4 if small else 12}
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=features), "rotation" if small else "affine2d", **options
    )
    began = time.perf_counter()
    posterior = bayesinv.fit(model, split.train, seed=0, num_draws=40 if small else None)
    seconds = time.perf_counter() - began
    fitted = posterior.model
    target = Target(fitted, posterior.data)
    theta = target.start(0.3)
    repeats = 2 if small else 10
    began = time.perf_counter()
    for _ in range(repeats):
        target.with_gradient(theta)
    each = (time.perf_counter() - began) / repeats
    former = FORMER_EVALUATIONS * each
    yield Row(
        f"fit of a process, n = {n}", seconds, former, former / seconds, f"{FORMER_EVALUATIONS} evaluations, gradient"
    )
    x = split.test.x[:20]
    posterior.predict(x[:1])
    draws = posterior.sample(8, seed=0)

    def anew() -> None:
        with torch.no_grad():
            for eta in draws:
                fitted.function_posterior(x, posterior.data, eta)

    found = by_turns(lambda: posterior.predict(x), anew, 1 if small else 3, 8 / min(32, posterior.result.num_draws))
    yield Row("prediction of 20 images, known functions", *found, "each draw solved anew")


def network_rows(small: bool) -> Iterator[Row]:
    """A network fit of two stages against the same passes with extents that are known."""
    import bayesinv
    from bayesinv.datasets import digits
    from bayesinv.inference import Fixed
    from models.networks import SmallLeNet

    split = digits(rotation=0.785, num_train=60 if small else 400, seed=0)
    epochs = 2 if small else 20

    def fit(two: bool) -> None:
        net = SmallLeNet(size=split.train.x.shape[-1], seed=0)
        model = bayesinv.InvarianceModel(net, "affine2d", num_orbit_samples=2 if small else 8)
        second = bayesinv.SecondStage(share=0.6) if two else None
        training = bayesinv.Training(epochs=epochs, extent_every=10 if two else 5, second_stage=second)
        method: Any = "vi" if two else Fixed({"rotation": 0.785})
        bayesinv.fit(model, split.train, method, seed=0, training=training, device="cpu")

    found = by_turns(lambda: fit(True), lambda: fit(False), 1 if small else 3, warm=False)
    yield Row("network fit, both stages", *found, "known extents, as many passes", "≥ 1/1.3 = 0.77")


def import_rows(small: bool) -> Iterator[Row]:
    """Fresh processes."""

    def run(*code: str) -> Callable[[], Any]:
        return lambda: subprocess.run(
            [sys.executable, "-W", "ignore", *code], check=True, capture_output=True, cwd=ROOT
        )

    rounds = 1 if small else 3
    # Names come when they are asked for: this imports all that a fit needs.
    found = by_turns(run("-c", "import bayesinv; bayesinv.fit"), run("-c", "import torch"), rounds)
    yield Row("import of bayesinv.fit", *found, "import torch")
    if not small:
        found = by_turns(run("-m", "bayesinv", "--version"), run("-c", "pass"), rounds)
        yield Row("bayesinv --version", *found, "python -c pass")


def compared(rows: list[Row], path: Path) -> list[str]:
    """A line for each ratio that the last table has too, and what became of it."""
    if not path.is_file():
        return ["no earlier table to compare with"]
    before = {(r["name"], r["against"]): r["ratio"] for r in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    lines = []
    for row in rows:
        was = before.get((row.name, row.against))
        if was is not None:
            note = "  <- slower" if row.ratio < WORSE * was else ""
            lines.append(f"{row.name} against {row.against}: {was:.3g} -> {row.ratio:.3g}{note}")
    return lines or ["no ratio in common with the earlier table"]


def as_page(rows: list[Row], made: str, seconds: float, load: float | None) -> str:
    """The table in Markdown."""
    lines = [
        "# Ratios",
        "",
        f"`make bench`, {seconds:.0f} s, load {'unknown' if load is None else f'{load:.1f}'}: {made}.",
        "",
        "One run, in which what is compared takes turns. A ratio says how many times as fast as the reference: the",
        "median of the rounds. Seconds are of one call. The next run is compared with this table.",
        "",
        "| what | against | ours, s | reference, s | ratio | asked |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.name} | {r.against} | {r.ours:.3g} | {r.reference:.3g} | {r.ratio:.3g} | {r.asked} |" for r in rows
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="sizes for a test, whose numbers mean nothing")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("bench.json"))
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "bench.md")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    began, rows = time.perf_counter(), list[Row]()
    for measure in (orbit_rows, process_rows, network_rows, import_rows):
        for row in measure(options.small):
            rows.append(row)
            print(f"{row.name} against {row.against}: {row.ratio:.3g}", flush=True)
    seconds, made = time.perf_counter() - began, provenance()
    print("\nagainst the last table:", *compared(rows, options.json), sep="\n")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    content = {"made": made, "seconds": round(seconds, 1), "load": load, "rows": [asdict(row) for row in rows]}
    options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    options.page.write_text(as_page(rows, made, seconds, load), encoding="utf-8")


if __name__ == "__main__":
    main()
