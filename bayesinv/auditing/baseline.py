"""Whether the model of an audit knows more than a constant would: if not, no operation can be judged by it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.auditing.permitted import log_loss
from bayesinv.checks.baseline import FEWEST, LEAST_GAIN, LEAST_TEST_ERRORS, best_constant, constant_log_scores
from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.metrics.scores import standard_error
from bayesinv.model.invariance_model import InvarianceModel

__all__ = ["Baseline", "against_constant"]

ADVICE = (
    "Check that x and y are in the same order. Else bring more examples, larger pictures (size=32), or inputs that "
    "show what the targets depend on, such as the spectra of raw signals, and audit again."
)


@dataclass(frozen=True)
class Baseline:
    """The model with what is in, against a constant; the rules are those of ``posterior.check``.

    Attributes:
        evidence_gain: nats by which the log evidence is above that of a constant.
        score_gain: mean log score of left-out examples less that of a constant, nats an example.
        score_error: its standard error; NaN of both where there are no predictions.
        num_held_out: how many left-out examples; fewer than 20 are not judged.
    """

    evidence_gain: float
    score_gain: float
    score_error: float
    num_held_out: int

    @property
    def explained(self) -> bool:
        """Whether the evidence is at least 3 nats above a constant's."""
        return self.evidence_gain >= LEAST_GAIN

    @property
    def predicted(self) -> bool:
        """Whether left-out examples are predicted better, by two standard errors; the evidence decides on a few."""
        if not self.explained or self.num_held_out < FEWEST:
            return self.explained
        return self.score_gain > LEAST_TEST_ERRORS * self.score_error

    @property
    def note(self) -> str:
        """What was found, what it means and what to do; empty where the model knows more than a constant."""
        if self.predicted:
            return ""
        scores = (
            f"on {self.num_held_out} left-out examples the log score is {self.score_gain:+.2f} ± "
            f"{self.score_error:.2f} nats from a constant's"
        )
        if not self.explained:
            return (
                "Serious: the fit explains the targets no better than a constant: its log evidence is "
                f"{self.evidence_gain:+.1f} nats from a constant's, and {LEAST_GAIN:+.0f} would be strong; {scores}. "
                f"So nothing is recommended, and whether an operation is needed or harms cannot be said. {ADVICE}"
            )
        return (
            f"Serious: left-out examples are predicted no better than by a constant: {scores}. So how far operations "
            f"are permitted cannot be said; yes and perhaps rest on the evidence alone, {self.evidence_gain:.0f} nats "
            f"above a constant's. {ADVICE}"
        )


def against_constant(
    model: InvarianceModel, train: Data, held_out: Data, extents: Float[Tensor, " coordinates"]
) -> Baseline:
    """Compare the evidence and the predictions of a model with those of a constant.

    Classes: the constant is their frequencies less a penalty, or equal classes. Real targets come with their mean
    taken out and the model has its best noise, so that the constant has its best variance without a penalty.

    Args:
        model: with the operations that are in, at its best hyperparameters.
        train: examples of the evidence.
        held_out: left-out examples.
        extents: of all coordinates of the model, internal units.
    """
    constant = best_constant(train.y, train.num_classes)
    if train.num_classes is None:
        constant += math.log(len(train)) * train.y.shape[1]  # takes the penalty back
    with torch.no_grad():
        gain = float(model.log_evidence(extents, train)) - constant
    try:
        with torch.no_grad():
            own = -log_loss(model, train, held_out, extents)
    except NumericalError:
        return Baseline(gain, math.nan, math.nan, len(held_out))
    d = own.astype(np.float64) - constant_log_scores(held_out.y, train.y, train.num_classes).numpy()
    return Baseline(gain, float(d.mean()), standard_error(torch.from_numpy(d)), len(held_out))
