"""Reports: every number comes from the record; a hostile name harms no page; pictures take the page's colours."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from bench.sample import make_record
from edge_reclass.errors import UsageError
from edge_reclass_bench.compare import compare
from edge_reclass_bench.record import Measure, Record, save
from edge_reclass_bench.report import tables
from edge_reclass_bench.report.page import page
from edge_reclass_bench.report.sources import Source, read, stored
from edge_reclass_learn.pages.table import markdown, terminal

HOSTILE = '<script>alert("x")</script>|*a*\x1b[31m'


def sources(tmp_path: Path, *records: Record) -> list[Source]:
    paths = [tmp_path / f"{'abc'[i]}.json" for i in range(len(records))]
    for record, path in zip(records, paths, strict=True):
        save(record, path)
    return read(paths)


class Reader(HTMLParser):
    """Takes a page apart: its tables' cells, what it would load, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [
            value or "" for name, value in attrs if name in {"src", "href"} and not (value or "").startswith("#")
        ]
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_begins_with_the_answer_and_loads_nothing(tmp_path: Path) -> None:
    found = sources(tmp_path, make_record())
    text = page(found)
    reader = Reader()
    reader.feed(text)
    assert reader.loads == []
    answer, pictures, provenance = (text.index(what) for what in ("The answer", "<svg", "Where it comes from"))
    assert answer < pictures < provenance
    assert "10.0\u00a0J, 7.50 above idle (board input rail)" in text
    assert text.count("<svg") == 4  # funnel, stages, passes, power


def test_page_terminal_and_markdown_have_the_same_cells(tmp_path: Path) -> None:
    found = sources(tmp_path, make_record())
    text, reader = page(found), Reader()
    reader.feed(text)
    for table in [tables.answer(found), *tables.numbers(found), tables.facts(found)]:
        for row in table.rows:
            for cell in row:
                assert cell in reader.texts, cell


def test_the_record_is_in_the_page(tmp_path: Path) -> None:
    record = make_record()
    text = page(sources(tmp_path, record))
    embedded = re.search(r'<script type="application/json" id="record-A">(.*?)</script>', text, re.S)
    assert embedded is not None
    assert json.loads(embedded[1])["measures"] == msgspec.to_builtins(record.measures)


def test_several_records_are_told_apart(tmp_path: Path) -> None:
    found = sources(tmp_path, make_record(), make_record(seed=2, processes=3))
    text = page(found)
    assert [source.tag for source in found] == ["A", "B"]
    assert "Latency per stage (A)" in text and "Latency per stage (B)" in text
    assert "B: 3 processes: no measurement error" in text
    (stages, *_) = tables.numbers(found)
    assert stages.columns[0] == "record"


def test_a_hostile_name_harms_nothing(tmp_path: Path) -> None:
    record = make_record()
    subject = msgspec.structs.replace(record.subject, bundle=HOSTILE)
    found = sources(tmp_path, msgspec.structs.replace(record, subject=subject))
    text, reader = page(found), Reader()
    reader.feed(text)
    assert reader.tags.count("script") == 1  # the record
    assert "\x1b" not in terminal([*tables.numbers(found), tables.facts(found)], 120)
    assert "\x1b" not in text and "alert(&quot;x&quot;)" in text
    assert "\\<script\\>" in markdown(tables.facts(found))


def test_a_record_of_nothing_has_a_page(tmp_path: Path) -> None:
    empty = msgspec.structs.replace(
        make_record(), measures=[], runs=[], series=[], answers=[], files=[], peers=[], absent=[], complete=False
    )
    text = page(sources(tmp_path, empty))
    assert 'class="answer"' not in text and "broken off" in text and "<svg" in text  # who leaves where is in the tracks


def test_terminal_tables_fit_their_width(tmp_path: Path) -> None:
    found = sources(tmp_path, make_record())
    text = terminal([tables.answer(found), *tables.numbers(found)], 100)
    assert max(map(len, text.splitlines())) <= 100
    assert "fma + mert, no exit" in terminal(tables.numbers(found), 200)


@pytest.mark.parametrize(
    ("slower", "says"), [({}, "No regression."), ({"mert": 1.2}, "A regression."), ({"mert": 0.8}, "No regression.")]
)
def test_a_comparison_ends_with_what_it_says(slower: dict[str, float], says: str) -> None:
    found = list(compare(make_record(seed=1, between=0.002), make_record(seed=2, between=0.002, slower=slower)))
    table = tables.comparison(found, every=False)
    assert table.note.endswith(says)
    assert any("← regression" in row[4] for row in table.rows) == (says == "A regression.")


def test_stored_records_are_found_among_other_files(tmp_path: Path) -> None:
    save(make_record(), tmp_path / "b.json")
    (tmp_path / "other.json").write_text('{"kind": "something else"}')
    assert [source.name for source in stored(tmp_path)] == ["b.json"]
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageError, match=r"broken\.json: not valid JSON"):
        stored(tmp_path)


def test_ceilings_and_speed_over_minutes_have_tables(tmp_path: Path) -> None:
    record = make_record()
    one = {"scenario": "ceilings", "subject": "cascade", "passes": [0], "processes": [0]}
    made = [
        Measure(**one, stage=stage, part=part, unit=unit, samples=[value])
        for stage, graph in (("mert", 100.0), ("jmla", 40.0))
        for part, unit, value in (("graph", "ms", graph), ("products", "ms", 50.0), ("rate", "GFLOP/s", 80.0))
    ]
    found = sources(tmp_path, msgspec.structs.replace(record, measures=[*record.measures, *made]))
    rows = {table.title: table.rows for table in tables.numbers(found)}
    assert [row[3] for row in rows["Ceilings"]] == ["50\u00a0%", "125\u00a0% wrong: faster than its products"]
    assert rows["Speed over minutes"] == (("energy", "36.0", "120", "100\u00a0%"),)


def test_a_peer_on_other_tracks_has_no_ratio(tmp_path: Path) -> None:
    record = make_record()

    def without_track_0(measure: Measure) -> Measure:
        kept = [i for i, track in enumerate(measure.tracks) if track]
        columns = {name: [getattr(measure, name)[i] for i in kept] for name in ("samples", "tracks", "passes")}
        return msgspec.structs.replace(measure, processes=[measure.processes[i] for i in kept], **columns)

    measures = [without_track_0(m) if m.subject == "librosa:518 features" else m for m in record.measures]
    found = tables.numbers(sources(tmp_path, msgspec.structs.replace(record, measures=measures)))
    peers = next(table for table in found if table.title.startswith("Peers"))
    assert peers.rows[0][4] == "–"
