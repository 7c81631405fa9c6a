"""Errors as RFC 9457 has them: ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


class ProblemBody(msgspec.Struct, frozen=True):
    """What went wrong: ``type`` is for programs, ``detail`` is a sentence for people."""

    type: str
    title: str
    status: int
    detail: str


class Problem(Exception):
    """Raised by a handler, it becomes the response. ``kind`` is the last part of the problem's ``type``."""

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.kind, self.detail, self.headers = status, kind, detail, dict(headers or {})
        super().__init__(detail)

    @property
    def body(self) -> bytes:
        """The response's body."""
        title = HTTPStatus(self.status).phrase
        kind = f"urn:edge-reclass:problem:{self.kind}"
        return msgspec.json.encode(ProblemBody(kind, title, self.status, self.detail))

    @property
    def response(self) -> Response:
        """As a response."""
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(self.body, self.status, headers, MEDIA_TYPE)


def of_problem(_: Request, error: Exception) -> Response:
    """Starlette's handler of :class:`Problem`."""
    assert isinstance(error, Problem)  # noqa: S101 - it is registered for no other
    return error.response


def of_http(_: Request, error: Exception) -> Response:
    """Starlette's handler of what its router finds: 404, 405."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for no other
    kinds = {
        404: ("not-found", "there is nothing at this address; /openapi.json lists what there is"),
        405: ("method", "this address does not take this method; /openapi.json lists those that it takes"),
    }
    kind, detail = kinds.get(error.status_code, ("request", error.detail))
    return Problem(error.status_code, kind, detail, error.headers).response


def of_bug(_: Request, __: Exception) -> Response:
    """Starlette's handler of what nobody foresaw; the traceback is in the log."""
    return Problem(500, "internal", "an error of the service itself; its log has the details").response
