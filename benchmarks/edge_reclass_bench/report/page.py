"""The page: one file that needs nothing else, and no script. First the answer, then pictures, then all numbers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge_reclass_bench.doubts import doubts_of
from edge_reclass_bench.report import tables
from edge_reclass_bench.report.figures import Figure, figures
from edge_reclass_bench.report.sources import Source
from edge_reclass_bench.report.table import html, text_of

_EMBEDDED_AT_MOST = 24_000_000
"""Bytes of JSON up to which a record is put into the page; above, the page only names its file."""

_STYLE = """
:root{color-scheme:light dark;--page:#fff;--panel:#f5f6f8;--text:#17191c;--muted:#535a63;--rule:#d9dde2;--warn:#8a3d00}
@media (prefers-color-scheme:dark){:root{--page:#14171a;--panel:#1e2327;--text:#e9ecef;--muted:#a9b1ba;--rule:#343a41;
--warn:#ffc489;--decode:#9fb0bd;--resample:#5cc8bb;--features:#86cf88;--fill:#f0b060;--run:#7fb2ff;--batch:#7fb2ff;
--head:#ff9a91;--policy:#d6c65a;--other:#b0b0b0;--exit:#86cf88;--on:#7c838b}}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2rem 0 .3rem}
.sub,.note,caption{color:var(--muted);font-size:.9rem}caption{text-align:left;padding:.4rem 0;font-weight:600}
.scroll{overflow-x:auto;border-right:1px solid var(--rule)}table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums}
tr>:first-child{position:sticky;left:0;background:var(--page)}
.answer{background:var(--panel);padding:.2rem 1rem 1rem;border-radius:.5rem}.answer td{font-size:1rem}
.answer tr>:first-child{background:var(--panel)}.warn{color:var(--warn);font-size:.9rem}
figure{margin:0}figure svg{width:100%;height:auto;max-width:60rem}code{overflow-wrap:anywhere}
"""


def page(sources: Sequence[Source]) -> str:
    """The report on one or several records, as HTML; the records are in it as JSON unless they are very large.

    Raises:
        ValueError: there is no record.
    """
    if not sources:
        raise ValueError("a report needs at least one record")
    names = text_of(" and ".join(dict.fromkeys(source.books.record.subject.bundle for source in sources)))
    answer, missing = tables.answer(sources), tables.absent(sources)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>edge-reclass bench: {names}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{names}: what a track costs, and what the cascade saves</h1>",
        f'<section class="answer">{html(answer)}</section>' if answer.rows else "",
        _doubts(sources),
        *(_figure(figure) for figure in figures(sources)),
        "<section><h2>All numbers</h2>",
        *(html(table) for table in tables.numbers(sources)),
        html(missing) if missing.rows else "",
        "</section><section><h2>Where it comes from</h2>",
        html(tables.facts(sources), "facts"),
        *(_raw(source) for source in sources),
        "</section></main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _doubts(sources: Sequence[Source]) -> str:
    lines = doubts_of([(source.tag, source.books) for source in sources])
    items = "".join(f"<li>{text_of(line)}</li>" for line in lines)
    return f'<section class="warn"><h2>Before you believe a number</h2><ul>{items}</ul></section>' if lines else ""


def _figure(figure: Figure) -> str:
    title, lead = text_of(figure.title), text_of(figure.lead)
    return f'<section><figure><h2>{title}</h2><p class="sub">{lead}</p>{figure.svg}</figure></section>'


def _raw(source: Source) -> str:
    name = f"<code>{text_of(source.name)}</code>"
    content = msgspec.json.encode(source.books.record)
    if len(content) > _EMBEDDED_AT_MOST:
        return f"<p>{name} ({len(content)} bytes) is too large for this page: keep it beside it.</p>"
    identity = f"record-{source.tag or 'A'}"
    # A "<" in a text could end the element; as an escape of JSON it means the same.
    embedded = content.decode("utf-8").replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return (
        f"<p>{name}, {len(content)} bytes, is in this page with all its samples: <code>#{identity}</code>.</p>"
        f'<script type="application/json" id="{identity}">{embedded}</script>'
    )
