"""The page of an evaluation: every number on it is one of the record; what is hostile, absent or large does no harm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed: no page can be drawn")

from edge_reclass_learn.evaluate import page as pages
from edge_reclass_learn.evaluate import record as records
from edge_reclass_learn.evaluate.page import page, write_page
from edge_reclass_learn.evaluate.record import Record, save
from edge_reclass_learn.pages.text import count, number, percent, plain

GENRES = ("Alpha", "Beta", "Gamma")
HOSTILE = '<script>alert("x")</script>' + "\u202eabc\udcff\x1b[31m שלום 日本語 $\\x$ " + "x" * 500

FIXED = re.compile(
    r"95 % interval|\d+ of 100 tracks|FP32|min_confidence|A line that crosses 0|(?<![\d.])(0|25|50|75|100|\d0) %(?!\w)|"
    r"[−+]\d+ points(?=$)|^0$"
)
"""Numbers that are words of the page, or ticks of an axis, which have no decimals as the record's have."""
NUMBER = re.compile(r"(?<![A-Za-z\d.])\d[\d\u202f]*(?:\.\d+)?(?:e-\d+)?")


class Numbers:
    """Numbers of which no two are alike, however they are shown."""

    def __init__(self) -> None:
        self._draw, self._next = np.random.default_rng(0), 1000

    def share(self, low: float = 0.1, high: float = 0.9) -> float:
        return float(self._draw.uniform(low, high))

    def count(self) -> int:
        self._next += int(self._draw.integers(3, 17))
        return self._next

    def figure(self) -> dict[str, Any]:
        low, value, high = sorted(self.share() for _ in range(3))
        return {"value": value, "low": low, "high": high, "of": self.count(), "interval": "wilson"}


def judgement(some: Numbers, name: str) -> dict[str, Any]:
    point = {"confidence": some.share(), "coverage": some.share(0.6, 0.9), "risk": some.share(0.1, 0.2)}
    coverages = sorted(some.share() for _ in range(12))
    return {
        "name": name,
        "digest": "d",
        "policy": "progressive",
        "judged": "cross-validated",
        "how": ["cross-validated in folds that share no group"],
        "folds": some.count(),
        "known_tracks": some.count(),
        "tracks": some.count(),
        "groups": some.count(),
        "min_confidence": some.share(),
        "not_in_bundle": [{"genre": "Delta", "tracks": some.count()}],
        "accuracy": some.figure(),
        "balanced": some.figure(),
        "macro_f1": some.figure(),
        "top3": some.figure(),
        "unsure": some.count(),
        "accuracy_sure": some.figure(),
        "genres": [
            {
                "genre": genre,
                **{key: some.count() for key in ("tracks", "groups", "found", "said")},
                **{key: some.figure() for key in ("precision", "recall", "f1")},
            }
            for genre in GENRES
        ],
        "confusion": {
            "labels": list(GENRES),
            "said": [*GENRES, "unsure"],
            "counts": [[some.count() for _ in range(4)] for _ in GENRES],
        },
        "calibration": {
            "ece": some.share(),
            "brier": some.share(),
            "bins": [
                {
                    "low": some.share(0.1 + i / 10, 0.2 + i / 10),
                    "high": some.share(0.2 + i / 10, 0.3 + i / 10),
                    "tracks": some.count(),
                    "confidence": some.share(),
                    "accuracy": some.figure(),
                }
                for i in range(4)
            ],
        },
        "risk_coverage": {
            "points": [{"confidence": some.share(), "coverage": at, "risk": some.share(0.1, 0.2)} for at in coverages],
            "aurc": some.share(),
            "chosen": point,
        },
        "funnel": [
            {
                "stage": "fma",
                "windows": windows,
                "accept": some.share(),
                "reached": some.count(),
                "stopped": some.count(),
                "unsure": some.count(),
                "accuracy": some.figure(),
                "milliseconds": 100 * some.share(),
            }
            for windows in (some.count(), None)
        ],
        "breakdowns": [
            {
                "name": name,
                "slices": [
                    {"value": value, "tracks": some.count(), "accuracy": some.figure()} for value in ("this", "that")
                ],
                "unknown": some.count(),
            }
            for name in ("length", "source")
        ],
    }


def plain_record(bundles: int = 1) -> dict[str, Any]:
    """A record in plain values with something of everything."""
    some = Numbers()
    probe = {
        **{key: some.figure() for key in ("accuracy", "balanced", "macro_f1")},
        "milliseconds": 100 * some.share(),
        "dim": some.count(),
        "note": "all well",
    }
    return {
        "program": "edge-reclass",
        "data": {
            "name": "music",
            "sha256": "s",
            "tracks": some.count(),
            "groups": some.count(),
            "left_out": some.count(),
            "genres": [{"genre": genre, "tracks": some.count()} for genre in GENRES],
        },
        "seed": some.count(),
        "draws": some.count(),
        "bundles": [judgement(some, name) for name in ("starter", "mine")[:bundles]],
        "comparisons": [
            {
                "a": "starter",
                "b": "mine",
                "genres": list(GENRES),
                **{key: some.count() for key in ("tracks", "both_right", "only_a", "only_b", "both_wrong", "same")},
                **{key: some.figure() for key in ("accuracy_a", "accuracy_b", "difference")},
                "p": some.share(),
            }
        ],
        "agreements": [
            {
                "bundle": "mine",
                "device": "cuda",
                "precisions": {"musicnn": "fp16"},
                "same": some.figure(),
                "max_difference": some.share(),
            }
        ],
        "baselines": [
            {"name": "most frequent genre", "version": "scikit-learn", "importance": {"mfcc": some.share()}, **probe}
        ],
        "encoders": [{"bundle": "mine", "stage": "musicnn", "megabytes": 10 * some.share(), **probe}],
        "warnings": ["warning: few tracks"],
        "kind": records.KIND,
        "format": records.FORMAT,
    }


def made(values: dict[str, Any]) -> Record:
    return msgspec.convert(values, Record)


class Reader(HTMLParser):
    """The texts of a page, what is drawn and what is read aloud among them, without scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.unlabelled: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href"}]
        self.texts += [given[key] or "" for key in ("aria-label", "title", "alt") if key in given]
        if given.get("role") in {"img", "region"} and not given.get("aria-label"):
            self.unlabelled.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in {"script", "style"}:
            self.texts.append(data)
        elif self.tags:
            self.tags.append("(end)")

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"}:
            self.tags.append("(end)")

    def strangers(self, record: object) -> list[str]:
        """Numbers that the record does not have."""
        known = shown(record)
        return [one for one in self.numbers() if one not in known]

    def numbers(self) -> list[str]:
        return [found for text in self.texts for found in NUMBER.findall(FIXED.sub(" ", text.replace("\xa0", " ")))]


def leaves(values: object) -> Iterator[float | str]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from leaves(key)
            yield from leaves(value)
    elif isinstance(values, list):
        for value in values:
            yield from leaves(value)
    elif isinstance(values, int | float | str):
        yield values


def shown(values: object) -> set[str]:
    """Every number of the record as a page may show it."""
    found: set[str] = set()
    for leaf in leaves(values):
        if isinstance(leaf, str):
            texts = [leaf]
        elif isinstance(leaf, int):
            texts = [count(leaf), str(leaf)]
        else:
            texts = [percent(leaf), number(leaf), number(leaf, 2), plain(leaf), f"{100 * leaf:.1f}"]
        found.update(one for text in texts for one in NUMBER.findall(text.replace("\xa0", " ")))
    return found


@pytest.fixture(scope="module")
def text() -> str:
    return page(made(plain_record()))


def changed(values: Any) -> Any:
    """The record with every number another one, in the same order."""
    if isinstance(values, dict):
        return {key: value if key == "format" else changed(value) for key, value in values.items()}
    if isinstance(values, list):
        return [changed(value) for value in values]
    if isinstance(values, int):
        return values + 7
    return 0.9 * values + 0.005 if isinstance(values, float) else values


def test_where_all_numbers_of_the_record_change_all_on_the_page_do(text: str) -> None:
    """Every number is one of the record: none is made up, and none is of something else."""
    other = changed(plain_record())
    before, after = Reader(text), Reader(page(made(other)))
    assert len(before.numbers()) > 300
    assert before.strangers(plain_record()) == [] == after.strangers(other)
    assert [one for one, two in zip(before.numbers(), after.numbers(), strict=True) if one == two] == []


def test_the_answer_comes_first_and_every_picture_is_there(text: str) -> None:
    accuracy = plain_record()["bundles"][0]["accuracy"]
    found = Reader(text)
    assert found.loads == [] and found.unlabelled == []
    answer, doubts, picture, table, origin = (
        text.index(what)
        for what in ("of 100 tracks", "Before you believe a number", "<svg", "All numbers", "Where it comes from")
    )
    assert answer < doubts < picture < table < origin
    assert f"{100 * accuracy['value']:.0f} of 100 tracks" in text
    assert text.count("<svg") == 5 + 3  # five of the bundle; comparison, baselines, encoders
    assert text.count('class="matrix"') == 1


def test_numbers_stand_where_they_belong(text: str) -> None:
    record = plain_record()
    genre = record["bundles"][0]["genres"][1]
    rows = re.findall(r"<tr><td>Beta</td>(.*?)</tr>", text)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", rows[0])
    recall = genre["recall"]
    assert cells[:4] == [
        *(count(genre[key]) for key in ("tracks", "groups", "found")),
        f"{percent(recall['value'])} [{percent(recall['low'])}, {percent(recall['high'])}]",
    ]
    assert cells[4] == count(genre["said"]) and cells[5].startswith(percent(genre["precision"]["value"]))
    matrix = re.findall(r'<tr><th scope="row">Beta</th>(.*?)</tr>', text)[0]
    counts = record["bundles"][0]["confusion"]["counts"][1]
    assert re.findall(r"<td[^>]*>(.*?)</td>", matrix) == [count(one) for one in counts]
    assert re.findall(r"--s:([\d.]+)", matrix) == [f"{one / sum(counts):.2f}" for one in counts]


def test_the_record_is_in_the_page(text: str) -> None:
    kept = re.search(r'<script type="application/json" id="record">(.*?)</script>', text, re.S)
    assert kept is not None
    assert json.loads(kept[1]) == msgspec.to_builtins(made(plain_record()))


def hostile(values: Any) -> Any:
    """The record with hostile text wherever any text may be."""
    if isinstance(values, dict):
        closed = {"interval", "judged", "kind"}
        return {key: value if key in closed else hostile(value) for key, value in values.items()}
    if isinstance(values, list):
        return [hostile(value) for value in values]
    return HOSTILE if isinstance(values, str) else values


def test_hostile_names_harm_nothing(tmp_path: Path) -> None:
    write_page(made(hostile(plain_record())), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = Reader(text)
    assert found.tags.count("script") == 1 and "alert" not in found.tags
    assert not any(bad in text for bad in ("\u202e", "\x1b", "<script>alert", "\udcff"))
    assert "&lt;script&gt;alert" in text
    assert max(len(one) for one in found.texts if "x" * 100 in one) > 500, "notes and warnings stand in full"


def bare(*kept: str) -> dict[str, Any]:
    """A record of one bundle with figures of all tracks only, and what is to be ``kept`` of what may be absent."""
    absent = {"comparisons", "agreements", "baselines", "encoders", "warnings"} - {*kept}
    record = plain_record() | {key: [] for key in absent}
    (judged,) = record["bundles"]
    judged |= {"genres": [], "funnel": [], "breakdowns": [], "not_in_bundle": [], "accuracy_sure": None, "unsure": 0}
    judged["confusion"] = {"labels": [], "said": [], "counts": []}
    judged["calibration"]["bins"] = []
    judged["risk_coverage"] |= {"points": [], "chosen": None}
    return record


def test_what_has_no_data_is_absent() -> None:
    text = page(made(bare()))
    assert "<svg" not in text and "matrix" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    for absent in (
        "Before you believe",
        "unsure of",
        "Genres",
        "Steps of",
        "Agreement",
        "Other approaches",
        "encoder,",
    ):
        assert absent not in text, absent
    assert "Overall" in text


def test_the_titles_say_whose_numbers_they_are_where_there_are_several_bundles() -> None:
    record = bare()
    (one,) = record["bundles"]
    funnel = plain_record()["bundles"][0]["funnel"]
    record["bundles"] = [one | {"funnel": funnel}, one | {"name": "mine", "funnel": funnel}]
    text = page(made(record))
    for whose in ("starter", "mine"):
        assert f"<h2>Who leaves where ({whose})</h2>" in text
        assert f"<caption>Overall ({whose})</caption>" in text and f"<strong>{whose}</strong>" in text


def test_where_nothing_is_wrong_the_risk_is_drawn_all_the_same() -> None:
    record = bare()
    points = [{"confidence": 0.9, "coverage": 0.5, "risk": 0.0}, {"confidence": 0.5, "coverage": 1.0, "risk": 0.0}]
    record["bundles"][0]["risk_coverage"] |= {"points": points, "aurc": 0.0}
    assert "What it gains to be unsure" in page(made(record))


def test_a_record_with_stray_bytes_is_written_and_read(tmp_path: Path) -> None:
    values = bare()
    values["data"] |= {"name": "b\udcffse – 日本語"}
    save(made(values), tmp_path / "record.json")
    text = (tmp_path / "record.json").read_text(encoding="utf-8")
    assert "日本語" in text and json.loads(text)["data"]["name"] == "b\udcffse – 日本語"


def test_what_could_not_run_is_said_without_figures() -> None:
    record = bare("baselines", "agreements")
    nothing = dict.fromkeys(("accuracy", "balanced", "macro_f1", "milliseconds", "dim"))
    record["baselines"][0] |= {**nothing, "note": "no wheel for this machine"}
    record["agreements"][0] |= {"same": None, "max_difference": None, "why_not": "no GPU here"}
    text = page(made(record))
    assert "no wheel for this machine" in text and "no GPU here" in text
    assert "<svg" not in text


@pytest.mark.parametrize(("low", "p", "told"), [(0.01, 0.03, False), (-0.01, 0.03, True), (0.01, 0.06, True)])
def test_a_difference_that_is_not_shown_is_said_to_be_none(low: float, p: float, told: bool) -> None:
    record = bare("comparisons")
    record["comparisons"][0]["difference"] |= {"low": low, "value": 0.02, "high": 0.03}
    record["comparisons"][0]["p"] = p
    text = page(made(record))
    assert ("neither is shown to be better" in text) == told
    assert "+2.0 points" in text and "<h2>Which bundle finds more</h2>" in text


def test_a_record_that_is_too_large_is_not_put_into_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_EMBEDDED_AT_MOST", 100)
    text = page(made(bare()))
    assert "<script" not in text and "too large for this page" in text


def test_a_page_needs_a_bundle() -> None:
    with pytest.raises(ValueError, match="at least one bundle"):
        page(made(plain_record(bundles=0)))
