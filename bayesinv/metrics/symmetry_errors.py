"""How far a function is from having a symmetry: measured on given inputs, with a number for each symmetry.

    invariance    f(T_t x) = f(x)
    equivariance  T'_t⁻¹ f(T_t x) = f(x)

The numbers are `bayesinv.metrics` to a user; they live here because they need draws of t.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.numerics.randomness import seeded
from bayesinv.orbits.orbit import Orbit
from bayesinv.transforms import Transform, as_action, as_transform, undo

__all__ = ["equivariance_error", "invariance_error", "invariance_score"]


def equivariance_error(
    f: Any,
    x: Float[Tensor, n * event],
    transform: Any,
    output_action: Any,
    extents: Mapping[str, float] | None = None,
    num_draws: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """How much T'_t⁻¹ f(T_t x) differs from f(x), relative to how much different inputs differ, by symmetry.

        sqrt( E_{i,t} |T'_t⁻¹ f(T_t x_i) - f(x_i)|² / E_{i≠j} |f(x_i) - f(x_j)|² ),    t_k ~ p(t_k | η_k), others 0

    0 for an equivariant function; 1 where copies of one input differ as much as different inputs do. Where a copy of
    a map has left the frame nothing is compared. A constant function has no error.

    Args:
        f: a posterior (its probabilities, or mean, over four draws of the extents), or any function of a batch
            (n, *event) to (n, outputs) or maps (n, C, *cells), such as a network.
        x: at least two inputs.
        transform: T, or names as `InvarianceModel` takes them.
        output_action: T': "image", "volume", "vector", an object with ``inverse(outputs, t)``, or None for invariance.
        extents: η by symmetry, internal units; those left out are at their largest sensible ones, and 0 leaves one
            out.
        num_draws: of t, for each input and symmetry.
        seed: of these draws.

    Returns:
        By symmetry, and "all" for all of them together.

    Raises:
        ValueError: fewer than two inputs, an unknown symmetry, an extent past its largest sensible one, or a function
            that does not return a row for each input.
        TypeError: f is neither a posterior nor a function.

    Example:
        >>> import bayesinv
        >>> x = torch.randn(20, 5, 3, generator=torch.Generator().manual_seed(0))
        >>> rotation = bayesinv.transforms.Rotation3d()
        >>> sums = equivariance_error(lambda x: x.sum(1), x, rotation, "vector")
        >>> max(sums.values()) < 1e-5
        True
        >>> first = equivariance_error(lambda x: x.sum(1) * torch.tensor([1.0, 0, 0]), x, rotation, "vector")
        >>> first["rotation_x"] < 1e-5 < 0.1 < first["rotation_y"]  # the x axis stays where it is, y and z are ignored
        True
    """
    function, transform = _as_function(f), as_transform(transform)
    action = as_action(output_action, transform)
    if num_draws < 1:
        raise ValueError(f"num_draws: expected at least 1, got {num_draws}")
    here = _values(function, x)
    if len(here) < 2:
        raise ValueError(f"x: expected at least two inputs, to compare copies of one with another, got {len(here)}")
    flat = here.flatten(1)
    # Over all pairs i ≠ j: 2 n/(n-1) times the variance about the mean.
    apart = 2.0 * float((flat - flat.mean(0)).square().sum(1).mean()) * len(flat) / (len(flat) - 1) / flat.shape[1]
    errors = {}
    for name, eta in _one_by_one(transform, extents).items():
        t = _draws(transform, eta, num_draws, len(x), seed).to(x.device)
        points = transform.orbit_per_example(x, t)
        there = _values(function, points.flatten(0, 1)).unflatten(0, points.shape[:2])  # (draws, n, *out)
        back, coverage = undo(action, there, t)
        squares = (back - here).square()
        if coverage is None:
            mean = float(squares.mean())
        else:
            shares = coverage[:, :, None].expand_as(squares)
            mean = float((shares * squares).sum() / shares.sum().clamp_min(1e-12))
        errors[name] = 0.0 if mean == 0.0 else (mean / apart) ** 0.5 if apart > 0.0 else float("inf")
    return errors


def invariance_error(
    f: Any,
    x: Float[Tensor, n * event],
    transform: Any,
    extents: Mapping[str, float] | None = None,
    num_draws: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """How much f(T_t x) differs from f(x), relative to how much different inputs differ, by symmetry.

        sqrt( E_{i,t} |f(T_t x_i) - f(x_i)|² / E_{i≠j} |f(x_i) - f(x_j)|² )

    Arguments, errors and result are those of `equivariance_error` without an output action.

    Example:
        >>> import bayesinv
        >>> x = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flip = bayesinv.transforms.Flip()
        >>> invariance_error(lambda x: x.mean((1, 2, 3))[:, None], x, flip)["flip_x"] < 1e-5
        True
        >>> invariance_error(lambda x: x[:, 0, 0, :4], x, flip)["flip_x"] > 0.5
        True
    """
    return equivariance_error(f, x, transform, None, extents, num_draws, seed)


def invariance_score(
    f: Any,
    x: Float[Tensor, n * event],
    transform: Any,
    extents: Mapping[str, float] | None = None,
    num_draws: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """AugNet's invariance metric, by symmetry: 1 for an invariant function, about 0 for one that tells copies apart as
    it does different inputs.

        (d(Z, Z') - d(Z, Z_T)) / d(Z, Z'),    d = mean of 1 - cosine,

    Z the outputs f(x_i), Z' those of the inputs in another order, Z_T those of transformed inputs. The mean over pairs
    i ≠ j takes the place of one random order. The cosine is of outputs as they are: probabilities and positive
    features all point one way, so compare scores of the same kind of output only.

    Arguments, errors and result are those of `invariance_error`; a function that does not tell inputs apart at all has
    no score (NaN).

    Reference:
        C. Rommel, T. Moreau, A. Gramfort (2022). Deep invariant networks with differentiable augmentation layers.
        arXiv:2202.02142.

    Example:
        >>> import bayesinv
        >>> x = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flip = bayesinv.transforms.Flip()
        >>> score = invariance_score(lambda x: (x + x.flip(-1)).flatten(1), x, flip)
        >>> round(score["flip_x"], 5)
        1.0
    """
    function, transform = _as_function(f), as_transform(transform)
    Z = torch.nn.functional.normalize(_values(function, x).flatten(1), dim=1)
    if len(Z) < 2:
        raise ValueError(f"x: expected at least two inputs, to compare copies of one with another, got {len(Z)}")
    n = len(Z)
    shuffled = 1.0 - float((Z.sum(0).square().sum() - Z.square().sum()) / (n * (n - 1)))
    scores = {}
    for name, eta in _one_by_one(transform, extents).items():
        t = _draws(transform, eta, num_draws, n, seed).to(x.device)
        points = transform.orbit_per_example(x, t).flatten(0, 1)
        Z_T = torch.nn.functional.normalize(_values(function, points).flatten(1), dim=1).unflatten(0, (num_draws, n))
        moved = 1.0 - float((Z * Z_T).sum(-1).mean())
        scores[name] = (shuffled - moved) / shuffled if shuffled > 1e-12 else float("nan")
    return scores


def _as_function(f: Any) -> Callable[[Tensor], Tensor]:
    """A posterior's prediction over four draws of the extents, channels first, or a function as it is."""
    if hasattr(f, "predict") and hasattr(f, "symmetries") and hasattr(f, "result"):

        def predicted(x: Tensor) -> Tensor:
            prediction = f.predict(x, num_samples=4).as_rows()
            value: Tensor = prediction.mean if prediction.probs is None else prediction.probs
            return value.movedim(-1, 1)

        return predicted
    if hasattr(f, "log_evidence") or not callable(f):
        raise TypeError(
            f"f: expected a posterior or a function of inputs, got a {type(f).__name__}; of a model without data pass "
            "its network: model.network"
        )
    return f


@torch.no_grad()
def _values(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    values = function(x)
    if not isinstance(values, Tensor) or values.ndim == 0 or len(values) != len(x):
        came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"f: expected a row of outputs for each of {len(x)} inputs, and {came} came")
    return (values[:, None] if values.ndim == 1 else values).double()


def _one_by_one(transform: Transform, extents: Mapping[str, float] | None) -> dict[str, Float[Tensor, " K"]]:
    """Extents with one symmetry at a time, and with all."""
    given = dict(extents or {})
    unknown = sorted(set(given) - set(transform.names))
    if unknown:
        raise ValueError(f"extents: unknown symmetries {unknown}; there are {list(transform.names)}")
    for c in transform.coordinates:
        if not 0.0 <= given.get(c.name, 0.0) <= c.largest * (1.0 + 1e-9):
            raise ValueError(
                f"extents[{c.name!r}]: expected a number from 0 to {c.largest:g} (internal units; "
                f"{c.words(c.largest)}), got {given[c.name]!r}"
            )
    whole = torch.tensor([float(given.get(c.name, c.largest)) for c in transform.coordinates], dtype=torch.float64)
    each = dict(zip(transform.names, torch.diag(whole), strict=True))
    return {name: eta for name, eta in each.items() if bool(eta.any())} | {"all": whole}


def _draws(transform: Transform, eta: Tensor, num_draws: int, n: int, seed: int) -> Float[Tensor, "draws n columns"]:
    with seeded(seed):
        return Orbit(transform, 1).random_coordinates(eta, (num_draws, n))
