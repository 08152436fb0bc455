"""One HTML file about one run or several side by side."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from retrain.report.page import make_report, write_report
    from retrain.report.runs import RunRecord, read_run

__getattr__, __dir__, __all__ = lazy_exports(__name__)
