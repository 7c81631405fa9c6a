"""The application: routes from one list, errors as problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_reclass_service.access import Access
from edge_reclass_service.counting import Counting
from edge_reclass_service.described import Described, Handler
from edge_reclass_service.openapi import with_document
from edge_reclass_service.problems import Problem, of_bug, of_http, of_problem
from edge_reclass_service.routes import ALL
from edge_reclass_service.service import Service


def create_app(service: Service) -> Starlette:
    """The application of a service."""
    routes = _routes(with_document(ALL))
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Counting, metrics=service.metrics, routes={one.endpoint: one.path for one in routes}),
            Middleware(Access, settings=service.settings),
        ],
        exception_handlers={Problem: of_problem, HTTPException: of_http, Exception: of_bug},
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


def _routes(described: Iterable[Described]) -> list[Route]:
    """One for each address, so that a 405 names all of its methods."""
    handlers: dict[str, dict[str, Handler]] = {}
    for one in described:
        handlers.setdefault(one.path, {})[one.method] = one.handler
    return [Route(path, _by_method(methods), methods=list(methods)) for path, methods in handlers.items()]


def _by_method(handlers: Mapping[str, Handler]) -> Handler:
    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle
