"""What a command that takes minutes is at."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Say = Callable[[str], None]
"""Takes a line that says what is being done, or a warning; see :class:`Progress`."""


class Progress:
    """What is being done, on standard error: in one line of a terminal, else every ten seconds."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def __call__(self, text: str) -> None:
        """Say it; warnings in a line of their own."""
        if text.startswith(("warning", "left out", "kept")):
            self.done()
            print(text, file=sys.stderr)
        elif self._terminal:
            print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            print(f"{self.seconds:6.1f} s  {text}", file=sys.stderr, flush=True)

    def done(self) -> None:
        """Take the line off the terminal."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
