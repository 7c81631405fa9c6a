"""uvicorn's HTTP connection, with what it lacks: a limit of connections, a time for a request's head, our errors."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_reclass_service.problems import MEDIA_TYPE, Problem

MOST_CONNECTIONS = 512
HEAD_SECONDS = 30.0


class Connection(H11Protocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._no_head)
        if len(self.connections) > MOST_CONNECTIONS:
            detail = f"there are {MOST_CONNECTIONS} connections, as many as there may be"
            self._refuse(Problem(503, "busy", detail, {"Retry-After": "5"}))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # the head is there
            self._stop_clock()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._no_head)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """What came is no HTTP, or has too large a head."""
        self._refuse(Problem(400, "request", "this is no HTTP request, or its head is too large"))

    def _no_head(self) -> None:
        if not self.transport.is_closing():
            self._refuse(Problem(408, "too-slow", f"no request came within {HEAD_SECONDS:.0f} s"))

    def _refuse(self, problem: Problem) -> None:
        self._stop_clock()
        headers = [("Content-Type", MEDIA_TYPE), ("Connection", "close"), ("Content-Length", str(len(problem.body)))]
        headers += problem.headers.items()
        try:
            for event in (
                h11.Response(status_code=problem.status, headers=headers),
                h11.Data(data=problem.body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # an answer has begun already
        self.transport.close()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
