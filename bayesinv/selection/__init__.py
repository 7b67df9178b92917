"""Which symmetries: inclusion probabilities, Bayes factors and sets of symmetries, each with a standard error."""

from bayesinv.selection.paired import paired_bayes_factors
from bayesinv.selection.relaxed import RelaxedSelection
from bayesinv.selection.result import Selection
from bayesinv.selection.select import select
from bayesinv.selection.subsets import SubsetSelection

__all__ = ["RelaxedSelection", "Selection", "SubsetSelection", "paired_bayes_factors", "select"]
