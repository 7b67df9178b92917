"""Posterior predictive checks: probability integral transform of real targets, reliability of class probabilities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.checks.verdicts import Verdict
from bayesinv.data.container import as_data
from bayesinv.io.tables import ConsoleTable
from bayesinv.metrics.scores import calibration_error, standard_error

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior


def probability_integral_transform(
    posterior: InvariancePosterior, data: Any, num_samples: int = 16, seed: int = 0
) -> Float[np.ndarray, "n outputs"]:
    """u_i = F(y_i | x_i, D), uniform on [0, 1] where predictions are calibrated.

    Values that pile up at both ends say that predictive intervals are too narrow, in the middle that they are too wide.

    Args:
        posterior: of a regression.
        data: test data, whatever ``fit`` takes.
        num_samples, seed: of ``predict``.

    Raises:
        ValueError: a classification; use `reliability`.
    """
    from scipy.stats import norm  # a second of the package's import, which few need

    if posterior.model.likelihood != "gaussian":
        raise ValueError("probability_integral_transform is for real targets; for classes use reliability")
    grouped = posterior.model.groups is not None
    test = as_data(data, "gaussian", posterior.model.transform, with_groups=grouped)
    prediction = posterior.predict(
        test.x, num_samples=num_samples, seed=seed, groups=posterior.groups_of(test)
    ).as_rows()
    mean, sd = prediction.mean.cpu().double(), prediction.variance.cpu().double().sqrt()  # type: ignore[union-attr]
    return norm.cdf(((test.y.cpu().double() - mean) / sd).numpy())


def reliability(probs: Float[Tensor, "n C"], y: Int[Tensor, " labels"], num_bins: int = 10) -> pd.DataFrame:
    """Accuracy against confidence of the most probable class, in bins that hold equally many examples.

    Args:
        probs: class probabilities.
        y: labels.
        num_bins: of the examples in order of confidence.

    Returns:
        ``confidence`` (mean), ``accuracy``, its ``standard_error`` (Agresti and Coull) and ``count`` by bin.

    Raises:
        ValueError: fewer examples than bins, or shapes that do not fit.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
        >>> reliability(probs, torch.tensor([0, 1]), num_bins=2)["accuracy"].tolist()
        [0.0, 1.0]
    """
    if len(probs) != len(y) or num_bins < 1 or len(y) < num_bins:
        raise ValueError(f"expected a label for each of at least {num_bins} predictions, got {len(probs)} and {len(y)}")
    confidence, guess = probs.double().cpu().max(-1)
    right = (guess == y.cpu()).double().numpy()
    order = np.argsort(confidence.numpy(), kind="stable")
    rows = []
    for part in np.array_split(order, num_bins):
        n, share = len(part), float(right[part].mean())
        adjusted = (n * share + 2) / (n + 4)
        error = math.sqrt(adjusted * (1 - adjusted) / (n + 4))
        rows.append(
            {
                "confidence": float(confidence.numpy()[part].mean()),
                "accuracy": share,
                "standard_error": error,
                "count": n,
            }
        )
    return ConsoleTable(rows)


def predictive_check(posterior: InvariancePosterior, data: Any, num_samples: int = 16, seed: int = 0) -> Verdict:
    """Whether predictions on new data are as sure as they should be.

    For real targets a Kolmogorov-Smirnov test of u against uniform, output by output; for classes the distance between
    mean confidence and accuracy in standard errors, which for maps are those of a mean over maps.

    Args:
        posterior: a fit.
        data: test data, which the fit has not seen.
        num_samples, seed: of ``predict``.
    """
    if posterior.model.likelihood == "gaussian":
        from scipy.stats import kstest

        u = probability_integral_transform(posterior, data, num_samples, seed)
        p = min(1.0, min(float(kstest(u[:, c], "uniform").pvalue) for c in range(u.shape[1])) * u.shape[1])
        spread = float(12 * np.mean((u - 0.5) ** 2))
        how = "narrow" if spread > 1 else "wide"
        message = f"Probability integral transform of {len(u)} targets: p = {p:.2g} for uniform, spread {spread:.2f}."
        if p >= 0.01:
            return Verdict("predictive", "ok", message)
        return Verdict("predictive", "note", message, f"Predictive intervals are too {how} or shifted: plot residuals.")
    classes, grouped = posterior.data.num_outputs, posterior.model.groups is not None
    transform, names = posterior.model.transform, posterior.data.classes
    test = as_data(
        data, "categorical", transform, num_classes=classes, one_class=True, with_groups=grouped, classes=names
    )
    probs = posterior.predict(test.x, num_samples=num_samples, seed=seed, groups=posterior.groups_of(test)).probs
    if probs is None:
        raise ValueError("a prediction came without class probabilities")
    probs = probs.cpu()
    confidence = probs.double().max(-1).values
    right = (probs.argmax(-1) == test.y.cpu()).double()
    gap = float((confidence - right).mean())
    if right.ndim == 1:  # under calibration each example is right with probability `confidence`
        error = math.sqrt(float((confidence * (1 - confidence)).sum())) / len(confidence)
    else:  # cells of one map are right or wrong together
        error = standard_error((confidence - right).flatten(1).mean(1)) if len(right) > 1 else math.inf
    message = (
        f"Mean confidence {float(confidence.mean()):.3f} against accuracy {float(right.mean()):.3f} on {len(right)} "
        f"examples; calibration error {calibration_error(probs, test.y.cpu()):.3f}."
    )
    if abs(gap) <= 3 * max(error, 1e-12):
        return Verdict("predictive", "ok", message)
    how = "overconfident" if gap > 0 else "underconfident"
    return Verdict("predictive", "note", message, f"Predictions are {how}: look at the reliability diagram.")
