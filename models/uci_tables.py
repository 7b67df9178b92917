"""Tables of the UCI repository: along which columns does the target bend, and how soon?

    python models/uci_tables.py --table energy --split 0 --select --out run
    python models/uci_tables.py --table energy --inference none

Every column has a shift extent of its own, in standard deviations. A Gaussian process with one lengthscale for all
columns does not know along which of them the target bends; one that is averaged over shifts of a column no longer
follows what bends within them, while straight lines pass unchanged. So a large extent says that the target depends on
the column slowly, along a straight line, or not at all: a lengthscale for each column, with a posterior where automatic
relevance determination has a point estimate. In the table "energy" the compass direction that a building faces
(orientation) hardly changes the heating load, and the area of its windows changes it along a straight line.

The tables are uci/<name>/ in the folder that the environment variable BAYESINV_DATA names, or --root; nothing is
downloaded.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bayesinv
from bayesinv.data import Data
from bayesinv.datasets import UCI_COLUMNS
from bayesinv.extents import PriorSpec
from bayesinv.transforms import ColumnShift
from models import common, regression
from models.report import extents_figure

UNITS = {"yacht": "(resistance per weight)", "energy": "kWh/m²", "concrete": "MPa"}


def build(
    table: str = "energy",
    split: int = 0,
    num_orbit_samples: int = 16,
    num_inducing: int = 150,
    priors: Mapping[str, PriorSpec] | None = None,
    evidence: str = "gaussian",
    root: str | Path | None = None,
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model with a shift extent for each column, training and test rows.

    Args:
        table: "yacht", "energy" or "concrete".
        split: 0..9.
        num_orbit_samples: S, shifted copies of each row.
        num_inducing: M.
        priors: by symmetry ("shift_<column>"); those left out are latent under flat priors, up to 2 standard
            deviations.
        evidence: "gaussian", the collapsed bound.
        root: folder of the data sets; None takes ``BAYESINV_DATA``.

    Raises:
        DataError: the table is not there. ValueError: an argument out of its range.
    """
    train, test = bayesinv.datasets.uci(table, split, root)
    columns = UCI_COLUMNS[table]
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=num_inducing),
        ColumnShift(columns, table=columns),
        likelihood="gaussian",
        evidence=evidence,
        priors=priors,
        num_orbit_samples=num_orbit_samples,
        # Targets that are explained to 0.1 % of their variance leave float32 nothing to tell them by.
        precision="double",
    )
    return model, train, test


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = common.make_parser(__doc__ or "")
    made.add_argument("--table", choices=list(UCI_COLUMNS), default="energy", help="default: %(default)s")
    made.add_argument("--split", type=int, choices=range(10), default=0, help="which test rows (default: %(default)s)")
    made.add_argument("--root", type=Path, help="folder of the data sets (default: $BAYESINV_DATA)")
    # No extent of a table is known, so there is nothing to fix them at but zero.
    regression.add_options(
        made, max_steps=400, num_orbit_samples=16, num_inducing=150, inferences=("vi", "nuts", "none")
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print, and write what was asked for."""
    made = parser()
    options = common.checked(made, made.parse_args(argv))
    options.truth = None
    off = dict.fromkeys(f"shift_{column}" for column in UCI_COLUMNS[options.table])
    try:
        model, train, test = build(
            options.table,
            options.split,
            options.num_orbit_samples,
            options.num_inducing,
            off if options.inference == "none" else None,
            options.evidence,
            options.root,
        )
    except ValueError as error:
        common.stop(made, error)
    posterior = regression.fit(options, model, train)
    figure = extents_figure(posterior, f"{options.table}, {len(train)} rows: shifts that are averaged over")
    regression.report(posterior, test, options, {"extents.png": figure}, UNITS[options.table])
    return 0


if __name__ == "__main__":
    sys.exit(main())
