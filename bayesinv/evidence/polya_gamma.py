"""Classification through the Pólya-Gamma bound: one logistic regression per class."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.data import Data
from bayesinv.errors import NumericalError
from bayesinv.evidence.anderson import Anderson
from bayesinv.evidence.base import ClassificationEvidence
from bayesinv.evidence.collapsed import CollapsedEvidence, Sites, Whitened

# In c, relative to 1 + c; the bound is at its best there, so that an error in c costs the order of its square.
STEP_TOLERANCE = 1e-4
FAILURE = 1e-2  # not settled at all
MAX_STEPS = 200


class PolyaGammaEvidence(CollapsedEvidence, ClassificationEvidence):
    """Lower bound for one-against-rest logistic likelihoods, y_ic = ±1:

        log σ(y f) >= y f / 2 - ω f² / 2 - log 2cosh(c/2) + ω c² / 2,   ω = tanh(c/2) / (2c).

    The best c_ic² = E f_ic² is a fixed point of closed-form steps, started from the last one, accelerated
    (Anderson, 1965; a class at a time, in log c) and iterated until a plain step no longer moves it; by the envelope
    theorem it needs no gradient (Jaakkola & Jordan, 2000; Wenzel et al., AAAI 2019, arXiv:1802.06383). Class
    probabilities are σ(f_c) / Σ σ(f); labels that are simulated follow these, since one-against-rest factors alone
    are no distribution over a single label.
    """

    name = "polya_gamma"

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self._start: Tensor | None = None  # where the last fixed point lay; a start, never part of the result

    def initialise(self, data: Data) -> float:
        """Class means at the logits of the (smoothed) class shares."""
        counts = torch.bincount(data.y, minlength=data.num_outputs).to(torch.float64)
        share = (counts + 1.0) / (len(data) + 2.0)
        self.mean = nn.Parameter(torch.logit(share))
        self._start = None
        return 4.0  # a prior under which σ(f) covers (0.02, 0.98)

    def sites(self, white: Whitened, data: Data) -> Sites:
        """The tightest bound for this prior.

        Raises:
            NumericalError: the fixed point did not settle.
        """
        sign = 2.0 * F.one_hot(data.y, data.num_outputs).to(torch.float64) - 1.0
        with torch.no_grad():
            c = self._start
            if c is None or c.shape != sign.shape or c.device != sign.device:
                c = torch.full_like(sign, 2.0)
            steps = Anderson(c.T.log())
            for _ in range(MAX_STEPS):
                sites = _sites_at(c, sign)
                mean, variance = self.solve(white, sites, data).mean_and_variance(white)
                new = ((self.mean + mean).square() + variance).sqrt()
                moved = ((new - c).abs() / (1.0 + c)).amax()
                if moved < STEP_TOLERANCE:
                    c = new
                    break
                c = steps.next(new.T.log()).T.exp()
            else:
                if not moved < FAILURE:
                    raise NumericalError(
                        f"the Pólya-Gamma fixed point still moved by {float(moved):.2g} after {MAX_STEPS} steps; "
                        'use evidence="dirichlet", or a kernel with a smaller outputscale'
                    )
            self._start = c
            return _sites_at(c, sign)

    def weighted_gram(self, V: Float[Tensor, "M n"], sites: Sites, data: Data) -> Float[Tensor, "C M M"]:
        """V Λ_c Vᵀ, every class with its own precisions."""
        return torch.stack([(V * weight) @ V.T for weight in sites.precision.T])

    def log_probabilities(self, f: Float[Tensor, "*draws n C"]) -> Float[Tensor, "*draws n C"]:
        """log σ(f_c) normalised over the classes."""
        log_sigmoid = F.logsigmoid(f)
        return log_sigmoid - log_sigmoid.logsumexp(-1, keepdim=True)

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {"type": self.name}


def _sites_at(c: Float[Tensor, "n C"], sign: Float[Tensor, "n C"]) -> Sites:
    omega = torch.where(c > 1e-4, torch.tanh(0.5 * c) / (2.0 * c.clamp_min(1e-4)), 0.25)
    target = sign / (2.0 * omega)
    log_2cosh = 0.5 * c + torch.log1p(torch.exp(-c))
    constant = (-log_2cosh + 0.5 * omega * c * c + 0.5 * omega * target * target).sum()
    return Sites(omega, target, constant)
