"""Symmetries that nobody listed: generators and permutations found from the data, with a posterior."""

from bayesinv.discovery.permutations import FoundPermutation
from bayesinv.discovery.result import Discovery

__all__ = ["Discovery", "FoundPermutation"]
