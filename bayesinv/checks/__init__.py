"""Whether a posterior can be trusted: verdicts on one fit, and checks of the inference by simulation."""

from bayesinv.checks.coverage import coverage, recorded
from bayesinv.checks.diagnosis import diagnose
from bayesinv.checks.evidence import EvidenceEstimate, bridge_evidence, importance_evidence, rank_evidences
from bayesinv.checks.orbit import BlurNull, OrbitSensitivity, blur_matched_null, orbit_sensitivity
from bayesinv.checks.plots import plot_coverage, plot_ranks
from bayesinv.checks.predictive import predictive_check, probability_integral_transform, reliability
from bayesinv.checks.ranks import simultaneous_band, uniformity
from bayesinv.checks.recalibration import recalibrate
from bayesinv.checks.records import load_simulations
from bayesinv.checks.refitted import RefittedExtents, refitted_extents
from bayesinv.checks.sensitivity import PriorSensitivity, prior_sensitivity
from bayesinv.checks.simulations import simulation_based_calibration
from bayesinv.checks.verdicts import Verdict, Verdicts

__all__ = [
    "BlurNull",
    "EvidenceEstimate",
    "OrbitSensitivity",
    "PriorSensitivity",
    "RefittedExtents",
    "Verdict",
    "Verdicts",
    "blur_matched_null",
    "bridge_evidence",
    "coverage",
    "diagnose",
    "importance_evidence",
    "load_simulations",
    "orbit_sensitivity",
    "plot_coverage",
    "plot_ranks",
    "predictive_check",
    "prior_sensitivity",
    "probability_integral_transform",
    "rank_evidences",
    "recalibrate",
    "recorded",
    "refitted_extents",
    "reliability",
    "simulation_based_calibration",
    "simultaneous_band",
    "uniformity",
]
