"""A record survives its file, and a file that is none is refused with what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.sample import make_record
from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass_bench.record import Record, load, save


@pytest.fixture(scope="module")
def record() -> Record:
    return make_record()


def test_it_comes_back_as_it_was_written(record: Record, tmp_path: Path) -> None:
    save(record, tmp_path / "a.json")
    assert load(tmp_path / "a.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_summaries_follow_from_the_raw_samples(record: Record) -> None:
    from edge_reclass_bench.statistics import summarise

    for measure in record.measures:
        again = summarise(measure.samples, measure.tracks, measure.passes, resamples=200)
        assert again == measure.summary, measure.key


def _write(tmp_path: Path, record: Record, change: Any) -> Path:
    plain = msgspec.to_builtins(record)
    change(plain)
    (tmp_path / "a.json").write_text(json.dumps(plain))
    return tmp_path / "a.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(kind="other"), "expected a record of bench run"),
        (lambda p: p.update(format=2), "key format: expected 1, got 2"),
        (lambda p: p.update(extra=1), "unknown field `extra`"),
        (lambda p: p["settings"].pop("jobs"), "missing required field `jobs`"),
        (lambda p: p["measures"][0]["samples"].append(1.0), "passes for 121 samples"),
        (lambda p: p["measures"][0]["samples"].__setitem__(0, "fast"), r"\$.measures\[0\].samples\[0\]"),
        (lambda p: p["measures"][0]["tracks"].__setitem__(0, 99), "a track number is not below 12"),
        (lambda p: p["measures"].append(p["measures"][0]), "is there twice"),
        (lambda p: p["answers"][0]["probabilities"].pop(), "expected 12 rows, one per track, got 11"),
        (lambda p: p["answers"][0]["probabilities"][0].pop(), "expected 3 probabilities per row"),
        (lambda p: p["accounting"]["flow"][0]["reach"].update(total=0), "total"),
    ],
)
def test_what_is_no_record_is_refused(record: Record, tmp_path: Path, change: Any, message: str) -> None:
    path = _write(tmp_path, record, change)
    with pytest.raises(UsageError, match=message) as refused:
        load(path)
    assert str(path) in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kind": 3}', "\udcff".encode("utf-8", "surrogateescape")])
def test_another_file_is_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError):
        load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.json")


def test_a_record_that_is_not_valid_is_not_written(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    bad = msgspec.structs.replace(record.measures[0], samples=[float("nan")] * len(record.measures[0].samples))
    with pytest.raises(EdgeReclassError, match="samples must be finite"):
        save(msgspec.structs.replace(record, measures=[bad]), path)
    assert path.read_text() == "before"


def test_a_folder_is_no_output(record: Record, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="got a folder"):
        save(record, tmp_path)
    with pytest.raises(UsageError, match="cannot be written"):
        save(record, tmp_path / "none" / "a.json")


def test_measures_are_found_by_what_they_are(record: Record) -> None:
    found = list(record.find("stage", "single:mert", clock="device"))
    assert [measure.part for measure in found] == ["copy_in", "compute", "copy_out"]
    assert {measure.phase for measure in record.find("single-stream", phase=None)} == {"cold", "warm"}
    assert found[0].key == "stage/single:mert/mert/copy_in/warm/device"
