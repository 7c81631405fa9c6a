"""What the routes of the state have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_reclass.library import State, TrackRow
from edge_reclass_service.described import JSON
from edge_reclass_service.keeping.keeper import Keeper
from edge_reclass_service.problems import Problem, ProblemBody
from edge_reclass_service.service import service_of

ERRORS = {404: ProblemBody, 503: ProblemBody}
"""What every route of the state may answer: there is none, or no such thing in it; it cannot be read or written now."""


def keeper_of(request: Request) -> Keeper:
    """What keeps the service's state.

    Raises:
        Problem: 404, the service has none.
    """
    keeper: Keeper | None = service_of(request).keeper
    if keeper is None:
        raise Problem(404, "no-state", "this service keeps no state; start it with --state FILE")
    return keeper


def json_of(values: Any) -> str:
    """JSON on one line; names that are not UTF-8 keep their stray bytes as escapes of lone surrogates."""
    plain = msgspec.to_builtins(values)
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(plain, ensure_ascii=True, allow_nan=False)
    return text


def answer(values: Any, status: int = 200, **headers: str) -> Response:
    """A struct or plain values, as a response that nobody keeps."""
    return Response(json_of(values), status, {"Cache-Control": "no-store", **headers}, JSON)


def check_below(roots: Iterable[Path], paths: Iterable[str]) -> None:
    """Refuse what does not lie below the roots, links followed.

    Raises:
        Problem: 400 no absolute path, 403 outside of the roots.
    """
    real = [os.path.realpath(root) for root in roots]
    for path in paths:
        if not path.startswith("/") or "\0" in path:
            raise Problem(400, "path", f"expected an absolute path, got {shown(path)}")
        found = os.path.realpath(path)
        if not any(found == root or found.startswith(root.rstrip("/") + "/") for root in real):
            raise Problem(403, "outside-roots", f"{shown(path)}: it does not lie below a root of this service (--root)")


def shown(path: str) -> str:
    """A path in an error: names that are not UTF-8 with escapes, and not too long."""
    return path[:300].encode("utf-8", "backslashreplace").decode()


def check_cursor(state: State, cursor: int) -> None:
    """Refuse a cursor that this state has not given: it is of another state, or of one before a backup came back.

    Raises:
        Problem: 410, it lies beyond the last change.
    """
    if cursor > (last := state.last_change()):
        raise Problem(410, "cursor", f"{cursor} lies beyond the last change of the state, {last}; begin at 0")


def known(state: State, path: str) -> TrackRow:
    """The track at a path.

    Raises:
        Problem: 404, the state does not know it.
    """
    row = None if "\0" in path else state.track(path)
    if row is None:
        raise Problem(404, "unknown-track", f"{shown(path)}: the state knows no such track")
    return row
