"""A fit, or several side by side, on one self-contained HTML page."""

from bayesinv.report.write import write_comparison_report, write_report

__all__ = ["write_comparison_report", "write_report"]
