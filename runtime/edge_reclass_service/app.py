"""The application: routes from one list, errors as problems."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from edge_reclass_service.access import Access
from edge_reclass_service.counting import Counting
from edge_reclass_service.openapi import with_document
from edge_reclass_service.problems import Problem, of_bug, of_http, of_problem
from edge_reclass_service.routes import ALL
from edge_reclass_service.service import Service


def create_app(service: Service) -> Starlette:
    """The application of a service."""
    described = with_document(ALL)
    app = Starlette(
        routes=[Route(one.path, one.handler, methods=[one.method]) for one in described],
        middleware=[
            Middleware(Counting, metrics=service.metrics, routes={one.handler: one.path for one in described}),
            Middleware(Access, settings=service.settings),
        ],
        exception_handlers={Problem: of_problem, HTTPException: of_http, Exception: of_bug},
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app
