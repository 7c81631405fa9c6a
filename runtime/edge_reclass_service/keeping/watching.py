"""``serve --watch``: what is finished in the roots is classified as it comes, by the one writer."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Final

from edge_reclass import CascadePool, Verdict
from edge_reclass.library import Basis, Habits, Resident, State
from edge_reclass_service.keeping.writer import Interrupted, Writer, passes

_TICK: Final = 0.5

Act = Callable[[State, Callable[[], CascadePool], Callable[[], None]], None]


class _Stopped(Exception):
    """The service stops."""


class Watching:
    """A :class:`edge_reclass.library.Resident` on a thread of its own; its looks are long jobs of the writer.

    Args:
        pool: the open pool, which stays open within.
        told: is told of each verdict, on the writer's thread.
        failed: told of an error after which nothing can be classified or written.
    """

    def __init__(
        self,
        writer: Writer,
        basis: Basis,
        roots: Sequence[Path],
        pool: Callable[[], AbstractContextManager[CascadePool]],
        *,
        habits: Habits,
        say: Callable[[str], None],
        failed: Callable[[BaseException], None],
        told: Callable[[Verdict], None],
    ) -> None:
        """Raises ``MissingExtraError``: watchdog is not installed."""
        self._writer, self._pool, self._failed = writer, pool, failed
        self._stopping = threading.Event()
        paths = list(map(os.fspath, roots))
        self._resident = Resident(paths, self, basis, _Told(told), habits=habits, say=say, confined=True)
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """End; False where it does not in time."""
        self._stopping.set()
        self._resident.wake()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._resident.run(self._stopping.is_set)
        except _Stopped:
            pass
        except Exception as error:
            if not self._stopping.is_set():
                self._failed(error)

    def use(self, act: Act) -> None:
        """See :class:`edge_reclass.library.watching.access.Access`."""
        done: Future[None] = Future()

        def job(state: State) -> None:
            try:
                with ExitStack() as held:
                    act(state, lambda: held.enter_context(self._pool()), self._writer.between)
                done.set_result(None)
            except Interrupted:
                raise
            except BaseException as error:
                if passes(error):  # a full disk: the writer calls this again
                    raise
                done.set_exception(error)

        self._writer.later(job)
        while not wait([done], _TICK).done:
            if self._stopping.is_set():
                raise _Stopped
        done.result()

    def ready(self) -> None:
        """See above."""

    def alive(self, text: str) -> None:
        """See above."""

    def tend(self) -> None:
        """See above."""

    def close(self) -> None:
        """See above."""


class _Told:
    """A sink: the verdicts are in the state already."""

    def __init__(self, told: Callable[[Verdict], None]) -> None:
        self.write = told

    def finish(self) -> None: ...
    def stop(self) -> str | None: ...
