"""Scans on the one writer, without HTTP: what is done in between, what ends them, and that they go on."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from edge_reclass import CascadePool, load_bundle
from edge_reclass.errors import EdgeReclassError, StateBusyError
from edge_reclass.library import Basis, State, Wanted
from edge_reclass_service.keeping import writer as writing
from edge_reclass_service.keeping.running import Running
from edge_reclass_service.keeping.scans import DifferentRequestError, Scans
from edge_reclass_service.keeping.wire import Scan, ScanRequest
from edge_reclass_service.keeping.writer import Writer
from libraries import Library, library, small_bundle

__all__ = ["library", "small_bundle"]

PATIENCE = 120.0


class Held:
    """A pool of which a track waits until it is let go."""

    def __init__(self, pool: CascadePool, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.reached, self.go, self.classified = threading.Event(), threading.Event(), list[str]()
        classify = pool._classify

        def waiting(path: str | os.PathLike[str]) -> Any:
            if name in os.fspath(path) and not self.go.is_set():
                self.reached.set()
                assert self.go.wait(PATIENCE)
            self.classified.append(Path(path).name)
            return classify(path)

        monkeypatch.setattr(pool, "_classify", waiting)


@contextmanager
def keeping(
    library: Library, pool: CascadePool, *roots: Path, said: list[str] | None = None
) -> Iterator[tuple[Writer, Scans]]:
    said = [] if said is None else said
    failed: list[BaseException] = []
    writer = Writer(library.file, Path("/nowhere.sock"), failed.append, said.append)
    basis = Basis.of(load_bundle(library.bundle), pool.plan.policy, None)
    scans = Scans(writer, basis, [library.music, *roots], lambda: nullcontext(pool))
    writer.start()
    writer.do(scans.resume)
    try:
        yield writer, scans
    finally:
        assert writer.stop(PATIENCE)
    assert not failed


@pytest.fixture
def pool(library: Library) -> Iterator[CascadePool]:
    with CascadePool.open(1, library.bundle) as opened:
        yield opened


def scan_when(writer: Writer, scans: Scans, number: int, is_so: Callable[[Scan], bool]) -> Scan:
    until = threading.Event()
    for _ in range(int(PATIENCE * 50)):
        scan = writer.do(lambda state: scans.one(state, number)).result(PATIENCE)
        assert scan is not None
        if is_so(scan):
            return scan
        until.wait(0.02)
    raise AssertionError(scan)


def ended(writer: Writer, scans: Scans, number: int) -> Scan:
    return scan_when(writer, scans, number, lambda scan: scan.ended is not None)


def add(writer: Writer, scans: Scans, request: ScanRequest = ScanRequest(), key: str | None = None) -> int:  # noqa: B008
    return writer.do(lambda state: scans.add(state, request, key)).result(PATIENCE)[0]


def test_a_scan_classifies_and_says_what_it_found(library: Library, pool: CascadePool) -> None:
    with keeping(library, pool) as (writer, scans):
        first = ended(writer, scans, add(writer, scans))
        assert (first.status, first.paths, first.since) == ("done", [str(library.music)], 0)
        assert (first.counts.found, first.counts.to_do, first.counts.done, first.counts.failed) == (3, 3, 3, 0)
        again = ended(writer, scans, add(writer, scans))
        assert (again.counts.to_do, again.counts.unchanged, again.since) == (0, 3, 3)
        redone = ended(writer, scans, add(writer, scans, ScanRequest(redo=True)))
        assert (redone.counts.done, redone.counts.unchanged) == (3, 0)
        rows, _, _ = writer.do(lambda state: state.changes(again.since, Wanted(scan=redone.id), 9)).result(PATIENCE)
        assert len(rows) == 3


def test_a_key_names_one_request(library: Library, pool: CascadePool) -> None:
    with keeping(library, pool) as (writer, scans):
        one = add(writer, scans, key="a")
        assert add(writer, scans, key="a") == one
        assert add(writer, scans, key="b") != one
        with pytest.raises(DifferentRequestError, match="scan 1"):
            add(writer, scans, ScanRequest(redo=True), "a")


def test_short_jobs_are_done_while_a_track_is_slow(
    library: Library, pool: CascadePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(pool, monkeypatch, "two")
    with keeping(library, pool) as (writer, scans):
        number = add(writer, scans)
        assert held.reached.wait(PATIENCE)
        scan_when(writer, scans, number, lambda scan: scan.status == "running" and scan.counts.done == 1)
        path = library.music / "album/one.flac"

        def correct(state: State) -> None:
            row = state.track(path)
            assert row is not None
            state.correct(row.id, "Gamma")

        writer.do(correct).result(PATIENCE)
        held.go.set()
        assert ended(writer, scans, number).counts.done == 3
        row = writer.do(lambda state: state.track(path)).result(PATIENCE)
        assert row is not None and row.corrected == "Gamma"


def test_a_scan_that_is_taken_back_ends_at_the_next_track(
    library: Library, pool: CascadePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(pool, monkeypatch, "one")
    with keeping(library, pool) as (writer, scans):
        number, waits = add(writer, scans), add(writer, scans)
        assert held.reached.wait(PATIENCE)
        for one in (number, waits):
            writer.do(lambda state, one=one: scans.cancel(state, one)).result(PATIENCE)
        held.go.set()
        assert ended(writer, scans, number).status == "cancelled"
        assert ended(writer, scans, waits).began is None
        assert ended(writer, scans, add(writer, scans)).status == "done"


@pytest.mark.parametrize("redo", [False, True])
def test_what_a_stop_cut_off_goes_on_at_the_next_start(
    library: Library, pool: CascadePool, monkeypatch: pytest.MonkeyPatch, redo: bool
) -> None:
    if redo:
        with keeping(library, pool) as (writer, scans):
            ended(writer, scans, add(writer, scans))
    held = Held(pool, monkeypatch, "two")
    with keeping(library, pool) as (writer, scans):
        number = add(writer, scans, ScanRequest(redo=redo))
        assert held.reached.wait(PATIENCE)
        assert not writer.stop(0)  # it has begun to stop
        held.go.set()
    with State.open(library.file) as state:
        assert state.connection.execute("SELECT status FROM scan WHERE id = ?", (number,)).fetchone() == ("running",)
    with keeping(library, pool) as (writer, scans):
        scan = ended(writer, scans, number)
        assert (scan.status, scan.counts.done, scan.counts.to_do, scan.counts.found) == ("done", 3, 3, 3)
        assert scan.counts.unchanged == 0
    assert sorted(held.classified) == ["one.flac", "three.wav", "two.flac"]  # each once


def test_a_loan_interrupts_a_scan_and_the_borrower_writes(
    library: Library, pool: CascadePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(pool, monkeypatch, "two")
    with keeping(library, pool) as (writer, scans):
        with pytest.raises(StateBusyError) as busy:
            State.open(library.file, write=True)
        assert busy.value.socket == "/nowhere.sock"
        number = add(writer, scans)
        assert held.reached.wait(PATIENCE)
        loan = writer.lend("process 1")
        held.go.set()
        loan.granted.result(PATIENCE)
        assert writer.lent_to == "process 1"
        waiting = writer.do(lambda state: state.last_change())
        with State.open(library.file, write=True) as state:
            row = state.track(library.music / "album/one.flac")
            assert row is not None
            state.correct(row.id, "Beta")
            loan.give_back()  # a moment before we are done: the lock decides
            assert not waiting.done()
        assert ended(writer, scans, number).counts.done == 3
        assert writer.lent_to is None and waiting.result(PATIENCE) >= 3
    assert sorted(held.classified) == ["one.flac", "three.wav", "two.flac"]
    assert library.rows()["album/one.flac"].corrected == "Beta"


def test_a_folder_that_is_not_there_takes_nothing_away_and_stops_no_other(library: Library, pool: CascadePool) -> None:
    other = library.root / "other"
    other.mkdir()
    with keeping(library, pool, other) as (writer, scans):
        both = ScanRequest(paths=[str(library.music), str(other)])
        assert ended(writer, scans, add(writer, scans, both)).status == "done"
        away = library.music.rename(library.root / "away")
        library.music.mkdir()
        (away / "three.wav").rename(other / "new.wav")
        scan = ended(writer, scans, add(writer, scans, both))
        assert scan.status == "failed" and "not mounted?" in (scan.error or "")
        assert scan.counts.done + scan.counts.moved == 1
    assert {name: row.absent_since for name, row in library.rows().items()} == dict.fromkeys(
        ["album/one.flac", "album/two.flac", "../other/new.wav"] + ["three.wav"] * (scan.counts.done)
    )


def test_what_links_lead_to_outside_of_the_roots_is_left_out(library: Library, pool: CascadePool) -> None:
    """Files, folders, and a folder that was exchanged for a link after it was asked for."""
    library.add("inside.wav", seed=1)
    library.add("album/b.wav", seed=2)
    outside = library.root / "outside"
    outside.mkdir()
    shutil.copy(library.music / "inside.wav", outside / "secret.wav")
    (library.music / "a-link.wav").symlink_to(outside / "secret.wav")
    (library.music / "folder").symlink_to(outside)
    (library.music / "same.wav").symlink_to("inside.wav")
    album = library.music / "album"
    album.rename(library.root / "away")
    album.symlink_to(library.root / "away")
    with keeping(library, pool) as (writer, scans):
        done = ended(writer, scans, add(writer, scans))
        assert (done.status, done.counts.outside) == ("done", 3)
        reason = "it leads out of the roots"
        expected = [(str(library.music / name), reason) for name in ("a-link.wav", "album", "folder")]
        assert sorted(map(tuple, done.problems)) == expected
        named = ended(writer, scans, add(writer, scans, ScanRequest(paths=[str(album), str(album / "b.wav")])))
        assert (named.counts.found, named.counts.outside) == (0, 2)
        known = writer.do(lambda state: [row.file.name for row in state.tracks(Wanted())]).result(PATIENCE)
        assert sorted(known) == ["inside.wav", "same.wav", "three.wav"]


def test_a_full_disk_puts_a_scan_back_and_it_goes_on_when_there_is_room(
    library: Library, pool: CascadePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_PAUSE", 0.1)
    said: list[str] = []
    with keeping(library, pool, said=said) as (writer, scans):
        number = add(writer, scans)
        ended(writer, scans, number)

        def fill(state: State) -> int:
            """As on a full disk, no page is to be had."""
            (pages,) = state.connection.execute("PRAGMA page_count").fetchone()
            state.connection.execute(f"PRAGMA max_page_count = {pages}")
            return int(scans.add(state, ScanRequest(redo=True), None)[0])

        state_writes = "CREATE TRIGGER full BEFORE UPDATE ON scan BEGIN INSERT INTO filler VALUES (zeroblob(9999)); END"
        writer.do(lambda state: state.connection.execute("CREATE TABLE filler (x)")).result(PATIENCE)
        writer.do(lambda state: state.connection.execute(state_writes)).result(PATIENCE)
        number = writer.do(fill).result(PATIENCE)
        until = threading.Event()
        for _ in range(int(PATIENCE * 50)):
            if writer.trouble is not None:
                break
            until.wait(0.02)
        assert "disk is full" in (writer.trouble or "")
        until.wait(0.5)  # some tries
        with State.open(library.file) as state:
            scan = scans.one(state, number)
        assert scan is not None and scan.status == "waiting"
        loan = writer.lend("process 1")
        loan.granted.result(PATIENCE)
        loan.give_back()
        writer.do(lambda state: state.connection.execute("DROP TRIGGER full")).result(PATIENCE)
        writer.do(lambda state: state.connection.execute("PRAGMA max_page_count = 1000000")).result(PATIENCE)
        scan = ended(writer, scans, number)
        assert (scan.status, scan.counts.done) == ("done", 3)
        assert writer.trouble is None
    assert len([text for text in said if "disk is full" in text]) == 1
    assert "can be written again" in said[-1]


def test_a_scan_that_is_taken_back_at_its_last_track_stays_cancelled(
    library: Library, pool: CascadePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeping(library, pool) as (writer, scans):
        run = Running.run

        def run_then_cancel(running: Running, state: State, *more: Any) -> None:
            run(running, state, *more)
            scans.cancel(state, running.id)

        monkeypatch.setattr(Running, "run", run_then_cancel)
        scan = ended(writer, scans, add(writer, scans))
        assert (scan.status, scan.counts.done) == ("cancelled", 3)


def test_a_state_that_was_moved_away_while_it_was_lent_is_an_error(library: Library) -> None:
    failed: list[BaseException] = []
    writer = Writer(library.file, None, failed.append)
    writer.start()
    loan = writer.lend("process 1")
    loan.granted.result(PATIENCE)
    library.file.rename(library.root / "away")
    loan.give_back()
    writer._thread.join(PATIENCE)
    assert "there is no such state file" in str(failed[0])
    assert not library.file.exists()


def test_a_service_that_stops_while_it_waits_for_a_borrower_ends(library: Library) -> None:
    said: list[str] = []
    with State.open(library.file, create=True):
        writer = Writer(library.file, None, lambda _: None, said.append)

        def start() -> None:
            with pytest.raises(EdgeReclassError):
                writer.start()

        starting = threading.Thread(target=start)
        starting.start()
        for _ in range(int(PATIENCE * 50)):
            if writer.lent_to is not None:
                break
            starting.join(0.02)
        assert f"process {os.getpid()}" in (writer.lent_to or "")
        assert writer.stop(PATIENCE)
        starting.join(PATIENCE)
        assert not starting.is_alive() and "is at work on the state" in said[0] and len(said) == 1
