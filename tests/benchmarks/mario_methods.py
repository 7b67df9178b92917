"""Mario & Iggy: both questions, under each average, beside Augerino and AugNet; one figure and one table.

    BAYESINV_DATA=... python tests/benchmarks/mario_methods.py --out docs/mario_methods.png
    BAYESINV_DATA=... python tests/benchmarks/mario_methods.py --rows augerino augnet --seed 20
    python tests/benchmarks/mario_methods.py --num-train 2000           # other pictures, a quick look

10,000 images, six latent extents, seed 0. Permitted: 20 epochs; needed: 8; Augerino and AugNet at the published
settings of models/mario_iggy.py, 20 epochs, with the published network (--published-network small_simple_conv has a
sixteenth of its products). Labels break at 45°. Without BAYESINV_DATA the pictures are two digits of scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import matplotlib.figure
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import bayesinv
from bayesinv.transforms.affine2d import AFFINE_COORDINATES
from models import mario_iggy
from models.networks import NETWORKS
from models.report import POSTERIOR_COLOUR, TRUTH_COLOUR

ROWS = [
    ("permitted, function values", "permitted", "function", "vi"),
    ("permitted, probabilities", "permitted", "probabilities", "vi"),
    ("permitted, log likelihoods", "permitted", "log_likelihood", "vi"),
    ("needed, function values", "needed", "function", "vi"),
    ("needed, probabilities", "needed", "probabilities", "vi"),
    ("augerino", "permitted", "log_likelihood", "augerino"),
    ("augnet", "permitted", "log_likelihood", "augnet"),
]


def run(question: str, average: str, inference: str, num_train: int, seed: int, published: str, epochs: float) -> dict:
    """One fit: quantiles of all extents in people's units, accuracy and seconds."""
    is_published = inference in mario_iggy.TRAINING
    network = published if is_published else mario_iggy.NETWORK
    model, train, test = mario_iggy.build(question, average, num_train, num_train // 2, network, seed=seed)
    training = bayesinv.Training(
        epochs=epochs or mario_iggy.EPOCHS[question],
        batch_size=mario_iggy.PUBLISHED_BATCH_SIZE if is_published else mario_iggy.BATCH_SIZE,
        **mario_iggy.TRAINING.get(inference, {"burn_in": mario_iggy.BURN_IN[question]}),
    )
    began = time.perf_counter()
    method = mario_iggy.METHODS.get(inference, inference)
    callbacks = [said(inference)] if is_published else []
    posterior = bayesinv.fit(model, train, inference=method, seed=seed, training=training, callbacks=callbacks)
    seconds = time.perf_counter() - began
    table = posterior.summary()
    labels = posterior.predict(test.x, num_samples=16).labels
    return {
        "extents": {name: [float(row[c]) for c in ("lower", "median", "upper")] for name, row in table.iterrows()},
        "units": table["unit"].to_dict(),
        "accuracy": float((labels == test.y).double().mean()),
        "seconds": seconds,
    }


def said(inference: str):
    """A callback that writes the extents of a long run to the standard error, a twentieth of it at a time."""

    def callback(step) -> None:
        if step.step % max(1, step.max_steps // 20) == 0:
            extents = ", ".join(f"{name} {value:.3f}" for name, value in step.extents.items())
            print(f"{inference} {step.step}/{step.max_steps}, {step.seconds:.0f} s: {extents}", file=sys.stderr)

    return callback


def figure(results: dict[str, dict]) -> matplotlib.figure.Figure:
    """Rotation with 45° marked, and the other five extents beside it."""
    made = matplotlib.figure.Figure(figsize=(13.0, 6.0), layout="constrained")
    names = ["rotation", *[n for n in next(iter(results.values()))["extents"] if n != "rotation"]]
    axes = made.subplots(1, len(names), sharey=True, width_ratios=[3.0] + [1.0] * (len(names) - 1))
    rows = np.arange(len(results))[::-1]
    for axis, name in zip(axes, names, strict=True):
        largest = float(AFFINE_COORDINATES[name].to_people(AFFINE_COORDINATES[name].largest))
        for y, result in zip(rows, results.values(), strict=True):
            low, median, high = result["extents"][name]
            if median > largest:  # a point estimate has no bound
                axis.plot([largest], [y], ">", color=POSTERIOR_COLOUR, ms=9, clip_on=False)
                axis.text(0.9 * largest, y, f"{median:.0f}", ha="right", va="center")
                continue
            axis.plot([low, high], [y, y], color=POSTERIOR_COLOUR, lw=4, solid_capstyle="butt")
            axis.plot([median], [y], "o", color=POSTERIOR_COLOUR, ms=9, clip_on=False)
        unit = next(iter(results.values()))["units"][name]
        axis.set_xlabel(f"{name.replace('_', ' ')}\n({unit})")
        axis.set_xlim(left=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.9")
    axes[0].set_xlim(0, max(60.0, 1.05 * axes[0].get_xlim()[1]))
    axes[0].axvline(45, color=TRUTH_COLOUR, lw=2.5, ls="--")
    axes[0].text(45, len(rows) - 0.45, "labels break", color=TRUTH_COLOUR, ha="center", va="bottom")
    axes[0].set_yticks(rows, list(results))
    made.suptitle("half-widths: median and 90 % interval, points for point estimates", x=0.01, ha="left")
    return made


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--num-train", type=int, default=10_000)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--rows", nargs="+", choices=[row[0] for row in ROWS], default=[row[0] for row in ROWS])
    made.add_argument("--published-network", choices=list(NETWORKS), default=mario_iggy.PUBLISHED_NETWORK)
    made.add_argument("--epochs", type=float, help="of every row, in place of its own")
    made.add_argument("--out", type=Path, help="the figure; the numbers go beside it as JSON")
    options = made.parse_args()
    results = {}
    print("| | rotation, ° | largest other | accuracy, % | seconds |\n|---|---|---|---|---|")
    for label, question, average, inference in ROWS:
        if label not in options.rows:
            continue
        result = run(
            question,
            average,
            inference,
            options.num_train,
            options.seed,
            options.published_network,
            options.epochs,
        )
        results[label] = result
        low, median, high = result["extents"]["rotation"]
        others = {k: v[1] for k, v in result["extents"].items() if k != "rotation"}
        name = max(others, key=lambda k: others[k] if math.isfinite(others[k]) else 0.0)
        interval = "" if low == high else f" [{low:.1f}, {high:.1f}]"
        print(
            f"| {label} | {median:.1f}{interval} | {name} {others[name]:.1f} {result['units'][name]} | "
            f"{100 * result['accuracy']:.1f} | {result['seconds']:.0f} |",
            flush=True,
        )
    if options.out is not None:
        figure(results).savefig(options.out, dpi=110)
        options.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
