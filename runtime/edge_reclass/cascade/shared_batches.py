"""One graph for several tracks at a time: their windows are run together, so that a device is kept full.

Each track is worked on by a thread of its own (a lane). A lane that needs an embedding asks here and waits; the graph's
thread copies the windows straight from the lanes' buffers into the device's input, as many as fit, and runs them. It
never waits for a batch to fill up: while the device works, the next windows gather by themselves. Lanes wait for their
answer, so there are never more tracks in memory than lanes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends import Graph
from edge_reclass.errors import DeviceError, EngineError

Fill = Callable[[NDArray[np.float32]], None]
"""Writes one window into the row that it is given, float32[window]."""


AddRows = Callable[[NDArray[np.float32]], None]
"""Takes the embeddings of the windows that come next, float32[n, dim]; they are valid until it returns."""


@dataclass(eq=False)
class _Request:
    """The windows of one track. Guarded by the graph's lock until it is ``done``."""

    windows: Sequence[Fill]
    add: AddRows
    taken: int = 0
    """Windows that a batch has taken."""
    added: int = 0
    """Windows whose embeddings were given to ``add``."""
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class _Segment:
    """Windows ``first`` to ``first + count`` of one request, as rows ``row`` to ``row + count`` of a batch."""

    request: _Request
    first: int
    row: int
    count: int


class SharedGraph:
    """A graph and the thread that runs it. Takes ownership of the graph; a lane calls :meth:`embed`."""

    def __init__(self, graph: Graph, name: str, *, ahead: bool = False) -> None:
        """``ahead``: lanes may ask for all windows up to a stage's last step at once, see ``is_cheap_ahead``."""
        self.ahead = ahead
        self._graph = graph
        self._name = name
        self._pending: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._lost: BaseException | None = None
        self.batches: list[int] = [0] * (len(graph.input) + 1)
        """How many batches of each size were run."""
        self._thread = threading.Thread(target=self._serve, name=f"edge-reclass-{name}", daemon=True)
        self._thread.start()

    def embed(self, windows: Sequence[Fill], add: AddRows) -> None:
        """Give the embeddings of all windows to ``add``, in order, in one or more calls; returns when it has them.

        Args:
            windows: for each window a function that writes it into a row of the graph's input; called on the graph's
                thread, so that what it reads must not change until this returns.
            add: called on the graph's thread.

        Raises:
            EngineError: the graph failed on these windows, or is closed.
            DeviceError: the device is lost.
            MemoryError: the device has too little memory.
        """
        request = _Request(windows, add)
        with self._changed:
            if self._lost is not None:
                raise self._lost
            if self._closing:
                raise EngineError(f"stage {self._name}: its encoder is closed")
            self._pending.append(request)
            self._changed.notify()
        request.done.wait()
        if request.error is not None:
            raise request.error

    def close(self) -> None:
        """Finish what was asked for, then release the graph. Closing twice is allowed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._graph.close()

    def _serve(self) -> None:
        while batch := self._next_batch():
            self._run(batch)

    def _next_batch(self) -> list[_Segment]:
        """As many waiting windows as fit, first come, first served; waits for the first; none when closing."""
        with self._changed:
            while not self._pending and not self._closing:
                self._changed.wait()
            room, batch = len(self._graph.input), []
            while room and self._pending:
                request = self._pending[0]
                count = min(room, len(request.windows) - request.taken)
                batch.append(_Segment(request, request.taken, len(self._graph.input) - room, count))
                request.taken += count
                room -= count
                if request.taken == len(request.windows):
                    self._pending.popleft()
            return batch

    def _run(self, batch: Sequence[_Segment]) -> None:
        try:
            self._add(batch)
        except DeviceError as error:
            self._lose(batch, error)
        except BaseException as error:
            # No track may fail for its neighbours' sake: each is tried alone.
            for segment in batch if len(batch) > 1 else ():
                alone = _Segment(segment.request, segment.first, 0, segment.count)
                try:
                    self._add([alone])
                except DeviceError as lost:
                    self._lose(batch, lost)
                    return
                except BaseException as own:
                    self._fail(segment.request, own)
            if len(batch) == 1:
                self._fail(batch[0].request, error)

    def _add(self, batch: Sequence[_Segment]) -> None:
        rows = self._graph.input
        for segment in batch:
            request = segment.request
            for i in range(segment.count):
                request.windows[segment.first + i](rows[segment.row + i])
        size = batch[-1].row + batch[-1].count
        embeddings = self._graph.run(size)
        self.batches[size] += 1
        for segment in batch:
            request = segment.request
            request.add(embeddings[segment.row : segment.row + segment.count])
            request.added += segment.count
            if request.added == len(request.windows):
                request.done.set()

    def _fail(self, request: _Request, error: BaseException) -> None:
        with self._changed:
            if request in self._pending:
                self._pending.remove(request)
        request.error = error
        request.done.set()

    def _lose(self, batch: Sequence[_Segment], error: BaseException) -> None:
        """The device is lost: fail every pending request, and every later one."""
        with self._changed:
            self._lost = error
            waiting = dict.fromkeys([*(segment.request for segment in batch), *self._pending])
            self._pending.clear()
        for request in waiting:
            if not request.done.is_set():
                request.error = error
                request.done.set()
