"""`bayesinv.compare`: several fits side by side, on the same test data."""

from bayesinv.comparison.comparison import Comparison, compare

__all__ = [
    "Comparison",
    "compare",
]
