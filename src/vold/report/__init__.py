"""The report: self-contained HTML pages about a run and about an evaluation, and the tables of the terminal.

One writer, one set of templates, one set of charts and one cleaner of text serve both pages.
"""

from vold.report.evaluation import write_results
from vold.report.run_page import write_report

__all__ = ["write_report", "write_results"]
