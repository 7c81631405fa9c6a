"""One TensorRT engine: buffers at the largest batch, one stream, CUDA graphs for batch sizes that recur.

A run is copy in → enqueue → copy out → synchronise, all on one stream that is not the default one. Where GPU and host
share their memory, the device can also work on page-locked memory in place: both ways are measured when the engine is
opened, and the faster one stays.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends.base import DeviceTimes, TensorSpec
from edge_reclass.backends.tensorrt import api
from edge_reclass.backends.tensorrt.memory.base import (
    CapturedGraph,
    CudaMemory,
    DeviceBuffer,
    Event,
    PinnedArray,
    Resource,
    Stream,
)
from edge_reclass.engines.store import rebuild_command
from edge_reclass.errors import DeviceError, EngineError

MAX_GRAPHS = 4
"""Batch sizes per engine that get a CUDA graph: full batches and a few usual remainders."""

_TRIALS = 5
_LARGEST_DRIFT = 1e-2
"""Relative difference between a replayed and a plain run above which a CUDA graph is not trusted."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Buffers:
    """Input and output on the host, and the device's copies of them; None where it works on the host's in place."""

    input: PinnedArray
    output: PinnedArray
    device_input: DeviceBuffer | None = None
    device_output: DeviceBuffer | None = None

    @property
    def kind(self) -> Literal["copied", "mapped"]:
        return "mapped" if self.device_input is None else "copied"


@dataclass(eq=False)
class _Context:
    """An execution context, and the batch that its input's shape is set to."""

    held: api.Held
    batch: int = 0


class _Resources:
    """Frees what was acquired, the last first, and goes on when something cannot be freed."""

    def __init__(self, cuda: CudaMemory) -> None:
        self._cuda = cuda
        self._held: list[api.Held | Resource] = []

    def hold(self, thing: Any) -> Any:
        """Take over ``thing``, which will be freed once; gives it."""
        self._held.append(thing)
        return thing

    def mark(self) -> int:
        """Where :meth:`free_since` goes back to."""
        return len(self._held)

    def free_since(self, mark: int = 0) -> list[Exception]:
        """Free what was acquired since ``mark``; gives what went wrong."""
        return self.free(*reversed(self._held[mark:]))

    def free(self, *things: api.Held | Resource | None) -> list[Exception]:
        """Free those of ``things`` that are held; gives what went wrong."""
        failures: list[Exception] = []
        for thing in things:
            if thing not in self._held:
                continue
            self._held.remove(thing)
            try:
                if isinstance(thing, api.Held):
                    thing.drop()
                else:
                    self._cuda.free(thing)
            except Exception as error:
                failures.append(error)
        return failures


class TensorRTGraph:
    """See :class:`edge_reclass.backends.base.Graph`. One run at a time, on any thread.

    ``input`` and the results are page-locked memory, which must not be touched after :meth:`close`.
    """

    def __init__(
        self,
        library: api.Library,
        cuda: CudaMemory,
        file: Path,
        *,
        source: TensorSpec,
        target: TensorSpec,
        max_batch: int,
        timed: bool,
        stage: str | None,
    ) -> None:
        self._library, self._cuda, self._file = library, cuda, file
        self._source, self._target, self._max_batch, self._timed = source, target, max_batch, timed
        self._stage = stage
        self._resources = _Resources(cuda)
        self._buffers: _Buffers | None = None
        self._stream = Stream(None, 0)
        self._step = "open"
        self._failed = False
        self._seen: dict[int, int] = {}
        self._replays: dict[int, CapturedGraph] = {}
        self._events: tuple[Event, ...] = ()
        self._times: DeviceTimes | None = None
        self.buffer_seconds: dict[str, float] = {}
        """Median time of a run with ``copied`` and ``mapped`` buffers, where both were measured."""
        self.buffer_note = ""
        """Why mapped buffers were not tried on a GPU that shares the host's memory."""
        self.capture_failure: str | None = None if cuda.captures else f"{cuda.name} cannot capture CUDA graphs"
        """Why no more CUDA graphs are made; None while they are."""

    def open(self, runtime: api.Held, content: bytes) -> None:
        """Load the serialised engine ``content`` and acquire all that a run needs; on failure nothing is left behind.

        Raises:
            EngineError, DeviceError, MemoryError: see :meth:`Backend.open_graph`.
        """
        try:
            with self._cuda.current():
                self._acquire(runtime, content)
        except BaseException as error:
            located = None
            if isinstance(error, EngineError | DeviceError | MemoryError):
                located = self._located(self._settled(error))
            self._failed = True
            self.close()
            if located is None:
                raise
            raise located from error

    def _acquire(self, runtime: api.Held, content: bytes) -> None:
        hold, cuda = self._resources.hold, self._cuda
        self._step = "load the engine"
        self._engine: api.Held = hold(api.deserialize(self._library, runtime, content))
        most = api.check_engine(self._library, self._engine, self._source, self._target)
        if self._max_batch > most:
            fix = rebuild_command(self._stage, "--max-batch", str(self._max_batch))
            raise EngineError(f"it takes at most {most} windows at a time, {self._max_batch} are wanted; {fix}")
        self._step = "allocate"
        self._stream = hold(cuda.new_stream())
        # TensorRT asks for one context per CUDA graph; on one stream they never run at once and can share this.
        self._activations: DeviceBuffer = hold(cuda.allocate(max(api.device_memory(self._engine), 1)))
        if self._timed:
            self._events = tuple(hold(cuda.new_event()) for _ in range(4))
        self._context = self._new_context()
        self._buffers = self._choose_buffers()
        self._point(self._context, self._buffers)

    def _new_context(self) -> _Context:
        memory = self._activations
        held = api.new_context(self._library, self._engine, memory.address, memory.nbytes)
        return _Context(self._resources.hold(held))

    def _point(self, context: _Context, buffers: _Buffers) -> None:
        addresses = {
            self._source.name: (buffers.device_input or buffers.input).address,
            self._target.name: (buffers.device_output or buffers.output).address,
        }
        api.set_addresses(self._library, context.held, addresses)

    def _choose_buffers(self) -> _Buffers:
        copied = self._new_buffers(mapped=False)
        if not self._cuda.integrated:
            return copied
        try:
            mapped = self._new_buffers(mapped=True)
        except EngineError as error:
            self.buffer_note = f"the host's memory cannot be mapped: {error}"
            return copied
        seconds: dict[str, list[float]] = {"copied": [], "mapped": []}
        for _ in range(1 + _TRIALS):
            for buffers in (copied, mapped):
                self._point(self._context, buffers)
                began = time.perf_counter()
                self._pass(buffers, 1, partial(self._enqueue, self._context, 1))
                seconds[buffers.kind].append(time.perf_counter() - began)
        self.buffer_seconds = {kind: statistics.median(values[1:]) for kind, values in seconds.items()}
        self._times = None
        better, other = (copied, mapped)
        if self.buffer_seconds["mapped"] <= self.buffer_seconds["copied"]:
            better, other = (mapped, copied)
        _log.info("%s: %s buffers, of %s", self._file, better.kind, self.buffer_seconds)
        unused = (other.device_output, other.device_input, other.output, other.input)
        if failures := self._resources.free(*unused):
            raise failures[0]
        return better

    def _new_buffers(self, *, mapped: bool) -> _Buffers:
        hold, cuda = self._resources.hold, self._cuda
        shapes = [(self._max_batch, tensor.width) for tensor in (self._source, self._target)]
        mark = self._resources.mark()
        try:
            pinned = [hold(cuda.allocate_pinned(*shape, mapped=mapped)) for shape in shapes]
            if mapped:
                return _Buffers(*pinned)
            return _Buffers(*pinned, *(hold(cuda.allocate(each.array.nbytes)) for each in pinned))
        except EngineError:
            self._resources.free_since(mark)
            raise

    @property
    def input(self) -> NDArray[np.float32]:
        """See :attr:`Graph.input`."""
        return self._opened().input.array

    @property
    def buffers(self) -> Literal["copied", "mapped"]:
        """Whether the device has its own copies of input and output, or works on the host's in place."""
        return self._opened().kind

    @property
    def captured(self) -> tuple[int, ...]:
        """Batch sizes that are replayed as CUDA graphs."""
        return tuple(self._replays)

    def run(self, batch: int) -> NDArray[np.float32]:
        """See :meth:`Graph.run`."""
        buffers = self._opened()
        if not 1 <= batch <= self._max_batch:
            raise ValueError(f"expected a batch of 1 to {self._max_batch}, got {batch}")
        self._times = None
        try:
            with self._cuda.current():
                self._run(buffers, batch)
        except (EngineError, DeviceError, MemoryError) as error:
            raise self._located(self._settled(error)) from error
        return buffers.output.array[:batch]

    def device_times(self) -> DeviceTimes | None:
        """See :meth:`Graph.device_times`."""
        return self._times

    def close(self) -> None:
        """See :meth:`Graph.close`.

        Raises:
            EngineError, DeviceError: something could not be freed, and no run had failed before. The rest is freed.
        """
        self._buffers, self._times = None, None
        self._replays.clear()
        failures: list[Exception] = []
        if not self._resources.mark():
            return
        try:
            with self._cuda.current():
                failures += self._resources.free_since()
        except (EngineError, DeviceError, MemoryError) as error:
            failures += [error, *self._resources.free_since()]
        for failure in failures:
            _log.warning("%s: close: %s", self._file, failure)
        if failures and not self._failed:
            self._failed = True
            raise failures[0]

    def _opened(self) -> _Buffers:
        if self._buffers is None:
            raise EngineError(f"{self._file}: run after close")
        return self._buffers

    def _run(self, buffers: _Buffers, batch: int) -> None:
        replay = self._replays.get(batch)
        if replay is not None:
            self._pass(buffers, batch, partial(self._cuda.launch, replay, self._stream))
            return
        self._pass(buffers, batch, partial(self._enqueue, self._context, batch))
        self._seen[batch] = self._seen.get(batch, 0) + 1
        if self._seen[batch] == 2 and self.capture_failure is None and len(self._replays) < MAX_GRAPHS:
            self._capture_or_give_up(buffers, batch)

    def _pass(self, buffers: _Buffers, batch: int, compute: Callable[[], None]) -> None:
        """One run of ``batch`` rows from the host's input to the host's output, to the end."""
        cuda, stream = self._cuda, self._stream
        self._record(0)
        if buffers.device_input is not None:
            self._step = "copy in"
            cuda.copy_in(buffers.device_input, buffers.input.array[:batch], stream)
        self._record(1)
        self._step = "compute"
        compute()
        self._record(2)
        if buffers.device_output is not None:
            self._step = "copy out"
            cuda.copy_out(buffers.output.array[:batch], buffers.device_output, stream)
        self._record(3)
        self._step = "synchronise"
        cuda.synchronize(stream)
        if self._events:
            points = zip(self._events[:-1], self._events[1:], strict=True)
            self._times = DeviceTimes(*(cuda.seconds_between(start, end) for start, end in points))

    def _record(self, point: int) -> None:
        if self._events:
            self._step = "record an event"
            self._cuda.record(self._events[point], self._stream)

    def _enqueue(self, context: _Context, batch: int) -> None:
        if context.batch != batch:
            context.batch = 0
            api.set_batch(self._library, context.held, self._source, batch)
            context.batch = batch
        api.enqueue(self._library, context.held, self._stream.handle)

    def _capture_or_give_up(self, buffers: _Buffers, batch: int) -> None:
        """Capture this batch size, and trust the graph only if it repeats the run that has just been made."""
        plain = buffers.output.array[:batch].copy()
        mark = self._resources.mark()
        try:
            replay = self._capture(buffers, batch)
            self._pass(buffers, batch, partial(self._cuda.launch, replay, self._stream))
            self._step = "compare the CUDA graph with the plain run"
            drift = float(np.linalg.norm(buffers.output.array[:batch] - plain))
            if not drift <= _LARGEST_DRIFT * float(np.linalg.norm(plain)):
                raise EngineError(f"the results differ by {drift:.3g}")
            self._replays[batch] = replay
        except (EngineError, MemoryError) as error:
            settled = self._settled(error)
            if isinstance(settled, DeviceError):
                raise settled from error
            if failures := self._resources.free_since(mark):
                raise failures[0] from error
            self.capture_failure = f"batch {batch}: {self._step}: {error}"
            _log.warning("%s: runs without CUDA graphs from now on: %s", self._file, self.capture_failure)
            buffers.output.array[:batch] = plain

    def _capture(self, buffers: _Buffers, batch: int) -> CapturedGraph:
        """A CUDA graph of one run, with a context of its own that has run this batch size once, as TensorRT wants."""
        self._step = "prepare a CUDA graph"
        context = self._new_context()
        self._point(context, buffers)
        self._enqueue(context, batch)
        self._cuda.synchronize(self._stream)
        self._step = "capture a CUDA graph"
        replay = self._cuda.capture(self._stream, partial(self._enqueue, context, batch))
        return self._resources.hold(replay)  # type: ignore[no-any-return]

    def _settled(self, error: EngineError | DeviceError | MemoryError) -> EngineError | DeviceError | MemoryError:
        """Wait for what is still on the stream after ``error``; gives the loss of the device where that shows it."""
        if self._stream.handle and not isinstance(error, DeviceError):
            try:
                with self._cuda.current():
                    self._cuda.synchronize(self._stream)
            except DeviceError as lost:
                error = lost
            except (EngineError, MemoryError) as another:
                _log.warning("%s: synchronise: %s", self._file, another)
        self._failed = self._failed or isinstance(error, DeviceError)
        return error

    def _located(self, error: EngineError | DeviceError | MemoryError) -> EngineError | DeviceError | MemoryError:
        # NumPy's own MemoryError takes a shape, not a text.
        kind = MemoryError if isinstance(error, MemoryError) else type(error)
        return kind(f"{self._file}: {self._step}: {error}")
