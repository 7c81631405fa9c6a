"""How a run is stopped from outside, and how the process leaves when tracks are still being classified."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

HUNG_UP = 129
INTERRUPTED = 130
TERMINATED = 143


def handle_signals() -> None:
    """SIGTERM (a service is stopped) and SIGHUP (the connection is lost) end a run as orderly as Ctrl-C does.

    A SIGHUP that the parent process ignores (``nohup``) stays ignored.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(HUNG_UP))


def leave(code: int) -> NoReturn:
    """End the process with ``code``, at once where tracks are still being classified.

    Python itself would then wait for them, or take their threads away inside ONNX Runtime, which aborts.
    """
    running = any(thread.name.startswith("edge-reclass") for thread in threading.enumerate())
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the terminal is gone: what Python flushes at exit goes where nobody misses it
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if running:
        os._exit(code)
    sys.exit(code)


def say(text: str) -> None:
    """Tell the user something, on standard error."""
    with suppress(OSError):  # a closed standard error is no reason to lose the verdicts
        sys.stderr.write(text + "\n")  # in one piece: a thread may write lines of progress
        sys.stderr.flush()
