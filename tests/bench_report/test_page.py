"""The page and its Markdown: complete, escaped, self-contained, legible."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import msgspec
import pytest

from bench_report.made_records import TRACKS, make_record
from edge_reclass.errors import UsageError
from edge_reclass_bench.record import Record, save
from edge_reclass_bench.report import html_page, markdown_report, read, tagged
from edge_reclass_bench.report.figures import PART_NAMES
from edge_reclass_bench.report.style import DARK, LIGHT, style_sheet
from edge_reclass_bench.report.tables import warnings_of

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements by name, and whether every one that is opened is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


HOSTILE = "</script><script>alert('x')</script> & \"quoted\" \x07 | pipe\nline"


def hostile_record() -> Record:
    record = make_record(bundle=HOSTILE)
    return msgspec.structs.replace(record, warnings=[*record.warnings, HOSTILE])


def test_the_page_is_well_formed_and_needs_nothing_else():
    page = Page(html_page(tagged([("a.json", make_record(device=True)), ("b.json", make_record())])))
    assert not page.all("link") and not page.all("img") and not page.all("iframe")
    for tag, attributes in page.elements:
        assert not {"src", "href", "srcset", "onload", "onclick"} & set(attributes), (tag, attributes)
    assert {script["type"] for script in page.all("script")} == {"application/json"}
    assert "url(" not in style_sheet() and "@import" not in style_sheet()
    assert "http" not in re.sub(r"<script.*?</script>", "", html_page(tagged([("a.json", make_record())])), flags=re.S)


def test_every_picture_has_a_title_a_description_and_both_widths():
    page = Page(html_page(tagged([("a.json", make_record())])))
    pictures = page.all("svg")
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(identities)) == len(identities)
    assert len(pictures) >= 14 and [picture["class"] for picture in pictures[:2]] == ["wide", "narrow"]
    for picture in pictures:
        assert picture["role"] == "img"
        assert set(picture["aria-labelledby"].split()) <= set(identities)
    assert sum("mert:" in text for text in page.texts) >= 2, "descriptions say the numbers"


def test_text_is_escaped_everywhere():
    text = html_page(tagged([("<b>.json", hostile_record())]))
    Page(text)
    assert "<script>alert" not in text and "<b>" not in text and "\x07" not in text
    assert "&lt;/script&gt;" in text


def test_the_records_stand_in_the_page_complete():
    record = hostile_record()
    text = html_page(tagged([("a.json", record), ("b.json", make_record())]))
    found = dict(re.findall(r'<script type="application/json" id="record-(\w+)">(.*?)</script>', text, re.S))
    assert set(found) == {"A", "B"}
    assert msgspec.json.decode(found["A"].encode(), type=Record) == record
    assert len(json.loads(found["B"])["tracks"]) == TRACKS


def test_a_very_large_record_is_only_named(monkeypatch):
    monkeypatch.setattr("edge_reclass_bench.report.page._EMBEDDED_AT_MOST", 1000)
    text = html_page(tagged([("large.json", make_record())]))
    assert "<script" not in text and "large.json" in text and "too large for this page" in text


@pytest.mark.parametrize("report", [html_page, markdown_report])
def test_warnings_absences_and_untrained_weights_stand_before_the_numbers(report):
    text = report(tagged([("a.json", make_record())]))
    first_table = text.index("What was measured")
    for said in ("untrained weights: times mean something", "no sensor that can be read", "scatter 0.22"):
        assert 0 < text.replace("\\", "").index(said) < first_table


def test_what_the_record_says_itself_is_not_said_twice():
    own = "untrained weights: times mean something, answers, agreement and accuracy nothing"
    record = msgspec.structs.replace(make_record(), warnings=[own])
    assert record.subject.synthetic
    assert [line for line in warnings_of(tagged([("a.json", record)])) if "untrained" in line] == [own]


@pytest.mark.parametrize("report", [html_page, markdown_report])
def test_the_measured_numbers_are_said(report):
    record = make_record()
    text = report(tagged([("a.json", record)]))
    total = next(record.find(scenario="stage", stage="mert", part="total"))
    assert f"{total.summary.mean.value:,.0f}".replace(",", "\u202f") in text
    for said in (
        "60 of 120",
        "cascade, expected",
        "cold-start/cascade",
        "torch is not installed",
    ):
        assert said in text, said


def test_what_was_not_measured_is_left_out():
    without = ("single-stream", "offline", "cold-start", "peers", "accounting")
    text = html_page(tagged([("a.json", make_record(without=without))]))
    assert "Latency per stage" in text
    for title in ("Latency of one track", "Who leaves where", "Throughput", "Cold start", "Beside other programs"):
        assert f"<h2>{title}</h2>" not in text


def test_records_stand_side_by_side_under_their_tags():
    records = [("one.json", make_record()), ("two.json", make_record({"fma": 12.0}, bundle="other", device=True))]
    text = markdown_report(tagged(records))
    header = next(line for line in text.splitlines() if line.startswith("|  | A | B |"))
    assert header
    assert "| record | one.json | two.json |" in text
    assert re.search(r"^\| A \| mert \| run \| host ", text, re.M) and re.search(
        r"^\| B \| fma \| total \| host ", text, re.M
    )
    assert text.count("A, B: ") == 3, "what holds for both is said once"


def test_markdown_tables_keep_their_columns_whatever_the_text():
    text = markdown_report(tagged([("a|b.json", hostile_record())]))
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(tables) >= 8
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    assert not re.search(r"(?<!\\)[<&]", text)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_have_contrast(theme):
    surfaces = {"page", "panel", "rule", "warn-panel", "on-fill"}
    texts = {"text", "muted", "warn"}
    assert min(contrast(theme["text"], theme[name]) for name in ("page", "panel", "warn-panel")) >= 7
    assert min(contrast(theme["muted"], theme[name]) for name in ("page", "panel")) >= 4.5
    assert contrast(theme["warn"], theme["warn-panel"]) >= 4.5
    for name in set(theme) - surfaces - texts:
        assert contrast(theme[name], theme["page"]) >= 3.0, name
        assert contrast(theme[name], theme["on-fill"]) >= 4.5, name


def test_every_part_has_a_colour_and_every_colour_used_exists():
    sheet = style_sheet()
    for part in PART_NAMES:
        assert f".p-{part}{{fill:" in sheet
    for text in (html_page(tagged([("a", make_record(device=True))])),):
        for css in set(re.findall(r'class="(?:f|c|d) ([ps]-\w+)"', text)) | set(
            re.findall(r'span class="([ps]-\w+)"', text)
        ):
            assert f".{css}{{" in sheet, css
    assert set(LIGHT) == set(DARK)
    assert set(re.findall(r"var\(--([\w-]+)\)", sheet)) == set(LIGHT)


def test_files_are_read_and_a_wrong_one_is_named(tmp_path):
    save(make_record(), tmp_path / "one.json")
    (source,) = read([tmp_path / "one.json"])
    assert (source.name, source.tag) == ("one.json", "")
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(UsageError, match=r"wrong\.json"):
        read([tmp_path / "one.json", tmp_path / "wrong.json"])


def test_no_record_is_an_error():
    for report in (html_page, markdown_report):
        with pytest.raises(ValueError, match="at least one record"):
            report([])


def test_tags_go_on_after_z():
    record = make_record({"fma": 1.0}, without=("single-stream", "offline", "cold-start", "peers", "accounting"))
    tags = [source.tag for source in tagged([("x", record)] * 28)]
    assert tags[:2] == ["A", "B"] and tags[25:] == ["Z", "AA", "AB"]
