"""Tracks that kill: marks, suspects, quarantine; and what is committed when."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edge_reclass import WorkerLimits
from edge_reclass.errors import Status
from edge_reclass.library import hashing
from edge_reclass.library.basis import Again, Basis
from edge_reclass.library.recording import Recorder, find_suspects
from edge_reclass.library.scanning import look
from edge_reclass.library.state import State
from edge_reclass.library.update import classify_work
from edge_reclass.run import LaneRunner, Track, TrackSearch
from edge_reclass.verdict import ExcerptSeen, StageReport, Verdict
from libraries import Library, library, small_bundle

__all__ = ["library", "small_bundle"]

NOTHING_AGAIN = Again()
BASIS = Basis("digest", "ladder", "min_confidence=None")


class Died(BaseException):
    """The whole process died: nothing is written any more."""


class Scripted:
    """A runner that gives each track the status that was asked for; ``log`` says in which order tracks were taken."""

    def __init__(self, statuses: dict[str, Status] | None = None, log: list[str] | None = None, name: str = "") -> None:
        self.statuses, self.log, self.name = statuses or {}, [] if log is None else log, name
        self.read_ahead = 2

    def verdicts(self, tracks: Iterable[Track], came: object = None) -> Iterator[Verdict]:
        waiting: list[Track] = []
        for track in tracks:
            self.log.append(f"{self.name}{track.path.name}")
            waiting.append(track)
            if len(waiting) > self.read_ahead:
                yield self._verdict(waiting.pop(0))
        yield from map(self._verdict, waiting)

    def one(self, track: Track) -> Verdict:
        return next(self.verdicts([track]))

    def _verdict(self, track: Track) -> Verdict:
        status = self.statuses.get(track.path.name, Status.OK)
        made = Verdict(str(track.path), status, "test", "ladder", size=track.size, mtime_ns=track.mtime_ns)
        if status == Status.OK:
            return replace(made, genre="Alpha", confidence=0.9)
        return replace(made, error=f"it {status}")

    def finished(self) -> Iterator[Verdict]:
        return iter(())

    def cancel(self) -> int:
        return 0

    def close(self, timeout: float | None = None) -> bool:
        return True


class Written:
    """A sink and observer that keeps what it was given."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def write(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)

    def finish(self) -> None: ...
    def stop(self) -> None: ...
    def wrote(self, verdict: Verdict) -> None: ...
    def stopping(self, error: BaseException, running: int) -> None: ...
    def stopped(self, error: BaseException, kept: str | None) -> None: ...


def classify(
    library: Library, runner: Scripted, alone: Scripted | None = None, again: Again = NOTHING_AGAIN
) -> Written:
    written = Written()
    with State.open(library.file, create=True) as state:
        find_suspects(state)
        work = look(state, [library.music], BASIS, again)
        classify_work(state, work, BASIS, runner, written, written, again=again, alone=alone and alone.one)
    return written


def die(library: Library, during: str) -> None:
    """A process that dies by SIGKILL while ``during`` is in progress."""
    pid = os.fork()
    if pid == 0:
        runner = Scripted()
        verdict = runner._verdict

        def fatal(track: Track) -> Verdict:
            if track.path.name == during:
                os.kill(os.getpid(), 9)
            return verdict(track)

        runner._verdict = fatal  # type: ignore[method-assign]
        classify(library, runner)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9


@pytest.fixture
def six(tmp_path: Path, small_bundle: Path) -> Library:
    made = Library(tmp_path, small_bundle)
    for name in "abcdef":
        made.add(f"{name}.wav")
    return made


def test_suspects_come_first_each_alone(six: Library) -> None:
    die(six, "c.wav")
    log: list[str] = []
    written = classify(six, Scripted(log=log), Scripted(log=log, name="alone "))
    # In progress were c, d and e; a and b had their verdicts.
    assert log == ["alone c.wav", "alone d.wav", "alone e.wav", "f.wav"]
    assert len(written.verdicts) == 4
    assert not classify(six, Scripted()).verdicts


def test_only_the_death_of_its_own_worker_counts(six: Library) -> None:
    for _ in range(3):
        die(six, "c.wav")
    dies = {"c.wav": Status.CRASHED}
    first = classify(six, Scripted(), Scripted(dies))
    assert [v.status for v in first.verdicts if v.path.endswith("c.wav")] == ["crashed"]
    assert not [v for v in first.verdicts if v.failed and not v.path.endswith("c.wav")]
    second = classify(six, Scripted({"c.wav": Status.TIMEOUT}))
    assert [v.status for v in second.verdicts] == ["quarantined"]
    assert "timeout" in second.verdicts[0].error and "--retry-failed" in second.verdicts[0].error
    assert not classify(six, Scripted(dies)).verdicts
    assert six.rows()["c.wav"].status == "quarantined"


@pytest.mark.parametrize("why", ["asked", "file", "program"])
def test_what_ends_a_quarantine(six: Library, why: str) -> None:
    dies = {"c.wav": Status.CRASHED}
    classify(six, Scripted(dies))
    classify(six, Scripted(dies))
    assert six.rows()["c.wav"].status == "quarantined"
    if why == "file":
        six.add("c.wav", seed=77, seconds=1.2)
    if why == "program":
        with State.open(six.file, write=True) as state:
            state.connection.execute("UPDATE track SET program = 'older' WHERE status = 'quarantined'")
    again = Again(failed=why == "asked")
    assert [v.status for v in classify(six, Scripted(dies), again=again).verdicts] == ["crashed"]  # counts anew
    assert [v.status for v in classify(six, Scripted(), again=again).verdicts] == ["ok"]


def test_an_orderly_end_leaves_no_suspects(six: Library) -> None:
    class Interrupted(Scripted):
        def _verdict(self, track: Track) -> Verdict:
            if track.path.name == "c.wav":
                raise KeyboardInterrupt
            return super()._verdict(track)

    with pytest.raises(KeyboardInterrupt):
        classify(six, Interrupted())
    with State.open(six.file, create=True) as state:
        assert find_suspects(state) == 0
    assert [Path(v.path).name for v in classify(six, Scripted()).verdicts] == ["c.wav", "d.wav", "e.wav", "f.wav"]


def test_verdicts_are_on_the_disk_within_a_second(six: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still but for the tracks, of half a second each: every second commit is synced."""
    clock = [0.0]
    monkeypatch.setattr("edge_reclass.library.recording.time.monotonic", lambda: clock[0])
    said: list[str] = []

    class Slow(Scripted):
        def _verdict(self, track: Track) -> Verdict:
            clock[0] += 0.5
            return super()._verdict(track)

    written = Written()
    with State.open(six.file, create=True) as state:
        work = look(state, [six.music], BASIS)
        state.connection.set_trace_callback(said.append)
        runner = Slow()
        runner.read_ahead = 0
        classify_work(state, work, BASIS, runner, written, written)
    unsynced, most, synced = 0, 0, True
    for before, statement in pairwise(["", *said]):
        if statement == before:  # a trigger: it is told again
            continue
        if statement.startswith("PRAGMA synchronous"):
            synced = statement.endswith("FULL")
        elif "INSERT INTO track" in statement and "first_seen" in statement and "audio_hash" in statement:
            unsynced += 1
        elif statement == "COMMIT":
            unsynced = 0 if synced else unsynced
            most = max(most, unsynced)
    assert most == 1 and unsynced == 0


def test_a_file_that_changes_while_it_is_read_gets_no_hash_of_its_new_sound(six: Library) -> None:
    """Else its new sound would look like the old one with new tags."""

    class Late(Scripted):
        def _verdict(self, track: Track) -> Verdict:
            verdict = super()._verdict(track)
            six.add(track.path.name, seed=99, seconds=1.3)
            return verdict

    classify(six, Late())
    assert len(classify(six, Scripted()).verdicts) == 6


class Lanes:
    """A pool of two lanes that gives what a scripted runner says; a.wav takes until ``go``."""

    def __init__(self) -> None:
        self.cascades = [None, None]
        self.lanes = 2
        self.go = threading.Event()
        self.done: list[str] = []
        self._threads = ThreadPoolExecutor(2)

    def submit(self, track: Track) -> Future[Verdict]:
        return self._threads.submit(self._classify, track)

    def _classify(self, track: Track) -> Verdict:
        if track.path.name == "a.wav":
            assert self.go.wait(120)
        self.done.append(track.path.name)
        return Scripted().one(track)

    def close(self, timeout: float | None = None) -> bool:
        return True


def test_what_is_done_is_kept_while_a_slow_track_is_at_work(six: Library) -> None:
    """And only what is at work, and what is next, is marked; given are the verdicts in order."""
    for name in ("g.wav", "h.wav", "i.wav", "j.wav", "k.wav", "l.wav"):
        six.add(name)
    pool, kept, marked = Lanes(), [0], [99]

    def look_while_it_runs() -> None:
        with sqlite3.connect(f"file:{six.file}?mode=ro", uri=True) as db:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                (kept[0],) = db.execute("SELECT count(*) FROM track WHERE verdict IS NOT NULL").fetchone()
                (marked[0],) = db.execute("SELECT count(*) FROM track WHERE running_pid IS NOT NULL").fetchone()
                if kept[0] == len(pool.done) >= 8:
                    break
                pool.go.wait(0.05)
        pool.go.set()

    written = Written()
    with State.open(six.file, create=True) as state:
        work = look(state, [six.music], BASIS)
        looking = threading.Thread(target=look_while_it_runs)
        looking.start()
        classify_work(state, work, BASIS, LaneRunner(pool), written, written)  # type: ignore[arg-type]
        looking.join()
    assert kept == [8] and marked[0] <= 3
    assert [Path(verdict.path).stem for verdict in written.verdicts] == list("abcdefghijkl")


def test_what_came_reaches_the_disk_while_nothing_more_comes(six: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("edge_reclass.library.recording.time.monotonic", lambda: clock[0])
    with State.open(six.file, create=True) as state:
        (track, *_) = look(state, [six.music], BASIS).tracks
        recorder = Recorder(state, BASIS, NOTHING_AGAIN)
        recorder.mark(track)
        recorder.keep(track, Scripted().one(track), 0)
        recorder.wait()
        assert six.rows()[track.path.name].status == "ok"
        wal = six.file.with_name(six.file.name + "-wal").stat().st_size
        clock[0] += 1.0
        said: list[str] = []
        state.connection.set_trace_callback(said.append)
        recorder.wait()
        assert [line for line in said if "checkpoint" in line] and wal
        said.clear()
        recorder.wait()
        assert not said
        recorder.end(complete=True)


def test_no_other_bundle_brings_back_what_the_file_is_to_blame_for(six: Library) -> None:
    dies = {"c.wav": Status.CRASHED, "d.wav": Status.CORRUPT, "e.wav": Status.ERROR}
    classify(six, Scripted(dies))
    classify(six, Scripted(dies))
    other = Basis("another", "fast", "min_confidence=0.5")
    with State.open(six.file, create=True) as state:
        names = {track.path.name for track in look(state, [six.music], other).all_tracks}
    assert names == {"a.wav", "b.wav", "e.wav", "f.wav"}


def test_embeddings_stay_while_the_file_does(six: Library) -> None:
    report = StageReport("fma", "Alpha", 0.9, 1.0, ExcerptSeen(0.0, 1.0), embedding=b"\0\0")

    def keep(again: Again, basis: Basis = BASIS) -> int:
        with State.open(six.file, create=True) as state:
            (track,) = (track for track in TrackSearch([six.music]) if track.path.name == "a.wav")
            recorder = Recorder(state, basis, again)
            recorder.keep(track, replace(Scripted().one(track), stages=(report,)), 0)
            recorder.end(complete=True)
            return int(state.connection.execute("SELECT count(*) FROM embedding").fetchone()[0])

    assert keep(Again(embeddings=True)) == keep(NOTHING_AGAIN) == 1
    assert keep(NOTHING_AGAIN, Basis("another", "ladder", "")) == 1
    assert keep(Again(embeddings=True), Basis("another", "ladder", "")) == 2
    six.add("a.wav", seed=50, seconds=1.5)
    assert keep(NOTHING_AGAIN) == 0


def correct(library: Library, name: str, genre: str) -> None:
    with State.open(library.file, write=True) as state:
        track = state.track(library.music / name)
        assert track is not None
        state.correct(track.id, genre)


def corrections(library: Library) -> dict[str, str]:
    return {name: row.corrected for name, row in library.rows().items() if row.corrected is not None}


@pytest.mark.parametrize("first", ["a.wav", "b.wav"])
def test_a_correction_follows_the_sound_when_files_change_places(six: Library, first: str) -> None:
    classify(six, Scripted())
    correct(six, first, "Jazz")
    aside = six.root / "aside"
    (six.music / "a.wav").rename(aside)
    (six.music / "b.wav").rename(six.music / "a.wav")
    aside.rename(six.music / "b.wav")
    classify(six, Scripted())
    assert corrections(six) == {"b.wav" if first == "a.wav" else "a.wav": "Jazz"}


def test_a_correction_is_set_aside_until_its_sound_comes_back(six: Library) -> None:
    classify(six, Scripted())
    correct(six, "a.wav", "Jazz")
    jazz = (six.music / "a.wav").read_bytes()
    six.add("a.wav", seed=70, seconds=1.2)
    classify(six, Scripted())
    assert corrections(six) == {}
    (six.music / "came back.wav").write_bytes(jazz)
    classify(six, Scripted())
    assert corrections(six) == {"came back.wav": "Jazz"}


def test_a_correction_holds_for_every_name_of_a_file(six: Library) -> None:
    six.add("z.wav", seed=60)
    (six.music / "1.wav").symlink_to(six.music / "z.wav")
    classify(six, Scripted())
    correct(six, "z.wav", "Jazz")
    assert corrections(six) == {"1.wav": "Jazz", "z.wav": "Jazz"}
    (six.music / "2.wav").symlink_to(six.music / "z.wav")  # its verdict is known
    classify(six, Scripted())
    (six.music / "3.wav").symlink_to(six.music / "z.wav")
    classify(six, Scripted(), again=Again(everything=True))
    assert corrections(six) == dict.fromkeys(("1.wav", "2.wav", "3.wav", "z.wav"), "Jazz")


def test_a_file_that_crashes_or_hangs_the_hash_is_classified(six: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """New content at a known path is hashed before anything is marked: it must not cost the run."""
    classify(six, Scripted())
    hashing.close_idle()
    harm = "audio_hash = lambda path: os.abort() if path.endswith('a.wav') else signal.pause()\nfor line"
    monkeypatch.setattr(hashing, "_CODE", hashing._CODE.replace("for line", harm))
    monkeypatch.setattr(hashing, "DEFAULT_LIMITS", WorkerLimits(0.5))
    for seed, name in enumerate(("a.wav", "b.wav")):
        six.add(name, seed=80 + seed, seconds=1.2)
    assert len(classify(six, Scripted()).verdicts) == 2
    hashing.close_idle()
    assert six.rows()["a.wav"].status == "ok"


def test_a_run_that_is_stopped_waits_for_no_hash(six: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    hashing.close_idle()
    monkeypatch.setattr(hashing, "_CODE", "import time; time.sleep(60)  # {path}")
    with State.open(six.file, create=True) as state:
        (track, *_) = look(state, [six.music], BASIS).tracks
        recorder = Recorder(state, BASIS, NOTHING_AGAIN)
        recorder.hash_later(track, Scripted().one(track))
        began = time.monotonic()
        recorder.end(complete=False)
    assert time.monotonic() - began < 50
