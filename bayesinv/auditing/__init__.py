"""``bayesinv.audit``: what may be done to inputs of this data set, and how far."""

from bayesinv.auditing.result import Audit

__all__ = ["Audit"]
