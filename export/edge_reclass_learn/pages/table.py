"""A table, and its three forms: for a terminal, as Markdown, as HTML. Cells are text without any markup."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from edge_reclass_learn.pages.text import readable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&])")


@dataclass(frozen=True)
class Table:
    """``columns`` are headings; one that begins with ``>`` is of numbers, flush right. ``note``: what to know."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def headings(self) -> list[tuple[str, bool]]:
        """Each column's text, and whether it is of numbers."""
        return [(name.removeprefix(">"), name.startswith(">")) for name in self.columns]


def terminal(tables: Sequence[Table], width: int) -> str:
    """The tables as plain text of at most ``width`` columns."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False, highlight=False, soft_wrap=False)
    for table in tables:
        drawn = RichTable(box=box.SIMPLE_HEAD, title=table.title, title_justify="left", pad_edge=False, title_style="")
        for name, numeric in table.headings:
            drawn.add_column(Text(readable(name)), justify="right" if numeric else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(readable(cell)) for cell in row))
        console.print(drawn)
        if table.note:
            console.print(Text(table.note))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def markdown(table: Table) -> str:
    """The table without its title, its note below it."""
    head = "| " + " | ".join(escaped(name) for name, _ in table.headings) + " |"
    rule = "|" + "|".join("---:" if numeric else "---" for _, numeric in table.headings) + "|"
    rows = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in table.rows]
    return "\n".join([head, rule, *rows, *(["", escaped(table.note)] if table.note else [])])


def escaped(text: str) -> str:
    """``text`` that no reader of Markdown takes for markup, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(readable(text).split("\n")))


def html(table: Table) -> str:
    """The table in a box that scrolls sideways; its first column stays in sight."""
    numeric = [numbers for _, numbers in table.headings]

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if numeric[i] else ''}>{text_of(text)}</{tag}>" for i, text in enumerate(texts)
        )

    head = cells("th", [name for name, _ in table.headings])
    rows = "".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    note = f'<p class="note">{text_of(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll" tabindex=0 role=region aria-label="{text_of(table.title)}"><table>'
        f"<caption>{text_of(table.title)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}"
    )


def text_of(text: str) -> str:
    """``text`` for HTML."""
    return escape(readable(text), quote=True)
