"""The report: one self-contained HTML page about a run."""

from vold.report.run_page import write_report

__all__ = ["write_report"]
