"""A worker as the process with the encoders sees it: started, asked, and killed where it does not answer in time."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from edge_reclass.errors import DeviceError, EngineError, Status, TrackError, WorkerError
from edge_reclass.run.workers import wire

_START_SECONDS = 120.0
"""A worker that has not begun by then never will: a Jetson reads its libraries from an SD card."""

_MFD_CLOEXEC, _MFD_ALLOW_SEALING = 1, 2
_F_ADD_SEALS = 1033
_F_SEAL_SIZE = 1 | 2 | 4
"""F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW."""

_REPLIES: Final[msgspec.msgpack.Decoder[wire.Reply]] = msgspec.msgpack.Decoder(wire.Reply)

_CODE = """import sys
sys.path[:] = {path!r}
from edge_reclass.run.workers.child import main
main(*{descriptors!r})
"""


@dataclass(frozen=True)
class WorkerLimits:
    """What one track may take of its worker.

    Attributes:
        seconds: for any track; and so many more as its size allows for, at ``bytes_per_second``, or its duration.
        per_second: more seconds for each second that the track says it has.
        most_seconds: however long a track says it is.
        memory: bytes beyond what the worker has when it begins.
        tracks: after so many a worker is replaced: what decoders lose adds up.
    """

    seconds: float = 30.0
    per_second: float = 0.25
    most_seconds: float = 600.0
    bytes_per_second: float = 4e6
    memory: int = 512 << 20
    tracks: int = 500

    def allowed(self, size: int, claimed: float = 0.0) -> float:
        """Seconds for a track of ``size`` bytes that says it has ``claimed`` seconds."""
        return min(self.most_seconds, self.seconds + max(size / self.bytes_per_second, self.per_second * claimed))


DEFAULT_LIMITS: Final = WorkerLimits()


class WorkerProcess:
    """One worker process, with the memory that is shared with it. Starts when it is made."""

    def __init__(self, setup: bytes, size: int, limits: WorkerLimits, starter: Executor) -> None:
        """Wait until it is ready.

        Args:
            setup: the encoded :class:`wire.Setup`.
            size: bytes of the shared memory.
            limits: of each track.
            starter: one thread. What is to die with its parent dies with the thread that started it; so this one has
                to live longer than the process.

        Raises:
            WorkerError: it does not start.
        """
        self._limits = limits
        self.tracks = 0
        """How many were opened."""
        self.ended = self._killed = False
        self.stopped = False
        """True if it was ended on purpose, whatever it is doing."""
        if getattr(sys, "frozen", False):
            raise WorkerError("worker processes need Python's own program, which a frozen one is not")
        try:
            self._said = _memory("edge-reclass-stderr", 0)
            memory = _shared_memory(size)
            try:
                self.memory = mmap.mmap(memory, size)
                self._process, self._channel = starter.submit(self._start, memory).result()
            finally:
                os.close(memory)
        except OSError as error:
            raise WorkerError(f"a worker process cannot be started: {error}; --workers 0 does without") from error
        try:
            self._channel.send(msgspec.Raw(setup))
            self._channel.receive(_REPLIES, time.monotonic() + _START_SECONDS)
        except (wire.Closed, TimeoutError) as error:
            how = self._end(2.0)
            self._release()
            raise WorkerError(f"a worker process does not start: {how}; --workers 0 does without") from error

    def _start(self, memory: int) -> tuple[subprocess.Popen[bytes], wire.Channel]:
        requests, to_worker = os.pipe()
        from_worker, replies = os.pipe()
        descriptors = (requests, replies, memory)
        code = _CODE.format(path=sys.path, descriptors=(*descriptors, os.getpid()))
        # What is measured of lanes holds here: small products, and several of ours at work.
        environment = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"} | os.environ
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for the process that started it
                env=environment,
            )
        except BaseException:
            os.close(to_worker)
            os.close(from_worker)
            raise
        finally:
            os.close(requests)
            os.close(replies)
        return process, wire.Channel(from_worker, to_worker)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def begin(self, size: int) -> None:
        """A track of so many bytes comes next: its time begins."""
        self.tracks += 1
        self._size, self._left, self._allowed = size, self._limits.allowed(size), self._limits.allowed(size)

    def ask(self, request: wire.Request) -> wire.Done | wire.Ready:
        """Ask the worker for something of its track, and wait for it.

        Raises:
            TrackError: whatever the worker met; ``timeout`` or ``crashed``: the worker is no more.
            MemoryError: the track needs more memory than it may take; the worker is no more.
            EngineError: something went wrong in the worker that nobody foresaw.
            DeviceError: the worker was stopped on purpose.
        """
        began = time.monotonic()
        try:
            self._channel.send(request)
            while isinstance(reply := self._channel.receive(_REPLIES, began + self._left), wire.Claim):
                more = self._limits.allowed(self._size, reply.seconds) - self._allowed
                if more > 0:  # once: what is claimed next is no news
                    self._left, self._allowed = self._left + more, self._allowed + more
        except wire.Closed as error:
            how = self._end(2.0)
            if self.stopped:
                raise DeviceError("the workers were stopped while they were at work") from error
            if self._process.returncode == -signal.SIGKILL and not self._killed:
                raise MemoryError(
                    f"the system killed the worker process, as it does where memory is short: {how}"
                ) from error
            raise TrackError(Status.CRASHED, f"the worker process died while it read this track: {how}") from error
        except TimeoutError as error:
            self._end()
            raise TrackError(
                Status.TIMEOUT, f"not done after {self._allowed:.0f} s of work on it; its worker process was ended"
            ) from error
        self._left -= time.monotonic() - began
        if isinstance(reply, wire.Failed):
            if reply.status == Status.OUT_OF_MEMORY:
                self._end()
                raise MemoryError(reply.message)
            if reply.status is None:
                raise EngineError(reply.message)
            raise TrackError(reply.status, reply.message)
        return reply

    def _end(self, patience: float = 0.0) -> str:
        """End the process, unless it ends by itself within ``patience`` seconds; how it ended."""
        self.ended = True
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._killed = True
            self._process.kill()
            # Where it waits for a disk or a network that is gone, nothing ends it: that is the system's then.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)
            return "it did not answer"
        how = f"exit code {code}"
        if code < 0:
            with suppress(ValueError):
                how = f"{signal.Signals(-code).name} (signal {-code})"
        return ": ".join(filter(None, (how, self._last_words())))

    def _last_words(self) -> str:
        """The last line that it wrote to standard error."""
        with suppress(OSError):
            lines = os.pread(self._said, 1 << 16, 0).decode("utf-8", "replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""

    def stop(self) -> None:
        """End it at once, whatever it is doing; from any thread. Who waits for it gets a DeviceError."""
        self.stopped = True
        self._process.kill()

    def close(self) -> None:
        """Let it end, or end it. Not while another thread asks it."""
        if not self.ended:
            self._end()
        self._release()

    def _release(self) -> None:
        self._channel.close()
        os.close(self._said)


def _memory(name: str, flags: int) -> int:
    """A descriptor of memory that has no name and lies in no file system.

    A full /dev/shm is no matter, and nothing stays behind. Asked of the C library: not every Python was built with it.
    """
    create = getattr(ctypes.CDLL(None, use_errno=True), "memfd_create", None)
    if create is None:
        raise WorkerError("worker processes need memfd_create (Linux); --workers 0 does without")
    descriptor: int = create(name.encode(), _MFD_CLOEXEC | flags)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def _shared_memory(size: int) -> int:
    """Memory of a size that nobody can change: no worker that went astray takes it away under the encoders."""
    memory = _memory("edge-reclass", _MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    fcntl.fcntl(memory, _F_ADD_SEALS, _F_SEAL_SIZE)
    return memory
