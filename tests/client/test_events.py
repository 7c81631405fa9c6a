"""Streams of events: taken apart as they come, and resumed behind the last one."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.scripted import head, problem, saying, serving
from edge_reclass.client import AsyncClient, Client
from edge_reclass.client.events import MOST_EVENT, EventReader
from edge_reclass.errors import RequestRefusedError, ServiceError
from edge_reclass.verdict import Status, Verdict

STREAM = head("200 OK", "Content-Type: text/event-stream")


def event(number: int, name: str = "state") -> bytes:
    return b'event: %b\nid: %d\ndata: {"n": %d}\n\n' % (name.encode(), number, number)


def take(kind: str, path: str, count: int, since: int | None = None, patience: float = 60) -> list[Any]:
    if kind == "sync":
        return list(itertools.islice(Client(path, patience=patience).events(since), count))

    async def collect() -> list[Any]:
        found: list[Any] = []
        stream = AsyncClient(path, patience=patience).events(since)
        async for one in stream:
            found.append(one)
            if len(found) == count:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return found

    return asyncio.run(collect())


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
def test_a_stream_that_is_lost_goes_on_behind_the_last_event(kind: str) -> None:
    with serving(saying(STREAM + event(4) + event(5) + b"id: 6\nevent: sta"), saying(STREAM + event(6))) as service:
        events = take(kind, service.path, 3, since=3)
    assert [(one.name, one.cursor, one.data) for one in events] == [("state", n, {"n": n}) for n in (4, 5, 6)]
    assert b"\r\nLast-Event-ID: 3\r\n" in service.requests[0]
    assert b"\r\nLast-Event-ID: 5\r\n" in service.requests[1]


@both
def test_a_stream_that_stays_lost_is_an_error(kind: str) -> None:
    with serving(saying(STREAM + event(1)), saying(STREAM)) as service, pytest.raises(ServiceError, match="ended"):
        take(kind, service.path, 2, patience=0.5)


@both
def test_a_stream_that_is_refused_is_an_error_at_once(kind: str) -> None:
    refusal = problem("401 Unauthorized", b'{"detail": "no token"}')
    with serving(saying(refusal)) as service, pytest.raises(RequestRefusedError, match="no token"):
        take(kind, service.path, 1)
    assert len(service.requests) == 1


@both
def test_a_service_that_is_not_there_is_an_error_at_once(kind: str) -> None:
    with pytest.raises(ServiceError, match="no such socket"):
        take(kind, "/nowhere/at/all", 1)


TEXT = (
    ': ping\r\n\r\nevent: state\r\nid: 7\r\ndata: {"a":\r\ndata: "ü"}\r\n\r\n'
    ":\n\ndata: 1\n\nevent: x\ndata:[2]\nretry: 5\r\r"
)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_events_are_the_same_however_they_come(sizes: list[int]) -> None:
    content = TEXT.encode()
    reader, events, at = EventReader(), [], 0
    for size in itertools.cycle(sizes):
        events += reader.feed(content[at : at + size])
        at += size
        if at >= len(content):
            break
    events += reader.feed(b"\n")
    assert [(e.name, e.data, e.cursor) for e in events] == [
        ("state", {"a": "ü"}, 7),
        ("message", 1, 7),
        ("x", [2], 7),
    ]


@pytest.mark.parametrize("endless", [b"x" * 65536, b"data: " + b"x" * 65000 + b"\n"], ids=["line", "event"])
def test_an_endless_event_is_refused(endless: bytes) -> None:
    reader = EventReader()
    with pytest.raises(ServiceError, match="more than"):
        for _ in range(2 * MOST_EVENT // len(endless)):
            reader.feed(endless)


@pytest.mark.parametrize("data", [b"data: {\n\n", b"data: " + b"[" * 200_000 + b"\n\n"], ids=["half", "deep"])
def test_an_event_without_json_is_refused(data: bytes) -> None:
    with pytest.raises(ServiceError, match="no JSON"):
        EventReader().feed(data)


def test_many_events_are_no_large_event() -> None:
    reader = EventReader()
    one = b"data: " + b"1" * 3000 + b"\n\ndata: 1"  # ends within the next event
    for _ in range(2 * MOST_EVENT // len(one)):
        assert len(reader.feed(one + b"\n\n")) == 2


def test_an_event_says_what_changed() -> None:
    verdict = Verdict("/m/a.mp3", Status.SILENT, "test", "ladder")
    text = verdict.to_json()[:-1] + ', "cursor": 9, "corrected": null, "absent_since": null, "scan": 3, "new": 1}'
    (one,) = EventReader().feed(f"event: verdict\nid: 9\ndata: {text}\n\n".encode())
    change = one.change()
    assert (change.cursor, change.verdict, change.scan) == (9, verdict, 3)
    with pytest.raises(ServiceError):
        one.scan()
