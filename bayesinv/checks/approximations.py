"""Verdicts on what a fit approximates: the evidence by inducing values or a regression, the posterior by its modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesinv.backbones.spectral import has_spectral_density
from bayesinv.checks.verdicts import Verdict
from bayesinv.model.exact_evidence import inducing_gap

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior

# Nats by which inducing values lower the evidence at the medians. A gap moves the extents by how it changes with them,
# which is less than itself; a nat is what a likelihood falls by within one and a half standard deviations.
NOTED_GAP, SERIOUS_GAP = 1.0, 5.0
# The same as a share of the prior variance, where the exact evidence is too large to compute.
NOTED_SHARE, SERIOUS_SHARE = 0.01, 0.1
# The same of a regression's errors on points that were left out: these are larger than those of all points together.
NOTED_ERROR = 1.0
MODES_APART = 0.05  # of an extent's range, from which on two modes count as different in it


def mode_verdicts(posterior: InvariancePosterior) -> list[Verdict]:
    """Other places where the climb from another start ended."""
    modes = [mode for mode in posterior.result.settings.get("modes", []) if not mode["merged"]]
    found = []
    for mode in modes[1:]:
        differing = [
            f"{c.name} {c.words(there)} in place of {c.words(here)}"
            for c, there, here in zip(posterior.model.coordinates, mode["extents"], modes[0]["extents"], strict=True)
            if abs(there - here) > MODES_APART * c.largest
        ]
        what = ", ".join(differing) if differing else "the same extents with other hyperparameters"
        lower = modes[0]["log_joint"] - mode["log_joint"]
        message = f"The climb from another start ended {lower:.1f} nats lower, at {what}."
        advice = "The draws cover each such mode in proportion to its mass."
        if posterior.result.inference == "nuts":
            advice = "Chains rarely cross between modes: compare with the variational fit."
        elif posterior.result.density is None or posterior.result.guide == "flow":
            advice = 'This guide covers the best one alone: use guide="full_rank".'
        found.append(Verdict("modes", "note", message, advice))
    return found


def inducing_verdicts(posterior: InvariancePosterior) -> list[Verdict]:
    """What inducing values cost at the medians; a fit has measured it, others are measured here."""
    cost = posterior.result.settings.get("inducing")
    if cost is None:
        cost = inducing_gap(posterior.model, posterior.data, posterior.quantile(0.5, recalibrated=False))
    if cost is None:
        return []
    if "gap" in cost:
        size = abs(cost["gap"])  # EP with inducing values is no bound: the gap can have either sign
        where = "below" if cost["gap"] >= 0 else "above"
        message = f"At the medians the evidence lies {size:.2g} nats {where} that of the exact covariance"
        level = "ok" if size < NOTED_GAP else "note" if size < SERIOUS_GAP else "serious"
    else:
        share = cost["share"]
        message = (
            f"At the medians the inducing values leave {share:.1%} of the prior variance (the exact evidence, which "
            "would say what that costs, is too large)"
        )
        level = "ok" if share < NOTED_SHARE else "note" if share < SERIOUS_SHARE else "serious"
    if level == "ok":
        return [Verdict("inducing", "ok", f"{message}.")]
    message += ": the extents may be those of the inducing values and not of the data."
    has_features = has_spectral_density(posterior.model.backbone.kernel)
    first = 'random features (num_inducing="auto")' if has_features else "a kernel with a spectral density"
    advice = f"Use {first}, num_inducing=None for some hundred examples, or more inducing values."
    return [Verdict("inducing", level, message, advice)]


def own_weights_verdicts(posterior: InvariancePosterior) -> list[Verdict]:
    """How well the regression of the log evidence predicts points that it was not given."""
    facts = posterior.result.settings.get("own_weights")
    network = posterior.model.evidence_name == "laplace" and posterior.result.inference == "vi"
    if facts is None and network and posterior.recalibration is None:
        message = (
            "One set of weights serves all extents: such 90 % intervals held the truth in 52 to 78 % of simulations."
        )
        advice = "Fit with Training(own_weights=True), or call posterior.recalibrate(), before an interval is quoted."
        return [Verdict("own weights", "note", message, advice)]
    if facts is None:
        return []
    error, num = facts["error"], facts["points"]
    off = f"leaving out each where the mass is, a regression of the log evidence on them is off by {error:.2g} nats"
    message = f"The weights were refitted at {num} extents; {off}"
    if not facts["used"]:
        message += ": no posterior follows from that, and the draws are those of the guide, too narrow."
        advice = "Raise epochs or batch_size, or lower weight_rate; checks.refitted_extents(...) refits one on a grid."
        return [Verdict("own weights", "serious" if facts.get("asked", True) else "note", message, advice)]
    if error < NOTED_ERROR:
        return [Verdict("own weights", "ok", f"{message}.")]
    advice = "Raise epochs or batch_size, or lower weight_rate, so that refits agree."
    return [Verdict("own weights", "note", f"{message}: the ends of the intervals are rough.", advice)]
