"""What is known of tracks: what changed since a cursor, and one track."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_reclass.errors import Status
from edge_reclass.library import State, Wanted
from edge_reclass_service.bodies import query_as
from edge_reclass_service.described import Described
from edge_reclass_service.keeping.requests import answer, keeper_of, known
from edge_reclass_service.keeping.wire import Number, TrackName, described
from edge_reclass_service.problems import Problem, ProblemBody

_ABSENT = {"any": None, "yes": True, "no": False}


class Query(msgspec.Struct, frozen=True):
    """Which changes: all conditions hold. ``scan``: what this scan classified, without what people said of it."""

    since: Number = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 500
    status: str | None = None
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


class TrackSeen(msgspec.Struct, frozen=True):
    """One track; ``verdict`` as in :class:`Verdicts`, without a correction."""

    path: str
    genre: str | None
    corrected: str | None
    verdict: dict[str, Any] | None
    size: int | None
    mtime_ns: int | None
    first_seen: str
    last_seen: str
    absent_since: str | None


async def changes(request: Request) -> Response:
    """What changed since a cursor."""
    query = query_as(request, Query)
    if query.status not in (None, *Status, "corrected"):
        raise Problem(400, "query", f"status: expected one of {', '.join(Status)}, corrected, got {query.status!r}")
    prefix = None if query.path_prefix is None else os.fsencode(query.path_prefix)
    wanted = Wanted(
        genre=query.genre,
        status=query.status,
        absent=_ABSENT[query.absent],
        below_path=prefix,
        scan=query.scan,
    )

    def page(state: State) -> Verdicts:
        rows, further, more = state.changes(query.since, wanted, query.limit)
        return Verdicts([described(row, corrected=query.scan is None) for row in rows], further, more)

    return answer(await keeper_of(request).read(page))


async def track(request: Request) -> Response:
    """One track, as the state knows it."""
    name = query_as(request, TrackName)

    def seen(state: State) -> TrackSeen:
        row = known(state, name.file)
        return TrackSeen(
            os.fsdecode(row.path),
            row.final_genre,
            row.corrected,
            None if row.verdict is None else row.verdict.to_dict(),
            row.size,
            row.mtime_ns,
            row.first_seen,
            row.last_seen,
            row.absent_since,
        )

    return answer(await keeper_of(request).read(seen))


ROUTES = [
    Described("GET", "/v1/verdicts", changes, None, {200: Verdicts}, "What changed since a cursor", query=Query),
    Described("GET", "/v1/tracks", track, None, {200: TrackSeen, 404: ProblemBody}, "One track", query=TrackName),
]
