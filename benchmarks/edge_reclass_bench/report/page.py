"""The page: one file that needs nothing else, and no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import msgspec

from edge_reclass_bench.report.figures import Figure, figures
from edge_reclass_bench.report.source import Source
from edge_reclass_bench.report.style import style_sheet
from edge_reclass_bench.report.tables import Table, environment_tables, facts, figure_tables, warnings_of
from edge_reclass_bench.report.text import readable

__all__ = ["html_page"]

_EMBEDDED_AT_MOST = 24_000_000
"""Bytes of JSON up to which a record is put into the page; above, the page only names its file."""


def html_page(sources: Sequence[Source]) -> str:
    """The report on one or several records, as HTML.

    The records stand in it as JSON (``<script type="application/json" id="record-A">``) unless they are very large.
    Raises ``ValueError`` where there is no record.
    """
    if not sources:
        raise ValueError("a report needs at least one record")
    names = " and ".join(dict.fromkeys(source.record.subject.bundle for source in sources))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>edge-reclass bench: {_text(names)}</title>",
        f"<style>{style_sheet()}</style></head><body><main>",
        f"<h1>How long each stage takes: {_text(names)}</h1>",
        f'<p class="sub">{_text(_subtitle(sources))}</p>',
        _warnings(warnings_of(sources)),
        f"<section>{_table(facts(sources), 'facts')}</section>",
        *(_figure(figure) for figure in figures(sources)),
        "<section><h2>All numbers</h2>",
        *(_table(table) for table in figure_tables(sources)),
        "</section>",
        "<section><details><summary>The machine, as probed</summary>",
        *(_table(table, "facts") for table in environment_tables(sources)),
        "</details></section>",
        "<section><h2>Raw records</h2>",
        *(_raw(source) for source in sources),
        "</section></main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _subtitle(sources: Sequence[Source]) -> str:
    lines = [
        f"{source.tag + ': ' if source.tag else ''}{source.record.subject.device} on {source.record.subject.machine},"
        f" {len(source.record.tracks)} tracks, {source.record.environment.created}"
        for source in sources
    ]
    return "; ".join(lines)


def _warnings(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f'<div class="warn"><h2>Before you believe a number</h2><ul>{items}</ul></div>'


def _figure(figure: Figure) -> str:
    names = "".join(f'<li><span class="{css}"></span>{_text(name)}</li>' for css, name in figure.legend)
    legend = f'<ul class="legend">{names}</ul>' if names else ""
    drawings = []
    for i, drawing in enumerate(figure.drawings):
        if drawing.caption:
            drawings.append(f"<h3>{_text(drawing.caption)}</h3>")
        for form, (canvas, height) in (("wide", drawing.wide), ("narrow", drawing.narrow)):
            identity = f"{figure.key}-{i}-{form}"
            title = f"{figure.title}{': ' + drawing.caption if drawing.caption else ''}"
            drawings.append(
                canvas.svg(height, identity=identity, title=title, description=figure.description, css=form)
            )
    return (
        f'<section><figure><h2>{_text(figure.title)}</h2><p class="sub">{_text(figure.lead)}</p>'
        f"{legend}{''.join(drawings)}</figure></section>"
    )


def _table(table: Table, css: str = "") -> str:
    def cell(tag: str, i: int, text: str) -> str:
        return f"<{tag}{' class=n' if table.columns[i].numeric else ''}>{_text(text)}</{tag}>"

    head = "".join(
        cell("th scope=col", i, column.name).replace("</th scope=col>", "</th>")
        for i, column in enumerate(table.columns)
    )
    rows = []
    for row in table.rows:
        first = f"<th scope=row>{_text(row[0])}</th>" if css == "facts" else cell("td", 0, row[0])
        rows.append(f"<tr>{first}{''.join(cell('td', i, text) for i, text in enumerate(row) if i)}</tr>")
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    label = escape(table.title, quote=True)
    return (
        f'<div class="scroll" tabindex=0 role=region aria-label="{label}"><table class="{css}">'
        f"<caption>{_text(table.title)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{note}"
    )


def _raw(source: Source) -> str:
    name = f"<code>{_text(source.name)}</code>"
    prefix = f"{_text(source.tag)}: " if source.tag else ""
    content = msgspec.json.encode(source.record)
    if len(content) > _EMBEDDED_AT_MOST:
        return f"<p>{prefix}{name} ({len(content)} bytes) is too large for this page: keep it beside it.</p>"
    identity = f"record-{source.tag or 'A'}"
    # A "<" in a text could end the element; as an escape of JSON it means the same.
    embedded = content.decode("utf-8").replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return (
        f"<p>{prefix}{name}, {len(content)} bytes, stands in this page with all its samples: the element"
        f" <code>#{identity}</code>.</p>"
        f'<script type="application/json" id="{identity}">{embedded}</script>'
    )


def _text(text: str) -> str:
    return escape(readable(text), quote=True)
