"""A fitted model: everything that can be read off its draws alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.data.arrays import as_tensor
from bayesinv.data.container import Data
from bayesinv.data.groups import as_groups
from bayesinv.data.targets import checked_targets
from bayesinv.evidence.prediction import Prediction
from bayesinv.extents.unconstrained import ExtentGuide, Unconstrained
from bayesinv.fitted.new_inputs import checked_inputs
from bayesinv.fitted.recalibrated import Recalibration
from bayesinv.fitted.result import InferenceResult
from bayesinv.io.tables import ConsoleTable
from bayesinv.model.exact_evidence import weighing_model
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.model.linearised import Linearised, predict_linearised
from bayesinv.numerics.arguments import as_integer
from bayesinv.numerics.function_cache import FunctionCache
from bayesinv.numerics.psis import weights_are_good
from bayesinv.numerics.quantiles import systematic_resample, weighted_quantile
from bayesinv.numerics.randomness import seeded


class FittedModel:
    """A model, its training data, and what inference found: draws, quantiles, predictions.

    Figures, summaries and files read this; `InvariancePosterior` adds what people call. Everything that takes
    `reweighted` uses the importance weights of a variational fit where they are good; see there.

    Args:
        model: the model that was fitted, with its learned hyperparameters.
        data: the training data; predictions condition on it.
        result: the draws and the facts about the fit.
        recalibration: what simulated fits said about the intervals, if they were corrected.

    Raises:
        ValueError: the draws and the model count different symmetries.
    """

    def __init__(
        self,
        model: InvarianceModel,
        data: Data,
        result: InferenceResult,
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

    def predict(
        self,
        x: Any,
        num_samples: int = 16,
        reweighted: bool | None = None,
        seed: int = 0,
        groups: Any = None,
        prediction: str | Linearised = "plugin",
        y: Any = None,
    ) -> Prediction:
        """Predictions averaged over the extents, the orbit and the function.

        p(y* | x*, D) = 1/J Σ_j E_{f | η_j, D} p(y* | f_{η_j}(x*)),    η_j ~ p(η | D)

        Args:
            x: (n, *event) tensor or array of floating point, as the training inputs.
            num_samples: J, how many extents to average over. On digits probabilities of 16 are within .003 (root mean
                square) of those of 200.
            reweighted: whether to use the importance weights; None uses them where they are good.
            seed: of the extents and of the function samples.
            groups: of x, (n,), for a model with groups: numbers or names. -1, a name that training has not seen, or
                None (all of x) stand for a new group, whose extents are drawn from the population's.
            prediction: of a network: "plugin", with its trained weights; or "linearised", averaged over their
                posterior too, or a :class:`Linearised` with options. A Gaussian process averages over functions.
            y: targets of a regression at x, (n, outputs), whose log density the prediction then has.

        Returns:
            `.probs` (n, C) and `.labels` (n,) for classification, with `.names` (n,) where the training labels had
            names; `.mean` and `.variance` (n, outputs), or (n,) as the targets were, for regression, and with y
            `.log_density` (n,); on the device of x.

        Raises:
            DataError: x of the wrong shape or type, empty, or not finite; groups that do not fit.
            ValueError: `num_samples` below 1, no weights to use, groups for a model without, or a prediction that the
                fit has no posterior of weights for.
        """
        inputs, num_samples = self.check_inputs(x), as_integer("num_samples", num_samples)
        device = x.device if isinstance(x, Tensor) else "cpu"
        if y is not None:
            if self.model.likelihood != "gaussian":
                raise ValueError("y: expected none for class labels, whose probabilities are in .probs")
            y = checked_targets(as_tensor(y, "y")).to(inputs.device)
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
        else:
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
        found = replace(found, classes=self.data.classes).to(device)
        return found.flattened() if self.data.flat else found

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

    def check_inputs(self, x: Any) -> Float[Tensor, n * event]:
        """New inputs as a tensor on the device and in the dtype of the training inputs; see `checked_inputs`."""
        return checked_inputs(x, self.data, self.model.transform, stacklevel=4)

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
