"""What is known of tracks: what changed since a cursor, and one track."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_reclass.library import State, Wanted
from edge_reclass_service.bodies import query_as
from edge_reclass_service.described import JSON, Described
from edge_reclass_service.keeping.requests import ERRORS, answer, check_cursor, json_of, keeper_of, known
from edge_reclass_service.keeping.wire import Number, TrackName, described
from edge_reclass_service.problems import Problem, ProblemBody
from edge_reclass_service.service import service_of

_ABSENT = {"any": None, "yes": True, "no": False}

StatusName = Literal[
    "ok",
    "unsure",
    "silent",
    "too_short",
    "missing",
    "unreadable",
    "unsupported",
    "corrupt",
    "empty",
    "too_long",
    "out_of_memory",
    "timeout",
    "crashed",
    "error",
    "quarantined",
    "corrected",
]
"""Those of verdicts, and of what a person corrected."""


class Named(msgspec.Struct, frozen=True):
    """A track: its absolute path, or Base64 of its bytes where it is not valid UTF-8; one of them."""

    path: str | None = None
    path_bytes: str | None = None


class Query(msgspec.Struct, frozen=True):
    """Which changes: all conditions hold. ``scan``: what this scan classified, without what people said of it."""

    since: Number = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 500
    status: StatusName | None = None
    genre: str | None = None
    path_prefix: str | None = None
    scan: Number | None = None
    absent: Literal["any", "yes", "no"] = "any"


class Verdicts(msgspec.Struct, frozen=True):
    """Tracks that changed, in the order of their changes, each as it is now.

    Each is a verdict's JSON with ``cursor``, ``corrected`` (what a person said, which is in the verdict too),
    ``absent_since`` and ``scan``. ``next`` is what ``since`` takes to go on; ``more``: there is more already.
    """

    verdicts: list[dict[str, Any]]
    next: int
    more: bool


async def changes(request: Request) -> Response:
    """What changed since a cursor."""
    query = query_as(request, Query)
    prefix = None if query.path_prefix is None else os.fsencode(query.path_prefix)
    wanted = Wanted(
        genre=query.genre,
        status=query.status,
        absent=_ABSENT[query.absent],
        below_path=prefix,
        scan=query.scan,
    )

    def page(state: State) -> bytes:
        check_cursor(state, query.since)
        rows, further, more = state.changes(query.since, wanted, query.limit)
        return json_of(Verdicts([described(row, corrected=query.scan is None) for row in rows], further, more)).encode()

    keeper = keeper_of(request)
    async with service_of(request).pages:
        content = await keeper.read(page)  # written as JSON in its thread, too: other requests do not wait for it
    return Response(content, 200, {"Cache-Control": "no-store"}, JSON)


async def track(request: Request) -> Response:
    """One track, as /v1/verdicts has it, with ``first_seen`` and ``last_seen``; before it is classified, only these."""
    query = query_as(request, Named)
    try:
        name = TrackName(query.path, query.path_bytes)
    except ValueError as error:
        raise Problem(404, "unknown-track", str(error)) from error

    def seen(state: State) -> dict[str, Any]:
        row = known(state, name.file)
        return {**described(row), "first_seen": row.first_seen, "last_seen": row.last_seen}

    return answer(await keeper_of(request).read(seen))


ROUTES = [
    Described(
        "GET",
        "/v1/verdicts",
        changes,
        None,
        {200: Verdicts, 410: ProblemBody, **ERRORS},
        "What changed since a cursor",
        query=Query,
    ),
    Described("GET", "/v1/tracks", track, None, {200: dict[str, Any], **ERRORS}, "One track", query=Named),
]
