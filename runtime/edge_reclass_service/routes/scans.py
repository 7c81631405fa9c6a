"""Scans: have the library looked at, see how far it is, take it back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from edge_reclass_service.bodies import MOST_NAMES, body_as
from edge_reclass_service.described import Described
from edge_reclass_service.keeping.requests import ERRORS, answer, check_below, keeper_of
from edge_reclass_service.keeping.scans import DifferentRequestError
from edge_reclass_service.keeping.wire import Scan, ScanList, ScanRequest
from edge_reclass_service.problems import Problem, ProblemBody
from edge_reclass_service.service import service_of

KEY = "Idempotency-Key"
_LONGEST_KEY = 255


async def add(request: Request) -> Response:
    """Take a scan; with a key that came before, the scan of then is answered."""
    keeper, settings = keeper_of(request), service_of(request).settings
    wanted = await body_as(request, ScanRequest, MOST_NAMES)
    if not settings.roots:
        raise Problem(403, "outside-roots", "this service has no roots; start it with --root DIR")
    check_below(settings.roots, wanted.paths)
    key = request.headers.get(KEY) or None
    if key is not None and len(key) > _LONGEST_KEY:
        raise Problem(400, "key", f"{KEY}: expected at most {_LONGEST_KEY} characters, got {len(key)}")
    try:
        number, _ = await keeper.write(lambda state: keeper.scans.add(state, wanted, key))
    except DifferentRequestError as error:
        raise Problem(409, "key", str(error)) from error
    scan = await keeper.read(lambda state: keeper.scans.one(state, number))
    return answer(scan, 202, Location=f"/v1/scans/{number}")


async def listed(request: Request) -> Response:
    """The latest hundred."""
    keeper = keeper_of(request)
    return answer(ScanList(await keeper.read(keeper.scans.listed)))


async def one(request: Request) -> Response:
    """One scan."""
    return answer(await _scan(request))


async def cancel(request: Request) -> Response:
    """Take it back. One that runs ends at the next track; what it classified stays."""
    keeper, number = keeper_of(request), request.path_params["id"]
    await _scan(request)
    await keeper.write(lambda state: keeper.scans.cancel(state, number))
    return answer(await _scan(request), 202)


async def _scan(request: Request) -> Scan:
    keeper, number = keeper_of(request), request.path_params["id"]
    scan = await keeper.read(lambda state: keeper.scans.one(state, number)) if number < 1 << 63 else None
    if scan is None:
        raise Problem(404, "unknown-scan", f"there is no scan {number}")
    return scan


ROUTES = [
    Described(
        "POST",
        "/v1/scans",
        add,
        ScanRequest,
        {202: Scan, 403: ProblemBody, 409: ProblemBody, **ERRORS},
        "Have files and folders looked at, by default the roots",
        headers={KEY: "The same key names the same scan: a request that may have come through can be sent again."},
    ),
    Described("GET", "/v1/scans", listed, None, {200: ScanList, **ERRORS}, "The latest scans, newest first"),
    Described("GET", "/v1/scans/{id:int}", one, None, {200: Scan, **ERRORS}, "How far a scan is"),
    Described("DELETE", "/v1/scans/{id:int}", cancel, None, {202: Scan, **ERRORS}, "Take a scan back"),
]
