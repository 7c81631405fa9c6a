"""A report on records of ``bench``: a page that opens offline, or Markdown. Built on ``record`` alone."""

from __future__ import annotations

from edge_reclass_bench.report.markdown import markdown_report
from edge_reclass_bench.report.page import html_page
from edge_reclass_bench.report.source import Source, read, tagged

__all__ = ["Source", "html_page", "markdown_report", "read", "tagged"]
