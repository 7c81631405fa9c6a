"""What is kept between calls, and what is done again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gpu_check.journal import Journal, NotHere, load_record, mark_crashed, write_atomically
from gpu_check.settings import Settings


def journal(path: Path, seconds: float = 60.0) -> Journal:
    return Journal(path, "stage", label="a test", deadline=time.time() + seconds, say=lambda line: None)


def unreachable() -> None:
    pytest.fail("this item was done before")


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    file = tmp_path / "stage.json"
    first = journal(file)
    assert first.do("one", lambda: {"value": 1}) == {"value": 1}
    assert first.finish() == "ok"
    second = journal(file)
    assert second.do("one", unreachable) == {"value": 1}
    assert second.result("one") == {"value": 1} and second.result("two") is None


def test_a_failure_is_kept_with_its_traceback_and_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "stage.json"

    def fails() -> None:
        raise ValueError("not today")

    first = journal(file)
    assert first.do("one", fails) is None
    assert first.do("two", lambda: 2) == 2
    assert first.finish() == "failed"
    item = load_record(file)["items"]["one"]  # type: ignore[index]
    assert item["error"] == "ValueError: not today" and "in fails" in "\n".join(item["traceback"])
    second = journal(file)
    assert second.do("one", lambda: 1) == 1
    assert second.finish() == "ok"


def test_what_is_not_here_is_no_failure(tmp_path: Path) -> None:
    def absent() -> None:
        raise NotHere("no GPU")

    one = journal(tmp_path / "a.json")
    one.do("one", absent)
    assert one.finish() == "not here"
    one.do("two", lambda: 2)
    assert one.finish() == "ok"


def test_wrong_numbers_are_kept_and_fail_the_stage(tmp_path: Path) -> None:
    one = journal(tmp_path / "a.json")
    assert one.do("one", lambda: {"faults": ["cosine 0.5"], "checks": [1]}) == {"faults": ["cosine 0.5"], "checks": [1]}
    assert one.finish() == "failed"
    assert one.items["one"]["status"] == "wrong" and one.items["one"]["result"]["checks"] == [1]


def test_nothing_is_begun_that_does_not_fit_the_time(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    one = journal(file, seconds=10.0)
    one.do("long", unreachable, expect=30.0)
    assert one.do("short", lambda: 1, expect=1.0) == 1
    assert one.finish() == "partial"
    assert load_record(file)["left"] == ["long"]  # type: ignore[index]
    again = journal(file)
    assert again.do("long", lambda: 3, expect=30.0) == 3
    assert again.finish() == "ok"


def test_an_item_in_which_the_process_died_is_not_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "a.json"

    def dies() -> None:
        raise KeyboardInterrupt  # not an Exception: nothing records it, as if the process were gone

    with pytest.raises(KeyboardInterrupt):
        journal(file).do("one", dies)
    mark_crashed(file, "stage", "a test", "signal 11", ["last words"])
    record = load_record(file)
    assert record is not None and record["status"] == "failed" and record["tail"] == ["last words"]
    assert record["items"]["one"] == {"status": "crashed", "error": "signal 11"}
    again = journal(file)
    assert again.do("one", unreachable) is None
    assert again.finish() == "failed"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, "old")
    with pytest.raises(TypeError):
        write_atomically(file, 5)  # type: ignore[arg-type]
    assert file.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_settings_travel_as_json(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "state", tmp_path / "out", "cuda", False, carry=(tmp_path / "base",), jobs=(1, 4))
    assert Settings.from_json(settings.to_json()) == settings
    assert json.loads(settings.to_json())["batches"] == [1, 6, 24, 96]
    assert "not a measurement" in Settings(tmp_path, tmp_path, "cuda", True).label
    assert "not a measurement" in Settings(tmp_path, tmp_path, "cpu", False).label
    assert settings.label == "device: cuda"
