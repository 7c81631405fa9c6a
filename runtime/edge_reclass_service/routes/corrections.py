"""What people say of tracks: genres that win over verdicts, and tracks that are left for later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from edge_reclass.library import State
from edge_reclass_service.bodies import body_as
from edge_reclass_service.described import JSON, Described, Handler
from edge_reclass_service.keeping.requests import ERRORS, answer, keeper_of, known
from edge_reclass_service.keeping.wire import GENRE_SCHEMA, Correction, Said, TrackName, one_name


async def correct(request: Request) -> Response:
    """Keep what a person said of a track, under every name of its file."""
    said = await body_as(request, Correction)
    return await _write(request, said, lambda state, track: state.correct(track, said.genre))


async def withdraw(request: Request) -> Response:
    """Take back what a person said."""
    return await _write(request, await body_as(request, TrackName), lambda state, track: state.correct(track, None))


async def skip(request: Request) -> Response:
    """Keep that a person left a track for later."""
    return await _write(request, await body_as(request, TrackName), lambda state, track: state.skip(track, True))


async def unskip(request: Request) -> Response:
    """Take back that a person left a track for later."""
    return await _write(request, await body_as(request, TrackName), lambda state, track: state.skip(track, False))


async def _write(request: Request, name: TrackName, act: Callable[[State, int], None]) -> Response:
    def written(state: State) -> Said:
        row = known(state, name.file)
        act(state, row.id)
        now = known(state, name.file)
        return Said(name.file, now.final_genre, now.corrected, now.id in state.skipped(), now.change)

    return answer(await keeper_of(request).write(written))


def _described(method: str, path: str, handler: Handler, body: dict[str, Any], summary: str) -> Described:
    return Described(method, path, handler, None, {200: Said, **ERRORS}, summary, bodies={JSON: body})


ROUTES = [
    _described(
        *("PUT", "/v1/corrections", correct, one_name(genre=GENRE_SCHEMA)),
        "Say what genre a track is; wins over its verdict",
    ),
    _described("DELETE", "/v1/corrections", withdraw, one_name(), "Take a correction back"),
    _described("PUT", "/v1/skipped", skip, one_name(), "Leave a track for later; review asks about it last"),
    _described("DELETE", "/v1/skipped", unskip, one_name(), "Take back that a track was left for later"),
]
