"""The loop that stays: what is finished is classified, and between times little memory is held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_reclass.errors import UsageError
from edge_reclass.library.journal import Journal
from edge_reclass.library.rows import Wanted
from edge_reclass.library.state import State
from edge_reclass.library.update import Updater
from edge_reclass.library.watching.access import Access, BusyError
from edge_reclass.library.watching.roots import Roots
from edge_reclass.library.watching.settling import Settling

if TYPE_CHECKING:
    from edge_reclass.library.basis import Basis
    from edge_reclass.library.scanning import Work
    from edge_reclass.run import CascadePool, Sink
    from edge_reclass.verdict import Verdict

_TICK: Final = 2.0
"""Seconds between looks at whether the roots are there, and signs of life to systemd."""
_BUSY: Final = 5.0
"""Seconds until a state that another process writes is tried again."""
_REST: Final = 5.0
"""How much longer than a round we rest after it, and at most as long as a file settles: a look at a large state takes a
second or two, and what settles meanwhile is looked at together."""
_COMMAND: Final = "watch --then"
"""In the journal, a run that is open from the first classification of a round until ``then`` is done with it."""


@dataclass(frozen=True)
class Habits:
    """How a library is watched; all in seconds."""

    settle: float = 10.0
    """A file is finished when it stayed the same for so long."""
    rescan: float = 86_400.0
    poll: float = 900.0
    """Between searches of a folder from which events do not come."""


class Resident:
    """Watches until the process is stopped."""

    def __init__(
        self,
        paths: list[str],
        access: Access,
        basis: Basis,
        sink: Sink,
        *,
        habits: Habits = Habits(),
        then: Callable[[State, list[str], Callable[[str], None]], None] | None = None,
        say: Callable[[str], None],
        confined: bool = False,
    ) -> None:
        """Made before it watches.

        Args:
            then: what is done with the paths classified in a round, while the state is open.
            confined: what links lead to outside of ``paths`` is left out.

        Raises:
            MissingExtraError: watchdog is not installed.
        """
        self._within = paths if confined else None
        self._access, self._basis, self._habits = access, basis, habits
        self._sink, self._then, self._say = sink, then, say
        self._woken = threading.Event()
        self._settling = Settling(habits.settle)
        self._roots = Roots(
            paths, self._settling, rescan=habits.rescan, poll=habits.poll, say=say, wake=self._woken.set
        )
        self._busy_until = self._rest_until = 0.0
        self._waiting: list[str] = []
        """Finished files of a round for which the state was busy."""
        self._classified = 0
        self._run: int | None = None

    def run(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Until ``stopped`` says so, or a signal ends it, which comes as KeyboardInterrupt or SystemExit.

        Raises:
            DeviceError: the device is lost.
            EdgeReclassError: the state cannot be written, or the bundle not be opened.
        """
        try:
            self._access.ready()
            while not stopped():
                self._roots.look()
                if (began := time.monotonic()) >= max(self._busy_until, self._rest_until):
                    self._round()
                    ended = time.monotonic()
                    self._rest_until = ended + min(_REST * (ended - began), self._habits.settle)
                self._access.tend()
                self._access.alive(f"watching; {self._classified} classified, {len(self._settling)} settling")
                self._woken.wait(self._pause())
                self._woken.clear()
        finally:
            self._roots.close()
            self._access.close()

    def wake(self) -> None:
        """Look at once whether it is stopped; from any thread."""
        self._woken.set()

    def _round(self) -> None:
        """Everything whose time has come."""
        for root in self._roots.to_search():
            try:
                self._update([root.path])
            except _NotMountedError as error:
                self._roots.lost(root, str(error))
            except BusyError:
                return
            else:
                self._roots.searched(root)
        # What went with its root is not looked at, else it would be marked as gone.
        due = filter(self._roots.holds, (*self._waiting, *self._settling.due()))
        self._waiting = list(dict.fromkeys(due))
        if self._waiting:
            try:
                self._update(self._waiting)
            except BusyError:
                return
            except _NotMountedError as error:
                for root in self._roots.roots:
                    if any(path.startswith(root.path) for path in self._waiting):
                        self._roots.lost(root, str(error))
            self._waiting = []

    def _update(self, paths: list[str]) -> None:
        def act(state: State, pool: Callable[[], CascadePool], between: Callable[[], None]) -> None:
            self._updated(state, paths, pool, between)

        try:
            self._access.use(act)
        except BusyError as error:
            if time.monotonic() - self._busy_until > 2 * _BUSY:
                self._say(f"{error}; waiting")
            self._busy_until = time.monotonic() + _BUSY
            raise

    def _updated(
        self, state: State, paths: list[str], pool: Callable[[], CascadePool], between: Callable[[], None]
    ) -> None:
        verdicts = _Collected(self._sink, self._alive, keep=self._then is not None)
        log = Journal.of_state(state)

        def opened() -> CascadePool:
            given = pool()
            if self._then is not None:
                self._run = log.begin(_COMMAND)
            return given

        updater = Updater(state, opened, self._basis, between=between, within=self._within)
        known = [path for path in paths if Path(path).exists() or state.track(path) is not None]
        try:
            work = updater.update(known, verdicts, ready=self._settling.is_ready)
        except UsageError as error:
            raise _NotMountedError(str(error)) from error
        self._tell(work, verdicts.total)
        if self._then is not None:
            self._finish(self._then, state, log, verdicts.paths)

    def _finish(
        self,
        then: Callable[[State, list[str], Callable[[str], None]], None],
        state: State,
        log: Journal,
        new: list[str],
    ) -> None:
        """Do what is to be done with ``new`` tracks, and with those of a round that ended before it came to that."""
        runs = log.runs(_COMMAND)
        cut_off = any(run.id != self._run for run in runs)
        complete = all(root.is_there() for root in self._roots.roots)
        if cut_off and complete:
            rows = state.tracks(Wanted(since=runs[-1].at))
            new = [path for row in rows if self._roots.holds(path := str(row.file))]
        if new:
            then(state, new, self._say)
        if runs and (complete or not cut_off):
            log.tidy(_COMMAND)

    def _tell(self, work: Work, verdicts: int) -> None:
        said = [
            (verdicts, "classified"),
            (work.moved, "moved"),
            (work.retagged, "with new tags"),
            (work.absent, "gone"),
        ]
        if parts := [f"{number} {what}" for number, what in said if number]:
            self._say(", ".join(parts))

    def _alive(self) -> None:
        self._classified += 1
        self._access.alive(f"classifying; {self._classified} by now")

    def _pause(self) -> float:
        """Seconds to sleep."""
        if (busy := self._busy_until - time.monotonic()) > 0:
            return min(_TICK, busy)
        settles = self._settling.next_in()
        return max(0.05, min(_TICK, self._roots.next_in(), _TICK if settles is None else settles))


class _NotMountedError(Exception):
    """A root is not as it should be; nothing was marked."""


class _Collected:
    """Hands verdicts on to a sink that stays open, counts them, and keeps their paths if asked."""

    def __init__(self, sink: Sink, told: Callable[[], None], *, keep: bool) -> None:
        self._sink, self._told, self._keep = sink, told, keep
        self.total = 0
        self.paths: list[str] = []

    def write(self, verdict: Verdict) -> None:
        self.total += 1
        if self._keep:
            self.paths.append(verdict.path)
        self._sink.write(verdict)
        self._told()

    def finish(self) -> None: ...

    def stop(self) -> str | None:
        return None
