"""InvariancePosterior: what a fit returns, and what one can ask of it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from bayesinv.fitted.fitted_model import FittedModel
from bayesinv.io.console import for_console
from bayesinv.io.tables import ConsoleTable
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.arguments import as_probability
from bayesinv.posterior import arviz as arviz_export
from bayesinv.posterior import storage
from bayesinv.posterior import summary as posterior_summary

if TYPE_CHECKING:
    import matplotlib.figure
    from numpy.typing import ArrayLike

    from bayesinv.checks.verdicts import Verdicts
    from bayesinv.export import Augmentation


class InvariancePosterior(FittedModel):
    """The posterior p(η | D) over the extents of the symmetries, and what follows from it.

    Everything that takes `reweighted` uses the importance weights of a variational fit, Σ_j w_j δ(η − η_j) in place
    of q(η), where they are good: `pareto_k` within `numerics.psis.pareto_limit(draws)`. They correct what the guide
    could not follow. `reweighted=True` uses them whatever k̂ is, `reweighted=False` never.

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

    def summary(self, reweighted: bool | None = None, level: float = 0.9) -> pd.DataFrame:
        """One row a symmetry, in people's units; see `posterior.summary.summary_table`.

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
        if self.result.is_point:
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

    def to_datatree(
        self,
        num_draws: int | None = 200,
        predictive: bool = True,
        reweighted: bool | None = None,
        seed: int = 0,
        log_likelihood: bool = False,
    ) -> xr.DataTree:
        """The posterior as an `xarray.DataTree`; see `posterior.arviz.posterior_datatree`.

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
        self,
        copies: int = 1,
        draws: str = "posterior",
        seed: int | None = None,
        of: str | None = None,
        scales: "tuple[ArrayLike, ArrayLike] | None" = None,
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
            scales: of a table that you standardised, means and standard deviations of its columns, (d,) each: the
                augmentation then takes rows as they came. None: it takes inputs as the fit did.

        Raises:
            ValueError: unknown draws, no copies, an unknown output or group, or scales that do not fit.

        Example:
            >>> aug = posterior.augmentation()  # doctest: +SKIP
            >>> pipeline = torchvision.transforms.v2.Compose([ToImage(), aug])  # doctest: +SKIP
        """
        from bayesinv.export.of_posterior import augmentation_of  # so that torchvision is imported when it is used

        return augmentation_of(self, copies, draws, seed, of, scales)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write everything to one file; see `posterior.storage.save`."""
        return storage.save(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: InvarianceModel | None = None) -> "InvariancePosterior":
        """Read a posterior that `save` wrote; see `load`."""
        return cls(*storage.read(path, model))

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
        """Copies of an image at the 5, 50 and 95 % extents; see `plots.orbit.plot_orbit`."""
        from bayesinv.plots.orbit import plot_orbit

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


def load(path: str | os.PathLike[str], model: InvarianceModel | None = None) -> InvariancePosterior:
    """Read a posterior that `save` wrote. No code in the file is run.

    Args:
        path: the file, or the folder that `bayesinv fit` wrote.
        model: needed where the model was built around a user's own kernel, which no file describes:
            one built in the same way, a copy of which takes on the saved state. Others are rebuilt.

    Returns:
        The posterior, on the CPU (or wherever `model` lives).

    Raises:
        FileNotFoundError: no such file.
        SavedFileError: the file is damaged, written by something else or by a later version, or
            `model` is missing, of another shape, or a network that computes something else.
    """
    return InvariancePosterior.load(path, model)
