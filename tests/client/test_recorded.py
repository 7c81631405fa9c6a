"""What a real service records: scans, verdicts behind a cursor, corrections, and events across its restart."""

from __future__ import annotations

import asyncio
import inspect
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from client.same import timeless
from edge_reclass import Cascade
from edge_reclass.client import AsyncClient, Change, Client, Event, KnownTrack, Scan
from edge_reclass.errors import EdgeReclassError, RequestRefusedError, ServiceError

PATIENCE = 120.0


def wait_for(came: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not came():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_ready(client: Client) -> bool:
    try:
        return client.ready()["status"] == "ready"
    except ServiceError:
        return False


@contextmanager
def at(socket: Path, folder: Path, tiny: Path, music: Path) -> Iterator[Callable[[int], int]]:
    """A service with a state file at ``socket``; what is given ends it by a signal."""
    pytest.importorskip("uvicorn", reason="the service needs the extra [service]")
    pytest.importorskip("prometheus_client", reason="the service needs the extra [service]")
    from served import serving

    state = folder / "music.state"
    options = ("--socket", socket, "--root", music, "--state", state, "--bundle", tiny, "--workers", 1)
    with serving(folder, *options, ready=False) as served:
        yield served.stop


@pytest.fixture(scope="module")
def client(tiny: Path, music: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with tempfile.TemporaryDirectory(prefix="er-") as short:
        found = Client(f"{short}/s")
        with at(Path(short, "s"), tmp_path_factory.mktemp("state"), tiny, music):
            wait_for(lambda: is_ready(found))
            yield found


@pytest.fixture(scope="module")
def scanned(client: Client) -> Scan:
    scan = client.start_scan(key="the first")
    assert client.start_scan(key="the first").id == scan.id
    wait_for(lambda: client.scan(scan.id).over)
    return client.scan(scan.id)


def test_a_scan_is_followed_to_its_end(client: Client, scanned: Scan) -> None:
    assert scanned.status == "done" and scanned.counts is not None
    assert (scanned.counts["found"], scanned.counts["done"], scanned.counts["failed"]) == (4, 4, 1)
    assert [scan.id for scan in client.scans()] == [scanned.id]
    with pytest.raises(RequestRefusedError) as caught:
        client.scan(999)
    assert caught.value.status == 404
    with pytest.raises(RequestRefusedError) as caught:
        client.start_scan(["/etc"])
    assert caught.value.type.endswith("outside-roots")


def test_what_was_recorded_is_what_the_cascade_says(client: Client, scanned: Scan, tiny: Path, music: Path) -> None:
    with Cascade.open(tiny) as cascade:
        expected = {str(track): timeless(cascade.classify(track)) for track in music.iterdir()}
    changes = list(client.verdicts())
    assert {change.verdict.path: timeless(change.verdict) for change in changes} == expected
    assert [change.cursor for change in changes] == sorted({change.cursor for change in changes})
    assert {change.scan for change in changes} == {scanned.id}
    assert list(client.verdicts(changes[1].cursor)) == changes[2:]
    assert list(client.verdicts(changes[-1].cursor)) == []
    assert [change.verdict.status for change in client.verdicts(genre="Alpha")] == ["ok"] * 3
    track = client.track(music / "a.wav")
    assert (track.cursor, track.verdict) in [(change.cursor, change.verdict) for change in changes]


def test_asyncio_reads_the_same(client: Client, scanned: Scan, music: Path) -> None:
    async def read() -> tuple[list[Change], KnownTrack, list[Scan], list[Event]]:
        other = AsyncClient(client.address.path)
        events = []
        stream = other.events(0)
        async for event in stream:
            events.append(event)
            if len(events) == 5:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return [one async for one in other.verdicts()], await other.track(music / "a.wav"), await other.scans(), events

    changes, track, scans, events = asyncio.run(read())
    assert (changes, track, scans) == (list(client.verdicts()), client.track(music / "a.wav"), client.scans())
    assert [event.name for event in events] == ["state"] + ["verdict"] * 4
    assert [event.change() for event in events[1:]] == changes
    assert [event.cursor for event in events[1:]] == [change.cursor for change in changes]


def test_a_correction_is_a_change(client: Client, scanned: Scan, music: Path) -> None:
    since = max(change.cursor for change in client.verdicts())
    client.correct(music / "a.wav", "Gamma")
    (change,) = client.verdicts(since)
    assert (change.corrected, change.verdict.genre, change.verdict.path) == ("Gamma", "Gamma", str(music / "a.wav"))
    client.uncorrect(music / "a.wav")
    assert client.track(music / "a.wav").corrected is None
    with pytest.raises(RequestRefusedError) as caught:
        client.correct(music / "none.wav", "Gamma")
    assert caught.value.status == 404


def test_the_state_is_lent_and_given_back(client: Client, scanned: Scan, music: Path) -> None:
    with client.borrow_state():
        assert next(islice(client.events(0), 1)).data["lent_to"] is not None
        with pytest.raises(EdgeReclassError):
            Client(client.address.path, patience=0).correct(music / "a.wav", "Beta")
    wait_for(lambda: next(islice(client.events(0), 1)).data["lent_to"] is None)


def test_events_go_on_after_a_kill_and_a_restart(tiny: Path, music: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="er-") as short:
        socket = Path(short, "s")
        client = Client(socket, patience=PATIENCE)
        with at(socket, tmp_path, tiny, music) as end:
            wait_for(lambda: is_ready(client))
            stream = client.events(0)
            client.start_scan()
            before = list(islice((event for event in stream if event.name == "verdict"), 4))
            end(signal.SIGKILL)
        with at(socket, tmp_path, tiny, music):
            wait_for(lambda: is_ready(client))
            client.correct(music / "a.wav", "Beta")
            after = next(event for event in stream if event.name == "verdict")
        assert after.cursor is not None and before[-1].cursor is not None
        assert (after.change().corrected, after.cursor > before[-1].cursor) == ("Beta", True)


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in found if not name.startswith("_")}

    only_sync = {"borrow_state"}
    expected = {name: given for name, given in public(Client).items() if name not in only_sync}
    assert public(AsyncClient) == expected
