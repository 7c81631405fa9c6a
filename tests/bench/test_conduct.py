"""Processes until it is precise enough; everything kept as it comes; a stop or a crash loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.fakes import FakeClock, verdict_of
from bench.sample import MACHINE, make_record
from edge_reclass.errors import DeviceError, EdgeReclassError, UsageError
from edge_reclass_bench.conduct import Reporter, conduct, headlines, process_events
from edge_reclass_bench.journal import Header, Journal, read
from edge_reclass_bench.record import PolicyRecord, Record, Run, Settings, StepRecord, save
from edge_reclass_bench.scenarios.context import Broke, Event, Key, Opened, Passed, Ran, Sample, Verdicts, Warned

NAMES = ["a.wav", "b.wav"]
TRACK = Key("single-stream", "cascade", "track")


def header_of(**changes: Any) -> Header:
    settings = {"processes": 5, "precision": 0.02, "max_seconds": 100.0, "min_passes": 1, "warm_up": 1}
    return Header(
        bundle="made",
        bundle_sha256="a" * 64,
        genres=["Alpha", "Beta", "Gamma"],
        needs={"one": ()},
        policy=PolicyRecord(name="p", vote="soft", steps=[StepRecord(after="one", weights={"one": 1.0})]),
        device="auto",
        machine=MACHINE,
        data_sha256="b" * 64,
        data_digest_of="content",
        synthetic=False,
        names=NAMES,
        labels=["Alpha", None],
        settings=Settings(**(settings | changes), jobs=1, threads=1, batch=16, seed=7),  # type: ignore[arg-type]
        environment=environment(),
        warnings=["from the beginning"],
    )


def environment() -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(make_record().environment)
    return plain


def events(process: int, value: float = 100.0) -> Iterator[Event]:
    """One process: opened, its first verdicts, one pass over both tracks, and done."""
    yield Opened("cpu", ["a note"], {"one": "fp32"}, {}, {"one": "30 s"})
    yield Verdicts("cascade", [verdict_of(Path(name), {"one": value}).to_dict() for name in NAMES])
    yield Passed("cascade", 0, 0.2, [Sample(TRACK, value, 0), Sample(TRACK, 2 * value, 1)])
    yield Ran(
        Run(
            scenario="single-stream",
            subject="cascade",
            wall_seconds=0.2,
            warm_up=1,
            passes=1,
            count=2,
            cpu_seconds=0.1,
            other_cpu=0.1 * process,
            host_peak_bytes=100 + process,
        )
    )
    yield Warned("as always")


def test_processes_are_put_together() -> None:
    record = conduct(header_of(), lambda process, _: events(process), environment)
    (measure,) = record.measures
    assert measure.processes == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert measure.samples == [100.0, 200.0] * 5
    (run,) = record.runs
    assert (run.passes, run.count, run.host_peak_bytes) == (5, 10, 104)
    assert run.cpu_seconds == pytest.approx(0.5)
    assert run.other_cpu == pytest.approx(0.2)
    assert record.subject.device == "cpu"  # what auto chose
    assert [(track.name, track.label, track.genre) for track in record.tracks] == [
        ("a.wav", "Alpha", "Alpha"),
        ("b.wav", None, "Alpha"),
    ]
    assert record.warnings == ["from the beginning", "as always (5 processes)"]
    assert record.complete


def test_more_processes_until_the_error_is_small_enough() -> None:
    generator = np.random.default_rng(0)
    record = conduct(header_of(), lambda p, _: events(p, 100 * float(np.exp(generator.normal(0, 0.05)))), environment)
    count = max(record.measures[0].processes) + 1
    assert 5 < count < 200


def test_time_ends_it_before_that() -> None:
    clock = FakeClock()

    def slow(process: int, seconds: float) -> Iterator[Event]:
        assert seconds <= 100.0
        clock.sleep(30.0)
        yield from events(process, 100.0 * (1 + process))

    said: list[str] = []
    record = conduct(header_of(), slow, environment, reporter=Reporter(said.append, clock=clock))
    assert max(record.measures[0].processes) + 1 == 4  # begun at 0, 30, 60 and 90 s of 100
    assert "five processes or more" in said[-1]


def test_what_is_done_once_comes_last_and_takes_nothing_of_the_processes_time() -> None:
    clock, order = FakeClock(), []

    def repeated(process: int, seconds: float) -> Iterator[Event]:
        order.append((process, seconds))
        clock.sleep(10.0)
        yield from events(process)

    def once() -> Iterator[Event]:
        order.append(("once", 0.0))
        clock.sleep(1000.0)
        yield Passed("cascade", 0, 1.0, [Sample(Key("build", "cascade", "total", unit="s"), 1.0)])

    said: list[str] = []
    reporter = Reporter(progress=said.append, clock=clock)
    record = conduct(header_of(precision=1.0), repeated, environment, once=once, reporter=reporter)
    assert order == [(0, 20.0), (1, 22.5), (2, 80.0 / 3), (3, 35.0), (4, 60.0), ("once", 0.0)]
    tracks, build = record.measures
    assert (set(tracks.processes), build.processes) == ({0, 1, 2, 3, 4}, [0])
    assert any("once: build" in text for text in said)


def test_where_nothing_is_repeated_there_is_one_process() -> None:
    record = conduct(header_of(), None, environment, once=lambda: events(0))
    assert set(record.measures[0].processes) == {0}


def test_a_verdict_that_differs_between_processes_is_told() -> None:
    def fickle(process: int, _: float) -> Iterator[Event]:
        for event in events(process):
            if isinstance(event, Verdicts) and process == 3:
                event.verdicts[1]["genre"] = "Beta"
            yield event

    record = conduct(header_of(), fickle, environment)
    assert "cascade: 1 of 2 tracks got another verdict in another process" in record.warnings


def test_every_event_is_on_the_disk_at_once(tmp_path: Path) -> None:
    output, seen = tmp_path / "r.json", []

    def watched(process: int, _: float) -> Iterator[Event]:
        for event in events(process):
            yield event
            if isinstance(event, Passed):
                seen.append(read(tmp_path / "r.json.partial"))

    record = conduct(header_of(), watched, environment, output=output)
    assert [len(partial.measures[0].samples) for partial in seen] == [2, 4, 6, 8, 10]
    assert not any(partial.complete for partial in seen)
    assert record.measures == seen[-1].measures


def test_a_last_line_that_is_cut_off_is_left_out(tmp_path: Path) -> None:
    with Journal(tmp_path / "r.json", header_of()) as journal:
        for event in events(0):
            journal.add(event, 0)
    path = tmp_path / "r.json.partial"
    path.write_bytes(path.read_bytes()[:-10])
    assert read(path).measures[0].samples == [100.0, 200.0]
    path.write_bytes(b"{}")
    with pytest.raises(UsageError, match="cannot be read as what a run left"):
        read(path)


def _left(tmp_path: Path) -> list[bytes]:
    with Journal(tmp_path / "r.json", header_of()) as journal:
        for event in events(0):
            journal.add(event, 0)
    return (tmp_path / "r.json.partial").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (1, b'"gen', b'"men', "line 1"),
        (3, b'"genre"', b'"none"', "cannot be read as what a run left"),
        (3, b"[0,", b"[null,", "line 3"),
        (3, b'"stages":[', b'"stages":[7,', "cannot be read as what a run left"),
        (4, b"{", b"[", "line 4"),
        (4, b"1]]", b"9]]", "a track number is not below 2"),
        (5, b'"passes":1', b'"passes":-1', "line 5"),
    ],
)
def test_a_partial_file_that_was_tampered_with_is_refused(
    tmp_path: Path, line: int, old: bytes, new: bytes, message: str
) -> None:
    lines = _left(tmp_path)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    (tmp_path / "r.json.partial").write_bytes(b"".join(lines))
    with pytest.raises(UsageError, match=message) as raised:
        read(tmp_path / "r.json.partial")
    assert "r.json.partial" in str(raised.value)


def test_what_another_run_left_is_not_written_over(tmp_path: Path) -> None:
    before = _left(tmp_path)
    with pytest.raises(UsageError, match=r"r\.json\.partial: holds what a run measured"):
        conduct(header_of(), lambda p, _: events(p), environment, output=tmp_path / "r.json")
    assert (tmp_path / "r.json.partial").read_bytes() == b"".join(before)


def test_nothing_stays_where_nothing_was_measured(tmp_path: Path) -> None:
    def broken(process: int, _: float) -> Iterator[Event]:
        yield next(events(process))
        yield Broke("the GPU is lost", 5)

    with pytest.raises(DeviceError):
        conduct(header_of(), broken, environment, output=tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_gives_what_was_measured() -> None:
    def stopped(process: int, _: float) -> Iterator[Event]:
        yield from events(process)
        if process == 1:
            raise KeyboardInterrupt

    said: list[str] = []
    record = conduct(header_of(), stopped, environment, reporter=Reporter(said.append))
    assert not record.complete
    assert max(record.measures[0].processes) == 1
    assert "interrupted" in said[-1]


def test_ctrl_c_before_anything_is_one() -> None:
    def stopped(process: int, _: float) -> Iterator[Event]:
        yield next(events(process))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conduct(header_of(), stopped, environment)


def test_what_a_process_ends_with_ends_the_run(tmp_path: Path) -> None:
    def lost(process: int, _: float) -> Iterator[Event]:
        yield from events(process)
        yield Broke("the GPU is lost", 5)

    with pytest.raises(DeviceError, match="the GPU is lost"):
        conduct(header_of(), lost, environment)
    with pytest.raises(DeviceError, match=r"kept: edge-reclass bench report .*r\.json\.partial"):
        conduct(header_of(), lost, environment, output=tmp_path / "r.json")
    assert read(tmp_path / "r.json.partial").measures[0].samples == [100.0, 200.0]


def test_ctrl_c_before_the_bundle_is_open_gives_what_was_measured() -> None:
    def starting(process: int, _: float) -> Iterator[Event]:
        yield Passed("cascade", 0, 1.0, [Sample(Key("cold-start", "cascade", "total"), 900.0)])
        raise KeyboardInterrupt

    record = conduct(header_of(), starting, environment)
    assert (record.complete, record.measures[0].samples, record.subject.device) == (False, [900.0], "auto")


def test_a_sample_that_no_record_can_hold_is_left_out_with_one_warning(tmp_path: Path) -> None:
    other = TRACK._replace(part="other")

    def short(process: int, _: float) -> Iterator[Event]:
        yield from events(process)
        yield Passed("cascade", 1, 0.2, [Sample(TRACK, 1e-8, 0), Sample(TRACK, 5.0, 1), Sample(other, -1.0, 0)])

    record = conduct(header_of(), short, environment)
    assert record.measures[0].samples == [100.0, 200.0, 5.0] * 5
    assert record.measures[1].samples == [-1.0] * 5
    assert [text for text in record.warnings if "left out" in text] == [
        f"{TRACK.name}: 5 samples are no number above 0, too short for the clock or measured wrongly, and were left out"
    ]
    save(record, tmp_path / "r.json")
    assert TRACK.name == record.measures[0].key


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    def never(process: int, _: float) -> Iterator[Event]:
        raise AssertionError(process)
        yield

    with pytest.raises(UsageError, match="cannot be written"):
        conduct(header_of(), never, environment, output=tmp_path / "none" / "r.json")


def test_headlines_are_what_users_wait_for() -> None:
    found = {measure.key for measure in headlines(make_record().measures)}
    assert "single-stream/cascade/-/track/warm/host" in found
    assert "stage/single:fma/fma/total/warm/host" in found
    assert "cold-start/cascade/-/total/warm/host" in found
    assert not any("/cold/" in key or "/head/" in key or "librosa" in key for key in found)


def test_a_process_that_dies_without_a_word_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dying.py").write_text("import os, sys\nsys.stdin.read()\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EdgeReclassError, match="exit code 7"):
        list(process_events("dying", {}))
    (tmp_path / "dying.py").write_text("import os\nos._exit(7)\n")  # before it has read its task
    with pytest.raises(EdgeReclassError, match="exit code 7"):
        list(process_events("dying", {"paths": ["x" * 1000] * 1000}))


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        ("KeyError('mert')", EdgeReclassError, "KeyError: 'mert'"),
        ("OSError(28, 'No space left')", EdgeReclassError, "No space left"),
        ("DeviceError('gone')", DeviceError, "gone"),
        ("KeyboardInterrupt", EdgeReclassError, "exit code 130"),
    ],
)
def test_whatever_a_process_meets_is_an_error_and_no_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    raised: str,
    kind: type[EdgeReclassError],
    message: str,
) -> None:
    (tmp_path / "failing.py").write_text(
        "from edge_reclass.errors import DeviceError\nfrom edge_reclass_bench.worker import serve\n"
        f"def work(task):\n    raise {raised}\n    yield\nserve(dict, work)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(kind, match=message):
        for event in process_events("failing", {}):
            raise {5: DeviceError}.get(event.exit_code, EdgeReclassError)(event.message)
    assert "Traceback" not in capfd.readouterr().err


SLOW = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bench.test_conduct import environment, events, header_of
from edge_reclass_bench.conduct import conduct
import time

def endless(process, seconds):
    yield from events(process)
    print("passed", flush=True)
    time.sleep(60)

conduct(header_of(), endless, environment, output=Path(sys.argv[1]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_kill_leaves_what_was_measured(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", SLOW, str(tmp_path / "r.json"), tests]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "passed\n"
        process.send_signal(signal.SIGKILL)
    record: Record = read(tmp_path / "r.json.partial")
    assert (record.complete, record.measures[0].samples) == (False, [100.0, 200.0])
