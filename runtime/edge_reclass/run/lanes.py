"""Several tracks at a time: lanes, each a thread with a cascade of its own, on one set of encoders.

Decoding, features, resampling and graphs all release the interpreter lock, so threads are enough. On the CPU each lane
runs the encoders itself; on a GPU the lanes' windows are run together (``shared_batches.py``). Results keep the order
of the paths, and there are never more tracks in memory than lanes.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, TypeVar

from edge_reclass.backends import Backend
from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Cascade, Options, Plan, Policy, SharedModel, choose_policy, load_bundle, open_model
from edge_reclass.cascade.cascade import Files
from edge_reclass.cascade.plan import DEFAULT_BATCH, DEFAULT_MAX_RATE, DEFAULT_MAX_SECONDS
from edge_reclass.errors import DeviceError, EngineError, WorkerError
from edge_reclass.verdict import Verdict

_Pool = TypeVar("_Pool", bound="CascadePool")

_AHEAD = 4
"""Tracks waiting per lane: enough that a slow track at the front does not leave the other lanes idle."""


_TICK = 0.5
"""Seconds after which it is said that no verdict came, and after which a signal is seen at the latest."""


class CascadePool:
    """Cascades on as many threads, on one set of encoders. Made by :meth:`open`; a context manager."""

    def __init__(self, model: SharedModel, files: Sequence[Files] | None = None) -> None:
        """``files``: where each lane's tracks are decoded; None: in the lane."""
        self._model = model
        self._closed = False
        each: Sequence[Files | None] = files or [None] * len(model.lanes)
        self.cascades = [Cascade(model, lane, files=own) for lane, own in zip(model.lanes, each, strict=True)]
        self._free: SimpleQueue[Cascade] = SimpleQueue()
        for cascade in self.cascades:
            self._free.put(cascade)
        self._unfinished: set[Future[Verdict]] = set()
        self._threads = ThreadPoolExecutor(len(self.cascades), thread_name_prefix="edge-reclass")

    @classmethod
    def open(
        cls,
        jobs: int | None,
        bundle: str | Path | Bundle | None = None,
        device: str | Backend = "cpu",
        policy: str | Policy | None = None,
        *,
        threads: int | None = None,
        max_rate: int = DEFAULT_MAX_RATE,
        max_seconds: float = DEFAULT_MAX_SECONDS,
        batch: int = DEFAULT_BATCH,
        allow_random: bool = False,
        engines: str | Path | None = None,
        timed: bool = False,
        min_confidence: float | None = None,
        keep_embeddings: bool = False,
    ) -> CascadePool:
        """Open ``jobs`` lanes (None: as many as the device can make use of); the rest as :meth:`Cascade.open`.

        ``threads`` is per lane; by default the usable CPUs are shared out. On the CPU a lane may use those that others
        leave idle. On a GPU ``batch`` is the most windows,
        of however many tracks, that are run at once. With ``keep_embeddings``, the stages of a verdict hold what their
        encoders made of the track (:attr:`edge_reclass.verdict.StageReport.embedding`).

        Raises:
            UsageError: ``jobs`` is below 1; and whatever Cascade.open raises.
        """
        folder = None if engines is None else Path(engines)
        options = Options(
            threads, max_rate, max_seconds, batch, allow_random, folder, timed, min_confidence, keep_embeddings
        )
        loaded = load_bundle(bundle)
        return cls(open_model(loaded, device, choose_policy(loaded, policy), options, lanes=jobs))

    @property
    def plan(self) -> Plan:
        """The plan that all lanes follow."""
        return self._model.plan

    @property
    def lanes(self) -> int:
        """How many tracks are worked on at a time."""
        return len(self.cascades)

    @property
    def device(self) -> str:
        """The device that the encoders run on."""
        return self._model.device

    @property
    def notes(self) -> tuple[str, ...]:
        """See :attr:`Cascade.notes`."""
        return self._model.notes

    @property
    def batches(self) -> dict[str, tuple[int, ...]]:
        """For each stage whose batches the lanes share: how many of 0, 1, 2, … windows were run."""
        return dict(self._model.batches)

    def classify_many(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Verdict]:
        """One verdict per path, in order. ``paths`` is read only a few tracks ahead of the results.

        No verdict is lost where the run cannot go on: those that there are come before the error.

        Raises:
            EngineError: the pool is closed.
            DeviceError, WorkerError: the device is lost, or a worker process does not start; no further track can be
                classified. Verdicts of tracks behind the one that
                met this may have come before.
            Exception: whatever reading ``paths`` raises, after the verdicts of the paths before.
        """
        runner = LaneRunner(self)
        try:
            yield from runner.verdicts(paths)
        except (DeviceError, WorkerError):
            runner.cancel()
            yield from runner.finished(wait=True)
            raise
        finally:
            runner.cancel()

    def classify(self, path: str | os.PathLike[str]) -> Verdict:
        """As :meth:`Cascade.classify`, on the next free lane; may be called from any number of threads.

        Raises:
            EngineError: the pool is closed.
            DeviceError: the device is lost; no further track can be classified.
        """
        return result(self.submit(path))

    def submit(self, path: str | os.PathLike[str]) -> Future[Verdict]:
        """Classify one audio file as soon as a lane is free; may be called from any number of threads.

        The future's ``result()`` is the verdict, or raises DeviceError as :meth:`Cascade.classify` does.

        Raises:
            EngineError: the pool is closed.
        """
        return self._submit(self._classify, path)

    def _submit(
        self, classify: Callable[[str | os.PathLike[str]], Verdict], path: str | os.PathLike[str]
    ) -> Future[Verdict]:
        if self._closed:
            raise _closed()
        try:
            future = self._threads.submit(classify, path)
        except RuntimeError as error:  # another thread has closed the pool since
            raise _closed() from error
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def _classify(self, path: str | os.PathLike[str]) -> Verdict:
        cascade = self._free.get()
        try:
            return cascade.classify(path)
        finally:
            self._free.put(cascade)

    def close(self, timeout: float | None = None) -> bool:
        """Wait for the tracks that are being classified, then release everything. Closing twice is allowed.

        Tracks that have not begun are cancelled. With a ``timeout`` in seconds, False is returned where a track still
        runs by then: nothing is released under it, and Python waits for it before the process ends.
        """
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        if not all_done(self._unfinished, timeout):
            return False
        self._threads.shutdown(wait=True)
        for cascade in self.cascades:
            cascade.close()
        self._model.close()
        return True

    def __enter__(self: _Pool) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def result(future: Future[Verdict]) -> Verdict:
    """The verdict of a future of a pool; EngineError where the pool was closed before its turn."""
    try:
        return future.result()
    except CancelledError as error:
        raise _closed() from error


def all_done(futures: Iterable[Future[Verdict]], timeout: float | None = None) -> bool:
    """Wait for ``futures``, at most ``timeout`` seconds; whether all are done.

    In short pieces: of a signal that comes as Python begins to wait it learns only when that wait is over.
    """
    until = math.inf if timeout is None else time.monotonic() + timeout
    running = set(futures)
    while True:
        running = wait(running, max(0.0, min(_TICK, until - time.monotonic()))).not_done
        if not running or time.monotonic() >= until:
            return not running


def _succeeded(future: Future[Verdict]) -> bool:
    return not future.cancelled() and future.exception() is None


def _closed() -> EngineError:
    return EngineError("this pool is closed; open a new one")


class Pool(Protocol):
    """What a runner needs of whatever classifies several tracks at a time."""

    @property
    def lanes(self) -> int:
        """How many."""

    def submit(self, path: str | os.PathLike[str]) -> Future[Verdict]:
        """See :meth:`CascadePool.submit`."""

    def close(self, timeout: float | None = None) -> bool:
        """See :meth:`CascadePool.close`."""


class LaneRunner:
    """A pool as a :class:`edge_reclass.run.Runner`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[Future[Verdict]] = deque()

    def verdicts(
        self, tracks: Iterable[str | os.PathLike[str]], came: Callable[[Verdict | None], None] = lambda _: None
    ) -> Iterator[Verdict]:
        """See :meth:`Runner.verdicts`; an error of reading ``tracks`` is raised after the verdicts before it.

        Of the tracks read, one more than there are lanes have no verdict yet.
        """
        lanes, source = self._pool.lanes, iter(tracks)
        running: set[Future[Verdict]] = set()
        end: Exception | None = None
        while end is None or self._waiting:
            while end is None and len(running) <= lanes and len(self._waiting) <= _AHEAD * lanes:
                try:
                    self._waiting.append(self._pool.submit(next(source)))
                    running.add(self._waiting[-1])
                except Exception as error:
                    end = error
            done, running = wait(running, _TICK, FIRST_COMPLETED)
            for future in done:
                if _succeeded(future):
                    came(future.result())
            if not done:
                came(None)
            while self._waiting and self._waiting[0].done():
                verdict = result(self._waiting[0])
                self._waiting.popleft()
                yield verdict
        if not isinstance(end, StopIteration):
            raise end

    def finished(self, *, wait: bool = False) -> Iterator[Verdict]:
        """See :meth:`Runner.finished`; with ``wait``, those that are being classified are waited for."""
        for future in [future for future in self._waiting if wait or future.done()]:
            self._waiting.remove(future)
            if _succeeded(future):
                yield future.result()

    def cancel(self) -> int:
        """See :meth:`Runner.cancel`."""
        return sum(not future.cancel() for future in self._waiting)

    def wait(self, timeout: float | None = None) -> bool:
        """As :meth:`close`, but the pool stays open."""
        self.cancel()
        return all_done(self._waiting, timeout)

    def close(self, timeout: float | None = None) -> bool:
        """See :meth:`Runner.close`."""
        return self._pool.close(timeout)
