"""Whether the service works, what ran where, what it counts, and what it is."""

from __future__ import annotations

import os
import shutil

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_reclass import __version__
from edge_reclass_service import metrics
from edge_reclass_service.bodies import answer
from edge_reclass_service.described import Described
from edge_reclass_service.probe import Probed
from edge_reclass_service.problems import Problem, ProblemBody
from edge_reclass_service.service import service_of
from edge_reclass_service.uploads import DISK_FREE


class Live(msgspec.Struct, frozen=True):
    """The service answers."""

    status: str


class BundleSeen(msgspec.Struct, frozen=True):
    """The bundle that is served; ``stages`` are those of the policy, in running order."""

    name: str
    digest: str
    genres: list[str]
    stages: list[str]


class Version(msgspec.Struct, frozen=True):
    """What the service is. ``device`` is null until the encoders were opened."""

    program: str
    bundle: BundleSeen
    policy: str
    device: str | None
    workers: int


class Ready(msgspec.Struct, frozen=True):
    """The service works: what was measured when a synthesised track went through every stage, and where there is room.

    ``encoders_open`` is false while they are closed because there was nothing to do; a request opens them again.
    """

    status: str
    device: str
    probe: Probed
    encoders_open: bool
    workers: int
    placed: int
    receiving: int
    room: int
    disk_free_bytes: int


async def live(_: Request) -> Response:
    """The event loop answers."""
    return answer(Live("live"))


async def ready(request: Request) -> Response:
    """Tracks can be classified, and what comes of it can be kept."""
    service = service_of(request)
    engine, settings = service.engine, service.settings
    if service.stopping.is_set() or engine.failure is not None:
        raise _not_ready("the service is being stopped")
    if (probed := engine.probed) is None:
        raise _not_ready("the encoders are being opened, or a synthesised track is going through them")
    if service.keeper is not None and (trouble := service.keeper.trouble) is not None:
        raise _not_ready(trouble)
    for folder in {settings.spool, *(() if settings.state is None else (settings.state.parent,))}:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _not_ready(f"{folder}: cannot be written")
        free = shutil.disk_usage(folder).free
        if free < DISK_FREE:
            raise _not_ready(f"{folder}: {free >> 20} MiB are free, expected at least {DISK_FREE >> 20} MiB")
    return answer(
        Ready(
            "ready",
            engine.device or "",
            probed,
            engine.is_open,
            settings.workers,
            engine.placed,
            engine.received,
            engine.room,
            shutil.disk_usage(settings.spool).free,
        )
    )


def _not_ready(detail: str) -> Problem:
    return Problem(503, "not-ready", detail, {"Retry-After": "2"})


async def version(request: Request) -> Response:
    """What the service is, and which genres it knows."""
    service = service_of(request)
    settings = service.settings
    manifest = settings.bundle.manifest
    seen = BundleSeen(manifest.name, settings.bundle.digest, list(manifest.genres), list(settings.policy.stages))
    return answer(
        Version(f"edge-reclass {__version__}", seen, settings.policy.name, service.engine.device, settings.workers)
    )


async def counted(request: Request) -> Response:
    """What the service counts, for Prometheus."""
    return Response(service_of(request).metrics.text(), media_type=metrics.MEDIA_TYPE)


ROUTES = [
    Described("GET", "/health/live", live, None, {200: Live}, "The service answers"),
    Described("GET", "/health/ready", ready, None, {200: Ready, 503: ProblemBody}, "Tracks can be classified"),
    Described("GET", "/metrics", counted, None, {200: None}, "Counters for Prometheus", answers="text/plain"),
    Described("GET", "/v1/version", version, None, {200: Version}, "What the service is"),
]
