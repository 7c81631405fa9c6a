"""What the service does with its state: one writer, any number of readers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from edge_reclass import Verdict, WorkerPool
from edge_reclass.errors import EdgeReclassError
from edge_reclass.library import Basis, State
from edge_reclass_service.engine import Engine
from edge_reclass_service.keeping.plans import Plans
from edge_reclass_service.keeping.scans import Scans
from edge_reclass_service.keeping.watching import Watching
from edge_reclass_service.keeping.writer import Loan, Stopped, Writer
from edge_reclass_service.problems import Problem
from edge_reclass_service.settings import Settings

T = TypeVar("T")

STOP_SECONDS: Final = 6.0
"""A scan gives the tracks that are being classified five of them."""
_TICK: Final = 0.1
_TICK_OF_WATCHING: Final = 1.0
"""Seconds in which the watching thread sees that it is stopped."""
_WRITE_SECONDS: Final = 10.0
"""How long a request waits for its turn to write."""


class Keeper:
    """Keeps the state of a service, from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        state: Path,
        settings: Settings,
        engine: Engine,
        socket: Path | None,
        say: Callable[[str], None],
        told: Callable[[Verdict], None],
    ) -> None:
        """Opens nothing yet.

        Args:
            socket: what the lock of the state says of where to find us.
            told: is told of each verdict, on the writer's thread.

        Raises:
            MissingExtraError: it is to watch, and watchdog is not installed.
        """
        self._path, self._engine = state, engine
        self.streams = 0
        """Streams of events that are open."""
        self.writer = Writer(state, socket, engine.fail, say)
        self._taken_up = False
        basis = Basis.of(settings.bundle, settings.policy, settings.min_confidence)
        self.scans = Scans(self.writer, basis, settings.roots, self._pool, told)
        self.plans = Plans(state, self.writer, settings.roots, write_tags=settings.write_tags, say=say)
        self._watching: Watching | None = None
        if settings.watch is not None:
            self._watching = Watching(
                *(self.writer, basis, settings.roots, self._pool),
                habits=settings.watch,
                say=say,
                failed=engine.fail,
                told=told,
            )

    def start(self) -> None:
        """Begin to open the state, and take up the scans that were left, on a thread: that can take minutes.

        Where the state cannot be used, or another service writes it, the engine is told of a failure.
        """
        threading.Thread(target=self._start, name="state-opening", daemon=True).start()

    def _start(self) -> None:
        try:
            self.writer.start()
        except Stopped:
            return
        except Exception as error:
            self._engine.fail(error)
            return
        self.writer.later(self._take_up)
        if self._watching is not None:
            self._watching.start()

    def _take_up(self, state: State) -> None:
        if not self._taken_up:
            self.plans.resume(state)
            self.scans.resume(state)
            self._taken_up = True

    @property
    def trouble(self) -> str | None:
        """Why nothing can be recorded now, though no other process has the state to write; None: it can."""
        if self.writer.trouble is not None or self._taken_up or self.writer.lent_to is not None:
            return self.writer.trouble
        return "the state is being opened, or brought up to date"

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """End in good order; False where that takes longer."""
        self.plans.stop()
        stopped = self.writer.stop(timeout)
        return (self._watching is None or self._watching.stop(_TICK_OF_WATCHING)) and stopped

    @contextmanager
    def _pool(self) -> Iterator[WorkerPool]:
        """For the writer: the pool, once a track has gone through it."""
        while self._engine.probed is None and self._engine.failure is None:
            self.writer.between()
            time.sleep(_TICK)
        with self._engine.pool() as pool:
            yield pool

    async def read(self, act: Callable[[State], T]) -> T:
        """What ``act`` makes of the state, as of one moment, while others write.

        Raises:
            Problem: 503, it cannot be read.
        """

        def opened() -> T:
            with State.open(self._path) as state:
                return act(state)

        try:
            return await asyncio.to_thread(opened)
        except EdgeReclassError as error:
            raise Problem(503, "state", str(error), {"Retry-After": "5"}) from error

    async def write(self, act: Callable[[State], T]) -> T:
        """Have the writer do something short.

        Raises:
            Problem: 503, it cannot be done now.
        """
        if not self._taken_up:
            holder = self.writer.lent_to
            why = self.trouble if holder is None else f"the state: {holder} has it to write; try again"
            raise Problem(503, "state-busy", why or "try again", {"Retry-After": "5"})
        future = self.writer.do(act)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), _WRITE_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            holder = self.writer.lent_to
            why = "something else is being written" if holder is None else f"{holder} has it to write"
            raise Problem(503, "state-busy", f"the state: {why}; try again", {"Retry-After": "5"}) from None
        except EdgeReclassError as error:
            raise Problem(503, "state", str(error), {"Retry-After": "5"}) from error

    def lend(self, to: str) -> Loan:
        """See :meth:`Writer.lend`."""
        return self.writer.lend(to)
