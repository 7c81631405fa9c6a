"""The page of an evaluation: one file that needs nothing else. First the answer, then pictures, then all numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from edge_reclass.host import write_whole
from edge_reclass_learn.evaluate import figures, tables
from edge_reclass_learn.evaluate.record import Comparison, Judgement, Record
from edge_reclass_learn.evaluate.tables import name, points
from edge_reclass_learn.pages import skeleton
from edge_reclass_learn.pages.skeleton import document, embedded, section, warned
from edge_reclass_learn.pages.table import html, text_of
from edge_reclass_learn.pages.text import count, number, percent

_SURE: Final = 0.05
"""McNemar's p below which a difference whose interval has no 0 is called shown."""
_EMBEDDED_AT_MOST: Final = 24_000_000
"""Bytes of JSON up to which the record is put into the page; above, the page only says so."""

_STYLE: Final = """
.answer p{font-size:1.2rem;line-height:1.45;max-width:52rem}.answer p.sub{font-size:.95rem;line-height:1.5}
.matrix{width:auto}.matrix td{text-align:right;min-width:2.4rem;font-variant-numeric:tabular-nums;
background:rgb(var(--tint)/var(--s,0));border:1px solid var(--rule)}
.matrix td.right{outline:2px solid var(--text);outline-offset:-2px;font-weight:700}
.matrix thead th{white-space:nowrap}
.matrix thead th span{writing-mode:vertical-rl;transform:rotate(180deg)}
.matrix tbody th{font-weight:400}
"""


def write_page(record: Record, path: Path) -> None:
    """Write the page of ``record``; ``path`` appears complete or not at all. Needs matplotlib.

    Raises:
        UsageError: it cannot be written.
    """
    write_whole(path, page(record).encode())


def page(record: Record) -> str:
    """The page of ``record`` as HTML; every number on it is one of the record.

    Raises:
        ValueError: the record has no bundle.
    """
    if not record.bundles:
        raise ValueError("a page needs at least one bundle in the record")
    names = " and ".join(dict.fromkeys(name(one.name) for one in record.bundles))
    parts = [
        f"<h1>{text_of(names)}: how well genres are found</h1>",
        f'<section class="answer">{"".join(_answer(record))}</section>',
        warned("Before you believe a number", [text.removeprefix("warning: ") for text in record.warnings]),
        _pictures(figures.of_comparisons(record)),
        *(part for judged in record.bundles for part in _of_bundle(judged, len(record.bundles) > 1)),
        _pictures(figures.of_others(record)),
        section("All numbers", *map(html, tables.numbers(record))),
        section("Where it comes from", html(tables.facts(record)), _raw(record)),
    ]
    return document(f"edge-reclass evaluate: {names}", parts, style=_STYLE)


def _answer(record: Record) -> Iterator[str]:
    for judged in record.bundles:
        yield f"<p>{_sentence(judged)}</p>"
        yield f'<p class="sub">{text_of(" ".join(_how(judged)))}</p>'
    for pair in record.comparisons:
        yield f"<p>{text_of(_compared(pair))}</p>"


def _sentence(judged: Judgement) -> str:
    """The answer, for who owns the music."""
    found = judged.accuracy
    text = (
        f"<strong>{text_of(name(judged.name))}</strong> finds the genre of <strong>{100 * found.value:.0f} of 100"
        f" tracks</strong>: {percent(found.value)} of {count(judged.tracks)} (95\u00a0% interval {percent(found.low)}"
        f" to {percent(found.high)})."
    )
    if judged.unsure and judged.accuracy_sure is not None:
        sure = judged.accuracy_sure
        text += (
            f" It is unsure of {count(judged.unsure)}; of the {count(sure.of)} that it is sure of,"
            f" {text_of(percent(sure.value))} are right."
        )
    genres = sorted(judged.genres, key=lambda one: one.recall.value)
    if len(genres) > 1:
        worst, best = genres[0], genres[-1]
        text += text_of(
            f" It finds {name(best.genre)} best ({percent(best.recall.value)} of {count(best.tracks)}) and"
            f" {name(worst.genre)} least ({percent(worst.recall.value)} of {count(worst.tracks)})."
        )
    return text


def _compared(pair: Comparison) -> str:
    found = pair.difference
    told = (
        f"On the {count(pair.tracks)} tracks whose genre both know, {name(pair.b)} finds"
        f" {points(abs(found.value)).lstrip('+')} points {'more' if found.value >= 0 else 'less'} than {name(pair.a)}"
        f" (95\u00a0% interval {points(found.low)} to {points(found.high)}, McNemar p = {number(pair.p, 2)})"
    )
    shown = (found.low > 0 or found.high < 0) and pair.p < _SURE  # of few groups the interval alone says too much
    return f"{told}." if shown else f"{told}: neither is shown to be better."


def _of_bundle(judged: Judgement, several: bool) -> Iterator[str]:
    own = f" ({name(judged.name)})" if several else ""
    yield _pictures(figures.of_bundle(judged, several))
    if judged.confusion.labels:
        lead = (
            "A row for each genre that tracks have, a column for each that is said. Framed: right. The stronger the"
            " colour, the larger the share of its row."
        )
        title = f"What is taken for what{own}"
        yield section(title, f'<p class="sub">{lead}</p>', tables.confusion(judged.confusion, title))


def _pictures(found: list[skeleton.Figure]) -> str:
    inside = "".join(map(skeleton.figure, found))
    return f'<div class="figures">{inside}</div>' if inside else ""


def _how(judged: Judgement) -> Iterator[str]:
    """How it is judged, and what is left out."""
    for text in judged.how:
        yield f"{text[:1].upper()}{text[1:]}."
    if judged.not_in_bundle:
        left_out = ", ".join(f"{name(one.genre)} ({count(one.tracks)})" for one in judged.not_in_bundle)
        yield f"Not counted are tracks of genres that the bundle does not know: {left_out}."


def _raw(record: Record) -> str:
    # Not msgspec: it refuses names with stray bytes, which JSON can hold as escapes.
    content = json.dumps(msgspec.to_builtins(record), separators=(",", ":"), allow_nan=False).encode()
    if len(content) > _EMBEDDED_AT_MOST:
        return "<p>The record is too large for this page: keep it beside it.</p>"
    return f"<p>The record is in this page: <code>#record</code>.</p>{embedded(content, 'record')}"
