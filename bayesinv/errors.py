"""The named exceptions and warnings of the library.

Each one says what was expected, what came, and what to do about it. Plain ``TypeError`` and
``ValueError`` are raised for an argument of the wrong type or an option that does not exist; the
classes here name the failures that a caller may want to catch apart.
"""

from typing import Any

__all__ = [
    "CheckpointError",
    "ComparisonWarning",
    "DataError",
    "DataWarning",
    "EvidenceError",
    "ExtentError",
    "ImportanceWarning",
    "NonFiniteError",
    "NotConvergedWarning",
    "NumericalError",
    "RankError",
    "RecalibrationError",
    "SavedFileError",
]


class CheckpointError(ValueError):
    """A checkpoint cannot be gone on from: damaged, of a later format, or of another fit."""


class DataError(ValueError):
    """The data cannot be used: not finite, of the wrong rank or type, empty, or badly labelled."""


class DataWarning(UserWarning):
    """The data can be used, and say less than they seem to: inputs or targets that are all alike, parts left out."""


class EvidenceError(ValueError):
    """Log evidences that may not be ranked: of different kinds, orbits or data, or not there at all."""


class ExtentError(ValueError):
    """An extent or its prior does not fit: negative, past the largest sensible value, unsupported."""


class NumericalError(ArithmeticError):
    """A computation left the range of floating point: a failed Cholesky factor, or a value that is
    not finite where the objective was computed.
    """


class NotSettledError(NumericalError):
    """The inner iteration of an evidence did not settle, so that it has no value at these extents."""


class RankError(RuntimeError):
    """A process of a run on several has stopped or cannot be reached, so that the others cannot go on."""


class RecalibrationError(ValueError):
    """Intervals cannot be recalibrated: simulated data do not look like the real ones, or too few fits succeeded.

    Attributes:
        statistic: what differs between real and simulated data; None for another reason.
        p_value: how probable a difference as large is if the model is right; None for another reason.

    Example:
        >>> from bayesinv.errors import RecalibrationError
        >>> RecalibrationError("the data differ", "log evidence", 0.001).p_value
        0.001
    """

    def __init__(self, message: str, statistic: str | None = None, p_value: float | None = None):
        super().__init__(message)
        self.statistic, self.p_value = statistic, p_value


class SavedFileError(ValueError):
    """A saved posterior cannot be read: damaged, foreign, or of a later version of the format."""


class NotConvergedWarning(UserWarning):
    """Inference stopped before its own test of convergence was met; ``converged`` says so too."""


class ComparisonWarning(UserWarning):
    """Log evidences of different kinds, orbits or data stand side by side, and may not be ranked."""


class ImportanceWarning(UserWarning):
    """The importance weights of a variational fit are unreliable: Pareto k̂ above `numerics.psis.pareto_limit(draws)`.

    Reference:
        A. Vehtari, D. Simpson, A. Gelman, Y. Yao, J. Gabry (2015). Pareto smoothed importance
        sampling. arXiv:1507.02646.
    """


class NonFiniteError(NumericalError):
    """The objective of a fit could not be computed.

    Attributes:
        step: at which step, counted from 1.
        posterior: the posterior of the last good state, or None if there was none.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step
        self.posterior: Any = None


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something; the name of its class where there is none.

    Example:
        >>> first_line(ValueError("too long\\nby far")), first_line(NotImplementedError())
        ('too long', 'NotImplementedError')
    """
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
