"""What happens, as it happens: server-sent events that go on where they were cut off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_reclass.library import State, TrackRow, Wanted
from edge_reclass_service.bodies import query_as
from edge_reclass_service.described import Described
from edge_reclass_service.keeping.keeper import Keeper
from edge_reclass_service.keeping.requests import ERRORS, check_cursor, json_of, keeper_of
from edge_reclass_service.keeping.wire import Number, Scan, StateNews, described
from edge_reclass_service.problems import Problem, ProblemBody
from edge_reclass_service.service import Service, service_of

_TICK = 0.25
"""Seconds between looks at what is new: at most four events of a scan's progress a second."""
_PING = 15
_MOST_STREAMS = 16
_PAGE = 200


class Query(msgspec.Struct, frozen=True):
    """``since``: a cursor, of which the verdicts behind it come first; by default, what happens from now on."""

    since: Number | None = None


async def events(request: Request) -> Response:
    """The stream; ``Last-Event-ID``, which a browser sends by itself, wins over ``since``."""
    service, keeper = service_of(request), keeper_of(request)
    since = query_as(request, Query).since
    if (last := request.headers.get("last-event-id")) is not None:
        if not (last.isascii() and last.isdecimal() and len(last) <= 16):
            raise Problem(400, "cursor", f"Last-Event-ID: expected a cursor of this service, got {last[:40]!r}")
        since = int(last)
    if service.stopping.is_set():
        raise Problem(503, "stopping", "the service is being stopped", {"Retry-After": "10"})
    if keeper.streams >= _MOST_STREAMS:
        raise Problem(503, "busy", f"{_MOST_STREAMS} streams of events are open", {"Retry-After": "30"})
    keeper.streams += 1  # before anything is waited for: requests that come together are counted together

    def give_back() -> None:
        keeper.streams -= 1

    try:
        if since is None:
            since = await keeper.read(State.last_change)
        else:
            await keeper.read(partial(check_cursor, cursor=since))
        return _Stream(_events(service, keeper, since), give_back)
    except BaseException:
        give_back()
        raise


class _Stream(EventSourceResponse):
    """Gives its place back when it has ended, whether it began or not."""

    def __init__(self, content: AsyncIterator[ServerSentEvent], give_back: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, ping=_PING, sep="\n", headers=headers)
        self._give_back = give_back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._give_back()


async def _events(service: Service, keeper: Keeper, cursor: int) -> AsyncIterator[ServerSentEvent]:
    """Until the service stops."""
    try:  # what cannot be read ends the stream: its reader comes again
        news: StateNews | None = None
        scans: dict[int, Scan] = {}
        seen, listed = -1, list[Scan]()
        while not service.stopping.is_set():
            began = time.monotonic()
            if (revision := keeper.writer.revision) != seen:
                seen = revision
                first = news is None
                now = StateNews(cursor, keeper.scans.running, keeper.writer.lent_to)
                if news is None or (now.running, now.lent_to) != (news.running, news.lent_to):
                    news = now
                    yield _event("state", now, cursor)
                more = True
                while more and not service.stopping.is_set():
                    rows, cursor, more, listed = await keeper.read(partial(_look, keeper=keeper, after=cursor))
                    for row in rows:
                        yield _event("verdict", described(row), row.change or cursor)
                for scan in reversed(listed):
                    if scans.get(scan.id) != scan and not (first and scan.ended is not None and scan is not listed[0]):
                        yield _event("scan", scan)
                    scans[scan.id] = scan
            with suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(service.stopping.wait(), max(0.0, _TICK - (time.monotonic() - began)))
    except Problem:
        return


def _look(state: State, keeper: Keeper, after: int) -> tuple[list[TrackRow], int, bool, list[Scan]]:
    """What changed, in a page, and the latest scans; these first: verdicts come before the end of their scan."""
    scans = keeper.scans.listed(state, 10)
    return *state.changes(after, Wanted(absent=None), _PAGE), scans


def _event(name: str, values: object, cursor: int | None = None) -> ServerSentEvent:
    return ServerSentEvent(json_of(values), event=name, id=None if cursor is None else str(cursor), sep="\n")


ROUTES = [
    Described(
        "GET",
        "/v1/events",
        events,
        None,
        {200: None, 410: ProblemBody, **ERRORS},
        "What happens, as it happens: events verdict, scan and state",
        query=Query,
        headers={"Last-Event-ID": "The id of the last event that came through: the stream goes on behind it."},
        answers="text/event-stream",
    )
]
