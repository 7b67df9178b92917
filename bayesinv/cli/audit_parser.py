"""What `bayesinv audit` takes."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = ("images", "signals", "points", "tables")


def add_audit(
    subparsers: Any,
    add: Callable[..., argparse.ArgumentParser],
    later: Callable[..., Any],
    reading: Callable[..., None],
) -> None:
    """Add the command; `add`, `later` and `reading` are those of `cli.parser`."""
    parser = add(
        subparsers,
        "audit",
        later("audit", "audit"),
        "which operations to use on your data, and how far",
        """\
Try about twenty operations on images (turns, flips, colours, ...), fewer on other data. Say of each whether the
targets call for it (needed), how far it may go before unseen examples are predicted worse (permitted), and in one
sentence what to do. DIR gets report.html, table.csv, recommendations.txt, and the augmentation for any pipeline
(augmentation.safetensors and .json; see bayesinv.export.load).

DATA is a folder of pictures with one sub-folder a class, an .npz file with x and y, or a table (.csv, .parquet) with
--target. A few hundred examples at 16 pixels are used; --num-examples and --image-size take more.
""",
        "bayesinv audit photos/ --size 32 --out audit",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of pictures, .npz file, .csv or .parquet table")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace DIR if bayesinv wrote it before")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    reading(parser)
    group = parser.add_argument_group("audit")
    group.add_argument("--sampling-rate", type=float, default=1.0, help="of signals, samples a second (1)")
    group.add_argument("--operations", nargs="+", metavar="NAME", help="try these alone (all)")
    group.add_argument(
        "--likelihood",
        choices=("auto", "categorical", "gaussian"),
        default="auto",
        help="labels or real targets (auto)",
    )
    group.add_argument("--num-examples", type=int, default=400, help="examples that the evidence sees (400)")
    group.add_argument("--image-size", type=int, default=16, help="side to which images are shrunk for it (16)")
    group.add_argument("--num-orbit-samples", type=int, default=16, help="copies of each example (16)")
    group.add_argument("--num-features", type=int, default=512, help="random features (512)")
    group.add_argument("--prior-inclusion", type=float, default=0.5, help="probability of every operation before (0.5)")
    group.add_argument("--seed", type=int, default=0, help="of everything random (0)")
