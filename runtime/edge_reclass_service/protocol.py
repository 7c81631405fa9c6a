"""uvicorn's HTTP connection, with what it lacks.

That is a limit of connections, a time for a request's head, an end to bodies and answers that nobody reads, and our
errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_reclass_service.problems import MEDIA_TYPE, Problem

MOST_CONNECTIONS = 512
HEAD_SECONDS = 30.0
UNREAD_BYTES, UNREAD_SECONDS = 16 << 20, 5.0
"""So much is read, and thrown away, of a body that is not wanted: most clients look for the answer only after it."""
WRITE_SECONDS, WRITE_BYTES = 30.0, 32 << 10
"""Of an answer that waits to be sent, the client has to take so much in each such time; else it is cut off."""


class Connection(H11Protocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None
    _then: Callable[[], None] | None = None
    _unread = 0
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            detail = f"there are {MOST_CONNECTIONS} connections, as many as there may be"
            self._refuse(Problem(503, "busy", detail, {"Retry-After": "5"}))
        self._set_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_clock()
        self._stop_taking()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        if self.transport.is_closing():
            return None
        if self._is_unwanted():
            self._unread += len(data)
            if self._unread > UNREAD_BYTES:
                return self.transport.close()
        super().data_received(data)
        self._set_clock()
        return None

    def on_response_complete(self) -> None:
        """A request was answered, maybe before all of its body came."""
        super().on_response_complete()
        self._unread = 0
        self._set_clock()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """What came is no HTTP, or has too large a head."""
        self._refuse(Problem(400, "request", "this is no HTTP request, or its head is too large"))

    def pause_writing(self) -> None:
        """The client does not take the answer as fast as it is made."""
        super().pause_writing()
        self._stop_taking()
        self._expect_taking()

    def resume_writing(self) -> None:
        """It has taken it."""
        self._stop_taking()
        super().resume_writing()

    def _expect_taking(self) -> None:
        waits = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(WRITE_SECONDS, self._look_what_was_taken, waits)

    def _look_what_was_taken(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() < WRITE_BYTES:
            self.transport.abort()  # to close would wait for the rest
        else:
            self._expect_taking()

    def _stop_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _is_unwanted(self) -> bool:
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _set_clock(self) -> None:
        """The time for what is to come next."""
        if self.transport.is_closing():
            return self._stop_clock()
        if self._is_unwanted():
            return self._end_after(UNREAD_SECONDS, self.transport.close)
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            return self._end_after(HEAD_SECONDS, self._no_head)
        return self._stop_clock()

    def _end_after(self, seconds: float, then: Callable[[], None]) -> None:
        if self._deadline is None or self._then != then:
            self._stop_clock()
            self._deadline, self._then = self.loop.call_later(seconds, then), then

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _no_head(self) -> None:
        self._refuse(Problem(408, "too-slow", f"no request came within {HEAD_SECONDS:.0f} s"))

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
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
