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

from bayesinv.quantiles import systematic_resample

if TYPE_CHECKING:
    import bayesinv.posterior


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
        attrs: facts about the fit for the root; None values are left out.

    Returns:
        Groups `posterior` (variable `extent`: chain, draw, symmetry), and as given `prior`,
        `posterior_predictive` and `log_likelihood` (variable `y`), `sample_stats` (`log_weight`)
        and `observed_data` (`y`).

    Example:
        >>> import numpy as np
        >>> tree = build_datatree(np.full((1, 5, 2), 30.0), ["rotation", "shear"], ["°", "%"])
        >>> float(tree["posterior"]["extent"].sel(symmetry="rotation").mean())
        30.0
    """
    facts = _attributes(attrs or {})
    groups = {"posterior": _extent_dataset(extents, symmetries, units)}
    draws = {name: groups["posterior"].coords[name].values for name in ("chain", "draw")}
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
    posterior: "bayesinv.posterior.InvariancePosterior",
    num_draws: int | None = 200,
    predictive: bool = True,
    reweighted: bool | None = None,
    seed: int = 0,
) -> xr.DataTree:
    """A posterior as a DataTree whose groups share the same draws.

    Extents are in people's units, named by the coordinate `unit`; `posterior.sample` gives internal
    ones.

    Args:
        posterior: the posterior.
        num_draws: draws over all chains, thinned evenly within each; None for all.
        predictive: whether to add `posterior_predictive` and `log_likelihood`. Each draw costs a
            prediction at every training input.
        reweighted: whether to resample by the importance weights; None does where they are good. Draws that
            are not resampled carry them in `sample_stats`.
        seed: of the prior, the resampling and the predictive draws.

    Raises:
        ValueError: `num_draws` below 1, or `reweighted` without weights.
    """
    result, data = posterior.result, posterior.data
    reweighted = posterior.uses_weights(reweighted)
    extents, log_weights = _select(posterior, num_draws, reweighted, seed)
    chains, draws, num_coordinates = extents.shape
    prior = posterior.model.extents.sample_prior(chains * draws, seed=seed).numpy()
    targets = likelihood = None
    if predictive:
        targets, likelihood = _predictive(posterior, extents.reshape(-1, num_coordinates), seed)
        targets = targets.reshape(chains, draws, *targets.shape[1:])
        likelihood = likelihood.reshape(chains, draws, -1)
    return build_datatree(
        _to_people(posterior, extents),
        posterior.symmetries,
        [c.unit for c in posterior.model.transform.coordinates],
        prior=_to_people(posterior, prior.reshape(chains, draws, num_coordinates)),
        predictive=targets,
        log_likelihood=likelihood,
        observed=_squeezed(data.y.cpu().numpy()),
        log_weights=log_weights,
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


def _select(
    posterior: "bayesinv.posterior.InvariancePosterior",
    num_draws: int | None,
    reweighted: bool,
    seed: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The draws to export, (chains, draws, K), and their log weights, (chains, draws)."""
    result = posterior.result
    extents = result.extents.numpy()
    wanted = extents.shape[0] * extents.shape[1] if num_draws is None else num_draws
    if wanted < 1:
        raise ValueError(f"num_draws must be at least 1; got {num_draws}")
    if reweighted:
        log_weights = posterior.log_weights(True)
        indices = systematic_resample(wanted, extents.shape[1], log_weights, seed)
        return extents[:, indices], None
    per_chain = min(-(-wanted // extents.shape[0]), extents.shape[1])  # rounded up
    # Evenly spaced integers; in integers, so that no rounding repeats a draw.
    indices = np.arange(per_chain) * extents.shape[1] // per_chain
    if result.log_weights is None:
        return extents[:, indices], None
    weights = result.log_weights.numpy()[None, indices]
    return extents[:, indices], weights - np.logaddexp.reduce(weights, axis=1, keepdims=True)


def _predictive(
    posterior: "bayesinv.posterior.InvariancePosterior", extents: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A target and a log likelihood per draw and training example, (J, n, *output), (J, n)."""
    import torch  # here, so that build_datatree can be used without it

    model, data = posterior.model, posterior.data
    eta = torch.from_numpy(np.ascontiguousarray(extents))  # (J, K)
    rng = np.random.default_rng(seed)
    targets = []
    groups = None if model.groups is None else data.groups
    for j in range(len(eta)):
        prediction = model.predict(data.x, data, eta[j : j + 1], seed=seed + j, groups=groups)
        if prediction.probs is not None:
            cdf = np.cumsum(prediction.probs.cpu().numpy(), axis=1)  # (n, C)
            # The count of classes whose cumulative probability the uniform has passed; rounding of
            # the last is cut off.
            u = rng.random((len(cdf), 1))
            targets.append(np.minimum((u > cdf).sum(axis=1), cdf.shape[1] - 1))
        elif prediction.mean is not None:
            mean, variance = prediction.mean.cpu().numpy(), prediction.variance.cpu().numpy()
            targets.append(_squeezed(rng.normal(mean, np.sqrt(variance))))
    likelihood = model.log_likelihood(data, data, eta, seed=seed).cpu().numpy()
    return np.stack(targets), likelihood.astype(float)


def _to_people(posterior: "bayesinv.posterior.InvariancePosterior", extents: np.ndarray) -> np.ndarray:
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
    dims = (*draws, "observation", "output")[: values.ndim]
    coords = {**draws, "observation": np.arange(values.shape[len(draws)])}
    if "output" in dims:
        coords["output"] = np.arange(values.shape[-1])
    return xr.Dataset({"y": (dims, values)}, coords=coords)


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
