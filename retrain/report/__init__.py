"""One HTML file about one run or several side by side."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from retrain.report.page import make_report, write_report
    from retrain.report.runs import RunRecord, read_run

_EXPORTS = {
    "RunRecord": "retrain.report.runs",
    "make_report": "retrain.report.page",
    "read_run": "retrain.report.runs",
    "write_report": "retrain.report.page",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = sorted(_EXPORTS)
