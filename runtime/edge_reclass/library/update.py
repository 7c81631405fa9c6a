"""Bring a state up to date with a library: look what is to be done, and do it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import wait
from functools import partial
from typing import Final

from edge_reclass.library.basis import Again, Basis
from edge_reclass.library.recording import Recorder, StateRunner, StateSink, find_suspects
from edge_reclass.library.scanning import Shard, Work, look
from edge_reclass.library.state import State
from edge_reclass.run import CascadePool, LaneRunner, Observer, Runner, Sink, StdoutClosed, Track, WorkerPool, run
from edge_reclass.verdict import Verdict

_TICK: Final = 0.5
"""Seconds after which ``between`` is called although no verdict came."""


def classify_work(
    state: State,
    work: Work,
    basis: Basis,
    runner: Runner,
    sink: Sink,
    observer: Observer,
    *,
    again: Again = Again(),  # noqa: B008 - it cannot be changed
    alone: Callable[[Track], Verdict] | None = None,
    patience: float = 10,
    scan: int | None = None,
) -> None:
    """Classify what a look found to be done, and keep it in the state; ``runner`` is closed.

    Args:
        alone: classifies a suspect in a process of its own; by default ``runner`` takes suspects too.
        patience: seconds that a run which ends early waits for the tracks that are being classified.
        scan: of the service, that this is.

    Raises:
        UsageError: a disk went while it was read.
        KeyboardInterrupt, SystemExit, DeviceError, EdgeReclassError, StdoutClosed: as :func:`edge_reclass.run.run`.
    """
    recorder = Recorder(state, basis, again, scan)
    marking = StateRunner(recorder, work, runner, alone)
    try:
        run(work.tracks, marking, StateSink(recorder, sink), observer, patience=patience)
    except StdoutClosed:  # nobody reads the verdicts; those that there are stay
        recorder.end(complete=True)
        raise


class Updater:
    """Keeps an open state up to date with one open pool, again and again.

    For what stays resident::

        with State.open("library.state", create=True) as state, CascadePool.open(2) as pool:
            updater = Updater(state, pool, Basis.of(load_bundle(None), pool.plan.policy, None))
            work = updater.update(["/srv/music"])       # folders, or the files that are known to have changed
            print(work.to_do, work.unchanged)

    What an earlier process died with is a suspect from then on, and tried first.
    """

    def __init__(
        self,
        state: State,
        pool: CascadePool | Callable[[], CascadePool],
        basis: Basis,
        *,
        again: Again = Again(),  # noqa: B008 - it cannot be changed
        shard: Shard | None = None,
        between: Callable[[], None] = lambda: None,
        patience: float = 10,
        scan: int | None = None,
        within: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        """Made before its first update, which finds what an earlier process died with.

        Args:
            pool: or what gives one, called when there is something to do.
            between: called twice a second or oftener by the thread that updates, and never within a transaction: it may
                write into the state. What it raises ends the update early, in good order.
            patience: seconds that an update which ends early waits for the tracks that are being classified.
            scan: of the service, that this is.
            within: see :class:`edge_reclass.run.TrackSearch`.
        """
        self._within = within
        self._state, self._pool, self._basis, self._again, self._shard = state, pool, basis, again, shard
        self._between, self._patience, self._scan = between, patience, scan
        find_suspects(state)

    def update(
        self,
        paths: Iterable[str | os.PathLike[str]],
        sink: Sink | None = None,
        observer: Observer | None = None,
        *,
        ready: Callable[[Track], bool] | None = None,
        found: Callable[[Work], None] = lambda _: None,
    ) -> Work:
        """Classify what is new, changed or stale among ``paths``; what was found, and was to be done.

        Args:
            sink: takes the verdicts too, when they are kept.
            ready: tracks of which it says no are left for another time.
            found: told what is to be done, before the first track.

        Raises:
            UsageError: a disk seems not to be mounted.
            DeviceError: the device is lost.
        """
        work = look(self._state, paths, self._basis, self._again, self._shard, self._between, self._within)
        if ready is not None:
            work.leave(lambda track: not ready(track))
        found(work)
        if work.to_do:
            nobody = _Nobody()
            pool = self._pool() if callable(self._pool) else self._pool
            runner = _KeptOpen(LaneRunner(pool), self._between)
            classify_work(
                *(self._state, work, self._basis, runner, sink or nobody, observer or nobody),
                again=self._again,
                alone=partial(self._alone, pool) if isinstance(pool, WorkerPool) else None,
                patience=self._patience,
                scan=self._scan,
            )
        return work

    def _alone(self, pool: WorkerPool, track: Track) -> Verdict:
        future = pool.submit_alone(track)
        while not wait([future], _TICK).done:
            self._between()
        return future.result()


class _KeptOpen:
    """Another runner, whose pool stays open."""

    def __init__(self, runner: LaneRunner, between: Callable[[], None]) -> None:
        self._runner, self._between = runner, between
        self.finished, self.cancel, self.close = runner.finished, runner.cancel, runner.wait

    def verdicts(
        self, tracks: Iterable[Track], came: Callable[[Verdict | None], None] = lambda _: None
    ) -> Iterator[Verdict]:
        """See :meth:`edge_reclass.run.Runner.verdicts`."""

        def told(verdict: Verdict | None) -> None:
            came(verdict)
            self._between()

        return self._runner.verdicts(tracks, told)


class _Nobody:
    """A sink that keeps nothing, and an observer that says nothing."""

    def write(self, verdict: Verdict) -> None: ...
    def finish(self) -> None: ...
    def stop(self) -> str | None: ...
    def wrote(self, verdict: Verdict) -> None: ...
    def stopping(self, error: BaseException, running: int) -> None: ...
    def stopped(self, error: BaseException, kept: str | None) -> None: ...
