"""The report: a library as one page of HTML that needs nothing else."""

from __future__ import annotations

from edge_reclass.library.report.page import page

__all__ = ["page"]
