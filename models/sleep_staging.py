"""Sleep stages from five seconds of one EEG channel, for people who were not in the training set.

    python models/sleep_staging.py --inference vi --out run
    python models/sleep_staging.py --inference fixed --hand sign_flip time_mask --out run

Candidates are nine operations on signals. The table names which of them are in: those whose extent is above what can be
seen (p_inactive < 0.05), under the evidence. Scores are on four subjects that training has not seen; stages are not
equally frequent, so that the balanced accuracy, the mean of the stages' recalls, is what counts.

The recordings are looked for in the folder that the environment variable BAYESINV_DATA names, or --root; nothing is
downloaded.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import bayesinv
from bayesinv.data import Data
from bayesinv.datasets import SLEEP_STAGES
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior import InvariancePosterior
from bayesinv.transforms import (
    AmplitudeScale,
    BandStop,
    Flip,
    FourierSurrogate,
    FrequencyShift,
    GaussianNoise,
    SignFlip,
    TimeMask,
    TimeShift,
    Transform,
)
from models import common
from models.report import extents_figure, report

SAMPLING_RATE = 100.0
EVIDENCES = ("laplace", "plugin")
# Extents that people set by hand for EEG, internal units: seconds, log factor, Hz, radians, share of copies, and
# standard deviations of the signal.
BY_HAND = {
    "time_shift": 1.0,
    "amplitude": math.log(1.5),
    "frequency_shift": 0.3,
    "surrogate_phase": math.pi,
    "time_mask": 1.0,
    "band_stop": 2.0,
    "noise": 0.2,
    "sign_flip": 0.5,
    "time_reversal": 0.5,
}
EPOCHS = 60.0
WEIGHT_RATE = 0.01  # chosen on held-out epochs of training subjects
INACTIVE = 0.05


def operations() -> dict[str, Transform]:
    """The candidates by name, in the order in which they are applied."""
    made: list[Transform] = [
        TimeShift(SAMPLING_RATE, largest=2.5),
        AmplitudeScale(),
        FrequencyShift(SAMPLING_RATE, largest=2.0),
        FourierSurrogate(),
        TimeMask(SAMPLING_RATE, largest=2.5),
        BandStop(SAMPLING_RATE, largest=10.0),
        GaussianNoise(largest=1.0),
        SignFlip(),
        Flip(-1, "time_reversal"),
    ]
    return {transform.names[0]: transform for transform in made}


class SleepNet(nn.Sequential):
    """Three strided convolutions in time, the mean over what is left of it, and a linear layer.

    Args:
        num_classes: outputs.
        seed: of the initial weights.
        width: channels of the first convolution; the others have twice as many.

    Example:
        >>> net = SleepNet()
        >>> net(torch.zeros(2, 1, 500)).shape, sum(p.numel() for p in net.parameters())
        (torch.Size([2, 5]), 5141)
    """

    def __init__(self, num_classes: int = len(SLEEP_STAGES), seed: int = 0, width: int = 12) -> None:
        with seeded(seed):
            super().__init__(
                nn.Conv1d(1, width, 25, stride=4, padding=12),
                nn.Tanh(),
                nn.Conv1d(width, 2 * width, 9, stride=4, padding=4),
                nn.Tanh(),
                nn.Conv1d(2 * width, 2 * width, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool1d(1),
                nn.Flatten(),
                nn.Linear(2 * width, num_classes),
            )


def build(
    names: Sequence[str] | None = None,
    num_train: int = 1000,
    num_test: int = 2000,
    evidence: str = "laplace",
    num_orbit_samples: int = 2,
    seed: int = 0,
    root: str | Path | None = None,
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model with the extents of the operations latent, training and test epochs of different people.

    Args:
        names: which operations; None takes all nine. The two groups multiply the copies by two each.
        num_train, num_test: epochs of five seconds.
        evidence: "laplace", or "plugin" (no reward for any extent: only upper limits mean something).
        num_orbit_samples: S, copies of each epoch for every element of the groups.
        seed: of the choice of subjects and epochs, and the network's initial weights.
        root: folder of the data sets; None takes ``BAYESINV_DATA``.

    Raises:
        DataError: the recordings are not there. ValueError: an argument out of its range.
    """
    known = operations()
    chosen = tuple(known) if names is None else tuple(names)
    unknown = sorted(set(chosen) - set(known))
    if unknown or not chosen:
        raise ValueError(f"names: expected some of {', '.join(known)}, got {unknown or 'none'}")
    train, test = bayesinv.datasets.sleep_edf(root, num_train, num_test, seed)
    model = bayesinv.InvarianceModel(
        SleepNet(seed=seed),
        [transform for name, transform in known.items() if name in chosen],
        likelihood="categorical",
        evidence=evidence,
        num_orbit_samples=num_orbit_samples,
    )
    return model, train, test


def balanced_accuracy(probs: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> float:
    """The mean over the labels that occur of the share of their examples labelled right.

    Example:
        >>> balanced_accuracy(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]), torch.tensor([0, 0, 1]))
        0.5
    """
    right = (probs.argmax(1) == y).double()
    return float(torch.stack([right[y == label].mean() for label in y.unique()]).mean())


def operations_in(posterior: InvariancePosterior) -> list[str]:
    """Names of the symmetries whose extent is not negligible, with a probability of at least 95 %."""
    return [str(name) for name, row in posterior.summary().iterrows() if row["p_inactive"] < INACTIVE]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = common.make_parser(__doc__ or "")
    count, names = common.positive(int), list(operations())
    made.add_argument("--operations", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    made.add_argument(
        "--hand", nargs="+", choices=names, metavar="NAME", help="operations that --inference fixed applies"
    )
    made.add_argument("--num-train", type=count, default=1000, help="epochs of sleep (default: %(default)s)")
    made.add_argument("--num-test", type=count, default=2000, help="default: %(default)s")
    made.add_argument("--evidence", choices=EVIDENCES, default="laplace", help="default: %(default)s")
    made.add_argument("--root", type=Path, help="folder of the data sets (default: $BAYESINV_DATA)")
    common.add_fit_options(made, epochs=EPOCHS, num_orbit_samples=2)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print, and write what was asked for."""
    made = parser()
    options = common.checked(made, made.parse_args(argv))
    if options.hand is not None and options.inference != "fixed":
        made.error("--hand: goes with --inference fixed")
    by_hand = list(BY_HAND) if options.hand is None else options.hand
    names = options.operations
    if options.inference == "fixed":  # what is not applied would only double the copies
        names = by_hand
    try:
        model, train, test = build(
            names,
            options.num_train,
            options.num_test,
            options.evidence,
            options.num_orbit_samples,
            options.seed,
            options.root,
        )
    except ValueError as error:
        common.stop(made, error)
    options.truth = {name: BY_HAND[name] for name in by_hand}
    posterior = common.fit_options(options, model, train, weight_rate=WEIGHT_RATE)
    options.truth = None  # nobody knows it: the table has no such column
    probs = posterior.predict(test.x, num_samples=8, seed=options.seed).probs
    if probs is None:
        raise TypeError("sleep_staging: expected a classification")
    facts = [f"balanced accuracy {100 * balanced_accuracy(probs.cpu(), test.y.cpu()):.1f} %"]
    facts.append(f"in: {', '.join(operations_in(posterior)) or 'none'}")
    figure = extents_figure(posterior, f"Sleep stages, {options.inference}, {len(train)} epochs")
    report(posterior, test, options, {"extents.png": figure}, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
