"""Hashes of the sound of files, computed in a process of its own: what a file does to FFmpeg costs its hash alone."""

from __future__ import annotations

import atexit
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event

from edge_reclass.errors import WorkerError
from edge_reclass.run.workers.process import DEFAULT_LIMITS

_CODE = """import sys
sys.path[:] = {path!r}
import os, signal
from edge_reclass.audio import audio_hash
for line in sys.stdin:
    seconds, path = line.split()
    signal.alarm(int(seconds))  # ends a process that hangs, also where nobody asks any more
    print((audio_hash(os.fsdecode(bytes.fromhex(path))) or b"").hex(), flush=True)
    signal.alarm(0)
"""


class SoundHasher:
    """Asks a process, which is started when it is needed, for one hash at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._stopped = Event()

    def __call__(self, path: Path, size: int | None) -> bytes | None:
        """See :func:`edge_reclass.audio.audio_hash`; None too where that crashes, or takes longer than a worker may.

        Raises:
            WorkerError: the process cannot be started.
        """
        if self._stopped.is_set():
            return None
        if self._process is None:
            self._process = self._start()
            if self._stopped.is_set():  # meanwhile
                self._process.kill()
        requests, answers, answer = self._process.stdin, self._process.stdout, ""
        with suppress(BrokenPipeError):
            if requests is not None and answers is not None:
                print(math.ceil(DEFAULT_LIMITS.allowed(size or 0)), os.fsencode(path).hex(), file=requests, flush=True)
                answer = answers.readline()
        if not answer.endswith("\n"):
            self._end()
        return bytes.fromhex(answer) or None

    def _start(self) -> subprocess.Popen[str]:
        if getattr(sys, "frozen", False):
            raise WorkerError("hashes need Python's own program, which a frozen one is not")
        try:
            return subprocess.Popen(
                [sys.executable, "-c", _CODE.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is for the process that started it
            )
        except OSError as error:
            raise WorkerError(f"a process that hashes the sound of files cannot be started: {error}") from error

    def stop(self) -> None:
        """End it at once; from any thread. Who waits for a hash gets None."""
        self._stopped.set()
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End it. Not while another thread asks it."""
        if self._process is not None:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(BrokenPipeError):  # of what it did not read
                process.communicate()


_idle: list[SoundHasher] = []
"""Warm, for the next run of a program that stays: a file may get new tags right after its verdict."""


def borrowed() -> SoundHasher:
    """One of those that were given back, or a new one."""
    return _idle.pop() if _idle else SoundHasher()


def give_back(hasher: SoundHasher) -> None:
    """Keep one that nobody uses, for the next time."""
    _idle.append(hasher)


def close_idle() -> None:
    """End those that nobody uses."""
    while _idle:
        _idle.pop().close()


atexit.register(close_idle)
os.register_at_fork(after_in_child=_idle.clear)
