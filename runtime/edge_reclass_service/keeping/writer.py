"""The one thread that writes the state: short jobs as they come, long ones one at a time, short ones in between.

Another process may be lent the state: then it is closed and its lock given back, until that process is done with it.
Such a process may outlive the service: then the next one waits for it in the same way.

On a full disk a long job is put back, and tried again after a pause; short jobs are refused one by one.
"""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from edge_reclass.errors import EdgeReclassError, StateBusyError, UsageError
from edge_reclass.library import State

T = TypeVar("T")

_PAUSE: Final = 30.0
"""Seconds until what met a full disk is tried again."""


def passes(error: BaseException | None) -> bool:
    """Whether an error says that the disk is full or failed, which may pass; not that the state is damaged."""
    while error is not None:
        if isinstance(error, sqlite3.OperationalError) and ("disk is full" in str(error) or "disk I/O" in str(error)):
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            return True
        error = error.__cause__
    return False


class Stopped(EdgeReclassError):
    """The service was stopped before the state could be opened."""


class Interrupted(Exception):
    """A long job is to end now, and is done again later: what it did by then stays."""


class Loan:
    """The state is another process's to write, from when ``granted`` is done until :meth:`give_back`."""

    def __init__(self, to: str) -> None:
        self.to = to
        """Who has it, in words."""
        self.granted: Future[None] = Future()
        self.over = threading.Event()

    def give_back(self) -> None:
        """It is not needed any more. Again is allowed."""
        self.granted.cancel()
        self.over.set()


class _Job(Generic[T]):
    """A short job, and who waits for it."""

    def __init__(self, act: Callable[[State], T]) -> None:
        self._act = act
        self.future: Future[T] = Future()

    def run(self, state: State) -> None:
        if self.future.set_running_or_notify_cancel():
            try:
                self.future.set_result(self._act(state))
            except BaseException as error:
                self.future.set_exception(error)

    def refuse(self) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(EdgeReclassError("the service is stopping"))


class Writer:
    """Owns the state while it runs.

    Args:
        path: the state file; made where there is none.
        socket: what the lock says of where to find us.
        failed: told of an error after which nothing can be written any more.
        say: told what a person should know.
    """

    def __init__(
        self,
        path: Path,
        socket: Path | None,
        failed: Callable[[BaseException], None],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path, self._socket, self._failed, self._say = path, socket, failed, say
        self._opened_once = False
        self._held_by: str | None = None
        self._pause_over = 0.0
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._long: deque[Callable[[State], None]] = deque()
        self._loans: deque[Loan] = deque()
        self._stopping = threading.Event()
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
        self._state: State | None = None
        self._lock, self._closed = threading.Lock(), False
        self.revision = 0
        """Rises whenever something may have been written."""
        self.trouble: str | None = None
        """Why long jobs wait: the disk is full."""

    @property
    def lent_to(self) -> str | None:
        """Who has the state now, in words; None: we."""
        if (holder := self._held_by) is not None:
            return holder
        loan = next(iter(self._loans.copy()), None)
        return None if loan is None or not loan.granted.done() else loan.to

    def start(self) -> None:
        """Open the state, and wait for that: while it is migrated, or another process that borrowed it is at work.

        Raises:
            UsageError: it cannot be used, or another service writes it.
            Stopped: it was stopped meanwhile.
        """
        self._thread.start()
        self._opened.result()

    def stop(self, timeout: float | None = None) -> bool:
        """End in good order: what waits is not begun, what runs is told to end; False where it does not in time."""
        self._stopping.set()
        for loan in self._loans.copy():
            loan.give_back()
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def do(self, act: Callable[[State], T]) -> Future[T]:
        """Have a short job done, soon; its future can be cancelled as long as it has not begun."""
        job = _Job(act)
        with self._lock:
            if not self._closed:
                self._jobs.put(job)
                return job.future
        job.refuse()
        return job.future

    def later(self, job: Callable[[State], None]) -> None:
        """Have a long job done when those before it are done.

        It calls :meth:`between` often, and lets :class:`Interrupted` through: then it is called again later.
        """
        self._long.append(job)
        self._jobs.put(None)

    def lend(self, to: str) -> Loan:
        """Lend the state to another process as soon as what runs can be interrupted."""
        loan = Loan(to)
        self._loans.append(loan)
        self._jobs.put(None)
        return loan

    def between(self) -> None:
        """Within a long job, outside of transactions: do the short jobs that came.

        Raises:
            Interrupted: the state is asked for, or the service stops.
        """
        self.revision += 1
        if self.trouble is not None and time.monotonic() > self._pause_over + _PAUSE:
            self._recovered()  # it went well for so long
        self._do_short()
        if self._stopping.is_set() or self._loans:
            raise Interrupted

    def _do_short(self) -> None:
        with suppress(Empty):
            while self._state is not None:
                if (job := self._jobs.get_nowait()) is not None:
                    job.run(self._state)
                    self.revision += 1

    def _run(self) -> None:
        try:
            self._wait_for_state()
            if self._state is None:
                raise Stopped("the service is stopping")
        except BaseException as error:
            self._close()
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            while not self._stopping.is_set():
                self._turn()
        except BaseException as error:
            self._failed(error)
        finally:
            self._close()

    def _turn(self) -> None:
        """Do what is to be done now, else wait."""
        self._do_short()
        left = max(0.0, self._pause_over - time.monotonic())
        if self._loans:
            self._lend()
        elif self._long and self._state is not None and not left:
            job = self._long.popleft()
            try:
                job(self._state)
            except Interrupted:
                self._long.appendleft(job)
            except Exception as error:
                if not passes(error):
                    raise
                self._long.appendleft(job)
                self._pause(error)
            else:
                self._recovered()
        else:
            with suppress(Empty):
                waited = self._jobs.get(timeout=left if self._long else None)
                if waited is not None and self._state is not None:
                    waited.run(self._state)
        self.revision += 1

    def _pause(self, error: BaseException) -> None:
        self._pause_over = time.monotonic() + _PAUSE
        if self.trouble is None:
            self._say(f"{error}; it is tried again every {_PAUSE:.0f} s")
        self.trouble = str(error)

    def _recovered(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            self._say(f"{self._path}: the state can be written again")

    def _lend(self) -> None:
        loan = self._loans[0]
        if self._state is not None and loan.granted.set_running_or_notify_cancel():
            self._state.close()
            self._state = None
            loan.granted.set_result(None)
            self.revision += 1
            loan.over.wait()
            self._wait_for_state()
        self._loans.popleft()

    def _wait_for_state(self) -> None:
        """Open it when whoever has it is done, or has made room. The lock waits a second each time."""
        try:
            while self._state is None and not self._stopping.is_set():
                try:
                    self._state = self._open()
                except StateBusyError as busy:
                    if not self._opened_once:
                        self._expect_borrower(busy)
                except UsageError as error:
                    if not passes(error):
                        raise
                    self._pause(error)
                    self._stopping.wait(_PAUSE)
        finally:
            self._held_by = None
        self._pause_over = 0.0
        self._recovered()

    def _expect_borrower(self, busy: StateBusyError) -> None:
        """Whoever has the state at the start borrowed it from the service before us, unless it is a service itself.

        Raises:
            StateBusyError: it is a service.
        """
        mine = None if self._socket is None else os.path.abspath(self._socket)  # noqa: PTH100 - as the lock has it
        if busy.socket is not None and busy.socket != mine and _answers(busy.socket):
            raise busy
        if self._held_by is None:
            self._say(f"{self._path}: {busy.holder} is at work on the state; until it is done, nothing is recorded")
        self._held_by = busy.holder

    def _open(self) -> State:
        """A state that was there once is not made anew: it was moved away, which is to be said."""
        once = self._opened_once
        state = State.open(self._path, write=True, create=not once, socket=self._socket, check=not once, say=self._say)
        self._opened_once = True
        return state

    def _close(self) -> None:
        self._stopping.set()
        if self._state is not None:
            self._state.close()
            self._state = None
        with self._lock:
            self._closed = True
        with suppress(Empty):
            while True:
                if (job := self._jobs.get_nowait()) is not None:
                    job.refuse()


def _answers(path: str) -> bool:
    """Whether something listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(5)
        try:
            one.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # it is busy, or may not be reached by us: something is there
            return True
    return True
