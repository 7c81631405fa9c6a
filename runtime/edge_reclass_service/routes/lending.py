"""The state, lent to another process of this machine: for what writes into it in ways that no route has."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_reclass_service.described import Described
from edge_reclass_service.keeping.requests import ERRORS, keeper_of
from edge_reclass_service.keeping.writer import Loan
from edge_reclass_service.problems import Problem, ProblemBody
from edge_reclass_service.service import Service, service_of

_SECONDS = 60.0
"""Until a scan has been interrupted: tracks that are being classified get some seconds, a look at folders may not."""


async def lend(request: Request) -> Response:
    """Close the state and give its lock back; the loan lasts as long as the connection. Only over the Unix socket."""
    service, keeper = service_of(request), keeper_of(request)
    if (request.scope.get("server") or ("", None))[1] is not None:
        raise Problem(403, "local-only", "the state is lent over the service's Unix socket only")
    loan = keeper.lend(request.headers.get("x-borrower", "")[:80] or "another process")
    try:
        await asyncio.wait_for(asyncio.wrap_future(loan.granted), _SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        loan.give_back()
        raise Problem(503, "state-busy", "a scan cannot be interrupted now; try again", {"Retry-After": "5"}) from None
    except BaseException:
        loan.give_back()
        raise
    return _Lent(loan, service)


class _Lent(Response):
    """An answer that ends when the client or the service does."""

    def __init__(self, loan: Loan, service: Service) -> None:
        super().__init__(status_code=200, media_type="text/plain", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._loan, self._stopping = loan, service.stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as Starlette has it
        """Answer, and hold the connection."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"lent\n", "more_body": True})
            gone = asyncio.ensure_future(_gone(receive))
            stopped = asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait({gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
                stopped.cancel()
            with suppress(OSError):
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._loan.give_back()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


ROUTES = [
    Described(
        "POST",
        "/v1/state/lend",
        lend,
        None,
        {200: None, 403: ProblemBody, **ERRORS},
        "Have the service stop writing its state until this connection ends; only over its Unix socket",
        headers={"X-Borrower": "Who borrows it, in words: the service says so to others."},
        answers="text/plain",
    )
]
