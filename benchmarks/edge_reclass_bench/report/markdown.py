"""The same tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_reclass_bench.report.source import Source
from edge_reclass_bench.report.tables import Table, environment_tables, facts, figure_tables, warnings_of
from edge_reclass_bench.report.text import readable

__all__ = ["escaped", "markdown_report", "markdown_table"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def markdown_report(sources: Sequence[Source]) -> str:
    """The report on one or several records. Raises ``ValueError`` where there is no record."""
    if not sources:
        raise ValueError("a report needs at least one record")
    bundles = dict.fromkeys(source.record.subject.bundle for source in sources)
    blocks = ["# edge-reclass bench: " + escaped(" and ".join(bundles))]
    lines = warnings_of(sources)
    if lines:
        blocks.append("**Before you believe a number:**\n\n" + "\n".join(f"- {escaped(line)}" for line in lines))
    for table in (facts(sources), *figure_tables(sources), *environment_tables(sources)):
        blocks.append(f"## {escaped(table.title)}\n\n" + markdown_table(table))
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: Table) -> str:
    """One table, without its title, its note below it."""
    head = "| " + " | ".join(escaped(column.name) for column in table.columns) + " |"
    rule = "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    rows = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in table.rows]
    note = ["", escaped(table.note)] if table.note else []
    return "\n".join([head, rule, *rows, *note])


def escaped(text: str) -> str:
    """``text`` that no reader of Markdown takes for markup, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(readable(text).replace("\u2028", " ").split("\n")))
