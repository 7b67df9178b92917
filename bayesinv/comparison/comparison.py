"""``bayesinv.compare``: several fits side by side, on the same test data."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from bayesinv.comparison.evidence_groups import evidence_groups, fixed_at_medians, num_train_of
from bayesinv.comparison.plot import plot_comparison
from bayesinv.data.container import Data, as_data
from bayesinv.data.groups import NEW_GROUP
from bayesinv.errors import DataError
from bayesinv.evidence.prediction import Prediction
from bayesinv.io.console import for_console
from bayesinv.io.tables import ConsoleTable
from bayesinv.metrics import scores as metrics
from bayesinv.posterior.invariance_posterior import InvariancePosterior

if TYPE_CHECKING:
    import matplotlib.figure


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several fits on the same test data.

    Attributes:
        table: one row a fit, in the order given. ``accuracy`` (share) and ``calibration_error``, or ``rmse`` and
            ``coverage`` (share of the targets inside their intervals); ``log_loss`` (nats an example) and, for
            accuracy, RMSE and log loss, ``_se`` over the test examples; ``elpd``, the summed log predictive density;
            ``log_evidence``, its ``_se`` and ``evidence_group``: only evidences of one group may be ranked, and one
            without a group with none (extents fixed at the medians of another fit to the same data); seconds, copies in
            training and prediction, training examples, number of warnings.
        extents: one row a fit and symmetry: median, lower, upper in people's units, unit, point, fixed, p_inactive. A
            fit has no row for a symmetry that its model does not consider.
        differences: elpd less that of the best, paired over test examples, with its standard error; the best first.
        likelihood: "categorical", "bernoulli" or "gaussian".
        level: the mass of the intervals, of extents and of predictions.
        notes: what has to be known to read the table, a sentence or two each; printed under it.
    """

    table: pd.DataFrame
    extents: pd.DataFrame
    differences: pd.DataFrame
    likelihood: str
    level: float = 0.9
    notes: tuple[str, ...] = ()

    def by_symmetry(self) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """Name, unit and the extents of the fits that consider it, for each symmetry some fit reaches beyond zero."""
        for (symmetry, unit), rows in self.extents.groupby(["symmetry", "unit"], sort=False):
            if (rows["median"] > 0).any():
                yield symmetry, unit, rows.droplevel("symmetry")

    def plot(self) -> matplotlib.figure.Figure:
        """Extents, accuracy (or RMSE) and log loss side by side."""
        return plot_comparison(self)

    def to_markdown(self) -> str:
        """The main columns as a Markdown table, and the notes."""
        shown = self.text_table()
        lines = [[shown.index.name, *shown.columns], ["---"] * (len(shown.columns) + 1)]
        lines += [[str(name), *row] for name, row in zip(shown.index, shown.values, strict=True)]
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([*rows, *(f"\n{note}" for note in self.notes)])

    def __repr__(self) -> str:
        return for_console("\n".join([self.text_table().to_string(), *self.notes]))

    def _repr_html_(self) -> str:
        return self.text_table().to_html() + "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)

    def text_table(self) -> pd.DataFrame:
        """People's view: a number with its error in one cell."""
        t = self.table
        columns: dict[str, list[str]] = {}
        if self.likelihood != "gaussian":
            columns["accuracy, %"] = _with_error(100 * t["accuracy"], 100 * t["accuracy_se"], 1)
        else:
            # Two digits of the smallest error, whatever the units of y.
            errors = t["rmse_se"][t["rmse_se"] > 0]
            digits = max(0, 1 - math.floor(math.log10(errors.min()))) if len(errors) else 3
            columns["RMSE"] = _with_error(t["rmse"], t["rmse_se"], digits)
        columns["log loss, nat"] = _with_error(t["log_loss"], t["log_loss_se"], 3)
        name, key = ("calibration error", "calibration_error")
        if self.likelihood == "gaussian":
            name, key = f"in {100 * self.level:g} % interval", "coverage"
        columns[name] = [f"{value:.3f}" for value in t[key]]
        columns["log evidence, nat"] = [
            f"{text} ({group})" if group else ""
            for text, group in zip(
                _with_error(t["log_evidence"], t["log_evidence_se"], 1), t["evidence_group"], strict=True
            )
        ]
        for symmetry, unit, rows in self.by_symmetry():
            of = dict(rows.iterrows())
            columns[f"{symmetry}, {unit}"] = [_extent(of[name]) if name in of else "–" for name in t.index]
        columns["copies"] = [f"{a}, {b}" for a, b in zip(t["training_copies"], t["prediction_copies"], strict=True)]
        columns["seconds"] = [f"{value:.0f}" for value in t["seconds"]]
        return ConsoleTable(columns, index=t.index)


def compare(
    posteriors: Any,
    data: Any,
    num_samples: int = 16,
    reweighted: bool | None = None,
    seed: int = 0,
    level: float = 0.9,
) -> Comparison:
    """Put several fits side by side on the same test data.

        elpd = Σ_i log p(y_i | x_i, D),    difference ± s.e. = Σ_i d_i ± √(n Var d),    d_i that of each test example

    Args:
        posteriors: a dict of fits by name; posteriors and point estimates, of Gaussian processes and of networks.
        data: test data, whatever ``fit`` takes; read once. (x, y, group) where a fit has extents for groups.
        num_samples: extents that each prediction averages over.
        reweighted: whether to use importance weights, where a fit has them; None uses those that are good.
        seed: of the predictions.
        level: of the intervals.

    Returns:
        A table, the extents, and paired differences.

    Raises:
        TypeError: not a mapping of posteriors. ValueError: none, models of different likelihoods, inputs or classes, or
            a level outside (0, 1). DataError: test data that do not fit.

    Warns:
        ComparisonWarning: log evidences that may not be ranked: of different kinds, data or orbits. UserWarning: a fit
            has extents for groups, and the test data do not say which example is of which.

    Reference:
        A. Vehtari, A. Gelman, J. Gabry (2017). Practical Bayesian model evaluation using leave-one-out cross-validation
        and WAIC. arXiv:1507.04544 (standard errors of paired differences).

    Example:
        >>> from bayesinv import GaussianProcess, InvarianceModel, fit
        >>> from bayesinv.datasets import digits
        >>> train, test = digits(size=8, rotation=0.8, num_train=60, seed=0)
        >>> fits = {}
        >>> for name, angle in {"turned": 0.8, "as they are": None}.items():
        ...     gp = GaussianProcess(num_inducing=20)
        ...     model = InvarianceModel(gp, "rotation", priors={"rotation": angle}, num_orbit_samples=8)
        ...     fits[name] = fit(model, train, seed=0)
        >>> comparison = compare(fits, data=test)
        >>> comparison.differences.index[0], comparison.table["evidence_group"].tolist()
        ('turned', ['A', 'A'])
    """
    if not isinstance(posteriors, Mapping):
        raise TypeError('posteriors: expected a dict of fits by name, such as {"bayesian": posterior}')
    for name, posterior in posteriors.items():
        if not isinstance(posterior, InvariancePosterior):
            raise TypeError(f"posteriors[{name!r}]: expected what bayesinv.fit returns, got {type(posterior).__name__}")
    if not posteriors:
        raise ValueError("posteriors: expected at least one fit, got none")
    if not 0 < level < 1:
        raise ValueError(f"level: expected the mass of an interval, between 0 and 1, got {level}")
    test = _test_data(posteriors, data)
    groups = evidence_groups(posteriors)
    rows, densities, extents = [], {}, []
    for name, posterior in posteriors.items():
        weigh = posterior.uses_weights(reweighted if posterior.result.log_weights is not None else None)
        whose = posterior.groups_of(test)
        y = test.y if test.num_classes is None else None
        prediction = posterior.predict(test.x, num_samples, reweighted=weigh, seed=seed, groups=whose, y=y)
        if prediction.probs is not None and prediction.probs.shape[-1] < test.num_outputs:
            raise ValueError(
                f"posteriors: {name!r} tells {prediction.probs.shape[-1]} classes apart and the data have "
                f"{test.num_outputs}; compare fits to the same classes"
            )
        scores, loss = _scores(prediction.as_rows(), test.y, level)
        densities[name] = -loss
        result = posterior.result
        copies = posterior.model.network_orbit.num_copies
        rows.append(
            {
                "method": name,
                "inference": result.inference,
                **scores,
                "elpd": -float(loss.sum()),
                "log_evidence": math.nan if result.log_evidence is None else result.log_evidence,
                "log_evidence_se": math.nan if result.log_evidence_se is None else result.log_evidence_se,
                "evidence_group": groups[name],
                "seconds": result.seconds,
                "training_copies": result.settings.get("training_copies", copies),
                "prediction_copies": result.settings.get("prediction_copies", copies),
                "num_train": num_train_of(posterior.result, posterior),
                "warnings": len(result.warnings),
            }
        )
        summary = posterior.summary(reweighted=weigh, level=level)[
            ["median", "lower", "upper", "unit", "point", "fixed", "p_inactive"]
        ]
        extents.append(summary.assign(method=name).reset_index().set_index(["method", "symmetry"]))
    table = ConsoleTable(rows).set_index("method")
    likelihood = next(iter(posteriors.values())).model.likelihood
    return Comparison(table, pd.concat(extents), _differences(densities), likelihood, level, _notes(posteriors, test))


def _test_data(posteriors: Mapping[str, InvariancePosterior], data: Any) -> Data:
    """Checked test data; raises unless all fits are of one kind, and the data fit them."""
    likelihoods = {name: p.model.likelihood for name, p in posteriors.items()}
    if len(set(likelihoods.values())) > 1:
        raise ValueError(f"posteriors: expected one likelihood, got {likelihoods}; compare each kind on its own")
    shapes = {name: p.data.event_shape for name, p in posteriors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"posteriors: expected inputs of one shape, got {shapes}")
    outputs = {name: p.data.num_outputs for name, p in posteriors.items()}
    first = next(iter(posteriors.values()))
    likelihood, transform = first.model.likelihood, first.model.transform
    grouped = any(p.model.groups is not None for p in posteriors.values())
    names = {p.data.classes for p in posteriors.values() if p.data.classes is not None}
    if len(names) > 1:
        raise ValueError(
            f"posteriors: expected classes of the same names in the same order, got {sorted(names)}; fit all to "
            "bayesinv.Data(x, y, classes=names)"
        )
    options: dict[str, Any] = {"one_class": True, "with_groups": grouped, "classes": next(iter(names), None)}
    if likelihood == "categorical":
        # The examples that a fit over minibatches keeps may lack a class, so the largest number is the best guess.
        return as_data(data, likelihood, transform, num_classes=max(outputs.values()), **options)
    if len(set(outputs.values())) > 1:
        raise ValueError(f"posteriors: expected one number of outputs, got {outputs}")
    test = as_data(data, likelihood, transform, **options)
    if test.num_outputs != first.data.num_outputs:
        raise DataError(f"y has {test.num_outputs} columns and the models {first.data.num_outputs} outputs")
    return test


def _scores(prediction: Prediction, y: Tensor, level: float) -> tuple[dict[str, float], Tensor]:
    """The columns of one fit, and its log loss for each example."""
    y = y.cpu()
    if prediction.probs is not None:
        probs = prediction.probs.cpu()
        right, loss = metrics.accuracy(probs, y), metrics.log_loss(probs, y)
        scores = {
            "accuracy": float(right.mean()),
            "accuracy_se": metrics.standard_error(right),
            "log_loss": float(loss.mean()),
            "log_loss_se": metrics.standard_error(loss),
            "calibration_error": metrics.calibration_error(probs, y),
        }
        return scores, loss
    if prediction.mean is None or prediction.log_density is None:
        raise ValueError("a prediction came with neither class probabilities nor means and densities")
    mean, variance = prediction.mean.cpu(), prediction.variance.cpu()
    loss = -prediction.log_density.cpu()  # of the likelihood, which need not be normal
    rmse = metrics.rmse(mean, y)
    squares = (mean.double() - y.double()).square().mean(1)
    scores = {
        "rmse": rmse,
        # By the delta method: d sqrt(m) = dm / (2 sqrt(m)).
        "rmse_se": metrics.standard_error(squares) / (2 * rmse) if rmse > 0 else 0.0,
        "log_loss": float(loss.mean()),
        "log_loss_se": metrics.standard_error(loss),
        "coverage": metrics.interval_coverage(mean, variance, y, level),
    }
    return scores, loss


def _differences(densities: Mapping[str, Tensor]) -> pd.DataFrame:
    """elpd less that of the best, and its standard error over examples."""
    best = max(densities, key=lambda name: float(densities[name].sum()))
    rows = []
    for name, values in densities.items():
        difference = values - densities[best]
        error = len(difference) * metrics.standard_error(difference)  # of a sum, n times that of the mean
        rows.append({"method": name, "elpd_difference": float(difference.sum()), "standard_error": error})
    return ConsoleTable(rows).set_index("method").sort_values("elpd_difference", ascending=False, kind="stable")


def _notes(posteriors: Mapping[str, InvariancePosterior], test: Data) -> tuple[str, ...]:
    notes = [
        f"The log evidence of {name!r} is left out: its extents are the posterior medians of {other!r}, so that the "
        "same data would choose them and judge them."
        for name, other in fixed_at_medians(posteriors).items()
    ]
    notes += [
        f"{name!r} has no log evidence to compare: {p.result.why_no_log_evidence}."
        for name, p in posteriors.items()
        if p.result.why_no_log_evidence
    ]
    notes += [
        f"The log evidence of {name!r} has no standard error: {p.result.why_no_standard_error}."
        for name, p in posteriors.items()
        if p.result.why_no_standard_error
    ]
    grouped = {repr(name): p.model.groups for name, p in posteriors.items() if p.model.groups is not None}
    all_new = [name for name, groups in grouped.items() if not _any_known(test.groups, groups)]
    if all_new:
        notes.append(
            f"All test examples were predicted by {', '.join(all_new)} as of a group that training has not seen, since "
            "none is said to be of a group it has: bayesinv.Data(x, y, groups=names)."
        )
    return tuple(notes)


def _any_known(given: Any, groups: tuple[str, ...]) -> bool:
    """Whether some test example is of a group that the model has, by number or by name."""
    if given is None:
        return False
    return bool((given != NEW_GROUP).any()) if isinstance(given, Tensor) else not set(groups).isdisjoint(given)


def _with_error(values: pd.Series, errors: pd.Series, digits: int) -> list[str]:
    return [
        f"{v:.{digits}f}" + ("" if math.isnan(e) else f" ± {e:.{digits}f}") for v, e in zip(values, errors, strict=True)
    ]


def _extent(row: pd.Series) -> str:
    if row["point"] or row["fixed"]:
        return f"{row['median']:.3g}"
    return f"{row['median']:.3g} [{row['lower']:.3g}, {row['upper']:.3g}]"
