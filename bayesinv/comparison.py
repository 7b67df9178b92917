"""``bayesinv.compare``: several fits side by side, on the same test data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from bayesinv import metrics
from bayesinv.data import as_data
from bayesinv.errors import ComparisonWarning, DataError
from bayesinv.inference.result import InferenceResult
from bayesinv.posterior import InvariancePosterior

if TYPE_CHECKING:
    import matplotlib.figure


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several fits on the same test data.

    Attributes:
        table: one row a fit. ``accuracy`` (share) and ``calibration_error``, or ``rmse`` and ``coverage`` (share of the
            targets in their 90 % intervals); ``log_loss`` (nats an example) and, for both, ``_se`` over the test
            examples; ``elpd``, the summed log predictive density; ``log_evidence``, its ``_se`` and
            ``evidence_group``: only evidences of one group may be ranked; seconds, copies in training and prediction,
            training examples.
        extents: one row a fit and symmetry: median, lower, upper (90 %) in people's units, unit, point.
        differences: elpd less that of the best, paired over test examples, with its standard error.
    """

    table: pd.DataFrame
    extents: pd.DataFrame
    differences: pd.DataFrame
    likelihood: str

    def plot(self) -> matplotlib.figure.Figure:
        """Extents, accuracy (or RMSE) and log loss side by side."""
        from bayesinv.comparison_plot import plot_comparison

        return plot_comparison(self)

    def to_markdown(self) -> str:
        """The main columns as a Markdown table."""
        shown = self._text()
        rows = ["| " + " | ".join([shown.index.name, *shown.columns]) + " |", "|---" * (len(shown.columns) + 1) + "|"]
        rows += [
            "| " + " | ".join([str(name), *map(str, row)]) + " |"
            for name, row in zip(shown.index, shown.values, strict=True)
        ]
        return "\n".join(rows)

    def __repr__(self) -> str:
        return self._text().to_string()

    def _repr_html_(self) -> str:
        return self._text().to_html()

    def _text(self) -> pd.DataFrame:
        """People's view: a number with its error in one cell."""
        t = self.table
        columns: dict[str, list[str]] = {}
        if self.likelihood == "categorical":
            columns["accuracy, %"] = _with_error(100 * t["accuracy"], 100 * t["accuracy_se"], 1)
        else:
            columns["RMSE"] = [f"{value:.3g}" for value in t["rmse"]]
        columns["log loss, nat"] = _with_error(t["log_loss"], t["log_loss_se"], 3)
        name, key = ("calibration error", "calibration_error")
        if self.likelihood == "gaussian":
            name, key = "in 90 % interval", "coverage"
        columns[name] = [f"{value:.3f}" for value in t[key]]
        columns["log evidence, nat"] = [
            "" if math.isnan(e) else f"{e:.1f} ± {s:.1f} ({g})"
            for e, s, g in zip(t["log_evidence"], t["log_evidence_se"], t["evidence_group"], strict=True)
        ]
        for symmetry in dict.fromkeys(self.extents.index.get_level_values("symmetry")):
            rows = self.extents.xs(symmetry, level="symmetry").loc[t.index]
            if (rows["median"] > 0).any():
                columns[f"{symmetry}, {rows['unit'].iloc[0]}"] = [_extent(row) for _, row in rows.iterrows()]
        columns["copies"] = [f"{a}, {b}" for a, b in zip(t["training_copies"], t["prediction_copies"], strict=True)]
        columns["seconds"] = [f"{value:.0f}" for value in t["seconds"]]
        return pd.DataFrame(columns, index=t.index)


def compare(
    posteriors: Any,
    data: Any,
    num_samples: int = 32,
    reweighted: bool = False,
    seed: int = 0,
    level: float = 0.9,
) -> Comparison:
    """Put several fits side by side on the same test data.

    Args:
        posteriors: a dict of fits by name; posteriors and point estimates, of Gaussian processes and of networks.
        data: test data, whatever ``fit`` takes; read once.
        num_samples: extents that each prediction averages over.
        reweighted: whether to use importance weights, where a fit has them.
        seed: of the predictions.
        level: of the intervals.

    Returns:
        A table, the extents, and paired differences.

    Raises:
        TypeError: not a mapping of posteriors. ValueError: none, or models of different likelihoods.
        DataError: test data that do not fit.

    Warns:
        ComparisonWarning: log evidences that may not be ranked: of different kinds, data or orbits.

    Example:
        >>> bayesinv.compare({"posterior": posterior, "augerino": point}, data=(x, y))  # doctest: +SKIP
    """
    if not isinstance(posteriors, Mapping) or not all(isinstance(p, InvariancePosterior) for p in posteriors.values()):
        raise TypeError('posteriors: expected a dict of fits by name, such as {"bayesian": posterior}')
    if not posteriors:
        raise ValueError("posteriors: expected at least one fit, got none")
    likelihoods = {name: p.model.likelihood for name, p in posteriors.items()}
    if len(set(likelihoods.values())) > 1:
        raise ValueError(f"posteriors: expected one likelihood, got {likelihoods}; compare each kind on its own")
    shapes = {name: p.data.event_shape for name, p in posteriors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"posteriors: expected inputs of one shape, got {shapes}")
    first = next(iter(posteriors.values()))
    test = as_data(data, first.model.likelihood, first.model.transform, num_classes=first.data.num_classes)
    if test.y.ndim == 2 and test.num_outputs != first.data.num_outputs:
        raise DataError(f"y has {test.num_outputs} columns and the models {first.data.num_outputs} outputs")
    groups = _evidence_groups(posteriors)
    rows, densities, extents = [], {}, []
    for name, posterior in posteriors.items():
        weigh = reweighted and posterior.result.log_weights is not None
        prediction = posterior.predict(test.x, num_samples=num_samples, reweighted=weigh, seed=seed)
        scores, loss = _scores(prediction, test.y, level)
        densities[name] = -loss
        result = posterior.result
        copies = posterior.model.orbit.num_samples
        evidence = math.nan if result.log_evidence is None else result.log_evidence
        rows.append(
            {
                "method": name,
                "inference": result.inference,
                **scores,
                "elpd": -float(loss.sum()),
                "log_evidence": evidence,
                "log_evidence_se": math.nan if result.log_evidence_se is None else result.log_evidence_se,
                "evidence_group": groups[name],
                "seconds": result.seconds,
                "training_copies": result.settings.get("training_copies", copies),
                "prediction_copies": result.settings.get("prediction_copies", copies),
                "num_train": _num_train(result, posterior),
                "warnings": len(result.warnings),
            }
        )
        summary = posterior.summary(reweighted=weigh, level=level)[
            ["median", "lower", "upper", "unit", "point", "fixed"]
        ]
        extents.append(summary.assign(method=name).reset_index().set_index(["method", "symmetry"]))
    table = pd.DataFrame(rows).set_index("method")
    return Comparison(table, pd.concat(extents), _differences(densities), first.model.likelihood)


def _scores(prediction: Any, y: Tensor, level: float) -> tuple[dict[str, float], Tensor]:
    """The columns of one fit, and its log loss for each example."""
    if prediction.probs is not None:
        probs = prediction.probs.cpu()
        y = y.cpu()
        right, loss = metrics.accuracy(probs, y), metrics.log_loss(probs, y)
        scores = {
            "accuracy": float(right.mean()),
            "accuracy_se": _standard_error(right),
            "log_loss": float(loss.mean()),
            "log_loss_se": _standard_error(loss),
            "calibration_error": metrics.calibration_error(probs, y),
        }
        return scores, loss
    mean, variance, y = prediction.mean.cpu(), prediction.variance.cpu(), y.cpu()
    loss = metrics.gaussian_log_loss(mean, variance, y)
    scores = {
        "rmse": metrics.rmse(mean, y),
        "log_loss": float(loss.mean()),
        "log_loss_se": _standard_error(loss),
        "coverage": metrics.interval_coverage(mean, variance, y, level),
    }
    return scores, loss


def _num_train(result: InferenceResult, posterior: InvariancePosterior) -> int:
    return int(result.settings.get("num_train", len(posterior.data)))


def _standard_error(values: Tensor) -> float:
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _differences(densities: Mapping[str, Tensor]) -> pd.DataFrame:
    """elpd less that of the best, and its standard error over examples."""
    best = max(densities, key=lambda name: float(densities[name].sum()))
    rows = []
    for name, values in densities.items():
        difference = values - densities[best]
        n = len(difference)
        error = float(difference.std() * math.sqrt(n)) if n > 1 else math.nan
        rows.append({"method": name, "elpd_difference": float(difference.sum()), "standard_error": error})
    return pd.DataFrame(rows).set_index("method").sort_values("elpd_difference", ascending=False)


def _evidence_groups(posteriors: Mapping[str, InvariancePosterior]) -> dict[str, str]:
    """A letter for each set of evidences that may be ranked; warns where there is more than one."""
    keys: dict[str, tuple[Any, ...]] = {}
    for name, p in posteriors.items():
        if p.result.log_evidence is not None:
            n = _num_train(p.result, p)
            facts = (p.model.evidence_name, p.model.average, p.model.orbit.num_samples, n)
            # Draws that were kept of large data differ by seed; their number and kind have to do then.
            whole = float(p.data.x.double().sum()) if n == len(p.data) else None
            keys[name] = (*facts, None if whole is None else round(whole, 3))
    order = {key: chr(ord("A") + i) for i, key in enumerate(dict.fromkeys(keys.values()))}
    if len(order) > 1:
        listed = "; ".join(
            f"{letter}: {', '.join(n for n in keys if keys[n] == key)} ({key[0]}, average of {key[1]}, S = {key[2]}, "
            f"n = {key[3]})"
            for key, letter in order.items()
        )
        warnings.warn(
            f"log evidences of different kinds, orbits or data may not be ranked against each other: {listed}",
            ComparisonWarning,
            stacklevel=3,
        )
    return {name: order[keys[name]] if name in keys else "" for name in posteriors}


def _with_error(values: pd.Series, errors: pd.Series, digits: int) -> list[str]:
    return [f"{v:.{digits}f} ± {e:.{digits}f}" for v, e in zip(values, errors, strict=True)]


def _extent(row: pd.Series) -> str:
    if row["point"] or row["fixed"]:
        return f"{row['median']:.3g}"
    return f"{row['median']:.3g} [{row['lower']:.3g}, {row['upper']:.3g}]"
