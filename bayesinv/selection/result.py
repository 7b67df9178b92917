"""What a selection says: inclusion probabilities, Bayes factors and sets, each with a standard error."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from bayesinv.io.console import for_console
from bayesinv.selection.files import damaged, read, write
from bayesinv.selection.plot import plot_selection
from bayesinv.selection.sets import InclusionPrior

if TYPE_CHECKING:
    import matplotlib.figure


_COMMON = ("prior_inclusion", "seed", "seconds")
_KINDS: dict[str, type[Selection]] = {}  # by their name in files


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Selection(ABC):
    """Which symmetries the data call for, p(γ_k = 1 | D), and how sure the numbers are.

    Args:
        symmetries: names of the K candidates, in the model's order.
        prior_inclusion: what was believed beforehand.
        seed: of everything random.
        seconds: wall-clock time.
        settings: the remaining settings and facts, anything that JSON can hold.
        warnings: what degrades the result, in words.
    """

    method: ClassVar[str]  # "subsets" or "relaxed"

    symmetries: tuple[str, ...]
    prior_inclusion: InclusionPrior
    seed: int
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """False where the fit behind the numbers had not settled: they, and their errors, then mean little."""
        return bool(self.settings.get("trusted", True))

    @property
    @abstractmethod
    def inclusion(self) -> pd.DataFrame:
        """Index `symmetry`; columns `probability`, `standard_error` and `prior`."""

    @property
    @abstractmethod
    def bayes_factors(self) -> pd.DataFrame:
        """Index `symmetry`; natural logarithms of Bayes factors for the symmetry, each with its `_se` in nats."""

    @property
    @abstractmethod
    def subsets(self) -> pd.DataFrame:
        """Sets by posterior probability, the likeliest first; index `set`, which names the symmetries in it."""

    def summary(self) -> pd.DataFrame:
        """One row a symmetry: probability and standard error, prior, the Bayes factor and what it is called.

        The words are those of Kass & Raftery (1995) for 2 log BF: above 2 "positive", above 6 "strong", above 10 "very
        strong", for or against.
        """
        table = self.inclusion.join(self.bayes_factors[["log_bf", "log_bf_se"]])
        table["words"] = [
            _words(value, error) for value, error in zip(table["log_bf"], table["log_bf_se"], strict=True)
        ]
        if not self.trusted:
            table["words"] = "not to be trusted"
        table.attrs = {"method": self.method, "seed": self.seed}
        return table

    def plot(self, num_sets: int = 8) -> matplotlib.figure.Figure:
        """Inclusion probabilities beside the likeliest sets; see `selection.plot.plot_selection`."""
        return plot_selection(self, num_sets)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write everything to one file, completely or not at all.

        The fit under a relaxed selection is not in the file; save it by its own `save`.

        Args:
            path: the file; its folder must exist. The name is used as given.
            overwrite: whether an existing file that bayesinv saved may be replaced.

        Raises:
            FileExistsError: the file exists and `overwrite` is False.
            FileNotFoundError: the folder does not exist.
        """
        header = {name: getattr(self, name) for name in _COMMON}
        header |= {"method": self.method, "symmetries": list(self.symmetries), "settings": dict(self.settings)}
        header["warnings"] = list(self.warnings)
        more, arrays = self._packed()
        return write(path, {**header, **more}, arrays, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Selection:
        """Read a selection that `save` wrote. No code in the file is run.

        Raises:
            FileNotFoundError: no such file.
            SavedFileError: the file is damaged, or written by something else or by a later version.
        """
        header, arrays = read(path)
        try:  # what is written in a header may be anything
            common = {name: header[name] for name in _COMMON}
            common |= {"symmetries": tuple(header["symmetries"]), "settings": header["settings"]}
            common["warnings"] = tuple(header["warnings"])
            return _KINDS[header["method"]]._unpacked(header, arrays, common)
        except Exception as error:
            raise damaged(path, error) from error

    def __init_subclass__(cls, method: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _KINDS[method] = cls
        cls.method = method

    @abstractmethod
    def _packed(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What a file holds beside the fields of every selection: JSON, and arrays."""

    @classmethod
    @abstractmethod
    def _unpacked(cls, header: dict[str, Any], arrays: dict[str, Tensor], common: dict[str, Any]) -> Selection:
        """The selection of what `_packed` gave, and of the fields of every selection."""

    @abstractmethod
    def _facts(self) -> str:
        """The method in half a line."""

    def __repr__(self) -> str:
        table = self.inclusion
        width = max(len(name) for name in self.symmetries)
        lines = [f"Selection: {self._facts()}"]
        if not self.trusted:
            lines.append("  NOT TO BE TRUSTED, errors included: inference had not settled, see the warning below")
        factors = self.bayes_factors
        for name, row in table.iterrows():
            value = factors.loc[name, "log_bf"]
            lines.append(
                f"  {name:<{width}}  P(in) {row['probability']:.3f} ± {row['standard_error']:.3f}, log Bayes factor "
                f"{value:+.1f} ± {factors.loc[name, 'log_bf_se']:.1f}"
            )
        lines.append(f"  likeliest set: {self.subsets.index[0]} ({self.subsets['probability'].iloc[0]:.2f})")
        lines.extend(f"  warning: {warning}" for warning in self.warnings)
        return for_console("\n".join(lines))

    def _repr_html_(self) -> str:
        doubt = "" if self.trusted else "<p><b>Not to be trusted</b>: inference had not settled.</p>"
        return f"<div><p><b>Selection</b>: {self._facts()}</p>{doubt}{self.summary().round(3).to_html()}</div>"


def _words(log_bf: float, error: float) -> str:
    """Kass and Raftery's words, for a Bayes factor whose error does not reach across zero."""
    if math.isnan(log_bf):
        return "unknown"
    twice = 2.0 * abs(log_bf)
    if twice < 2.0 or abs(log_bf) < 2.0 * error:
        return "undecided"
    strength = "very strong" if twice > 10 else "strong" if twice > 6 else "positive"
    return f"{strength} {'for' if log_bf > 0 else 'against'}"
