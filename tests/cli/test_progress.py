"""How a run says how it goes: the rate, the time left, the bar and the lines of JSON."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from command import bundle, music, run, songs
from edge_reclass.cli import progress as module
from edge_reclass.cli.pace import Pace
from edge_reclass.cli.progress import Progress
from edge_reclass.run.output import Output
from edge_reclass.verdict import ExcerptSeen, StageReport, Verdict

__all__ = ["bundle", "music", "songs"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answer(stage: str, *seconds: float) -> Verdict:
    stages = tuple(StageReport(stage, "Rock", 0.9, 1000 * one, ExcerptSeen(0, 30)) for one in seconds)
    return Verdict("a.mp3", "ok", "b", "p", "Rock", 0.9, stage, stages=stages)


SILENT = Verdict("a.mp3", "silent", "b", "p")


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.per_minute is None
    for _ in range(30):
        clock.now += 1
        pace.add(answer("fma", 0.5))
    assert pace.per_minute == 60
    clock.now += 15
    assert pace.per_minute == pytest.approx(40)
    clock.now += 60
    assert pace.per_minute == 0
    clock.now += 1
    pace.add(SILENT)
    assert pace.per_minute == 1


def test_cheap_tracks_at_the_start_do_not_promise_an_early_end() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(900):
        clock.now += 0.01
        pace.add(SILENT)
    assert pace.seconds_left(1000) is None, "nothing is known of what music costs"
    for _ in range(10):
        clock.now += 2
        pace.add(answer("mert", 2.0))
    assert pace.seconds_left(1000) == pytest.approx(2000), "elapsed / done would say 32 s"
    assert pace.seconds_left(0) == 0


def test_the_time_left_is_cost_by_stage_and_reach_and_tracks_at_a_time() -> None:
    clock = Clock()
    pace = Pace(clock)
    for i in range(400):  # two at a time: half of the work's seconds pass
        verdict = answer("fma", 1.0) if i % 4 else answer("mert", 1.0, 4.0)
        clock.now += (1.0 if i % 4 else 5.0) / 2
        pace.add(verdict)
    assert pace.seconds_left(100) == pytest.approx(100 * (0.75 * 1 + 0.25 * 5) / 2)
    for _ in range(100):  # the machine gets slower: what a stage costs is what it cost lately
        clock.now += 1
        pace.add(answer("fma", 2.0))
    assert pace.seconds_left(100) == pytest.approx(100 * (0.8 * 2 + 0.2 * 5) / 2, rel=0.01)


def progress(kind: str, total: int | None) -> Progress:
    return Progress(kind, total, Output(io.StringIO(), "test"))


def test_json_comes_each_second_also_while_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr("sys.stderr", told)
    monkeypatch.setattr(module, "_JSON_SECONDS", 0.02)
    shown = progress("json", None)
    shown.add(answer("fma", 0.1))
    shown.add(Verdict("b.mp3", "corrupt", "b", "p"))
    while told.getvalue().count("\n") < 3:
        pass
    shown.total, shown.unchanged = 5, 40
    shown.close()
    shown.close()
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    assert lines[2] | {"seconds": 0} == {
        "event": "progress",
        "total": None,
        "done": 2,
        "left": None,
        "failed": 1,
        "unchanged": 0,
        "tracks_per_minute": None,
        "seconds": 0,
        "seconds_left": None,
        "statuses": {"ok": 1, "corrupt": 1},
        "decided_by": {"fma": 1},
    }
    assert [line["event"] for line in lines[-2:]] == ["progress", "end"]
    assert (lines[-1]["left"], lines[-1]["unchanged"]) == (3, 40)


def test_the_bar_says_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Size:
        columns = 100

    monkeypatch.setattr("os.get_terminal_size", lambda *_: Size)
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    monkeypatch.setattr("sys.stderr.fileno", lambda: 2, raising=False)
    shown = progress("none", 8)
    clock = Clock()
    shown.pace = Pace(clock)
    for stage in ("fma", "fma", "mert", "fma"):
        clock.now += 15
        shown.add(answer(stage, 15.0))
    shown.add(Verdict("b.mp3", "corrupt", "b", "p"))
    line = shown._line()
    assert re.fullmatch("classify ━+╌+ 5/8, 0:00:45 left, 5/min, 1 failed, fma 75% mert 25%", line), line
    assert len(line) <= 99
    Size.columns = 44
    assert re.fullmatch("classify ━+╌+ 5/8, 0:00:45 left", shown._line()), shown._line()
    Size.columns = 12
    assert len(shown._line()) < 12
    Size.columns, shown.total = 100, None
    assert shown._line() == "classify 5 done, 5/min, 1 failed, fma 75% mert 25%"


def test_progress_of_a_run(bundle: Path, songs: Path) -> None:
    done = run("classify", songs, "--bundle", bundle, "--progress", "json", "-f", "jsonl")
    assert done.returncode == 0
    (end,) = (json.loads(line) for line in done.stderr.splitlines() if '"event": "end"' in line)
    assert (end["total"], end["done"], end["left"], end["failed"], end["seconds_left"]) == (2, 2, 0, 0, 0.0)
    assert len(done.stdout.splitlines()) == 2
    assert '"event"' not in run("classify", songs, "--bundle", bundle, "--progress", "none").stderr
    done = run("classify", songs, "--progress", "loud")
    assert (done.returncode, "expected one of bar, json, none, got 'loud'" in done.stderr) == (2, True)
