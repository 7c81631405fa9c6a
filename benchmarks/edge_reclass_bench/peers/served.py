"""A track's verdict from a running service, beside the loop in one's own process and a new process for every track."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_reclass import Cascade, Verdict, WorkerPool
from edge_reclass.bundle import Bundle
from edge_reclass.cascade import choose_policy, untrained
from edge_reclass.client import Client
from edge_reclass.errors import EdgeReclassError, ServiceError
from edge_reclass.installing import install_command
from edge_reclass_bench.peers.clips import Clip
from edge_reclass_bench.peers.contest import OURS, Contender, Task
from edge_reclass_bench.peers.parity import close_values
from edge_reclass_bench.record import Peer

_SAME = 2e-6
"""Confidences are written with six digits."""
_STARTS = 120.0
_EXTRA = ("starlette", "uvicorn", "sse_starlette", "prometheus_client")

ONE = "verdict, one track at a time"


def service_tasks(
    bundle: Bundle, clips: Sequence[Clip], threads: int, at_a_time: int, resources: ExitStack
) -> Iterator[Task | Peer]:
    """One track at a time, each of them a sample; then all tracks, ``at_a_time`` in flight, together one sample.

    A peer instead says why there is no service to measure. A task is to be held before the next one is asked for.
    """
    reason = None if all(map(find_spec, _EXTRA)) else f"the service needs its extra: {install_command('service')}"
    if untrained(bundle, choose_policy(bundle)):
        reason = "a service takes no untrained stages"
    if reason is not None:
        yield Peer(name=f"served:{ONE}", task=ONE, title="edge-reclass serve", reason=reason)
        return
    paths = [clip.path for clip in clips]
    client = resources.enter_context(_service(bundle, paths, at_a_time))
    by_path, by_process = "edge-reclass serve, by path", "edge-reclass classify, a new process per track"
    with Cascade.open(bundle, threads=threads) as cascade:
        yield Task(
            ONE,
            "file",
            [clip.track for clip in clips],
            Contender(OURS, "edge-reclass", lambda i: _values([cascade.classify(paths[i])])),
            [
                _other("served-path", by_path, lambda i: [client.classify(paths[i])]),
                _other("served-content", "edge-reclass serve, by content", lambda i: [_content(client, paths[i])]),
                _other("process-per-track", by_process, lambda i: [_alone(bundle, paths[i], threads)]),
            ],
        )
    threads_here = resources.enter_context(ThreadPoolExecutor(at_a_time))

    def together(one: Callable[[Path], Verdict]) -> Callable[[int], list[Verdict]]:
        return lambda _: list(threads_here.map(one, paths))

    with WorkerPool.open(at_a_time, bundle) as pool:
        yield Task(
            f"verdicts of {len(paths)} tracks, {at_a_time} at a time",
            "files",
            [clips[0].track],
            Contender(OURS, "edge-reclass", lambda _: _values(list(pool.classify_many(paths)))),
            [
                _other("served-path", by_path, together(client.classify)),
                _other("process-per-track", by_process, together(lambda path: _alone(bundle, path, 1))),
            ],
        )


def _other(name: str, title: str, run: Callable[[int], list[Verdict]]) -> Contender:
    return Contender(name, title, lambda i: _values(run(i)), agrees=close_values(_SAME))


def _content(client: Client, path: Path) -> Verdict:
    with path.open("rb") as file:
        return client.classify_stream(file, path.name)


def _values(verdicts: Sequence[Verdict]) -> NDArray[np.float64]:
    """Verdicts as numbers: the confidence of each, or 0, and the first letters of its genre or status."""
    words = [(verdict.genre or verdict.status).encode()[:6] for verdict in verdicts]
    letters = [float(int.from_bytes(word, "big")) for word in words]
    return np.array([*letters, *(round(verdict.confidence or 0.0, 6) for verdict in verdicts)])


def _alone(bundle: Bundle, path: Path, threads: int) -> Verdict:
    """A new process of the command line, for one track."""
    command = [sys.executable, "-m", "edge_reclass", "classify", "--bundle", str(bundle.root), "--device", "cpu"]
    command += ["--threads", str(threads), "--format", "jsonl", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in (0, 3):
        raise EdgeReclassError(f"{path}: {done.stderr.decode(errors='replace').strip()}")
    return Verdict.from_dict(msgspec.json.decode(done.stdout))


@contextmanager
def _service(bundle: Bundle, paths: Sequence[Path], workers: int) -> Iterator[Client]:
    """A service of our own that may read the folders of ``paths``; ended in the end."""
    with tempfile.TemporaryDirectory(prefix="edge-reclass-bench-") as folder, ExitStack() as stack:
        socket = Path(folder, "socket")
        command = [sys.executable, "-m", "edge_reclass", "serve", "--socket", str(socket), "--device", "cpu"]
        command += ["--bundle", str(bundle.root), "--workers", str(workers), "--spool", folder]
        for root in sorted({str(path.resolve().parent) for path in paths}):
            command += ["--root", root]
        log = stack.enter_context(Path(folder, "log").open("w+b"))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            client, until = Client(socket), time.monotonic() + _STARTS
            while not socket.exists() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            try:
                client.ready()
            except ServiceError as error:
                log.seek(0)
                said = os.fsdecode(log.read()).strip()
                raise EdgeReclassError(f"the service to be measured does not start: {said or error}") from error
            yield client
        finally:
            process.terminate()
            process.wait()
