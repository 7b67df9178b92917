"""InvariancePosterior: what a fit returns, and what one can ask of it.

Past 400 lines because two fifths of them say what its methods take, give and raise; the work is done elsewhere.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bayesinv import arviz_export, posterior_summary
from bayesinv.arguments import as_integer, as_probability
from bayesinv.arrays import column_names
from bayesinv.console import ConsoleTable, for_console
from bayesinv.data import Data, as_inputs
from bayesinv.errors import DataError
from bayesinv.exact_evidence import weighing_model
from bayesinv.function_cache import FunctionCache
from bayesinv.groups import as_groups
from bayesinv.linearised import Linearised, predict_linearised
from bayesinv.model import InvarianceModel
from bayesinv.prediction import Prediction
from bayesinv.psis import weights_are_good
from bayesinv.quantiles import systematic_resample, weighted_quantile
from bayesinv.randomness import seeded
from bayesinv.recalibrated import Recalibration
from bayesinv.unconstrained import ExtentGuide, Unconstrained

if TYPE_CHECKING:
    import matplotlib.figure

    from bayesinv.checks.verdicts import Verdicts
    from bayesinv.export import Augmentation
    from bayesinv.inference.result import InferenceResult


# Images of 8 bits that were scaled and others that were not are 255 apart; one bright pixel is not 20 times as bright.
LARGEST_RATIO = 20.0
# A byte divided as if it had 12 bits is at most a sixteenth; where this share of the training data is as dark, it is
# usual.
SMALLEST_RATIO, USUAL = 0.25, 0.05


def _inputs_of(data: Any) -> str:
    """How to take the inputs out of what holds more."""
    if isinstance(data, DataLoader):
        return "torch.cat([x for x, *_ in loader])"
    if isinstance(data, tuple):
        return "x, without y"
    return "test.x" if isinstance(data, Data) else "torch.stack([x for x, *_ in dataset])"


def _missing_axes(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What to do with inputs that lack axes: the batch, those of length one, or others."""
    if shape == expected:
        return "for a single input pass x[None]"
    inner = expected[next((i for i, size in enumerate(expected) if size != 1), 0) :]
    single = shape == inner
    if single or shape[1:] == inner:
        what = "a single input" if single else "inputs without their axes of length one"
        return f"for {what} pass x.reshape({', '.join(map(str, (1 if single else -1, *expected)))})"
    return "give it the axes that the training inputs have"


class InvariancePosterior:
    """The posterior p(η | D) over the extents of the symmetries, and what follows from it.

    Everything that takes `reweighted` uses the importance weights of a variational fit, Σ_j w_j δ(η − η_j) in place
    of q(η), where they are good: `pareto_k` within `psis.pareto_limit(draws)`. They correct what the guide could not
    follow. `reweighted=True` uses them whatever k̂ is, `reweighted=False` never.

    Args:
        model: the model that was fitted, with its learned hyperparameters.
        data: the training data; predictions condition on it.
        result: the draws and the facts about the fit.
        recalibration: what simulated fits said about the intervals, if `recalibrate` was called.

    Raises:
        ValueError: the draws and the model count different symmetries.

    Example:
        >>> posterior = bayesinv.fit(model, (x, y), seed=0)  # doctest: +SKIP
        >>> posterior.summary()[["median", "lower", "upper", "unit"]]  # doctest: +SKIP
        >>> posterior.predict(x_new).probs  # doctest: +SKIP
    """

    def __init__(
        self,
        model: InvarianceModel,
        data: Data,
        result: "InferenceResult",
        recalibration: Recalibration | None = None,
    ) -> None:
        if result.num_coordinates != len(model.symmetries):
            raise ValueError(
                f"the draws hold {result.num_coordinates} extents, the model has "
                f"{len(model.symmetries)} symmetries: {', '.join(model.symmetries)}"
            )
        self.model = model
        self.data = data
        self.result = result
        self._known = FunctionCache(model.memory_budget)  # by row of the draws, so that the next prediction is fast
        self.recalibration = recalibration

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what predictions keep, which can be many times as large and is computed again when needed."""
        return {**self.__dict__, "_known": FunctionCache(self.model.memory_budget)}

    @property
    def symmetries(self) -> tuple[str, ...]:
        """The names of all K symmetries, fixed ones included, in the order of the draws."""
        return tuple(self.model.symmetries)

    @property
    def log_evidence(self) -> float | None:
        """An estimate of log p(D) in nats; None where the method gives none."""
        return self.result.log_evidence

    @property
    def log_evidence_se(self) -> float | None:
        """The standard error of `log_evidence` in nats; None where the variance of the weights is infinite."""
        return self.result.log_evidence_se

    @property
    def pareto_k(self) -> float | None:
        """The Pareto k̂ of the importance weights; None where there are none."""
        return self.result.pareto_k

    @property
    def trace(self) -> tuple[float, ...]:
        """The objective in nats: log p(D, η, u) at each evaluation of the best climb, or the ELBO of minibatches."""
        return self.result.trace

    @property
    def guide(self) -> ExtentGuide:
        """q(η), with ``log_prob`` and ``sample``; after NUTS the one that its chains started from.

        Raises:
            ValueError: this fit kept none.

        Example:
            >>> posterior.guide.log_prob(posterior.result.draws)  # doctest: +SKIP
        """
        result = self.result
        if result.density is None:
            made = result.inference if result.guide is None else f"guide={result.guide!r}"
            raise ValueError(
                f'guide: the guides "full_rank" and "mean_field" keep their q, and this fit ({made}) has none; fit '
                "with one of them, or use posterior.sample()"
            )
        return ExtentGuide(Unconstrained(self.model.extents), result.density)

    def __getitem__(self, symmetry: str) -> Float[Tensor, " draws"]:
        """All draws of one extent, chain after chain, (chains * draws,), internal units.

        Raises:
            KeyError: no such symmetry.
        """
        return self.result.draws[:, self.index(symmetry)]

    def index(self, symmetry: str) -> int:
        """The position of a symmetry among the K.

        Raises:
            KeyError: no such symmetry; the message lists those there are.
        """
        if symmetry not in self.symmetries:
            raise KeyError(f"no symmetry {symmetry!r}; there are: {', '.join(self.symmetries)}")
        return self.symmetries.index(symmetry)

    def uses_weights(self, reweighted: bool | None = None) -> bool:
        """Whether an argument `reweighted` means the importance weights.

        Args:
            reweighted: True or False as they say; None where there are weights and they are good.

        Raises:
            TypeError: `reweighted` is something else, such as the name of a symmetry in its place.
            ValueError: `reweighted=True`, but the draws carry no weights.
        """
        result = self.result
        if reweighted is None:
            return result.log_weights is not None and weights_are_good(result.pareto_k, result.num_draws)
        if not isinstance(reweighted, bool | np.bool_):
            raise TypeError(f"reweighted: expected True, False or None, got {reweighted!r}; give arguments by name")
        if reweighted and result.log_weights is None:
            raise ValueError(
                f"these draws ({result.inference}) carry no importance weights, so there is "
                "nothing to reweight; call with reweighted=False"
            )
        return bool(reweighted)

    def log_weights(self, reweighted: bool | None = None) -> Float[np.ndarray, " draws"] | None:
        """The log weights (draws,) to use; None, all alike, unless `uses_weights(reweighted)`.

        Raises:
            TypeError, ValueError: as `uses_weights`.
        """
        weights = self.result.log_weights
        return weights.numpy() if self.uses_weights(reweighted) and weights is not None else None

    def quantile(
        self,
        probabilities: float | Sequence[float],
        reweighted: bool | None = None,
        recalibrated: bool | None = None,
    ) -> Float[Tensor, "*levels K"]:
        """Marginal quantiles of the extents.

        Args:
            probabilities: p in [0, 1], a number or a sequence.
            reweighted: whether to use the importance weights, None where they are good; a recalibration knows which it
                was made with.
            recalibrated: whether to return recalibrated quantiles; None does where there is a recalibration.

        Returns:
            (K,) for a number and (levels, K) for a sequence, internal units.

        Raises:
            ValueError: p outside [0, 1], no weights to use, or no recalibration.
        """
        levels = np.asarray(probabilities)
        if levels.dtype.kind not in "iuf" or levels.ndim > 1:
            raise ValueError(f"probabilities: expected a number in [0, 1] or a sequence of them, got {probabilities!r}")
        scalar, levels = levels.ndim == 0, levels.astype(float)
        if recalibrated and self.recalibration is None:
            raise ValueError("recalibrated: this posterior has not been recalibrated; call posterior.recalibrate()")
        if self.recalibration is not None and recalibrated is not False:
            values = self.recalibration.quantile(self.result, self.model.extents, np.atleast_1d(levels))
            return torch.from_numpy(values[0] if scalar else values)
        values = weighted_quantile(self.result.draws.numpy(), np.atleast_1d(levels), self.log_weights(reweighted))
        return torch.from_numpy(values[0] if scalar else values)

    def sample(self, num: int, seed: int = 0, reweighted: bool | None = None) -> Float[Tensor, "num K"]:
        """Extents from the posterior, resampled systematically from the stored draws.

        Args:
            num: how many; more than there are draws repeats some.
            seed: of the resampling.
            reweighted: whether to use the importance weights; None uses them where they are good.

        Returns:
            (num, K), internal units.

        Raises:
            ValueError: `num` below 1, or no weights to use.
        """
        return self.result.draws[self.sample_rows(num, seed, reweighted)]  # (num, K)

    def sample_rows(self, num: int, seed: int = 0, reweighted: bool | None = None) -> Int[Tensor, " num"]:
        """Rows of ``result.draws``, and of ``result.hyperparameters``, that `sample` takes.

        Raises:
            ValueError: `num` below 1, or no weights to use.
        """
        return torch.from_numpy(systematic_resample(num, len(self.result.draws), self.log_weights(reweighted), seed))

    def summary(self, reweighted: bool | None = None, level: float = 0.9) -> pd.DataFrame:
        """One row a symmetry, in people's units; see `posterior_summary.summary_table`.

        Args:
            reweighted: whether to use the importance weights; None uses them where they are good.
            level: the mass of the equal-tailed interval [lower, upper].

        Raises:
            ValueError: `level` outside (0, 1), or no weights to use.
        """
        return posterior_summary.summary_table(self, reweighted=reweighted, level=level)

    def upper_limit(self, level: float = 0.95, reweighted: bool | None = None) -> pd.DataFrame:
        """How far each extent reaches at most, with the given posterior probability, in people's units.

        What to quote for a plug-in likelihood under a flat prior, which says from where on labels break but rewards no
        extent: its medians and lower ends only repeat the prior.

        Args:
            level: the posterior probability below the limit.
            reweighted: whether to use the importance weights; None uses them where they are good.

        Returns:
            Index `symmetry`; columns `upper_limit`, `largest` (what the symmetry could reach) and `unit`.

        Raises:
            ValueError: `level` outside (0, 1), no weights to use, or a point estimate.
        """
        level = as_probability("level", level)
        if self.result.num_chains * self.result.num_draws == 1:
            raise ValueError(
                f"{self.result.inference} is a point estimate, which has no upper limit; its value is in summary()"
            )
        limits = self.quantile(level, reweighted)
        rows = [
            {
                "symmetry": c.name,
                "upper_limit": float(c.to_people(float(limit))),
                "largest": float(c.to_people(c.largest)),
                "unit": c.unit,
            }
            for c, limit in zip(self.model.transform.coordinates, limits, strict=True)
        ]
        return ConsoleTable(rows).set_index("symmetry")

    def predict(
        self,
        x: Any,
        num_samples: int = 32,
        reweighted: bool | None = None,
        seed: int = 0,
        groups: Any = None,
        prediction: str | Linearised = "plugin",
        y: Float[Tensor, "n outputs"] | None = None,
    ) -> Prediction:
        """Predictions averaged over the extents, the orbit and the function.

        p(y* | x*, D) = 1/J Σ_j E_{f | η_j, D} p(y* | f_{η_j}(x*)),    η_j ~ p(η | D)

        Args:
            x: (n, *event) tensor or array of floating point, as the training inputs.
            num_samples: J, how many extents to average over.
            reweighted: whether to use the importance weights; None uses them where they are good.
            seed: of the extents and of the function samples.
            groups: of x, (n,), for a model with groups: numbers or names. -1, a name that training has not seen, or
                None (all of x) stand for a new group, whose extents are drawn from the population's.
            prediction: of a network: "plugin", with its trained weights; or "linearised", averaged over their
                posterior too, or a :class:`Linearised` with options. A Gaussian process averages over functions.
            y: targets of a regression at x, (n, outputs), whose log density the prediction then has.

        Returns:
            `.probs` (n, C) and `.labels` (n,) for classification, with `.names` (n,) where the training labels had
            names; `.mean` and `.variance` (n, outputs) for regression, and with y
            `.log_density` (n,); on the device of x.

        Raises:
            DataError: x of the wrong shape or type, empty, or not finite; groups that do not fit.
            ValueError: `num_samples` below 1, no weights to use, groups for a model without, or a prediction that the
                fit has no posterior of weights for.
        """
        inputs, num_samples = self.check_inputs(x), as_integer("num_samples", num_samples)
        device = x.device if isinstance(x, Tensor) else "cpu"
        y = None if y is None else y.to(inputs.device)
        rows, weights = self.distinct_draws(num_samples, seed, reweighted)
        if prediction != "plugin":
            options = Linearised() if prediction == "linearised" else prediction
            if not isinstance(options, Linearised):
                raise ValueError(
                    f'prediction: expected "plugin", "linearised" or a bayesinv.Linearised, got {prediction!r}'
                )
            num_total = int(self.result.settings.get("num_train", len(self.data)))
            draws = self.result.draws[rows]
            found = predict_linearised(
                self.model, options, inputs, self.data, num_total, draws, weights, seed, groups, y
            )
            return replace(found, classes=self.data.classes).to(device)
        hyper = self.result.hyperparameters
        found = self.model.predict(
            inputs,
            self.data,
            self.result.draws[rows],
            weights=weights,
            seed=seed,
            groups=groups,
            hyperparameters=None if hyper is None else hyper[rows],
            known=self._known.of_rows(rows.tolist()),
            y=y,
        )
        return replace(found, classes=self.data.classes).to(device)

    def distinct_draws(
        self, num_samples: int, seed: int = 0, reweighted: bool | None = None
    ) -> tuple[Int[Tensor, " J"], Float[Tensor, " J"]]:
        """Draws to average over: rows of ``result.draws``, each once, and the share that `sample` would take of it.

        Rows that hold the same numbers count as one: the work is per distinct draw.
        """
        rows = self.sample_rows(num_samples, seed, reweighted)
        draws, hyper = self.result.draws[rows], self.result.hyperparameters
        values = draws if hyper is None else torch.cat([draws, hyper[rows]], 1)
        _, which, counts = torch.unique(values, dim=0, return_inverse=True, return_counts=True)
        distinct = torch.full_like(counts, len(self.result.draws)).scatter_reduce(0, which, rows, "amin")
        order = distinct.argsort()
        return distinct[order], counts[order].to(torch.float64) / num_samples

    def groups_of(self, data: Data, stacklevel: int = 3) -> Tensor | None:
        """The groups of test data, where the model has extents for each; None where all share them.

        Args:
            data: with groups or without.
            stacklevel: of the warning; 3 is the line that called the caller.

        Warns:
            UserWarning: the model has groups and the data do not say which example is of which, so that all count as
                one group that training has not seen; or they name some that it has not seen.

        Raises:
            DataError: numbers of groups that are not there.
        """
        if self.model.groups is None:
            return None
        if data.groups is None:
            warnings.warn(
                f"the model has extents for {len(self.model.groups)} groups and the test data do not say which example "
                "is of which, so that all are predicted with the population's, as a new group is; give them "
                f"as bayesinv.Data(x, y, groups=names), or as numbers, -1 for a new group, in the order "
                f"{list(self.model.groups)}",
                UserWarning,
                stacklevel=stacklevel,
            )
            return None
        return as_groups(data.groups, self.model.groups, len(data))

    def check_inputs(self, x: Any) -> Float[Tensor, "n *event"]:
        """New inputs as a tensor on the device and in the dtype of the training inputs.

        Raises:
            DataError: x is of another shape or type than the training inputs, a data frame with other columns, empty,
                or not finite.

        Warns:
            UserWarning: images that reach far beyond those of the training data, or not nearly as far, as where one of
                the two is not scaled.
        """
        if isinstance(x, Data | tuple | Dataset | DataLoader):
            raise DataError(f"x is a {type(x).__name__}; expected inputs alone, a tensor or an array: {_inputs_of(x)}")
        expected = self.data.event_shape
        wanted = f"({', '.join(('n', *map(str, expected)))})"
        shape = tuple(getattr(x, "shape", ()))
        if shape and len(shape) <= len(expected):
            raise DataError(f"x has shape {shape}; expected a batch, {wanted}: {_missing_axes(shape, expected)}")
        names, known = column_names(x), self.data.columns
        if known is not None and names is not None and names != known:
            raise DataError(
                f"x has the columns {', '.join(names)}; expected {', '.join(known)}, in this order, as the training "
                "inputs: x[list(posterior.data.columns)]"
            )
        inputs = as_inputs(x, self.model.transform)
        if inputs.shape[1:] != expected:
            raise DataError(
                f"x has shape {tuple(inputs.shape)}; expected {wanted}, as the training "
                "inputs: resize or crop it as they were"
            )
        if inputs.ndim == 4 and float(inputs.min()) >= 0:
            self._warn_of_scale(float(inputs.max()))
        return inputs.to(self.data.x.device, self.data.x.dtype)

    def _warn_of_scale(self, largest: float) -> None:
        """Warn where images reach far beyond those of training, or not nearly as far as almost all of them."""
        seen = max(abs(float(end)) for end in torch.aminmax(self.data.x))  # without a copy of them
        darkest = float(self.data.x.flatten(1).amax(1).float().quantile(USUAL))
        if 0 < seen * LARGEST_RATIO < largest or 0 < largest < min(SMALLEST_RATIO * seen, darkest):
            how = "such as x / 255" if largest > seen else "and divide by what is white in them"
            warnings.warn(
                f"x holds images with values up to {largest:.3g}, and those trained on reach {seen:.3g}; scale them in "
                f"the same way, {how}",
                UserWarning,
                stacklevel=4,  # the line that called predict or plot_orbit
            )

    def to_datatree(
        self,
        num_draws: int | None = 200,
        predictive: bool = True,
        reweighted: bool | None = None,
        seed: int = 0,
        log_likelihood: bool = False,
    ) -> xr.DataTree:
        """The posterior as an `xarray.DataTree`; see `arviz_export.posterior_datatree`.

        Args:
            num_draws: draws over all chains; None for all of them.
            predictive: whether to add posterior_predictive, at the cost of one prediction a draw.
            reweighted: whether to resample by the importance weights; None does where they are good.
            seed: of the prior, the resampling and the predictive draws.
            log_likelihood: whether to add log_likelihood; not for `az.loo`, which is wrong here.
        """
        return arviz_export.posterior_datatree(
            self,
            num_draws=num_draws,
            predictive=predictive,
            reweighted=reweighted,
            seed=seed,
            log_likelihood=log_likelihood,
        )

    def to_arviz(
        self,
        num_draws: int | None = 200,
        predictive: bool = True,
        reweighted: bool | None = None,
        seed: int = 0,
        log_likelihood: bool = False,
    ) -> Any:
        """What the installed ArviZ works on: InferenceData for 0.23, the DataTree itself for 1.x.

        The arguments are those of `to_datatree`.
        """
        return arviz_export.to_arviz(self.to_datatree(num_draws, predictive, reweighted, seed, log_likelihood))

    def augmentation(
        self, copies: int = 1, draws: str = "posterior", seed: int | None = None, of: str | None = None
    ) -> "Augmentation":
        """The learned augmentation for other pipelines; see `export.Augmentation` for what it takes.

        For images it is a torchvision v2 transform, for signals, points and tables a callable. It does not need Pyro or
        GPyTorch: `.save("aug.safetensors")`, then `bayesinv.export.load`.

        Args:
            copies: of each input; more than one give outputs a first axis of that length.
            draws: extents anew from the posterior for every copy, or fixed at their "median" or "mean".
            seed: of a generator of its own; None draws from torch's global one, as torchvision does.
            of: the output or the group whose extents to use; None for a group's population, and for the smallest of
                all outputs.

        Raises:
            ValueError: unknown draws, no copies, or an unknown output or group.

        Example:
            >>> aug = posterior.augmentation()  # doctest: +SKIP
            >>> pipeline = torchvision.transforms.v2.Compose([ToImage(), aug])  # doctest: +SKIP
        """
        from bayesinv.export.of_posterior import augmentation_of  # so that torchvision is imported when it is used

        return augmentation_of(self, copies, draws, seed, of)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write everything to one file; see `storage.save`."""
        from bayesinv import storage  # storage builds posteriors, so it sits above this module

        return storage.save(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: InvarianceModel | None = None) -> "InvariancePosterior":
        """Read a posterior that `save` wrote; see `storage.load`."""
        from bayesinv import storage

        return storage.load(path, model=model)

    def evidence_profile(self, symmetry: str, num_points: int = 25) -> pd.DataFrame:
        """log p(D | η) along one symmetry, the others at their posterior medians.

        Half of the points are even from 0 to the largest sensible extent (or the largest draw, if
        that is further), the others around the posterior, whose peak an even grid can step over.
        Where a fit to large data kept some of its examples, these stand for all n of them.

        Args:
            symmetry: its name.
            num_points: evaluations of the evidence, at least 4.

        Returns:
            Columns `extent` (internal units), `extent_people` (people's units), `log_evidence`
            (nats).

        Raises:
            KeyError: no such symmetry.
            ValueError: fewer than four points.
        """
        k = self.index(symmetry)
        num_points = as_integer("num_points", num_points, 4)
        coordinate = self.model.transform.coordinates[k]
        end = max(float(coordinate.largest), float(self[symmetry].max()))
        lower, upper = (float(v) for v in self.quantile([0.05, 0.95])[:, k])
        margin = (upper - lower) / 2
        near = np.linspace(max(lower - margin, 0), min(upper + margin, end), num_points // 2)
        grid = np.union1d(np.linspace(0, end, num_points - num_points // 2), near)
        eta = self.quantile(0.5).repeat(len(grid), 1)  # (points, K)
        eta[:, k] = torch.from_numpy(grid)
        num_train = int(self.result.settings.get("num_train", len(self.data)))
        num_total = None if num_train == len(self.data) else num_train  # of large data a fit keeps some examples
        model = weighing_model(self.model, self.data, self.result.settings)
        values = []
        for row in eta:
            with torch.no_grad(), seeded(0):  # an evidence that draws outputs at random draws the same ones everywhere
                values.append(float(model.log_evidence(row, self.data, num_total)))
        people = coordinate.to_people(grid)
        return ConsoleTable({"extent": grid, "extent_people": people, "log_evidence": values})

    def check(
        self,
        other: "InvariancePosterior | Mapping[str, InvariancePosterior] | None" = None,
        orbit: bool = False,
        sensitivity: bool = False,
        test: Any = None,
    ) -> "Verdicts":
        """What may be wrong with this fit, how badly, and what to do about it.

        By default only what the fit already knows: convergence, the importance weights (k̂), the number of draws,
        extents at the end of their prior or that repeat it, the size of the orbit, the balance of the classes.

        Args:
            other: fits of the same model and data by other guides or NUTS, one or several by name, to compare with.
            orbit: whether to measure how far the extents depend on the orbit's draws (some hundreds of evaluations).
            sensitivity: whether to measure how far the extents depend on the prior (an evaluation a draw).
            test: data that the fit has not seen, to judge its predictions on.

        Returns:
            Verdicts with a level ("ok", "note", "serious"), what it means and what to do; a list that prints as a
            table.
        """
        from bayesinv.checks import diagnose  # the checks fit models, so they sit above this module

        return diagnose(self, other=other, orbit=orbit, sensitivity=sensitivity, test=test)

    def recalibrate(self, num_simulations: int = 100, **options: Any) -> "InvariancePosterior":
        """The same draws with intervals corrected by fits to simulated data; see `checks.recalibrate` for the options.

        Args:
            num_simulations: how many; each is a fit.
            options: `fit`, `fit_options`, `extents`, `reweighted`, `x`, `jobs`, `folder`, `seed`, `force`.

        Raises:
            RecalibrationError: data simulated from the fitted model do not look like the real ones.
        """
        from bayesinv.checks import recalibrate  # the checks fit models, so they sit above this module

        return recalibrate(self, num_simulations, **options)

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write one self-contained HTML file about this fit; see `report.write_report` for the options.

        Args:
            path: the file; its folder must exist.
            options: `test` (data to score on), `title`, `selection`, `comparison`, `classes`, `command`, `level`,
                `reweighted`, `overwrite`.
        """
        from bayesinv.report import write_report  # a report shows comparisons and selections, which sit above

        return write_report(self, path, **options)

    def plot_extents(self, *symmetries: str, reweighted: bool | None = None) -> "matplotlib.figure.Figure":
        """Prior against posterior, a panel for each symmetry; see `plots.plot_extents`.

        Raises:
            TypeError: anything given by position: all learned symmetries are drawn.
        """
        from bayesinv import plots

        if symmetries:
            raise TypeError(
                "plot_extents() draws every learned symmetry and takes reweighted=... by name alone, and "
                f"{', '.join(map(repr, symmetries))} came; for one symmetry use plot_evidence({self.symmetries[0]!r}) "
                f"or, for images, plot_orbit(x, {self.symmetries[0]!r})"
            )
        return plots.plot_extents(self, reweighted=reweighted)

    def plot_orbit(
        self, x: Any, symmetry: str | None = None, num_copies: int = 7, reweighted: bool | None = None
    ) -> "matplotlib.figure.Figure":
        """Copies of an image at the 5, 50 and 95 % extents; see `orbit_plot.plot_orbit`."""
        from bayesinv.orbit_plot import plot_orbit

        return plot_orbit(self, x, symmetry=symmetry, num_copies=num_copies, reweighted=reweighted)

    def plot_evidence(self, symmetry: str, num_points: int = 25) -> "matplotlib.figure.Figure":
        """The evidence along one symmetry, others at their medians; see `plots.plot_evidence`."""
        from bayesinv import plots

        return plots.plot_evidence(self, symmetry, num_points=num_points)

    def plot_trace(self) -> "matplotlib.figure.Figure":
        """The objective against the step; see `plots.plot_trace`."""
        from bayesinv import plots

        return plots.plot_trace(self)

    def __repr__(self) -> str:
        return for_console(posterior_summary.text(self))

    def _repr_html_(self) -> str:
        return posterior_summary.html(self)
