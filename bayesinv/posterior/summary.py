"""The posterior in a table, in a line of text and in HTML."""

import html as html_escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayesinv.backbones import NeuralNetwork
from bayesinv.io.tables import ConsoleTable
from bayesinv.numerics.arguments import as_probability, counted
from bayesinv.numerics.quantiles import weighted_quantile
from bayesinv.orbits.groups import spread_name

if TYPE_CHECKING:
    from bayesinv.fitted.fitted_model import FittedModel

# Prior draws behind `prior_p_inactive`: its standard error is at most sqrt(1/4 / 10000) = 0.005.
_PRIOR_DRAWS = 10_000


def summary_table(
    posterior: "FittedModel",
    reweighted: bool | None = None,
    level: float = 0.9,
) -> pd.DataFrame:
    """One row a symmetry, in people's units.

    A symmetry counts as inactive at extents too small to see, below
    `transform.negligible(event_shape)`:

    p_inactive = Σ_j w_j [η_jk < negligible_k]

    Args:
        posterior: the posterior over K symmetries.
        reweighted: whether to use the importance weights; None uses them where they are good.
        level: the mass of the equal-tailed intervals.

    Returns:
        Index `symmetry`; columns `median`, `lower`, `upper` (the interval of mass `level`), `unit`,
        after a recalibration `raw_median`, `raw_lower`, `raw_upper` (those of the draws),
        `p_inactive`, the same four for the prior with `prior_` in front (no second unit), `fixed`, `point`
        (a point estimate), and, where the method gives them, `rhat` and `ess`. A fixed symmetry and a point
        estimate have lower = upper.
        `attrs` holds level, reweighted (whether the weights were used), recalibrated, inference, pareto_k,
        log_evidence, log_evidence_se, and `prefixes`: what comes before each extent, "±", "up to " (one-sided) or
        nothing (a probability, a spread of groups).

    Raises:
        ValueError: `level` outside (0, 1), or `reweighted` without weights.
    """
    level = as_probability("level", level)
    model, result = posterior.model, posterior.result
    reweighted = posterior.uses_weights(reweighted)
    log_weights = posterior.log_weights(reweighted)
    draws = result.draws.numpy()  # (draws, K)
    weights = np.ones(len(draws)) if log_weights is None else np.exp(log_weights)
    tail = (1 - level) / 2
    levels = np.array([0.5, tail, 1 - tail])
    values = weighted_quantile(draws, levels, log_weights)  # (3, K)
    recalibrated = None if posterior.recalibration is None else _numpy(posterior.quantile(levels.tolist()))
    prior = np.stack([_numpy(model.extents.prior_quantile(float(p))) for p in levels])  # (3, K)
    prior_draws = _numpy(model.extents.sample_prior(_PRIOR_DRAWS, seed=0))  # (draws, K)
    negligible = _numpy(model.transform.negligible(posterior.data.event_shape))  # (K,)
    rows = []
    for k, (name, coordinate) in enumerate(zip(posterior.symmetries, model.transform.coordinates, strict=True)):
        median, lower, upper = (float(coordinate.to_people(float(v))) for v in values[:, k])
        prior_median, prior_lower, prior_upper = (float(coordinate.to_people(float(v))) for v in prior[:, k])
        row = {
            "symmetry": name,
            "median": median,
            "lower": lower,
            "upper": upper,
            "unit": coordinate.unit,
            "p_inactive": float(weights[draws[:, k] < negligible[k]].sum() / weights.sum()),
            "prior_median": prior_median,
            "prior_lower": prior_lower,
            "prior_upper": prior_upper,
            "prior_p_inactive": float(np.mean(prior_draws[:, k] < negligible[k])),
            "fixed": name in model.extents.fixed,
            "point": result.is_point,
        }
        if recalibrated is not None:
            row |= {f"raw_{name}": row[name] for name in ("median", "lower", "upper")}
            mended = (float(coordinate.to_people(float(v))) for v in recalibrated[:, k])
            row["median"], row["lower"], row["upper"] = mended
        if result.rhat is not None:
            row["rhat"] = result.rhat[k]
        if result.ess is not None:
            row["ess"] = result.ess[k]
        rows.append(row)
    spreads = set() if model.pooling is None else {spread_name(name) for name in model.pooling.inner.names}
    table = ConsoleTable(rows).set_index("symmetry")
    table.attrs = {
        "level": level,
        "reweighted": reweighted,
        "inference": result.inference,
        "pareto_k": result.pareto_k,
        "log_evidence": result.log_evidence,
        "log_evidence_se": result.log_evidence_se,
        "recalibrated": recalibrated is not None,
        "prefixes": {c.name: "" if c.name in spreads else c.prefix for c in model.coordinates},
    }
    return table


def text(posterior: "FittedModel") -> str:
    """The posterior in one line a symmetry, with the median and the 90 % interval."""
    table = summary_table(posterior)
    width = max(len(name) for name in posterior.symmetries)
    prefixes = table.attrs["prefixes"]
    lines = [f"InvariancePosterior: {_facts(posterior)}"]
    for name, row in table.iterrows():
        lines.append(f"  {name:<{width}}  {_interval_words(row, prefixes[str(name)])}")
    lines.extend(f"  warning: {warning}" for warning in posterior.result.warnings)
    return "\n".join(lines)


def html(posterior: "FittedModel") -> str:
    """The posterior as an HTML table, for notebooks."""
    table = summary_table(posterior)
    prefixes = table.attrs["prefixes"]
    head = ("symmetry", "extent, median", "90 % interval", "P(inactive)", "prior median")
    body = []
    for name, row in table.iterrows():
        unit = _spaced(row["unit"])
        interval = f"{_number(row['lower'])} to {_number(row['upper'])}{unit}"
        if row["fixed"] or row["point"]:
            interval = "fixed" if row["fixed"] else "point estimate"
        elif "raw_lower" in row:
            interval += f" (as fitted {_number(row['raw_lower'])} to {_number(row['raw_upper'])})"
        cells = (
            str(name),
            f"{prefixes[str(name)]}{_number(row['median'])}{unit}",
            interval,
            f"{row['p_inactive']:.2f}",
            f"{prefixes[str(name)]}{_number(row['prior_median'])}{unit}",
        )
        body.append("<tr>" + "".join(f"<td>{html_escape.escape(c)}</td>" for c in cells) + "</tr>")
    warnings = "".join(f"<p><b>Warning:</b> {html_escape.escape(w)}</p>" for w in posterior.result.warnings)
    return (
        f"<div><p><b>InvariancePosterior</b>: {html_escape.escape(_facts(posterior))}</p>{warnings}"
        "<table><thead><tr>"
        + "".join(f"<th>{cell}</th>" for cell in head)
        + "</tr></thead><tbody>"
        + "".join(body)
        + "</tbody></table></div>"
    )


def _facts(posterior: "FittedModel") -> str:
    result = posterior.result
    method = result.inference if result.guide is None else f"{result.inference} ({result.guide})"
    if not result.is_point:
        chains = "1 chain" if result.num_chains == 1 else f"{result.num_chains} chains"
        method = f"{method}, {chains} of {counted(result.num_draws, 'draw')}"
    facts = [method, counted(result.settings.get("num_train", len(posterior.data)), "training example")]
    if result.log_evidence is not None:
        error = "" if result.log_evidence_se is None else f" ± {result.log_evidence_se:.2g}"
        reason = f" (no standard error: {result.why_no_standard_error})" if result.why_no_standard_error else ""
        facts.append(f"log evidence {result.log_evidence:.1f}{error} nats{reason}")
    if result.pareto_k is not None:
        facts.append(f"Pareto k̂ {result.pareto_k:.2f}")
    if posterior.uses_weights():
        facts.append("importance-weighted")
    if not result.converged:
        facts.append("not converged")
    if isinstance(posterior.model.backbone, NeuralNetwork) and "epochs" in result.settings:
        epochs = result.settings["epochs"]
        facts.append(f"conditional on this network after {epochs:.3g} epoch{'' if epochs == 1 else 's'}")
    if result.surrogate is not None:
        facts.append(f"weights of their own at {len(result.surrogate.values)} extents")
    if posterior.recalibration is not None:
        facts.append(f"intervals recalibrated by {posterior.recalibration.num_simulations} simulations")
    return "; ".join(facts)


def _interval_words(row: pd.Series, prefix: str) -> str:
    unit = _spaced(row["unit"])
    if row["fixed"] or row["point"]:
        return f"{prefix}{_number(row['median'])}{unit}, {'fixed' if row['fixed'] else 'point estimate'}"
    interval = f"{_number(row['lower'])} to {_number(row['upper'])}{unit}"
    raw = f" (as fitted {_number(row['raw_lower'])} to {_number(row['raw_upper'])})" if "raw_lower" in row else ""
    return f"{prefix}{_number(row['median'])}{unit}, 90 % interval {interval}{raw}"


def _number(value: float) -> str:
    # Three significant digits, never in scientific notation for the sizes that people read.
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _spaced(unit: str) -> str:
    return unit if unit.startswith("°") else f" {unit}"


def _numpy(values: object) -> np.ndarray:
    return np.asarray(values.detach().cpu().numpy(), dtype=float)  # type: ignore[attr-defined]
