"""The evidence for one more operation, given those that are in: an integral over one extent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator

from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.quantiles import weighted_quantile
from bayesinv.selection.evaluations import refitted_model

__all__ = ["OneMore", "one_more"]

# Shares of the largest extent at which the evidence is computed first, and how often the gaps beside the largest value
# are halved then: the neighbours of the maximum end an eighth of the first gap away from it.
SHARES = (0.0, 0.05, 0.2, 0.5, 1.0)
HALVINGS = 3
WORTH = 0.1  # nats that some extent has to gain before hyperparameters are fitted for it
FINE = 2001  # points of the interpolated density

LogEvidence = Callable[[float], float]


@dataclass(frozen=True)
class OneMore:
    """What the data say about one operation, the others as they are.

    Attributes:
        log_bf: log of the evidence with it over that without, nats.
        extents: where the evidence was computed, internal units, ascending, from 0.
        log_evidence: there, nats, at the hyperparameters that fit the best extent.
    """

    log_bf: float
    extents: np.ndarray
    log_evidence: np.ndarray

    def inclusion(self, prior: float) -> float:
        """P(in) = 1 / (1 + (1 - π)/π exp(-log BF)).

        Example:
            >>> OneMore(0.0, np.zeros(1), np.zeros(1)).inclusion(0.25)
            0.25
        """
        odds = self.log_bf + math.log(prior / (1.0 - prior))
        return 1.0 / (1.0 + math.exp(-min(max(odds, -700.0), 700.0)))

    def quantiles(self, levels: tuple[float, ...]) -> np.ndarray:
        """Posterior quantiles of the extent under a flat prior, given that the operation is in."""
        eta, log_density = _fine(self.extents, self.log_evidence)
        return weighted_quantile(eta, np.array(levels), log_density)


def one_more(
    model: InvarianceModel, data: Data, extents: torch.Tensor, place: int, without: float, max_steps: int = 20
) -> OneMore:
    """Integrate the evidence over one extent under its flat prior on [0, largest], others held.

        log BF = log ∫ p(D | η_k, η_A) dη_k / largest - log p(D | 0, η_A)

    Each side at its own best kernel and noise: `without` is the evidence with the operation out, at hyperparameters
    that were fitted there, and those with it are fitted at the best extent of a grid.

    Args:
        model: with the operation, its hyperparameters as they fit without it.
        data: the examples.
        extents: of all coordinates, (K,), internal units; that at `place` is not used.
        place: which coordinate.
        without: log p(D | 0, η_A), nats.
        max_steps: of the fit of the hyperparameters.
    """
    largest = model.coordinates[place].largest

    def at(eta_k: float) -> torch.Tensor:
        return extents.index_fill(0, torch.tensor([place]), eta_k)

    def evaluate(current: InvarianceModel) -> LogEvidence:
        def log_evidence(eta_k: float) -> float:
            try:
                with torch.no_grad():
                    return float(current.log_evidence(at(eta_k), data))
            except NumericalError:  # no evidence there, and no weight
                return -math.inf

        return log_evidence

    def refit(eta_k: float) -> LogEvidence:
        return evaluate(refitted_model(model, data, at(eta_k), max_steps, polish=False) or model)

    return integrated(evaluate(model), refit, largest, without)


def integrated(
    log_evidence: LogEvidence, refit: Callable[[float], LogEvidence], largest: float, without: float
) -> OneMore:
    """The integral of an evidence over one extent on [0, largest].

    Args:
        log_evidence: η_k -> log p(D | η_k), nats, at the hyperparameters that fit without it.
        refit: η_k -> the same function at hyperparameters that were fitted there.
        largest: the largest extent.
        without: log p(D | 0), nats, at the hyperparameters that fit there.

    Example:
        >>> found = integrated(lambda eta: 5.0, lambda eta: lambda eta: 5.0, 2.0, without=4.0)
        >>> round(found.log_bf, 6)
        1.0
    """
    found = {share: log_evidence(share * largest) for share in SHARES[1:]}
    best = max(found, key=lambda share: found[share])
    if found[best] > without + WORTH:  # else no hyperparameters make up for what the prior takes
        log_evidence = refit(best * largest)
        found = {share: log_evidence(share * largest) for share in SHARES}
    else:
        found[0.0] = without
    for _ in range(HALVINGS):
        shares = sorted(found)
        at = shares.index(max(found, key=lambda share: found[share]))
        for other in (at - 1, at + 1):
            if 0 <= other < len(shares):
                middle = 0.5 * (shares[at] + shares[other])
                found[middle] = log_evidence(middle * largest)
    shares = [share for share in sorted(found) if math.isfinite(found[share])]
    if len(shares) < 2:
        return OneMore(-math.inf, np.zeros(1), np.array([without]))
    grid, values = largest * np.array(shares), np.array([found[share] for share in shares])
    fine, log_density = _fine(grid, values)
    top = log_density.max()
    integral = np.trapezoid(np.exp(log_density - top), fine) / largest
    return OneMore(float(top + math.log(max(integral, 1e-300)) - without), grid, values)


def _fine(extents: np.ndarray, log_evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log evidence between the points, by a monotone cubic: no maximum that was not computed."""
    if len(extents) < 2:
        return extents, log_evidence
    eta = np.linspace(extents[0], extents[-1], FINE)
    return eta, PchipInterpolator(extents, log_evidence)(eta)
