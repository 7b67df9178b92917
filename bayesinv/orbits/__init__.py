"""Orbits: how the copies of an input are drawn, moved and averaged; for each output or group as well."""

from bayesinv.orbits.averages import average_function, average_log_probs, average_probabilities, weighted_mean
from bayesinv.orbits.orbit import Orbit, base_draws

__all__ = [
    "Orbit",
    "average_function",
    "average_log_probs",
    "average_probabilities",
    "base_draws",
    "weighted_mean",
]
