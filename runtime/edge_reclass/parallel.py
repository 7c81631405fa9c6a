"""Several tracks at a time: one cascade per worker thread, results in the order of the paths.

Decoding, features, resampling and graphs all release the interpreter lock, so threads are enough.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Cascade
from edge_reclass.device import usable_cpus
from edge_reclass.errors import EngineError, UsageError
from edge_reclass.verdict import Verdict

__all__ = ["CascadePool"]

_AHEAD = 4
"""Tracks in flight per worker: enough that a slow track at the front does not leave the other workers idle."""


class CascadePool:
    """``jobs`` cascades on as many threads. Made by :meth:`open`; a context manager."""

    def __init__(self, cascades: list[Cascade]) -> None:
        self.cascades = cascades
        self._closed = False
        self._free: SimpleQueue[Cascade] = SimpleQueue()
        for cascade in cascades:
            self._free.put(cascade)
        self._threads = ThreadPoolExecutor(len(cascades), thread_name_prefix="edge-reclass")

    @classmethod
    def open(
        cls,
        jobs: int,
        bundle: str | Path | Bundle | None = None,
        device: str = "cpu",
        policy: str | None = None,
        *,
        threads: int | None = None,
        **limits: Any,
    ) -> CascadePool:
        """Open ``jobs`` cascades; the other arguments are those of :meth:`Cascade.open`.

        ``threads`` is per cascade; by default the usable CPUs are shared out.

        Raises:
            UsageError: ``jobs`` is below 1; and whatever Cascade.open raises.
        """
        if jobs < 1:
            raise UsageError(f"jobs: expected at least 1, got {jobs}")
        share = max(1, usable_cpus() // jobs) if threads is None else threads
        with ExitStack() as opened:
            cascades = [
                opened.enter_context(Cascade.open(bundle, device, policy, threads=share, **limits)) for _ in range(jobs)
            ]
            opened.pop_all()
        return cls(cascades)

    def classify_many(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Verdict]:
        """One verdict per path, in order. ``paths`` is read only a few tracks ahead of the results.

        Raises:
            EngineError: the pool is closed.
        """
        if self._closed:
            raise EngineError("this pool is closed; open a new one")
        waiting: deque[Future[Verdict]] = deque()
        try:
            for path in paths:
                waiting.append(self._threads.submit(self._classify, path))
                if len(waiting) > _AHEAD * len(self.cascades):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _classify(self, path: str | os.PathLike[str]) -> Verdict:
        cascade = self._free.get()
        try:
            return cascade.classify(path)
        finally:
            self._free.put(cascade)

    def close(self) -> None:
        """Wait for the tracks that are being classified, then close the cascades. Closing twice is allowed."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
        for cascade in self.cascades:
            cascade.close()

    def __enter__(self) -> CascadePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
