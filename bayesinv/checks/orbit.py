"""What the orbit's own draws decide: evidence and extents on other and on larger orbits, and under blur alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.checks.target import Target
from bayesinv.checks.verdicts import Verdict
from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.io.tables import ConsoleTable
from bayesinv.numerics.psis import pareto_smooth
from bayesinv.numerics.quantiles import weighted_quantile
from bayesinv.orbits.orbit import Orbit
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.transforms.blur import GaussianBlur

# A median that moves by half an interval's half-width between orbits that only differ in their draws is decided by
# these draws as much as by the data.
NOTE_SHIFT, SERIOUS_SHIFT = 0.5, 1.0


@dataclass(frozen=True, eq=False)
class OrbitSensitivity:
    """Evidence and medians on several orbits.

    Attributes:
        table: one row an orbit: ``num_samples``, ``seed``, ``log_evidence`` at the fit's medians (nats), ``pareto_k``
            of the reweighting, and the median of every latent extent, in people's units.
        half_widths: of the fit's own 90 % intervals, by symmetry, people's units.
    """

    table: pd.DataFrame
    half_widths: pd.Series

    @property
    def shift(self) -> pd.Series:
        """The largest move of each median from the fit's own orbit, in half-widths of its interval."""
        medians = self.table[list(self.half_widths.index)]
        return (medians - medians.iloc[0]).abs().max() / self.half_widths

    def verdict(self) -> Verdict:
        """ "serious" where a median leaves the fit's own interval."""
        symmetry, shift = self.shift.idxmax(), float(self.shift.max())
        level = "serious" if shift > SERIOUS_SHIFT else "note" if shift > NOTE_SHIFT else "ok"
        message = (
            f"On other orbits of up to {self.table['num_samples'].max()} copies the median of {symmetry} moves by "
            f"{shift:.2g} half-widths of its interval, more than any other."
        )
        return Verdict("orbit", level, message, "" if level == "ok" else "Raise num_orbit_samples and fit again.")


def orbit_sensitivity(
    posterior: InvariancePosterior,
    data: Data | None = None,
    factors: Sequence[int] = (1, 2, 4),
    num_seeds: int = 2,
    num_draws: int = 60,
) -> OrbitSensitivity:
    """Evidence and extents on orbits of S, 2S and 4S copies and other base draws, without fitting again.

    Draws of the posterior are weighed by p(D | η, u, other orbit) / p(D | η, u, own orbit), with the hyperparameters u
    of each draw where the fit drew them, and else those that it learned.

    Args:
        posterior: of a collapsed evidence.
        data: of the evidence; the training data if None.
        factors: sizes of the orbits, in multiples of the fit's own.
        num_seeds: orbits of each size.
        num_draws: of the posterior; an evaluation each on every orbit.

    Returns:
        A table whose first row is the fit's own orbit.

    Raises:
        ValueError: a point estimate, nothing latent, or an evidence that is estimated from minibatches.

    Example:
        >>> orbit_sensitivity(posterior).table  # doctest: +SKIP
    """
    if posterior.result.is_point:
        raise ValueError(f"{posterior.result.inference} is a point estimate, which has no interval to compare with")
    reweighted = posterior.uses_weights()
    chosen = posterior.sample_rows(num_draws, reweighted=reweighted)
    draws = posterior.result.draws[chosen]
    own = posterior.model.orbit
    orbits = [(own.num_samples, int(own.config()["seed"]))]
    for factor in factors:
        seeds = [orbits[0][1] + 1 + i for i in range(num_seeds)]
        orbits += [(factor * own.num_samples, seed) for seed in seeds]
    centre = posterior.quantile(0.5, reweighted)[None]
    rows, before = [], None
    for num_samples, seed in orbits:
        target = Target(_on_orbit(posterior, num_samples, seed, data))
        values = target.log_likelihood(draws, target.hyperparameters_of(chosen))
        before = values if before is None else before
        log_weights, k = pareto_smooth(values - before)
        medians = weighted_quantile(draws.numpy(), np.array([0.5]), log_weights.numpy())[0]
        at_medians = float(target.log_likelihood(centre)[0])
        row = {"num_samples": num_samples, "seed": seed, "log_evidence": at_medians, "pareto_k": k}
        for k_column in target.columns:
            coordinate = posterior.model.transform.coordinates[k_column]
            row[coordinate.name] = float(coordinate.to_people(float(medians[k_column])))
        rows.append(row)
    lower, upper = posterior.quantile([0.05, 0.95], reweighted)
    half = {}
    for k_column in target.columns:
        c = posterior.model.transform.coordinates[k_column]
        width = float(c.to_people(float(upper[k_column]))) - float(c.to_people(float(lower[k_column])))
        half[c.name] = max(0.5 * width, 1e-12)
    return OrbitSensitivity(ConsoleTable(rows), pd.Series(half))


def _on_orbit(posterior: InvariancePosterior, num_samples: int, seed: int, data: Data | None) -> InvariancePosterior:
    model, config = copy.copy(posterior.model), posterior.model.orbit.config()
    model._modules = dict(posterior.model._modules)  # the copy's own, so that the fitted model keeps its orbit
    # The orbit's own transform: with extents by output or group, the model's also names those of each.
    orbit = Orbit(posterior.model.orbit.transform, num_samples, config["draws"], seed, config.get("augmentation"))
    model.orbit = orbit.to(posterior.data.x.device)
    return InvariancePosterior(model, posterior.data if data is None else data, posterior.result)


@dataclass(frozen=True)
class BlurNull:
    """What blur alone is worth, beside the fitted warp; nats, at the fit's hyperparameters.

    Attributes:
        identity: log p(D | no transform).
        fitted: log p(D | the fitted extents).
        blurred: log p(D | copies that stay in place and lose as much detail as the fitted ones).
        blur: the extent of that blur, in percent of the width.
        detail: share of the images' gradient energy that the fitted copies, and the blurred ones, keep.
    """

    identity: float
    fitted: float
    blurred: float
    blur: float
    detail: float

    @property
    def gain(self) -> float:
        """fitted - identity."""
        return self.fitted - self.identity

    @property
    def gain_of_blur(self) -> float:
        """blurred - identity."""
        return self.blurred - self.identity

    def verdict(self) -> Verdict:
        """ "serious" where blur is worth at least as much as the warp, "note" at half of it."""
        message = (
            f"The fitted extents are worth {self.gain:.1f} nats over no transform; blur of the same loss of detail, "
            f"without any movement, is worth {self.gain_of_blur:.1f}."
        )
        if self.gain_of_blur <= 0.5 * max(self.gain, 0.0):
            return Verdict("blur", "ok", message)
        advice = "Compare with a model of GaussianBlur() alone; use larger images, or smooth them before."
        return Verdict("blur", "serious" if self.gain_of_blur >= self.gain else "note", message, advice)


@torch.no_grad()
def blur_matched_null(posterior: InvariancePosterior, num_images: int = 64) -> BlurNull:
    """Is it the movement that evidence rewards, or the blur of its interpolation?

    The null leaves every image in place and blurs it, copies of standard deviation from 0 to β, with β such that the
    copies keep as much of the images' gradient energy Σ |x_p - x_q|² over neighbouring pixels as the fitted ones do.

    Args:
        posterior: of a collapsed evidence on images, (n, channels, height, width).
        num_images: on which the blur is matched.

    Raises:
        DataError: not images. ValueError: an evidence that is estimated from minibatches, or extents by output or
            group, which have no single orbit to match.

    Example:
        >>> blur_matched_null(posterior).verdict()  # doctest: +SKIP
    """
    model, data = posterior.model, posterior.data
    if data.x.ndim != 4:
        raise DataError(f"blur_matched_null: expected images, (n, channels, height, width), got {tuple(data.x.shape)}")
    target = Target(posterior)
    if model.transform is not model.orbit.transform:
        raise ValueError(
            "blur_matched_null: every output or group of this model has an orbit of its own, and a blur is matched to "
            "one; fit a model without outputs= and groups="
        )
    reweighted = posterior.uses_weights()
    centre = posterior.quantile(0.5, reweighted)
    images = data.x[:num_images]
    copies = _weighted_detail(model.orbit, images, centre)
    blur = Orbit(GaussianBlur(largest=1.0), model.orbit.num_samples, seed=int(model.orbit.config()["seed"]))
    blur = blur.to(data.x.device)
    low, high = 0.0, 1.0
    if copies < 1.0:
        for _ in range(30):
            middle = 0.5 * (low + high)
            keeps = _weighted_detail(blur, images, torch.tensor([middle], dtype=torch.float64))
            low, high = (middle, high) if keeps > copies else (low, middle)
    beta = torch.tensor([low], dtype=torch.float64)
    null = copy.copy(model)
    null._modules = dict(model._modules)
    null.orbit = blur
    values = target.log_likelihood(torch.stack([torch.zeros_like(centre), centre]))
    return BlurNull(
        identity=float(values[0]),
        fitted=float(values[1]),
        blurred=float(null.log_evidence(beta, data)),
        blur=float(blur.transform.coordinates[0].to_people(float(beta[0]))),
        detail=min(copies, 1.0),
    )


def _weighted_detail(orbit: Orbit, images: Float[Tensor, "n C H W"], eta: Float[Tensor, " K"]) -> float:
    """Gradient energy of the copies as a share of that of the images."""
    points, weights = orbit(images, eta), orbit.weights(eta)

    def energy(x: Tensor) -> Tensor:
        return x.diff(dim=-1).square().sum((-3, -2, -1)) + x.diff(dim=-2).square().sum((-3, -2, -1))

    per_copy = energy(points.double()).sum(-1)  # (S,)
    w = torch.full_like(per_copy, 1.0 / len(per_copy)) if weights is None else weights.to(per_copy)
    return float((w * per_copy).sum() / energy(images.double()).sum().clamp_min(1e-12))
