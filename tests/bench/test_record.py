"""A record survives its file, and a file that is none, or was changed, is refused with what is wrong."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.sample import make_record
from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass_bench.record import Record, digest_of, load, save


@pytest.fixture(scope="module")
def record() -> Record:
    return make_record()


def test_it_comes_back_as_it_was_written(record: Record, tmp_path: Path) -> None:
    save(record, tmp_path / "a.json")
    assert load(tmp_path / "a.json") == msgspec.structs.replace(record, digest=digest_of(msgspec.to_builtins(record)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_it_holds_nothing_that_follows_from_its_samples(record: Record) -> None:
    plain = msgspec.to_builtins(record)
    assert not {"summary", "accounting", "orders"} & {*plain, *plain["measures"][0]}


def write(tmp_path: Path, record: Record, change: Any) -> Path:
    """With a digest that fits what is written, as far as that can be computed."""
    plain = msgspec.to_builtins(record)
    change(plain)
    with contextlib.suppress(msgspec.ValidationError, TypeError):
        plain["digest"] = digest_of(plain)
    (tmp_path / "a.json").write_text(json.dumps(plain))
    return tmp_path / "a.json"


def halve(plain: dict[str, Any]) -> None:
    plain["measures"][0]["samples"] = [value / 2 for value in plain["measures"][0]["samples"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(kind="other"), "expected a record of bench run"),
        (lambda p: p.update(format=1), "key format: expected 2, got 1"),
        (lambda p: p.update(extra=1), "unknown field `extra`"),
        (lambda p: p["settings"].pop("jobs"), "missing required field `jobs`"),
        (lambda p: p["measures"][0]["samples"].append(1.0), "expected 241 passes for 241 samples, got 240"),
        (lambda p: p["measures"][0]["processes"].pop(), "processes for 240 samples, got 239"),
        (lambda p: p["measures"][0]["samples"].__setitem__(0, "fast"), r"\$.measures\[0\].samples\[0\]"),
        (lambda p: p["measures"][0]["samples"].__setitem__(0, 0.0), "samples must be finite and above 0"),
        (lambda p: p["measures"][0]["samples"].__setitem__(0, -1.0), "samples must be finite and above 0"),
        (lambda p: p["measures"][0]["tracks"].__setitem__(0, 99), "a track number is not below 12"),
        (lambda p: p["measures"].append(p["measures"][0]), "duplicate stage/single:fma"),
        (lambda p: p["answers"][0]["genres"].pop(), "expected 12 genres, one per track, got 11"),
        (lambda p: p["answers"][2]["probabilities"][0].pop(), "expected 3 probabilities per row"),
        (lambda p: p["measures"][0]["tracks"].clear(), "expected a track for each sample, got none"),
        (lambda p: p["files"][0].update(agrees=13), "mert in fp32 agrees on 13 of 12 tracks"),
        (lambda p: p["settings"].update(seed=-1), "seed"),
        (lambda p: p["subject"]["machine"].update(cores=0), "cores"),
        (lambda p: p["environment"].update(load_before=[]), "load_before"),
        (lambda p: p["series"][0]["seconds"].reverse(), "its times do not rise"),
        (lambda p: p["series"][0]["values"]["watts"].pop(), "watts has 80 values for 81 seconds"),
    ],
)
def test_what_is_no_record_is_refused(record: Record, tmp_path: Path, change: Any, message: str) -> None:
    path = write(tmp_path, record, change)
    with pytest.raises(UsageError, match=message) as refused:
        load(path)
    assert str(path) in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_key_that_a_later_schema_adds_leaves_older_records_valid(record: Record, tmp_path: Path) -> None:
    def older(plain: Any) -> None:
        for track in plain["tracks"]:
            del track["windows"]

    assert load(write(tmp_path, record, older)).tracks == record.tracks


def test_what_was_edited_is_refused(record: Record, tmp_path: Path) -> None:
    save(record, tmp_path / "a.json")
    plain = json.loads((tmp_path / "a.json").read_text())
    halve(plain)
    (tmp_path / "a.json").write_text(json.dumps(plain))
    with pytest.raises(UsageError, match="its digest does not match: it was changed"):
        load(tmp_path / "a.json")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"kind": 3}', "\udcff".encode("utf-8", "surrogateescape")]
)
def test_another_file_is_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError):
        load(path)
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
    found = list(record.find(scenario="stage", subject="single:mert", stage="mert"))
    assert [measure.part for measure in found] == ["resample", "fill", "run", "head", "policy", "total"]
    assert {measure.phase for measure in record.find(phase=None, scenario="cold-start")} == {"cold", "warm"}
    assert found[0].key == "stage/single:mert/mert/resample/warm/host"
