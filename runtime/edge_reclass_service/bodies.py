"""Reading requests: bodies and queries into structs, with limits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edge_reclass_service.described import JSON
from edge_reclass_service.problems import Problem
from edge_reclass_service.service import service_of

T = TypeVar("T")

MOST_JSON = 1 << 20
"""Bytes of a JSON body."""

MOST_NAMES = 8 << 20
"""The same where it has a list of paths: 2000, as many as may be named, of 4096 bytes, as long as Linux has them."""

IDLE_SECONDS = 30.0
"""A body of which nothing comes for so long is given up."""

WHOLE_SECONDS = 600.0
"""A body has to be there by then."""

SLOWEST = 1 << 10
"""Bytes a second that have to come of a body on average, after the first ``IDLE_SECONDS``."""


def media_type(request: Request) -> str:
    """The body's media type in lower case, without parameters; empty where none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        Problem: 413 beyond ``limit`` bytes, 408 where it comes too slowly, 503 where the service stops.
        ClientDisconnect: the client has gone.
    """
    too_large = Problem(413, "too-large", f"the body is larger than {limit} bytes, the most that is taken here")
    length = request.headers.get("content-length", "")
    if re.fullmatch("[0-9]+", length) and int(length) > limit:
        raise too_large
    stopping = service_of(request).stopping
    source = request.stream()
    clock = asyncio.get_running_loop().time
    began = clock()
    received = 0
    while True:
        left = min(IDLE_SECONDS, began + WHOLE_SECONDS - clock())
        coming = asyncio.ensure_future(anext(source, None))
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({coming, stopped}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                if stopped.done():
                    raise Problem(503, "stopping", "the service is being stopped", {"Retry-After": "10"})
                raise Problem(408, "too-slow", f"the body did not come within {left:.0f} s", {"Connection": "close"})
            chunk = coming.result()
        finally:
            stopped.cancel()
            coming.cancel()
        if chunk is None:
            return
        received += len(chunk)
        if received > limit:
            raise too_large
        if (took := clock() - began) > IDLE_SECONDS and received < SLOWEST * took:
            detail = f"{received} bytes of the body came in {took:.0f} s; expected {SLOWEST} a second"
            raise Problem(408, "too-slow", detail, {"Connection": "close"})
        if chunk:
            yield chunk


async def body_as(request: Request, kind: type[T], most: int = MOST_JSON) -> T:
    """A JSON body of at most so many bytes as a struct.

    Raises:
        Problem: 415 another media type, 413 too large, 400 not JSON or not of this kind.
    """
    if media_type(request) != JSON:
        raise Problem(415, "media-type", f"expected Content-Type: {JSON}, got {media_type(request) or 'none'}")
    try:
        content = b"".join([chunk async for chunk in chunks(request, most)])
    except ClientDisconnect:
        raise Problem(400, "body", "the body was cut off") from None
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a ValidationError is a DecodeError
        raise Problem(400, "body", f"the body: {error}") from error


def query_as(request: Request, kind: type[T]) -> T:
    """The query's parameters as a struct.

    Raises:
        Problem: 400, a parameter is unknown, missing, there twice, or of a wrong kind.
    """
    given: dict[str, Any] = {}
    known = {field.encode_name for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise Problem(400, "query", f"unknown parameter {name!r}; expected {', '.join(sorted(known)) or 'none'}")
        if name in given:
            raise Problem(400, "query", f"the parameter {name!r} is there twice")
        given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, "query", f"the query: {error}") from error


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A struct, or whatever msgspec can write, as a JSON response that nobody keeps."""
    return Response(msgspec.json.encode(content), status, {"Cache-Control": "no-store", **(headers or {})}, JSON)
