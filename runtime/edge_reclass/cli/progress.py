"""A progress bar on standard error that leaves everything else on the terminal alone."""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import suppress

from edge_reclass.run.output import Output
from edge_reclass.run.text import is_utf8

_ERASE = "\r\x1b[2K"
_INTERVAL = 0.1
_WIDEST_BAR = 40


class ProgressBar:
    """One line on the terminal, redrawn as tracks are done.

    Nothing is drawn where standard error is no terminal, or cannot erase a line (``TERM=dumb``), and where ``output``
    is a pipe: its reader (``| tee``, ``| grep``) may write to the same terminal at any time. Before the output
    writes to a terminal, the bar is erased.
    """

    def __init__(self, total: int, output: Output) -> None:
        self._total, self._output = total, output
        self._done, self._began, self._drawn = 0, time.monotonic(), 0.0
        can_erase = sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._shown = total > 1 and can_erase and not _may_reach_a_terminal(output)

    def clear(self) -> None:
        """Make way for a line of the output, where that is a terminal; :meth:`advance` draws the bar again below."""
        if self._output.is_terminal:
            self._erase()
            self._drawn = 0.0  # to be drawn again at once

    def advance(self) -> None:
        """One more track is done."""
        self._done += 1
        self.draw()

    def close(self) -> None:
        """Erase it for good."""
        self._erase()
        self._shown = False

    def draw(self) -> None:
        """Draw it, unless that was done a moment ago."""
        now = time.monotonic()
        if self._shown and now - self._drawn >= _INTERVAL:
            self._drawn = now
            self._send(_ERASE + self._line(now - self._began))

    def _erase(self) -> None:
        if self._shown:
            self._send(_ERASE)

    def _line(self, elapsed: float) -> str:
        """As wide as the terminal at most: a line that wraps could not be erased."""
        with suppress(OSError, ValueError):
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            counts = f" {self._done}/{self._total}"
            if 0 < self._done < self._total:
                counts += f", {_clock(elapsed / self._done * (self._total - self._done))} left"
            room = min(_WIDEST_BAR, (width or 80) - len("classify ") - len(counts) - 1)
            full = room * self._done // self._total
            filled, empty = ("━", "╌") if is_utf8(sys.stderr) else ("#", ".")
            return f"classify {filled * full}{empty * (room - full)}{counts}" if room > 0 else counts[: width - 1]
        return ""

    def _send(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # the terminal is gone; the verdicts need not be
            self._shown = False


def _may_reach_a_terminal(output: Output) -> bool:
    """True for pipes and sockets: we cannot know where their reader writes."""
    if output.fileno is None:
        return False
    mode = os.fstat(output.fileno).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
