"""Orbits: how the copies of an input are drawn, moved and averaged; for each output or group as well."""

from bayesinv.orbits.orbit import (
    Orbit,
    average_function,
    average_log_probs,
    average_probabilities,
    base_draws,
    weighted_mean,
)

__all__ = [
    "Orbit",
    "average_function",
    "average_log_probs",
    "average_probabilities",
    "base_draws",
    "weighted_mean",
]
