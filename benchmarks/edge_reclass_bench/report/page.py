"""The page: one file that needs nothing else, and no script. First the answer, then pictures, then all numbers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge_reclass_bench.doubts import doubts_of
from edge_reclass_bench.report import tables
from edge_reclass_bench.report.figures import figures
from edge_reclass_bench.report.sources import Source
from edge_reclass_learn.pages.skeleton import document, embedded, figure, section, warned
from edge_reclass_learn.pages.table import html, text_of

_EMBEDDED_AT_MOST = 24_000_000
"""Bytes of JSON up to which a record is put into the page; above, the page only names its file."""


def page(sources: Sequence[Source]) -> str:
    """The report on one or several records, as HTML; the records are in it as JSON unless they are very large.

    Raises:
        ValueError: there is no record.
    """
    if not sources:
        raise ValueError("a report needs at least one record")
    names = " and ".join(dict.fromkeys(source.books.record.subject.bundle for source in sources))
    answer, missing = tables.answer(sources), tables.absent(sources)
    parts = [
        f"<h1>{text_of(names)}: what a track costs, and what the cascade saves</h1>",
        f'<section class="answer">{html(answer)}</section>' if answer.rows else "",
        warned("Before you believe a number", doubts_of([(source.tag, source.books) for source in sources])),
        *(figure(drawn) for drawn in figures(sources)),
        section("All numbers", *map(html, tables.numbers(sources)), html(missing) if missing.rows else ""),
        section("Where it comes from", html(tables.facts(sources)), *map(_raw, sources)),
    ]
    return document(f"edge-reclass bench: {names}", parts)


def _raw(source: Source) -> str:
    name = f"<code>{text_of(source.name)}</code>"
    content = msgspec.json.encode(source.books.record)
    if len(content) > _EMBEDDED_AT_MOST:
        return f"<p>{name} ({len(content)} bytes) is too large for this page: keep it beside it.</p>"
    identity = f"record-{source.tag or 'A'}"
    return (
        f"<p>{name}, {len(content)} bytes, is in this page with all its samples: <code>#{identity}</code>.</p>"
        f"{embedded(content, identity)}"
    )
