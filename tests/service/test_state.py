"""The state of a running service, over HTTP and by the commands that write it: one writer, and nothing is lost."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from command import Done, run
from edge_reclass.cli.review import SentAnswers
from edge_reclass.cli.serving import writable
from edge_reclass.client import Client
from edge_reclass.errors import StateBusyError
from edge_reclass.library import State, Wanted
from edge_reclass.library.review.queue import Queue
from libraries import Library, library, small_bundle
from served import PATIENCE, Served, serving

__all__ = ["library", "small_bundle"]


def serve(library: Library, *options: object, **settings: Any) -> AbstractContextManager[Served]:
    given = ("--root", library.music, "--state", library.file, "--bundle", library.bundle, "--workers", 1)
    return serving(library.root, *given, *options, **settings)


def eventually(is_so: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE
    while not (found := is_so()):
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)
    return found


def scanned(client: Client, **options: Any) -> Any:
    number = client.start_scan(**options).id
    return eventually(lambda: (scan := client.scan(number)).over and scan)


def names(library: Library, verdicts: Any) -> list[str]:
    return [os.path.relpath(one["path"] if isinstance(one, dict) else one, library.music) for one in verdicts]


def classify(library: Library, *options: object) -> Done:
    """``classify --state`` as a user calls it beside a service: what the service decides is left out."""
    return run("classify", library.music, "--state", library.file, "-f", "jsonl", *options)


def lines(done: Done) -> dict[str, Any]:
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    return {verdict["path"]: verdict for verdict in verdicts}


def counted(served: Served) -> float:
    """Tracks that /metrics says were classified."""
    found = re.findall(r"^edge_reclass_tracks_total\{.*\} (\S+)$", served.get("/metrics").body.decode(), re.MULTILINE)
    return sum(map(float, found))


class Stream:
    """Events of a service, read by hand."""

    def __init__(self, served: Served, last: int | None, since: int | None = None) -> None:
        self._connection = served.connect()
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        self._connection.request("GET", "/v1/events" + ("" if since is None else f"?since={since}"), headers=headers)
        self.response = self._connection.getresponse()
        assert self.response.status == 200

    def __iter__(self) -> Iterator[dict[str, str]]:
        event: dict[str, str] = {}
        while line := self.response.readline().decode():
            if line == "\n":
                if event:
                    yield event
                event = {}
            elif not line.startswith(":"):
                name, _, value = line.rstrip("\n").partition(": ")
                event[name] = value

    def verdicts(self, most: int) -> Iterator[tuple[int, str]]:
        """Cursor and path of each, until there were so many."""
        for event in self:
            if event["event"] == "verdict":
                yield int(event["id"]), json.loads(event["data"])["path"]
                most -= 1
            if not most:
                return

    def close(self) -> None:
        self.response.close()
        self._connection.close()


def test_a_scan_and_what_came_of_it(library: Library) -> None:
    odd = os.fsdecode(b"odd \xe9.wav")
    library.add("odd.wav").rename(library.music / odd)
    with serve(library) as served:
        client = Client(served.socket)
        first = served.ask("POST", "/v1/scans", {}, {"Idempotency-Key": "once"})
        assert (first.status, first.headers["location"]) == (202, "/v1/scans/1")
        assert served.ask("POST", "/v1/scans", {}, {"Idempotency-Key": "once"}).json["id"] == 1
        assert served.ask("POST", "/v1/scans", {"redo": True}, {"Idempotency-Key": "once"}).kind == "key"
        too_long = served.ask("POST", "/v1/scans", {}, {"Idempotency-Key": "k" * 256})
        assert (too_long.status, too_long.kind) == (400, "key")
        scan = eventually(lambda: (now := client.scan(1)).over and now)
        assert (scan.status, scan.counts["done"], scan.counts["found"]) == ("done", 4, 4)
        assert [one["id"] for one in served.get("/v1/scans").json["scans"]] == [1]

        page = served.get("/v1/verdicts?limit=3").json
        assert page["more"] and page["next"] == 3
        rest = served.get("/v1/verdicts?since=3").json
        assert (len(rest["verdicts"]), rest["next"], rest["more"]) == (1, 4, False)
        assert sorted(names(library, page["verdicts"] + rest["verdicts"])) == sorted(
            ["album/one.flac", "album/two.flac", odd, "three.wav"]
        )
        assert served.get(f"/v1/verdicts?path_prefix={library.music}/album/").json["next"] == 4
        assert len(served.get(f"/v1/verdicts?path_prefix={library.music}/album/").json["verdicts"]) == 2
        for refused in ("/v1/verdicts?since=5", "/v1/events?since=5"):
            assert (served.get(refused).status, served.get(refused).kind) == (410, "cursor")
        assert served.get("/v1/events", **{"Last-Event-ID": "5"}).kind == "cursor"
        assert served.get("/v1/verdicts?status=nonsense").status == served.get("/v1/verdicts?since=x").status == 400

        three = library.music / "three.wav"
        verdict = client.track(three).verdict
        assert verdict is not None and verdict.genre == "Alpha"
        client.correct(three, "Gamma")
        client.correct(library.music / odd, "Gamma")
        changes = list(client.verdicts(4))
        assert [(change.corrected, change.verdict.genre) for change in changes] == [("Gamma", "Gamma")] * 2
        client.uncorrect(three)
        assert client.track(three).verdict == verdict and client.track(three).corrected is None
        assert served.ask("PUT", "/v1/corrections", {"path": str(three), "genre": "\x07"}).status == 400
        assert served.ask("PUT", "/v1/corrections", {"path": "/nowhere", "genre": "Rock"}).kind == "unknown-track"
        nul = base64.b64encode(os.fsencode(three) + b"\0").decode()
        assert served.ask("PUT", "/v1/corrections", {"path_bytes": nul, "genre": "Rock"}).kind == "unknown-track"
        assert served.ask("PUT", "/v1/corrections", {"genre": "Rock"}).status == 400

        for outside in ("/etc", str(library.music / "../bundle"), str(library.root)):
            assert served.ask("POST", "/v1/scans", {"paths": [outside]}).kind == "outside-roots"
        (library.music / "out").symlink_to("/etc")
        assert served.ask("POST", "/v1/scans", {"paths": [str(library.music / "out")]}).kind == "outside-roots"
        assert served.ask("POST", "/v1/scans", {"paths": ["music"]}).status == 400
        assert counted(served) == 4
        assert served.get("/v1/scans/99").kind == served.ask("DELETE", "/v1/scans/99").kind == "unknown-scan"
        assert served.stop() == 0


def test_events_go_on_where_they_were_cut_off(library: Library) -> None:
    for number in range(9):
        library.add(f"more/{number}.wav")
    with serve(library) as served:
        stream = Stream(served, None, since=0)
        client = Client(served.socket)
        pages: list[list[str]] = []

        def follow() -> None:
            own, cursor = list[str](), 0
            until = time.monotonic() + PATIENCE
            while len(own) < 12 and time.monotonic() < until:
                page = served.get(f"/v1/verdicts?since={cursor}&limit=2").json
                own += names(library, page["verdicts"])
                cursor = page["next"]
            pages.append(own)

        readers = [threading.Thread(target=follow) for _ in range(2)]
        for reader in readers:
            reader.start()
        client.start_scan()
        seen = list(stream.verdicts(4))
        stream.close()
        cursor = seen[-1][0]
        again = Stream(served, cursor, since=0)  # what a browser sends wins over the address
        seen += again.verdicts(8)
        assert [number for number, _ in seen] == list(range(1, 13))
        assert len({path for _, path in seen}) == 12
        ended = next(event for event in again if event["event"] == "scan" and json.loads(event["data"])["ended"])
        assert json.loads(ended["data"])["counts"]["done"] == 12
        for reader in readers:
            reader.join(PATIENCE)
        assert [len(set(own)) for own in pages] == [len(own) for own in pages] == [12, 12]

        began = time.monotonic()
        assert served.stop() == 0  # although a stream is open
        assert again.response.read() == b""
        assert time.monotonic() - began < PATIENCE
        again.close()


def test_a_scan_that_a_kill_cut_off_goes_on_and_each_track_comes_once(library: Library) -> None:
    for number in range(20):
        library.add(f"more/{number}.wav")
    seen: list[tuple[int, str]] = []
    with serve(library) as served:
        stream = Stream(served, None, since=0)
        Client(served.socket).start_scan(redo=True)
        seen += stream.verdicts(3)
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(PATIENCE)
        stream.close()
    with serve(library) as served:
        client = Client(served.socket)
        scan = eventually(lambda: (now := client.scan(1)).over and now)
        assert (scan.status, scan.counts["done"], scan.counts["to_do"]) == ("done", 23, 23)
        changes = list(client.verdicts(seen[-1][0]))
        # What was recorded and not told when the kill came, and what came after.
        paths = Counter([path for _, path in seen] + [change.verdict.path for change in changes])
        assert set(paths.values()) == {1} and len(paths) == 23
        assert client.scan(1).since == 0
    assert {row.scan for row in library.rows().values()} == {1}


def test_classify_beside_a_service_gives_the_same_verdicts(library: Library) -> None:
    (library.music / "bad.mp3").write_bytes(b"no audio" * 100)
    alone = Library(library.root / "alone", library.bundle)
    expected = run(
        *("classify", library.music, "--state", library.root / "alone.state", "--bundle", alone.bundle, "-f", "jsonl")
    )
    with serve(library) as served:
        got = classify(library)
        assert got.returncode == expected.returncode == 3
        assert "scans" in got.stderr and str(served.socket) in got.stderr
        one, other = lines(expected), lines(got)
        assert one.keys() == other.keys() and len(one) == 4
        for path, verdict in one.items():
            for name in ("status", "genre", "confidence", "decided_by", "reason", "top", "size", "mtime_ns", "error"):
                assert other[path][name] == verdict[name], name
        again = classify(library)
        assert (again.returncode, again.stdout) == (0, "")
        assert "verdicts kept: 4 unchanged" in again.stderr
        assert len(lines(classify(library, "--redo"))) == 4
        assert classify(library, "--policy", "fma-first").returncode == 2
        assert "the service decides that" in classify(library, "--workers", 2).stderr
        outside = run("classify", "/etc", "--state", library.file)
        assert outside.returncode != 0 and "below a root" in outside.stderr
    assert classify(library, "--bundle", library.bundle).stdout == ""  # alone again: nothing is left to do


def test_a_root_that_is_not_mounted_takes_nothing_away_and_a_second_service_is_refused(library: Library) -> None:
    with serve(library) as served:
        client = Client(served.socket)
        assert scanned(client).counts["done"] == 3
        library.music.rename(library.root / "away")
        scan = scanned(client)
        assert scan.status == "failed" and "3 tracks below it are known" in scan.error
        ran = classify(library)
        assert ran.returncode == 2 and "not there" in ran.stderr
        library.music.mkdir()
        assert "not mounted?" in scanned(client).error
        assert all(row.absent_since is None for row in library.rows(Wanted(absent=None)).values())
        library.music.rmdir()
        (library.root / "away").rename(library.music)
        assert scanned(client).status == "done"

        watched = run("watch", library.music, "--state", library.file, "--bundle", library.bundle)
        assert watched.returncode == 2 and "--watch" in watched.stderr
        with serve(library, ready=False) as second:
            assert second.process.wait(PATIENCE) == 2
            assert f"process {served.process.pid}" in second.said()


def test_what_writes_in_other_ways_borrows_the_state_and_answers_are_sent(library: Library) -> None:
    with serve(library) as served:
        client = Client(served.socket)
        scanned(client)
        with State.open(library.file) as state:
            queue = Queue(state, below=1.0, answers=SentAnswers(state, str(served.socket)))
            assert len(queue) == 3
            first = queue.track
            queue.correct("Beta")
            queue.skip()
            assert queue.back() is not None and state.skipped() == set()
            queue.skip()
            assert first is not None and state.tracks_by_id([first.id])[first.id].corrected == "Beta"
            assert len(state.skipped()) == 1
        assert [change.corrected for change in client.verdicts(3)] == ["Beta"]

        kept = run("library", "forget", library.file, library.music / "album")
        assert kept.returncode == 0 and "waits until this is done" in kept.stderr
        assert len(list(client.verdicts())) == 1
        with client.borrow_state():
            news = eventually(lambda: served.ask("PUT", "/v1/skipped", {"path": str(library.music / "three.wav")}))
            assert news.kind == "state-busy" and f"process {os.getpid()}" in news.json["detail"]
            assert news.headers["retry-after"]
        assert served.ask("PUT", "/v1/skipped", {"path": str(library.music / "three.wav")}).json["skipped"]
        assert scanned(client).counts["done"] == 2
        assert run("library", "vacuum", library.file).returncode == 0

        connection = served.connect()  # a borrower that dies
        connection.request("POST", "/v1/state/lend")
        response = connection.getresponse()
        assert response.readline() == b"lent\n"
        with State.open(library.file, write=True):
            connection.close()
            response.close()
        assert scanned(client).counts["to_do"] == 0


def test_a_restart_while_the_state_is_lent_waits_for_the_borrower(library: Library, short: Path) -> None:
    three = library.music / "three.wav"
    correction = {"path": str(three), "genre": "Gamma"}
    with ExitStack() as borrowed:
        with serve(library, at=short / "s.sock") as served:
            client = Client(served.socket)
            assert scanned(client).counts["done"] == 3
            borrowed.enter_context(writable(library.file))
            assert served.stop() == 0
        with serve(library, at=short / "s.sock") as again:
            assert client.classify(three).genre == "Alpha"
            assert len(list(client.verdicts())) == 3
            refused = again.ask("PUT", "/v1/corrections", correction)
            assert (refused.status, refused.kind) == (503, "state-busy")
            assert f"process {os.getpid()}" in refused.json["detail"] and "is at work on the state" in again.said()
            with serve(library, ready=False) as other:
                assert other.process.wait(PATIENCE) == 2  # the service that lent the state is there
            borrowed.close()
            eventually(lambda: again.ask("PUT", "/v1/corrections", correction).status == 200)
            assert client.track(three).corrected == "Gamma"
            assert again.stop() == 0


def test_while_the_state_is_lent_the_lock_names_the_service_that_others_ask(library: Library) -> None:
    with serve(library) as served, writable(library.file):
        with pytest.raises(StateBusyError) as busy:
            State.open(library.file, write=True)
        assert busy.value.socket == str(served.socket)


def test_a_service_that_watches_classifies_what_comes_and_lends_the_state(library: Library) -> None:
    pytest.importorskip("watchdog", reason="--watch needs the extra [watch]")
    with serve(library, "--watch", "--settle", 0.2) as served:
        client = Client(served.socket)

        def known() -> set[str]:
            return set(names(library, [change.verdict.path for change in client.verdicts()]))

        eventually(lambda: len(known()) == 3)
        eventually(lambda: counted(served) == 3)
        library.add("album/new.wav")
        eventually(lambda: "album/new.wav" in known())
        assert run("library", "forget", library.file, library.music / "three.wav").returncode == 0
        library.add("album/newer.wav")
        eventually(lambda: "album/newer.wav" in known())
        assert scanned(client).counts["done"] == 1  # what was forgotten
        library.music.rename(library.root / "away")
        eventually(lambda: "waiting for it" in served.said())
        assert all(change.absent_since is None for change in client.verdicts())
        (library.root / "away").rename(library.music)
        library.add("album/newest.wav")
        eventually(lambda: "album/newest.wav" in known())
        assert served.stop() == 0
    assert "Traceback" not in served.said()


def test_a_tag_plan_is_approved_over_http_and_carried_out_by_the_command(library: Library) -> None:
    pytest.importorskip("mutagen", reason="tags need the extra [tags]")
    before = {file: file.read_bytes() for file in library.music.rglob("*.*")}
    with serve(library) as served:
        client = Client(served.socket)
        scanned(client)
        for file in before:
            file.chmod(0o444)  # as the service's user sees them
        asked = served.ask("POST", "/v1/tag-plans", {"paths": [str(library.music / "album")]})
        assert (asked.status, asked.headers["location"]) == (202, "/v1/tag-plans/1")
        seen = eventually(lambda: (now := served.get("/v1/tag-plans/1").json)["plan"]["status"] == "ready" and now)
        assert [(step["before"], step["genres"], step["outcome"]) for step in seen["steps"]] == [
            ([], ["Alpha"], None)
        ] * 2
        for file in before:
            file.chmod(0o644)
        assert "no tag plan is approved" in run("tag", library.file, "--apply-approved").stderr
        assert served.ask("POST", "/v1/tag-plans/1/approve").json["status"] == "approved"
        assert served.ask("POST", "/v1/tag-plans/1/approve").kind == "plan"
        assert served.ask("POST", "/v1/tag-plans/9/approve").kind == "unknown-plan"
        assert {file: file.read_bytes() for file in before} == before  # the service has written nothing
        client.correct(library.music / "album/two.flac", "Beta")  # not what was approved
        done = run("tag", library.file, "--apply-approved")
        assert done.returncode == 3 and "1 file written, 1 left as they were" in done.stderr
        assert "it would get Beta now, and Alpha was approved" in done.stderr
        assert (library.music / "album/one.flac").read_bytes() != before[library.music / "album/one.flac"]
        plan = served.get("/v1/tag-plans").json["plans"][0]
        assert (plan["status"], plan["run"]) == ("applied", 1)
        assert scanned(client).counts["to_do"] == 0  # our own writing is no reason to classify again
        undone = run("tag", library.file, "--undo", "--run", plan["run"])
        assert undone.returncode == 0 and "waits until this is done" in undone.stderr
    assert {file: file.read_bytes() for file in before} == before
    with serve(library, "--write-tags") as served:
        served.ask("POST", "/v1/tag-plans", {})
        eventually(lambda: served.get("/v1/tag-plans/2").json["plan"]["status"] == "ready")
        served.ask("POST", "/v1/tag-plans/2/approve")
        seen = eventually(lambda: (now := served.get("/v1/tag-plans/2").json)["plan"]["status"] == "applied" and now)
        assert {step["outcome"] for step in seen["steps"]} == {"written"} and len(seen["steps"]) == 3


def test_streams_that_come_at_once_are_counted_together(library: Library) -> None:
    """More than 16 are told to come again; the places of those that went are free."""
    with serve(library) as served:
        connections = [served.connect() for _ in range(24)]
        for one in connections:
            one.request("GET", "/v1/events")
        assert sorted(one.getresponse().status for one in connections) == [200] * 16 + [503] * 8
        for one in connections:
            one.close()

        def is_free() -> bool:
            connection = served.connect()
            connection.request("GET", "/v1/events")
            status = connection.getresponse().status
            connection.close()
            return status == 200

        eventually(is_free)
