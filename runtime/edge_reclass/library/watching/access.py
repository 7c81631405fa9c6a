"""Where a resident program gets the state and the encoders from, and whom it tells that it is alive."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.library.hashing import close_idle
from edge_reclass.library.state import State
from edge_reclass.run import notify

if TYPE_CHECKING:
    from edge_reclass.run import CascadePool


class BusyError(Exception):
    """Another process writes the state."""


class Access(Protocol):
    """What a :class:`edge_reclass.library.Resident` needs of the program that it is in."""

    def use(self, act: Callable[[State, Callable[[], CascadePool], Callable[[], None]], None]) -> None:
        """Call ``act`` with the state, open for writing, what gives the open pool, and what it calls between tracks.

        Where it was interrupted, it may be called again from its begin.

        Raises:
            BusyError: another process writes the state.
            Exception: whatever ``act`` raises.
        """

    def ready(self) -> None:
        """It begins."""

    def alive(self, text: str) -> None:
        """It is alive, and does this."""

    def tend(self) -> None:
        """Nothing is done for a while."""

    def close(self) -> None:
        """It ends."""


class OwnAccess:
    """A state that is open only while it is used, and a pool of its own that is closed when there is nothing to do."""

    def __init__(
        self, state: Path, open_pool: Callable[[], CascadePool], *, idle: float, say: Callable[[str], None]
    ) -> None:
        """Args: idle, seconds without anything to do after which the pool is closed."""
        self._state, self._open_pool, self._idle, self._say = state, open_pool, idle, say
        self._pool: CascadePool | None = None
        self._used, self._asked = time.monotonic(), False

    def use(self, act: Callable[[State, Callable[[], CascadePool], Callable[[], None]], None]) -> None:
        """See :meth:`Access.use`."""
        try:
            state = State.open(self._state, create=True)
        except UsageError as error:
            raise BusyError(str(error)) from error
        self._asked = False
        try:
            with state:
                act(state, self._opened, lambda: None)
        finally:
            if self._asked:
                self._used = time.monotonic()

    def ready(self) -> None:
        """See :meth:`Access.ready`."""
        notify.ready("watching")

    def alive(self, text: str) -> None:
        """See :meth:`Access.alive`."""
        notify.alive(text)

    def tend(self) -> None:
        """See :meth:`Access.tend`."""
        if self._pool is not None and time.monotonic() - self._used >= self._idle:
            self._release()
            self._say("nothing to do: the encoders are closed")

    def close(self) -> None:
        """See :meth:`Access.close`."""
        notify.stopping()
        self._release(timeout=10)

    def _opened(self) -> CascadePool:
        self._asked = True
        if self._pool is None:
            try:
                self._pool = self._open_pool()
            except UsageError as error:  # which would look like a disk that is not there
                raise EdgeReclassError(str(error)) from error
        return self._pool

    def _release(self, timeout: float | None = None) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(timeout)
            close_idle()
            del pool
            gc.collect()
            with suppress(OSError, AttributeError):  # not glibc
                ctypes.CDLL(None).malloc_trim(0)
