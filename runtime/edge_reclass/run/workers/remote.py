"""A track that is open in a worker, as a cascade hears it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio import resampled_length
from edge_reclass.cascade.encoders import Parts, Progress
from edge_reclass.cascade.plan import Plan, Signal
from edge_reclass.cascade.sound import Hearing, Known, Spent
from edge_reclass.cascade.stages import Stage
from edge_reclass.errors import DeviceError, EngineError, TrackError
from edge_reclass.run.workers import wire
from edge_reclass.run.workers.process import WorkerLimits, WorkerProcess


class Worker:
    """A worker process and, when that has ended or is worn, the next one; ``cascade.Files`` of one lane."""

    def __init__(self, plan: Plan, setup: wire.Setup, limits: WorkerLimits, starter: Executor) -> None:
        """Starts nothing yet; see :class:`WorkerProcess` for what starts it."""
        self._starter = starter
        self._plan, self._limits = plan, limits
        self._setup, self._layout = msgspec.msgpack.encode(setup), wire.Layout(plan)
        self._process: WorkerProcess | None = None
        self._stopped = Event()

    @property
    def tracks(self) -> int:
        """How many tracks the process has been given, of which the last may have ended it."""
        return 0 if self._process is None else self._process.tracks

    @property
    def pid(self) -> int | None:
        """Of the process that runs."""
        return None if self._process is None or self._process.ended else self._process.pid

    def start(self) -> WorkerProcess:
        """A process that can take a track.

        Raises:
            WorkerError: it does not start.
            DeviceError: the workers were stopped.
        """
        if self._stopped.is_set():
            raise DeviceError("the workers were stopped")
        if (process := self._process) is not None and (process.ended or process.tracks >= self._limits.tracks):
            self.renew()
        if self._process is None:
            self._process = WorkerProcess(self._setup, self._layout.size, self._limits, self._starter)
            if self._stopped.is_set():  # meanwhile
                self._process.stop()
        return self._process

    def renew(self) -> None:
        """The next track gets a process that has read nothing yet."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    @contextmanager
    def open(self, path: str | os.PathLike[str], *, whole: bool) -> Iterator[Hearing]:
        """See :meth:`edge_reclass.cascade.cascade.Files.open`.

        Raises:
            TrackError: whatever the worker met; ``timeout`` or ``crashed`` where it was ended or died of it.
        """
        process = self.start()
        name = os.fsdecode(path)
        if not Path(name).is_absolute():  # the worker has its own working directory
            name = os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH118
        process.begin(_size(name))
        hearing = RemoteHearing(self._plan, self._layout, process)
        hearing.ask(wire.Open(name.encode("utf-8", "surrogatepass"), whole))
        try:
            yield hearing
        finally:
            if not process.ended:
                with suppress(TrackError, MemoryError, EngineError, DeviceError):  # the next one gets another worker
                    process.ask(wire.Close())

    def stop(self) -> None:
        """End the process at once, whatever it is doing, and start no other; from any thread."""
        self._stopped.set()
        if (process := self._process) is not None:
            process.stop()


class RemoteHearing:
    """A :class:`Hearing` of the track that a worker has open."""

    def __init__(self, plan: Plan, layout: wire.Layout, process: WorkerProcess) -> None:
        self._plan, self._layout, self._process = plan, layout, process
        self._known: Known | None = None

    @property
    def known(self) -> Known:
        """See :attr:`Hearing.known`."""
        if self._known is None:
            raise EngineError("the track is not open")
        return self._known

    def encode(
        self, stage: Stage, embeddings: Mapping[str, NDArray[np.float32]], parts: Parts, upto: Sequence[int]
    ) -> Iterator[Progress]:
        """See :meth:`Hearing.encode`."""
        number = self._plan.stages.index(stage.plan)
        shared = self._layout.embedding(number, self._process.memory)
        if shared is None:
            yield from stage.encode(self._sound(stage.plan.signal, parts.add), embeddings, parts, upto)
            return
        while (progress := self.ask(wire.Encode(number, tuple(upto)), parts.add).progress) is not None:
            embeddings[stage.name][:] = shared
            yield progress

    def check(self) -> None:
        """See :meth:`Hearing.check`."""
        self.ask(wire.Check())

    def nothing_heard(self) -> TrackError:
        """See :meth:`Hearing.nothing_heard`."""
        try:
            self.ask(wire.Nothing())
        except TrackError as error:
            return error
        raise EngineError("a worker could not say why nothing was heard")

    def ask(self, request: wire.Request, spent: Spent | None = None) -> wire.Done:
        """Ask the worker; see :meth:`WorkerProcess.ask`. ``spent`` is told what took how many seconds."""
        reply = self._process.ask(request)
        if not isinstance(reply, wire.Done):
            raise EngineError(f"a worker answered {type(reply).__name__} to {type(request).__name__}")
        self._known = reply.known
        if spent is not None:
            for name, seconds in reply.spent:
                spent(name, seconds)
        return reply

    def _sound(self, signal: Signal, spent: Spent) -> _RemoteSound:
        number = self._layout.signals.index(signal)
        buffer = self._layout.signal(number, self._process.memory)
        if buffer is None or signal.rate is None:
            raise EngineError(f"{signal} is not shared with the workers")
        return _RemoteSound(self, self._plan.excerpts.index(signal.excerpt), signal.rate, number, buffer, spent)


class _RemoteSound:
    """An excerpt at the rate of a signal; a ``cascade.sound.Sound``."""

    def __init__(
        self, hearing: RemoteHearing, excerpt: int, rate: int, number: int, buffer: NDArray[np.float32], spent: Spent
    ) -> None:
        self._hearing, self._excerpt, self._number, self._buffer, self._spent = hearing, excerpt, number, buffer, spent
        self._rate = rate
        self._intact: dict[tuple[int, int], bool] = {}

    @property
    def rate(self) -> int:
        return self._rate

    def __len__(self) -> int:
        known = self._hearing.known
        return resampled_length(known.excerpts[self._excerpt][1], known.rate, self._rate)

    def take(self, start: int, count: int) -> NDArray[np.float32]:
        done = self._hearing.ask(wire.Take(self._number, start, count), self._spent)
        self._intact[start, count] = done.intact
        return self._buffer[done.start : done.stop]

    def there(self, start: int, count: int) -> bool:
        return self._hearing.ask(wire.There(self._number, start, count)).there

    def intact(self, start: int, count: int) -> bool:
        return self._intact[start, count]


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return 0
