"""From sockets to the last answer: starts everything, waits for a signal, and stops in time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from edge_reclass import WorkerPool
from edge_reclass.errors import EdgeReclassError
from edge_reclass.run import notify_alive, notify_ready, notify_stopping, printable
from edge_reclass_service.app import create_app
from edge_reclass_service.engine import Engine
from edge_reclass_service.keeping.keeper import Keeper
from edge_reclass_service.listening import named
from edge_reclass_service.metrics import Metrics
from edge_reclass_service.protocol import Connection
from edge_reclass_service.service import Service
from edge_reclass_service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

STOP_SECONDS = 6.0
"""For the tracks that are being classified when the service is stopped; then their workers are ended."""
_REST_SECONDS = 1
"""For the answers after that."""
_TICK = 1.0
_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130, signal.SIGHUP: 129}


def say(text: str) -> None:
    """Tell whoever reads the log, on standard error."""
    with suppress(OSError):
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours."""
        yield


def serve(settings: Settings, sockets: Sequence[socket.socket]) -> int:
    """Serve until a signal comes; the exit code.

    Raises:
        EdgeReclassError: the encoders cannot be opened, or the device was lost.
    """
    return asyncio.run(_serve(settings, list(sockets)))


async def _serve(settings: Settings, sockets: list[socket.socket]) -> int:
    loop = asyncio.get_running_loop()
    metrics, failed = Metrics(), asyncio.Event()

    def on_failure() -> None:
        loop.call_soon_threadsafe(failed.set)

    engine = Engine(
        partial(
            WorkerPool.open,
            settings.workers,
            settings.bundle,
            settings.device,
            settings.policy,
            min_confidence=settings.min_confidence,
        ),
        room=settings.queue,
        idle=settings.idle,
        spool=settings.spool,
        told=metrics.verdict,
        on_failure=on_failure,
    )
    metrics.watch("queue_length", "Requests that are worked on or wait.", lambda: engine.placed)
    metrics.watch("queue_room", "Requests that may be worked on or wait.", lambda: engine.room)
    metrics.watch("encoders_open", "1 while the encoders are open.", lambda: engine.is_open)
    keeper = None
    if settings.state is not None:
        keeper = Keeper(settings.state, settings, engine, _unix_path(sockets), say, metrics.verdict)
    service = Service(settings, engine, metrics, keeper)
    codes: list[int] = []

    def stop(code: int) -> None:
        if codes:
            os._exit(code)  # asked again: leave now; the state survives that
        codes.append(code)
        service.stopping.set()

    for number, code in _CODES.items():
        loop.add_signal_handler(number, stop, code)
    server = _Server(
        uvicorn.Config(
            create_app(service),
            http=Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_REST_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve(sockets))
    for one in sockets:
        say(f"listening on {named(one)}")
    if keeper is not None:
        keeper.start()
    opening = asyncio.create_task(asyncio.to_thread(engine.start))
    opening.add_done_callback(lambda _: _say_ready(engine))
    idling = asyncio.create_task(_tend(engine))
    waiting = [asyncio.create_task(event.wait()) for event in (service.stopping, failed)]
    try:
        await asyncio.wait({serving, *waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        notify_stopping()
        service.stopping.set()
        idling.cancel()
        for task in waiting:
            task.cancel()
        began = loop.time()
        if keeper is not None:
            await asyncio.to_thread(keeper.stop)
        clean = await asyncio.to_thread(engine.close, max(1.0, STOP_SECONDS - (loop.time() - began)))
        server.should_exit = True
        await serving
    if not clean:
        say("a track is still being worked on; it is left")
    if engine.failure is not None:
        _raise(engine.failure)
    return codes[0] if codes else 0


def _unix_path(sockets: Sequence[socket.socket]) -> Path | None:
    """Where other processes of this machine find the service."""
    names = (one.getsockname() for one in sockets if one.family == socket.AF_UNIX)
    return next((Path(name) for name in names if isinstance(name, str) and name.startswith("/")), None)


def _raise(error: BaseException) -> None:
    raise error if isinstance(error, EdgeReclassError) else EdgeReclassError(f"{type(error).__name__}: {error}")


def _say_ready(engine: Engine) -> None:
    if (probed := engine.probed) is not None:
        where = ", ".join(f"{stage.name} on {stage.device}" for stage in probed.stages)
        say(f"ready: {where}")
        notify_ready("ready")


async def _tend(engine: Engine) -> None:
    """Signs of life, and encoders closed when nobody needs them."""
    while True:
        await asyncio.sleep(_TICK)
        if not engine.stuck:  # else systemd's watchdog starts it anew
            notify_alive()
        if await asyncio.to_thread(engine.release_when_idle):
            say("nothing to do: the encoders are closed")
