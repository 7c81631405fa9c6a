"""The OpenAPI 3.1 document, made of the routes' descriptions and of the types that they take and answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_reclass import Verdict, __version__
from edge_reclass_service.described import JSON, Described
from edge_reclass_service.problems import MEDIA_TYPE, ProblemBody

PATH = "/openapi.json"
_REFERENCE = "#/components/schemas/"
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_ALWAYS = (400, 401, 403, 500)
"""What any address may answer, before or beside what it is for."""
_WITH_A_BODY = (408, 413, 415, 503)
_WORDS = {
    200: "All is well",
    201: "Made",
    202: "Taken on",
    204: "Done",
    400: "The request is wrong",
    401: "The token is missing or wrong (over TCP)",
    403: "Outside of the folders that may be named, or asked by a page of another site",
    404: "There is no such thing",
    408: "The body comes too slowly",
    409: "This does not go with what there is",
    413: "The body is too large",
    415: "Another media type is expected",
    422: "This cannot be done",
    500: "An error of the service itself",
    503: "Not now: busy, not ready yet, or being stopped; Retry-After says when to try again",
    507: "No space on the disk",
}


def with_document(described: Sequence[Described]) -> list[Described]:
    """The routes and, as one more, the document that describes them."""

    async def document(_: Request) -> Response:
        """This document."""
        return Response(content, media_type=JSON)

    own = Described("GET", PATH, document, None, {200: dict[str, Any]}, "This document")
    content = json.dumps(of_routes([*described, own]), ensure_ascii=False).encode()
    return [*described, own]


def of_routes(described: Iterable[Described]) -> dict[str, Any]:
    """The document as plain values."""
    routes = list(described)
    types = [ProblemBody, Verdict, *(kind for one in routes for kind in _types(one))]
    unique = list({repr(kind): kind for kind in types}.values())
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REFERENCE + "{name}")
    by_type = {repr(kind): schema for kind, schema in zip(unique, schemas, strict=True)}
    components = {**components, **_verdict_components()}
    paths: dict[str, dict[str, Any]] = {}
    for one in routes:
        paths.setdefault(_PARAMETER.sub(r"{\1}", one.path), {})[one.method.lower()] = _operation(one, by_type)
    used = {name: schema for name, schema in components.items() if name in _reachable(paths, components)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edge-reclass",
            "version": __version__,
            "description": "Classifies the genre of music files, on this machine. See docs/service.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://localhost", "description": "On the Unix socket"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": used,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "Over TCP, if set."}},
        },
    }


def _types(one: Described) -> list[Any]:
    found = [one.body, one.query, *one.bodies.values(), *one.responses.values()]
    return [kind for kind in found if kind is not None and not isinstance(kind, Mapping)]


def _operation(one: Described, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if kind == "int" else "string"}}
        for name, kind in _PARAMETER.findall(one.path)
    ]
    if one.query is not None:
        (schema,), parts = msgspec.json.schema_components([one.query], ref_template=_REFERENCE + "{name}")
        struct = parts[schema["$ref"].rpartition("/")[2]]
        needed = [] if one.bodies else struct["required"]  # with several kinds of bodies, each takes its own
        parameters += [
            {"name": name, "in": "query", "required": name in needed, "schema": schema}
            for name, schema in struct["properties"].items()
        ]
    parameters += [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in one.headers.items()
    ]
    operation: dict[str, Any] = {
        "summary": one.summary,
        "description": (one.handler.__doc__ or "").strip(),
        "operationId": f"{one.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', one.path.lower()).strip('_')}",
        "parameters": parameters,
        "responses": _responses(one, schemas),
    }
    if bodies := one.bodies or ({JSON: one.body} if one.body is not None else {}):
        operation["requestBody"] = {
            "required": True,
            "content": {
                media: {} if kind is None else {"schema": kind if isinstance(kind, Mapping) else schemas[repr(kind)]}
                for media, kind in bodies.items()
            },
        }
    return operation


def _responses(one: Described, schemas: dict[str, Any]) -> dict[str, Any]:
    codes = (*_ALWAYS, *(_WITH_A_BODY if one.body is not None or one.bodies else ()))
    wanted: dict[int, Any] = {**dict.fromkeys(codes, ProblemBody), **one.responses}
    responses = {}
    for code, kind in sorted(wanted.items()):
        response: dict[str, Any] = {"description": _WORDS.get(code, "See the summary")}
        if code >= 400:
            response["content"] = {MEDIA_TYPE: {"schema": schemas[repr(ProblemBody)]}}
        elif kind is not None:
            response["content"] = {JSON: {"schema": schemas[repr(kind)]}}
        elif code != 204:
            response["content"] = {one.answers: {"schema": {"type": "string"}}}
        responses[str(code)] = response
    return responses


def _verdict_components() -> dict[str, Any]:
    """Verdicts write their own JSON, so that they have a schema of their own."""
    text = json.dumps(Verdict.json_schema()).replace("#/$defs/", _REFERENCE)
    schema = json.loads(text)
    parts: dict[str, Any] = schema.pop("$defs")
    del schema["$schema"]
    return {**parts, "Verdict": schema}


def _reachable(paths: dict[str, Any], components: dict[str, Any]) -> set[str]:
    pattern = re.compile(f'"{_REFERENCE}([^"]+)"')
    found: set[str] = set()
    waiting = pattern.findall(json.dumps(paths))
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += pattern.findall(json.dumps(components[name]))
    return found
