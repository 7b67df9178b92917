"""How good predictions are, and how far a function is from having a symmetry."""

from bayesinv.metrics.scores import (
    accuracy,
    brier_score,
    calibration_error,
    gaussian_log_loss,
    intersection_over_union,
    interval_coverage,
    log_loss,
    pooled_intersection_over_union,
    rmse,
    standard_error,
)
from bayesinv.metrics.symmetry_errors import (
    equivariance_error,
    invariance_error,
    invariance_score,
)

__all__ = [
    "accuracy",
    "brier_score",
    "calibration_error",
    "equivariance_error",
    "gaussian_log_loss",
    "intersection_over_union",
    "interval_coverage",
    "invariance_error",
    "invariance_score",
    "log_loss",
    "pooled_intersection_over_union",
    "rmse",
    "standard_error",
]
