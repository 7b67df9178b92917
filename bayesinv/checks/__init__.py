"""Whether a posterior can be trusted: verdicts on one fit, and checks of the inference by simulation."""

from bayesinv.checks.diagnosis import diagnose
from bayesinv.checks.verdicts import Verdict, Verdicts

__all__ = ["Verdict", "Verdicts", "diagnose"]
