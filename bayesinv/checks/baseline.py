"""Whether a fit knows more than a constant would: the commonest class, or the mean of the targets."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.checks.verdicts import Verdict
from bayesinv.data.container import as_data
from bayesinv.metrics.scores import standard_error
from bayesinv.numerics.arguments import counted

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior

# Nats by which the evidence has to beat a constant's: odds of 20 to 1, strong evidence in the words of Kass and
# Raftery (1995).
LEAST_GAIN = 3.0
LEAST_TEST_ERRORS = 2.0  # standard errors by which log scores of new data have to
COMPARABLE = ("softmax", "gaussian")  # log p(D) of the data themselves, with weights integrated out exactly or nearly
FEWEST = 20  # examples; with fewer, a constant explains whatever there is
ADVICE = (
    "Do not read the extents. Where signals or points came raw, give GaussianProcess(features=...) a "
    "bayesinv.features.PowerSpectrum or GridDensity, or a frozen network; else check that x and y are in the same "
    "order, and scale x."
)


def baseline_verdicts(posterior: InvariancePosterior) -> list[Verdict]:
    """The log evidence against that of a constant.

    Of a Gaussian process whose evidence is that of the targets; others need test data.
    """
    data, evidence = posterior.data, posterior.log_evidence
    if evidence is None or posterior.model.evidence_name not in COMPARABLE or len(data) < FEWEST:
        return []
    y = data.y.detach().cpu()
    constant = best_constant(y, data.num_classes)
    gain = evidence - constant
    if not math.isfinite(constant):
        return []  # targets that are all alike, of which fit warns
    if gain >= LEAST_GAIN:
        message = f"The evidence is {gain:.0f} nats above that of a constant: the inputs tell something of the targets."
        return [Verdict("baseline", "ok", message)]
    what = "the frequencies of the classes" if data.num_classes is not None else "the mean of the targets"
    message = (
        f"The fit explains the targets no better than {what} alone: its log evidence is {evidence:.1f} nats, a "
        f"constant reaches {constant:.1f}."
    )
    return [Verdict("baseline", "serious", message, ADVICE)]


def constant_log_evidence(
    y: Int[Tensor, " n"] | Float[Tensor, "n outputs"], num_classes: int | None
) -> Float[Tensor, ""]:
    """log p(y) of a constant: the best one, less ½ log n for each free number (Schwarz 1978).

        Σ_k n_k log(n_k / n) − (C − 1)/2 log n for classes,    Σ_o [−n/2 log(2πe s_o²) − log n] for real targets

    Example:
        >>> round(float(constant_log_evidence(torch.tensor([0, 1, 1, 0]), 2) / math.log(2)), 6)  # -4 - 1/2 log2(4)
        -5.0
    """
    log_n = math.log(len(y))
    if num_classes is not None:
        counts = y.bincount(minlength=num_classes).double()
        return torch.special.xlogy(counts, counts / counts.sum()).sum() - 0.5 * (num_classes - 1) * log_n
    variance = y.double().var(0, correction=0)
    return (-0.5 * len(y) * (2 * math.pi * math.e * variance).log() - log_n).sum()


def best_constant(y: Int[Tensor, " n"] | Float[Tensor, "n outputs"], num_classes: int | None) -> float:
    """The same, or that of equal classes where it is larger: n log(1 / C), in which no number is free.

    A Gaussian process that has learned nothing predicts equal classes. Of ten balanced ones, the penalty for their
    frequencies would let it beat a constant by 4.5 log n nats.

    Example:
        >>> round(best_constant(torch.tensor([0, 1, 1, 0]), 2) / math.log(2), 6)
        -4.0
    """
    constant = float(constant_log_evidence(y, num_classes))
    return constant if num_classes is None else max(constant, -len(y) * math.log(num_classes))


def constant_log_scores(
    y: Int[Tensor, " m"] | Float[Tensor, "m outputs"],
    seen: Int[Tensor, " n"] | Float[Tensor, "n outputs"],
    num_classes: int | None,
) -> Float[Tensor, " m"]:
    """log p(y_i | c) of each new target, nats: by the frequencies of those seen, or by their mean and variance.

    Frequencies are those of Laplace, with one more of each class, so that no class is impossible.

    Example:
        >>> constant_log_scores(torch.tensor([0, 1]), torch.tensor([0, 0]), 2).exp().mul(4).round().tolist()
        [3.0, 1.0]
    """
    if num_classes is not None:
        counts = seen.bincount(minlength=num_classes).double() + 1.0
        return (counts / counts.sum()).log()[y]
    centre, spread = seen.double().mean(0), seen.double().std(0).clamp_min(1e-12)
    return torch.distributions.Normal(centre, spread).log_prob(y.double()).sum(1)


def baseline_test(posterior: InvariancePosterior, data: Any, num_samples: int = 32, seed: int = 0) -> list[Verdict]:
    """Log scores of new data against those of the training targets' frequencies, or mean and variance.

    d_i = log p(y_i | x_i, D) − log p(y_i | c), by example; serious unless their mean is 2 standard errors above zero.

    Args:
        posterior: any fit whose targets are one label or one row of numbers an example.
        data: test data, which the fit has not seen.
        num_samples, seed: of ``predict``.
    """
    train, model = posterior.data, posterior.model
    if train.num_classes is not None and train.y.ndim > 1:
        return []  # maps, whose cells are not examples
    options: dict[str, Any] = {} if train.num_classes is None else {"num_classes": train.num_classes, "one_class": True}
    options |= {"with_groups": model.groups is not None, "classes": train.classes}
    test = as_data(data, model.likelihood, model.transform, **options)
    if len(test) < FEWEST:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups that are not said, which the predictive check has said already
        groups = posterior.groups_of(test)
    prediction = posterior.predict(test.x, num_samples=num_samples, seed=seed, groups=groups).as_rows()
    y, seen = test.y.cpu(), train.y.cpu()
    if prediction.probs is not None:
        probs = prediction.probs.double().cpu()
        own = probs[torch.arange(len(y)), y].clamp_min(1e-12).log()
        constant = constant_log_scores(y, seen, probs.shape[1])
        right = float((probs.argmax(1) == y).double().mean())
        common = float((y == seen.bincount().argmax()).double().mean())
        found = f"accuracy {right:.3f}, and {common:.3f} for the commonest class"
    else:
        mean, deviation = prediction.mean.double().cpu(), prediction.variance.double().sqrt().cpu()  # type: ignore[union-attr]
        own = torch.distributions.Normal(mean, deviation).log_prob(y.double()).sum(1)
        constant = constant_log_scores(y, seen, None)
        errors = [float((y.double() - m).square().mean().sqrt()) for m in (mean, seen.double().mean(0))]
        found = f"root mean square error {errors[0]:.3g}, and {errors[1]:.3g} for the mean of the training targets"
    d = own - constant
    gain, error = float(d.mean()), standard_error(d)
    examples = counted(len(y), "new example")
    message = f"On {examples} the log score is {gain:+.2f} ± {error:.2f} nats from a constant's: {found}."
    if gain > LEAST_TEST_ERRORS * error:
        return [Verdict("baseline", "ok", message)]
    return [Verdict("baseline", "serious", f"The fit predicts no better than a constant. {message}", ADVICE)]
