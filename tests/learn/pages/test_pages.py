"""The shared page: hostile text harms nothing, colours can be read in both themes, drawings take the page's colours."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from edge_reclass_learn.pages import skeleton
from edge_reclass_learn.pages.skeleton import COLOURS, Figure, document, embedded, figure, section, warned
from edge_reclass_learn.pages.table import Table, html, markdown
from edge_reclass_learn.pages.text import count, number, percent, readable, short

HOSTILE = '</script><img src=x onerror="alert(1)">\u202e\udcff\x1b[31m'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in {"meta", "img", "col", "br", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(page: str) -> Tags:
    found = Tags()
    found.feed(page)
    assert found.open == [], "elements that are not closed"
    return found


def test_hostile_text_is_only_text() -> None:
    page = document(
        HOSTILE,
        [
            warned(HOSTILE, [HOSTILE]),
            section(HOSTILE, html(Table(HOSTILE, (HOSTILE, ">n"), ((HOSTILE, "1"),), HOSTILE))),
            figure(Figure(HOSTILE, HOSTILE, "<svg></svg>")),
            embedded(json.dumps({"name": HOSTILE}).encode(), "record"),
        ],
    )
    found = tags(page)
    assert "img" not in found.seen and found.seen.count("script") == 1
    assert not any(bad in page for bad in ("\x1b", "\u202e", "\udcff"))
    page.encode("utf-8")
    kept = re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.S)
    assert kept is not None and json.loads(kept[1]) == {"name": HOSTILE}


def test_only_the_script_that_was_given_may_run() -> None:
    script = "document.title='a'"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in document("t", [], script=script, media="file:")
    assert "media-src file:" in document("t", [], script=script, media="file:")
    assert "script-src 'none'" in document("t", []) and "<script" not in document("t", [])


def test_what_is_empty_is_absent() -> None:
    assert warned("Warnings", []) == "" == section("Title", "", "")


def test_markdown_of_a_table() -> None:
    table = Table("t", ("name", ">n"), (("a|b", "1"), ("c", "–")), "note")
    assert markdown(table).splitlines() == ["| name | n |", "|---|---:|", r"| a\|b | 1 |", "| c | – |", "", "note"]


def light(colour: str) -> float:
    """Relative luminance, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    if colour.startswith("#"):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    else:
        parts = [int(part) / 255 for part in colour.split()]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_text_and_pictures_stand_out_in_both_themes(theme: int) -> None:
    ground = {name: pair[theme] for name, pair in skeleton._GROUND.items()}
    for name in ("text", "muted", "warn"):
        assert contrast(ground[name], ground["page"]) >= 4.5 <= contrast(ground[name], ground["panel"]), name
    assert contrast(ground["text"], ground["tint"]) >= 4.5
    for name, pair in COLOURS.items():
        assert contrast(pair[theme], ground["page"]) >= 3.0, name  # WCAG 1.4.11, for what is no text


def test_a_drawing_takes_the_pages_colours_whatever_its_names() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: nothing can be drawn")
    from matplotlib.figure import Figure as Canvas

    from edge_reclass_learn.pages.drawing import colour, finished, style

    names = ["<script>", "$\\x$", "日本語", "שלום", short(HOSTILE, 60)]
    with style():
        canvas = Canvas(figsize=(4, 2))
        axes = canvas.subplots()
        axes.barh(range(len(names)), [1] * len(names), color=colour("blue"))
        axes.set_yticks(range(len(names)), names)
        drawn = finished(canvas, "Title", "Lead", f'5 bars, "{HOSTILE}"')
    found = tags(figure(drawn))
    assert "script" not in found.seen and "metadata" not in found.seen
    assert "var(--blue, #1d5fbf)" in drawn.svg and "currentColor" in drawn.svg and "日本語" in drawn.svg
    assert "aria-label=" in drawn.svg and not re.search(r"<g id=|^<svg[^>]* (width|height)=", drawn.svg)
    assert "$\\x$" in drawn.svg
    drawn.svg.encode("utf-8")


def test_numbers_and_names_for_people() -> None:
    assert [number(value) for value in (0, 0.01234, 9.996, 12345.6, float("nan"))] == [
        "0",
        "0.0123",
        "10.0",
        "12\u202f346",
        "–",
    ]
    assert count(1234567) == "1\u202f234\u202f567"
    assert [percent(value) for value in (0.0, 0.0001, 0.494, 0.9999, 1.0)] == [
        "0\u00a0%",
        "<\u202f0.1\u00a0%",
        "49.4\u00a0%",
        ">\u202f99.9\u00a0%",
        "100\u00a0%",
    ]
    assert readable("a\u2028b\x00\n") == "a\\u2028b\\x00\n"
    assert short(" one\ntwo three", 8) == "one two…" and short("abc", 3) == "abc"
