"""A route and what it takes and answers, in one place: Starlette's routes and the OpenAPI document are made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]

JSON = "application/json"


@dataclass(frozen=True)
class Described:
    """One method of one address.

    ``path`` is Starlette's: ``/v1/scans/{id:int}``. ``responses`` has the type of the body for each status, None where
    there is none; errors are described by their status with :class:`edge_reclass_service.problems.ProblemBody`.
    """

    method: str
    path: str
    handler: Handler
    body: type | None
    """A struct, as JSON; None where there is no body, or where ``bodies`` says what there is."""
    responses: Mapping[int, Any]
    summary: str
    query: type | None = None
    """A struct whose fields are the query's parameters."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that the handler reads, and what each says."""
    bodies: Mapping[str, Any] = field(default_factory=dict)
    """A body by its media type: a struct, a JSON Schema, or None for bytes."""
    answers: str = JSON
    """The media type of what is answered when all is well."""
