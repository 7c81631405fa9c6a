"""One track in, its verdict out: a file that the service can read, a file's bytes, or samples."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import IO
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_reclass import Verdict, __version__
from edge_reclass.errors import Status, TrackError
from edge_reclass_service.bodies import body_as, media_type, query_as
from edge_reclass_service.described import JSON, Described
from edge_reclass_service.files import linked, pin, suffix_of
from edge_reclass_service.pcm import HEAD_SIZE, MOST_BYTES, Pcm
from edge_reclass_service.problems import Problem, ProblemBody
from edge_reclass_service.service import Service, service_of
from edge_reclass_service.uploads import received

BYTES, PCM = "application/octet-stream", "audio/pcm"
FILE_NAME = "X-File-Name"
_TRIES = 3
_UNNAMED, _SAMPLES = "<upload>", "<samples>"


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file by its absolute path; by ``path_bytes`` where its name is not UTF-8. One of the two."""

    path: str | None = None
    path_bytes: bytes | None = None

    @property
    def as_bytes(self) -> bytes:
        """The path as the system has it.

        Raises:
            Problem: 400, none or two are given.
        """
        if (self.path is None) == (self.path_bytes is None):
            raise Problem(400, "body", "expected one of path and path_bytes")
        return self.path_bytes if self.path is None else self.path.encode()  # type: ignore[return-value]


_ONE_OF_THEM = {
    "description": "A file by its absolute path, or by path_bytes where its name is not UTF-8.",
    "oneOf": [
        {
            "type": "object",
            "properties": {"path": {"type": "string", "pattern": "^/"}},
            "required": ["path"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "path_bytes": {
                    "type": "string",
                    "contentEncoding": "base64",
                    "pattern": "^L[w-z0-9+/][A-Za-z0-9+/]{2}([A-Za-z0-9+/]{4})*$",
                }
            },
            "required": ["path_bytes"],
            "additionalProperties": False,
        },
    ],
}


class _Nothing(msgspec.Struct):
    """No parameters."""


async def classify(request: Request) -> Response:
    """The verdict of one track, 200 whatever its status; other codes are about the request."""
    ways = {JSON: _named, BYTES: _sent, PCM: _samples}
    kind = media_type(request)
    if (way := ways.get(kind)) is None:
        raise Problem(415, "media-type", f"Content-Type: expected {', '.join(ways)}; got {kind or 'none'}")
    service = service_of(request)
    if kind != PCM:
        query_as(request, _Nothing)
    service.engine.check()
    verdict = await way(request, service)
    return Response(verdict.to_json(), 200, {"Cache-Control": "no-store"}, JSON)


async def _named(request: Request, service: Service) -> Verdict:
    wanted = (await body_as(request, Wanted)).as_bytes
    name = os.fsdecode(wanted)
    with service.engine.place():
        try:  # a disk that does not answer holds up nobody else
            descriptor = await asyncio.to_thread(pin, wanted, service.settings.roots)
        except TrackError as error:
            return _failed(service, name, error)
        try:
            return await _classified(service, descriptor, suffix_of(name), name)
        finally:
            os.close(descriptor)


async def _sent(request: Request, service: Service) -> Verdict:
    name = _file_name(request)
    async with _received(request, service.settings.max_upload) as (file, _):
        verdict = await _classified(service, file.fileno(), suffix_of(name), name)
        return replace(verdict, mtime_ns=None)


async def _samples(request: Request, service: Service) -> Verdict:
    form = query_as(request, Pcm)
    limit = min(service.settings.max_upload, MOST_BYTES)
    async with _received(request, limit, bytes(HEAD_SIZE)) as (file, size):
        if size % form.frame:
            raise Problem(400, "body", f"expected whole frames of {form.frame} bytes, got {size} bytes")
        file.seek(0)
        file.write(form.head(size))
        file.flush()
        verdict = await _classified(service, file.fileno(), ".wav", _SAMPLES)
        return replace(verdict, size=None, mtime_ns=None)


@asynccontextmanager
async def _received(request: Request, limit: int, head: bytes = b"") -> AsyncIterator[tuple[IO[bytes], int]]:
    """See :func:`received`; then with a place."""
    engine = service_of(request).engine
    async with AsyncExitStack() as resources:
        with engine.receiving():
            got = await resources.enter_async_context(received(request, limit, head))
        with engine.place():
            yield got


async def _classified(service: Service, descriptor: int, suffix: str, name: str) -> Verdict:
    """The verdict of an open file, as of the name that was asked for."""
    for _ in range(_TRIES):
        with linked(descriptor, suffix, service.settings.spool) as link:
            verdict = await service.engine.classify(link)
        if verdict.status is not Status.MISSING:
            error = verdict.error
            return replace(verdict, path=name, error=None if error is None else error.replace(str(link), name))
    # The file is open here, so what was missing is our link to it.
    return _failed(service, name, TrackError(Status.ERROR, f"files vanish from the spool, {service.settings.spool}"))


def _failed(service: Service, name: str, error: TrackError) -> Verdict:
    settings = service.settings
    return Verdict(
        name,
        error.status,
        settings.bundle.manifest.name,
        settings.policy.name,
        error=str(error),
        bundle_digest=settings.bundle.digest,
        program=f"edge-reclass {__version__}",
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _file_name(request: Request) -> str:
    """What the client calls the file: the last part of a percent-encoded name."""
    given = unquote_to_bytes(request.headers.get(FILE_NAME, "").encode("latin-1"))
    name = os.fsdecode(given.replace(b"\\", b"/").rpartition(b"/")[2].replace(b"\0", b""))
    return name[:255] or _UNNAMED


_ERRORS = dict.fromkeys((400, 403, 408, 413, 415, 503, 507), ProblemBody)

ROUTES = [
    Described(
        "POST",
        "/v1/classify",
        classify,
        None,
        {200: Verdict, **_ERRORS},
        "Classify one track",
        query=Pcm,
        headers={FILE_NAME: "With application/octet-stream: the file's name, percent-encoded; its suffix may help."},
        bodies={JSON: _ONE_OF_THEM, BYTES: None, PCM: None},
    ),
]
