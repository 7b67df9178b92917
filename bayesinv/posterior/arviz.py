"""The posterior for ArviZ and xarray. `build_datatree` and `to_arviz` need neither torch nor Pyro.

ArviZ 0.23 (Python 3.11) works on its own `InferenceData`, which `arviz.from_datatree` makes of a
DataTree. From ArviZ 1.0 (Python 3.12 and later) there is no `InferenceData` and no `from_datatree`:
its functions take the `xarray.DataTree` itself. The default interval differs too (94 % highest
density before, 89 % equal-tailed since), so state it: `arviz.summary(tree, ci_prob=0.9,
ci_kind="eti")` in 1.x, `hdi_prob=0.9` in 0.23.
"""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

from bayesinv.numerics.arguments import as_integer
from bayesinv.numerics.quantiles import systematic_resample

if TYPE_CHECKING:
    from bayesinv.fitted.fitted_model import FittedModel


def build_datatree(
    extents: Float[np.ndarray, "chains draws K"],
    symmetries: Sequence[str],
    units: Sequence[str],
    *,
    prior: Float[np.ndarray, "prior_chains prior_draws K"] | None = None,
    predictive: Shaped[np.ndarray, "chains draws n *output"] | None = None,
    log_likelihood: Float[np.ndarray, "chains draws n"] | None = None,
    observed: Shaped[np.ndarray, "n *output"] | None = None,
    log_weights: Float[np.ndarray, "chains draws"] | None = None,
    hyperparameters: Mapping[str, Float[np.ndarray, "chains draws size"]] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """A DataTree in ArviZ's layout from plain arrays.

    Args:
        extents: draws of the half-widths, in the units named by `units`.
        symmetries: K names, the coordinate `symmetry`.
        units: K units, the coordinate `unit`.
        prior: draws from the prior, in the same units.
        predictive: targets drawn from the posterior predictive at the training inputs, one for each
            draw.
        log_likelihood: log p(y_i | f_ij) in nats, for the same draws.
        observed: the targets.
        log_weights: log importance weights of the draws, in `sample_stats`.
        hyperparameters: draws of kernel scales and noise by name, in their own units; variables of `posterior`.
        attrs: facts about the fit for the root; None values are left out.

    Returns:
        Groups `posterior` (variable `extent`: chain, draw, symmetry; one for each hyperparameter), and as given
        `prior`, `posterior_predictive` and `log_likelihood` (variable `y`), `sample_stats` (`log_weight`) and
        `observed_data` (`y`).

    Example:
        >>> import numpy as np
        >>> tree = build_datatree(np.full((1, 5, 2), 30.0), ["rotation", "shear"], ["°", "%"])
        >>> float(tree["posterior"]["extent"].sel(symmetry="rotation").mean())
        30.0
    """
    facts = _attributes(attrs or {})
    groups = {"posterior": _extent_dataset(extents, symmetries, units)}
    draws = {name: groups["posterior"].coords[name].values for name in ("chain", "draw")}
    for name, values in (hyperparameters or {}).items():
        # A single number has no axis; those of several dimensions get one each, as their sizes differ.
        array = values[..., 0] if values.shape[-1] == 1 else values
        groups["posterior"][name] = (("chain", "draw", f"{name}_dim")[: array.ndim], array)
    if prior is not None:
        groups["prior"] = _extent_dataset(prior, symmetries, units)
    if predictive is not None:
        groups["posterior_predictive"] = _target_dataset(predictive, draws)
    if log_likelihood is not None:
        groups["log_likelihood"] = _target_dataset(log_likelihood, draws)
    if log_weights is not None:
        weights = xr.Dataset({"log_weight": (("chain", "draw"), log_weights)}, coords=draws)
        groups["sample_stats"] = weights
    if observed is not None:
        groups["observed_data"] = _target_dataset(observed, {})
    # ArviZ 0.23 keeps the attributes of groups and 1.x those of the root, so both carry the facts.
    for dataset in groups.values():
        dataset.attrs.update(facts)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(facts)
    return tree


def to_arviz(tree: xr.DataTree) -> Any:
    """What the installed ArviZ works on: `InferenceData` for 0.23, the tree itself for 1.x.

    Raises:
        ImportError: ArviZ is not installed.
    """
    import arviz  # seconds to import, and needed nowhere else

    # By version: to ask 1.x for one of its removed names raises a warning.
    major = int(metadata.version("arviz").split(".")[0])
    return tree if major >= 1 else arviz.from_datatree(tree)


def posterior_datatree(
    posterior: "FittedModel",
    num_draws: int | None = 200,
    predictive: bool = True,
    reweighted: bool | None = None,
    seed: int = 0,
    log_likelihood: bool = False,
) -> xr.DataTree:
    """A posterior as a DataTree whose groups share the same draws.

    Extents are in people's units, named by the coordinate `unit`; `posterior.sample` gives internal
    ones.

    Args:
        posterior: the posterior.
        num_draws: draws over all chains, thinned evenly within each; None for all.
        predictive: whether to add `posterior_predictive`. Each draw costs a prediction at every training input.
        reweighted: whether to resample by the importance weights; None does where they are good. Draws that
            are not resampled carry them in `sample_stats`.
        seed: of the prior, the resampling and the predictive draws.
        log_likelihood: whether to add `log_likelihood`, for criticism of the fit to its training data. Leave-one-out
            scores from it (`az.loo`, `az.waic`) are wrong: f at an example is drawn from a posterior that has seen its
            label, by approximate sites or network weights that importance weights do not undo. Score held-out data.

    Raises:
        ValueError: `num_draws` below 1, or `reweighted` without weights.
    """
    result, data = posterior.result, posterior.data
    reweighted = posterior.uses_weights(reweighted)
    rows, log_weights = _select(posterior, num_draws, reweighted, seed)
    chains, draws = rows.shape
    extents = result.draws.numpy()[rows]  # (chains, draws, K)
    prior = posterior.model.extents.sample_prior(chains * draws, seed=seed).numpy()
    targets = likelihood = None
    if predictive:
        targets = _predictive(posterior, rows.reshape(-1), seed)
        targets = targets.reshape(chains, draws, *targets.shape[1:])
    if log_likelihood:
        likelihood = _log_likelihood(posterior, rows.reshape(-1), seed)
        likelihood = likelihood.reshape(chains, draws, *likelihood.shape[1:])
    tree = build_datatree(
        _to_people(posterior, extents),
        posterior.symmetries,
        [c.unit for c in posterior.model.transform.coordinates],
        prior=_to_people(posterior, prior.reshape(extents.shape)),
        predictive=targets,
        log_likelihood=likelihood,
        observed=_squeezed(data.y.cpu().numpy()),
        log_weights=log_weights,
        hyperparameters=_hyperparameters(posterior, rows),
        attrs={
            "inference_library": "bayesinv",
            "inference_library_version": _version(),
            "inference": result.inference,
            "guide": result.guide,
            "seed": result.seed,
            "converged": int(result.converged),  # netCDF has no booleans
            "reweighted": int(reweighted),
            "pareto_k": result.pareto_k,
            "log_evidence": result.log_evidence,
            "log_evidence_se": result.log_evidence_se,
        },
    )
    if log_likelihood:
        tree["log_likelihood"].attrs["note"] = "of data that the fit has seen: not for leave-one-out scores"
    return tree


def _select(
    posterior: "FittedModel",
    num_draws: int | None,
    reweighted: bool,
    seed: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of `result.draws` to export, (chains, draws), and their log weights, (chains, draws)."""
    result = posterior.result
    wanted = result.num_chains * result.num_draws if num_draws is None else as_integer("num_draws", num_draws)
    if reweighted:
        log_weights = posterior.log_weights(True)
        return systematic_resample(wanted, result.num_draws, log_weights, seed)[None], None
    per_chain = min(-(-wanted // result.num_chains), result.num_draws)  # rounded up
    # Evenly spaced integers; in integers, so that no rounding repeats a draw.
    indices = np.arange(per_chain) * result.num_draws // per_chain
    rows = np.arange(result.num_chains)[:, None] * result.num_draws + indices
    if result.log_weights is None:
        return rows, None
    weights = result.log_weights.numpy()[None, indices]
    return rows, weights - np.logaddexp.reduce(weights, axis=1, keepdims=True)


def _hyperparameters(posterior: "FittedModel", rows: np.ndarray) -> dict[str, np.ndarray] | None:
    """Draws by name, (chains, draws, size), in the parameters' own units; None where the fit held them."""
    u = posterior.result.hyperparameters
    if u is None:
        return None
    found = posterior.model.hyperparameters
    parts = u[rows].split([h.size for h in found], -1)
    return {h.name: h.natural(part).numpy() for h, part in zip(found, parts, strict=True)}


def _predictive(posterior: "FittedModel", rows: np.ndarray, seed: int) -> np.ndarray:
    """A target per draw and training example, (J, n, *output)."""
    model, data, result = posterior.model, posterior.data, posterior.result
    rng = np.random.default_rng(seed)
    targets = []
    groups = None if model.groups is None else data.groups
    for j, row in enumerate(rows):
        prediction = model.predict(
            data.x,
            data,
            result.draws[row : row + 1],
            seed=seed + j,
            groups=groups,
            hyperparameters=None if result.hyperparameters is None else result.hyperparameters[row : row + 1],
        )
        if prediction.probs is not None:
            cdf = np.cumsum(prediction.probs.cpu().numpy(), axis=-1)  # (n, *cells, C)
            # The count of classes whose cumulative probability the uniform has passed; rounding of
            # the last is cut off.
            u = rng.random((*cdf.shape[:-1], 1))
            targets.append(np.minimum((u > cdf).sum(axis=-1), cdf.shape[-1] - 1))
        elif prediction.mean is not None:
            mean, variance = prediction.mean.cpu().numpy(), prediction.variance.cpu().numpy()
            targets.append(_squeezed(rng.normal(mean, np.sqrt(variance))))
    return np.stack(targets)


def _log_likelihood(posterior: "FittedModel", rows: np.ndarray, seed: int) -> np.ndarray:
    """log p(y_i | f_ij) per draw and training example, (J, n)."""
    result = posterior.result
    hyper = None if result.hyperparameters is None else result.hyperparameters[rows]
    data = posterior.data
    values = posterior.model.log_likelihood(data, data, result.draws[rows], seed=seed, hyperparameters=hyper)
    return np.asarray(values.cpu().numpy(), dtype=float)


def _to_people(posterior: "FittedModel", extents: np.ndarray) -> np.ndarray:
    columns = [
        np.asarray(coordinate.to_people(extents[..., k]), dtype=float)
        for k, coordinate in enumerate(posterior.model.transform.coordinates)
    ]
    return np.stack(columns, axis=-1)


def _extent_dataset(extents: np.ndarray, symmetries: Sequence[str], units: Sequence[str]) -> xr.Dataset:
    variable = xr.DataArray(
        extents,
        dims=("chain", "draw", "symmetry"),
        coords={
            "chain": np.arange(extents.shape[0]),
            "draw": np.arange(extents.shape[1]),
            "symmetry": list(symmetries),
            "unit": ("symmetry", list(units)),
        },
        attrs={"long_name": "half-width, in the unit that the coordinate `unit` names"},
    )
    return xr.Dataset({"extent": variable})


def _target_dataset(values: np.ndarray, draws: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Targets (*draws, n), (*draws, n, outputs), or labels of every cell (*draws, n, height, width)."""
    inner = values.ndim - len(draws) - 1
    axes = ("output",) if inner == 1 else ("row", "column") if inner == 2 else tuple(f"cell_{i}" for i in range(inner))
    dims = (*draws, "observation", *axes)
    places = {name: np.arange(size) for name, size in zip(dims, values.shape, strict=True) if name not in draws}
    return xr.Dataset({"y": (dims, values)}, coords={**draws, **places})


def _squeezed(values: np.ndarray) -> np.ndarray:
    """A single real output loses its dimension, so that y is shaped as its log likelihood."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if value is not None}


def _version() -> str:
    try:
        return metadata.version("bayesinv")
    except metadata.PackageNotFoundError:
        return "unknown"  # run from the sources, not installed
