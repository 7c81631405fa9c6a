"""A bounded number of requests on one pool of workers, which is closed while there is nothing to do."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_reclass import Verdict, WorkerPool
from edge_reclass.errors import EdgeReclassError, EngineError
from edge_reclass_service.probe import Probed, probe
from edge_reclass_service.problems import Problem

_STUCK_SECONDS = 1800.0
"""Three times what a worker may take for the longest track."""


class Engine:
    """The one :class:`edge_reclass.WorkerPool` of the service, for requests and for whoever scans.

    What cannot be mended while the service runs (the device is lost, the bundle cannot be opened any more) is kept as
    ``failure``, and ``on_failure`` is called, from any thread.
    """

    def __init__(
        self,
        open_pool: Callable[[], WorkerPool],
        *,
        room: int,
        idle: float,
        spool: Path,
        told: Callable[[Verdict], None] = lambda _: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Opens nothing yet.

        Args:
            room: requests that are worked on or wait at a time.
            idle: seconds without a user after which the pool is closed.
            spool: where the probe's track is written for a moment.
            told: is told of each verdict, from any thread.
            on_failure: see above.
        """
        self._open_pool, self._room, self._idle, self._spool = open_pool, room, idle, spool
        self._told, self._on_failure = told, on_failure
        self._opening = threading.Lock()
        self._counting = threading.Lock()
        self._pool: WorkerPool | None = None
        self._users, self._used = 0, time.monotonic()
        self._closed = False
        self._began: dict[int, float] = {}
        self._threads = ThreadPoolExecutor(room, thread_name_prefix="edge-reclass-request")
        self._typical = 1.0
        self._lanes = 1
        self.device: str | None = None
        """Where the encoders ran when they were opened last."""
        self.placed = 0
        """Requests that are worked on or wait."""
        self.received = 0
        """Requests whose audio is being received."""
        self.probed: Probed | None = None
        """What ran where, as soon as a synthesised track has gone through every stage."""
        self.failure: BaseException | None = None

    @property
    def room(self) -> int:
        """Requests that are worked on or wait at a time."""
        return self._room

    @property
    def is_open(self) -> bool:
        """False while the encoders are closed because there was nothing to do."""
        return self._pool is not None

    def start(self) -> None:
        """Open the pool and let a synthesised track go through every stage. Takes seconds, or minutes.

        A failure is kept, see above.
        """
        began = time.monotonic()
        with suppress(EdgeReclassError), self.pool() as pool, self._fatal():
            self.probed = probe(pool, self._spool, time.monotonic() - began)

    @contextmanager
    def pool(self) -> Iterator[WorkerPool]:
        """The pool, opened where it is closed; it stays open inside. For any thread but the event loop's.

        Raises:
            EngineError: the service is being stopped.
            EdgeReclassError: it cannot be opened.
        """
        with self._counting:
            self._users += 1
        try:
            with self._opening:
                self._refuse_when_closed()
                if self._pool is None:
                    with self._fatal():
                        opened = self._open_pool()
                    if self._closed:  # meanwhile: nobody else would close the pool
                        opened.close(0.0)
                        self._refuse_when_closed()
                    self._pool = opened
                    self._lanes, self.device = len(self._pool.cascades), self._pool.device
                pool = self._pool
            yield pool
        finally:
            with self._counting:
                self._users -= 1
                self._used = time.monotonic()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise EngineError("the service is being stopped")

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Keep why the service cannot go on, unless it is being stopped anyway."""
        if not self._closed and self.failure is None:
            self.failure = error
            self._on_failure()

    def check(self) -> None:
        """Look whether there is a place now, before a body is read. On the event loop's thread.

        Raises:
            Problem: 503, all are taken, or the service does not work yet.
        """
        if self._closed or self.failure is not None:
            raise Problem(503, "stopping", "the service is being stopped", {"Retry-After": "10"})
        if self.probed is None:
            raise Problem(503, "not-ready", "the encoders are being opened; see /health/ready", {"Retry-After": "2"})
        if self.placed >= self._room:
            after = math.ceil(self._typical * self.placed / self._lanes)
            detail = f"{self.placed} requests are worked on or wait, as many as there may be (--queue)"
            raise Problem(503, "busy", detail, {"Retry-After": str(max(1, min(60, after)))})

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places for requests; taken when the body is there, so that slow ones hold none.

        Raises:
            Problem: 503, see :meth:`check`.
        """
        self.check()
        self.placed += 1
        try:
            yield
        finally:
            self.placed -= 1

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """One of the places for audio that is being received: twice as many as those for requests.

        Raises:
            Problem: 503, all are taken, or :meth:`check`.
        """
        self.check()
        if self.received >= 2 * self._room:
            detail = f"the audio of {self.received} requests is being received, as much as may be at a time"
            raise Problem(503, "busy", detail, {"Retry-After": "5"})
        self.received += 1
        try:
            yield
        finally:
            self.received -= 1

    async def classify(self, path: str | os.PathLike[str]) -> Verdict:
        """The verdict of one file. The caller holds a :meth:`place`.

        Raises:
            Problem: 503, the service cannot go on.
        """
        began = time.monotonic()
        try:
            verdict = await asyncio.get_running_loop().run_in_executor(self._threads, self._classify, path)
        except EdgeReclassError as error:
            if not self._closed:
                self.fail(error)
            detail = "the service is being stopped" if self._closed else f"the service cannot go on: {error}"
            raise Problem(503, "stopping", detail, {"Retry-After": "10"}) from error
        self._typical += 0.2 * (time.monotonic() - began - self._typical)
        self.tell(verdict)
        return verdict

    def tell(self, verdict: Verdict) -> None:
        """Count a verdict, whoever asked for it; from any thread."""
        self._told(verdict)

    def _classify(self, path: str | os.PathLike[str]) -> Verdict:
        me = object()
        self._began[id(me)] = time.monotonic()
        try:
            with self.pool() as pool:
                return pool.classify(path)
        finally:
            del self._began[id(me)]

    @property
    def stuck(self) -> bool:
        """True if a request gets no verdict, although each track has its limit: a device that does not come back."""
        began = list(self._began.values())
        return bool(began) and time.monotonic() - min(began) > _STUCK_SECONDS

    def release_when_idle(self) -> bool:
        """Close the pool if nobody has used it for a while, and say so. Not on the event loop's thread."""
        if not self._opening.acquire(blocking=False):
            return False
        try:
            with self._counting:
                idle = self._users == 0 and time.monotonic() - self._used >= self._idle
            if self._pool is None or not idle:
                return False
            self._pool.close()
            self._pool = None
        finally:
            self._opening.release()
        gc.collect()
        with suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)
        return True

    def close(self, seconds: float) -> bool:
        """Cancel what waits, give what runs so many seconds, and release everything. True where nothing runs on."""
        self._closed = True
        until = time.monotonic() + seconds
        if not self._opening.acquire(timeout=seconds):
            return False  # it is being opened, which nothing can cut short
        try:
            done = self._pool is None or self._pool.close(max(0.0, until - time.monotonic()))
        finally:
            self._opening.release()
        self._threads.shutdown(wait=False, cancel_futures=True)
        return done
