"""Several tracks at a time, decoded in worker processes: no file can do more harm than lose its own verdict."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import msgspec

from edge_reclass import host
from edge_reclass.backends import Backend
from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Options, Policy, SharedModel, choose_policy, load_bundle, open_model
from edge_reclass.cascade.plan import DEFAULT_BATCH, DEFAULT_MAX_RATE, DEFAULT_MAX_SECONDS
from edge_reclass.errors import Status, UsageError
from edge_reclass.run.lanes import CascadePool, result
from edge_reclass.run.workers import wire
from edge_reclass.run.workers.process import DEFAULT_LIMITS, WorkerLimits
from edge_reclass.run.workers.remote import Worker
from edge_reclass.verdict import Verdict

_STOP_SECONDS = 1.0
"""How long a lane takes to see that its worker was stopped, unless its encoder is at work."""


class WorkerPool(CascadePool):
    """As :class:`CascadePool`, but tracks are decoded, resampled and turned into features in worker processes.

    Each lane has a worker of its own, which works on one track at a time. A decoder that crashes, hangs or takes too
    much memory costs its track (``crashed``, ``timeout``, ``out_of_memory``); the worker is replaced. The encoders run
    in this process. Verdicts are those of a CascadePool.
    """

    def __init__(self, model: SharedModel, setup: wire.Setup, limits: WorkerLimits) -> None:
        """Starts a worker for each lane of the model.

        Raises:
            WorkerError: one does not start.
        """
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="worker-starter", initializer=_block_signals)
        workers = [Worker(model.plan, setup, limits, self._starter) for _ in model.lanes]
        super().__init__(model, workers)
        self._workers = dict(zip(map(id, self.cascades), workers, strict=True))
        started = [self._threads.submit(worker.start) for worker in workers]
        wait(started)
        try:
            for each in started:
                each.result()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(
        cls,
        workers: int | None = None,
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
        limits: WorkerLimits = DEFAULT_LIMITS,
        prepare: str | None = None,
    ) -> WorkerPool:
        """Open ``workers`` worker processes (None: :func:`default_workers`); the rest as :meth:`Cascade.open`.

        Args:
            limits: what one track may take of its worker.
            prepare: ``module:function`` that every worker imports and calls before its first track.

        Raises:
            UsageError: ``workers`` is below 1; and whatever Cascade.open raises.
            WorkerError: a worker does not start.
        """
        if workers is not None and workers < 1:
            raise UsageError(f"workers: expected at least 1, got {workers}")
        count = default_workers(limits) if workers is None else workers
        folder = None if engines is None else Path(engines)
        options = Options(
            threads, max_rate, max_seconds, batch, allow_random, folder, timed, min_confidence, keep_embeddings
        )
        loaded = load_bundle(bundle)
        chosen = choose_policy(loaded, policy)
        model = open_model(loaded, device, chosen, options, lanes=count)
        setup = wire.Setup(
            root=os.fspath(loaded.root),
            manifest=msgspec.to_builtins(loaded.manifest),
            digest=loaded.digest,
            policy=replace(chosen, steps=tuple(replace(step, weights=dict(step.weights)) for step in chosen.steps)),
            options=replace(options, engines=None),
            threads=max(1, host.usable_cpus() // count) if threads is None else threads,
            memory=limits.memory,
            prepare=prepare,
        )
        return cls(model, setup, limits)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [pid for worker in self._workers.values() if (pid := worker.pid) is not None]

    def classify_alone(self, path: str | os.PathLike[str]) -> Verdict:
        """As :meth:`classify`, in a worker that has read nothing before, and that reads nothing after.

        ``crashed`` or ``timeout`` is then the doing of this track and of no other.

        Raises:
            EngineError: the pool is closed; or, as WorkerError, a worker does not start.
            DeviceError: the device is lost; no further track can be classified.
        """
        return result(self.submit_alone(path))

    def submit_alone(self, path: str | os.PathLike[str]) -> Future[Verdict]:
        """As :meth:`classify_alone`, without waiting for the verdict.

        Raises:
            EngineError: the pool is closed.
        """
        return self._submit(self._in_own_worker, path)

    def _in_own_worker(self, path: str | os.PathLike[str]) -> Verdict:
        cascade = self._free.get()
        try:
            worker = self._workers[id(cascade)]
            worker.renew()
            try:
                return cascade.classify(path)
            finally:
                worker.renew()
        finally:
            self._free.put(cascade)

    def _classify(self, path: str | os.PathLike[str]) -> Verdict:
        cascade = self._free.get()
        try:
            worker = self._workers[id(cascade)]
            verdict = cascade.classify(path)
            if verdict.status == Status.CRASHED and worker.tracks > 1:
                # A track before may have spoilt the process: once more, in one that has read nothing yet.
                verdict = cascade.classify(path)
            return verdict
        finally:
            self._free.put(cascade)

    def close(self, timeout: float | None = None) -> bool:
        """As :meth:`CascadePool.close`; workers that are at work after ``timeout`` seconds are ended, tracks and all.

        False only where an encoder is at work.
        """
        done = super().close(timeout)
        if not done:
            for worker in self._workers.values():
                worker.stop()
            done = super().close(_STOP_SECONDS)
        if done:
            for worker in self._workers.values():
                worker.renew()
            self._starter.shutdown()
        return done


def _block_signals() -> None:
    """On the thread that starts workers, which inherit it: what a signal for all of a service means is the parent's."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


_SHARE = 4
"""Of the memory, the share that the workers may take together: the rest is for the encoders and the machine."""


def default_workers(limits: WorkerLimits = DEFAULT_LIMITS) -> int:
    """Workers for this machine: one for each usable CPU, as long as a quarter of the memory is enough for them.

    Two are always taken where there are two CPUs: seldom does a track need what it may take.
    """
    memory = host.usable_memory()
    fit = memory // _SHARE // limits.memory
    return max(1, min(host.usable_cpus(), max(2, fit)))
