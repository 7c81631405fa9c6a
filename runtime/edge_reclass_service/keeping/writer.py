"""The one thread that writes the state: short jobs as they come, long ones one at a time, short ones in between.

Another process may be lent the state: then it is closed and its lock given back, until that process is done with it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from edge_reclass.errors import EdgeReclassError, StateBusyError
from edge_reclass.library import State

T = TypeVar("T")


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
    """

    def __init__(self, path: Path, socket: Path | None, failed: Callable[[BaseException], None]) -> None:
        self._path, self._socket, self._failed = path, socket, failed
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

    @property
    def lent_to(self) -> str | None:
        """Who has the state now, in words; None: we."""
        loan = next(iter(self._loans.copy()), None)
        return None if loan is None or not loan.granted.done() else loan.to

    def start(self) -> None:
        """Open the state.

        Raises:
            UsageError: it cannot be used, or another process writes it.
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
            self._state = self._open()
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
        if self._loans:
            self._lend()
        elif self._long and self._state is not None:
            job = self._long.popleft()
            try:
                job(self._state)
            except Interrupted:
                self._long.appendleft(job)
        elif (waited := self._jobs.get()) is not None and self._state is not None:
            waited.run(self._state)
        self.revision += 1

    def _lend(self) -> None:
        loan = self._loans[0]
        if self._state is not None and loan.granted.set_running_or_notify_cancel():
            self._state.close()
            self._state = None
            loan.granted.set_result(None)
            self.revision += 1
            loan.over.wait()
            while self._state is None and not self._stopping.is_set():
                with suppress(StateBusyError):  # whoever had it is not quite done
                    self._state = self._open()
        self._loans.popleft()

    def _open(self) -> State:
        return State.open(self._path, create=True, socket=self._socket)

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
