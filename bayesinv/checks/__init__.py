"""Whether a posterior can be trusted: verdicts on one fit, and checks of the inference by simulation."""

from bayesinv.checks.coverage import coverage, recorded
from bayesinv.checks.diagnosis import diagnose
from bayesinv.checks.ranks import simultaneous_band, uniformity
from bayesinv.checks.records import load_simulations
from bayesinv.checks.simulations import simulation_based_calibration
from bayesinv.checks.verdicts import Verdict, Verdicts

__all__ = [
    "Verdict",
    "Verdicts",
    "coverage",
    "diagnose",
    "load_simulations",
    "recorded",
    "simulation_based_calibration",
    "simultaneous_band",
    "uniformity",
]
