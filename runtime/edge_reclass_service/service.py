"""What a handler gets at."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.requests import Request

from edge_reclass_service.engine import Engine
from edge_reclass_service.keeping.keeper import Keeper
from edge_reclass_service.metrics import Metrics
from edge_reclass_service.settings import Settings


@dataclass
class Service:
    """Everything that lives as long as the process; ``request.app.state.service``, or :func:`service_of`."""

    settings: Settings
    engine: Engine
    metrics: Metrics
    keeper: Keeper | None = None
    """Of the state, if there is one."""
    pages: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    """For pages of verdicts, which may be large: so many are made at a time."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service is to end: streams end, bodies that still come are given up."""


def service_of(request: Request) -> Service:
    """The service that a request was made to."""
    service: Service = request.app.state.service
    return service
