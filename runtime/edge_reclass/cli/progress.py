"""How a run goes, on standard error: a bar on a terminal that leaves everything else there alone, or lines of JSON."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from edge_reclass.cli.pace import Pace
from edge_reclass.cli.summary import Summary
from edge_reclass.errors import UsageError
from edge_reclass.run.text import is_utf8, printable

if TYPE_CHECKING:
    from edge_reclass.run.output import Output
    from edge_reclass.verdict import Verdict

KINDS: Final = ("bar", "json", "none")
_ERASE = "\r\x1b[2K"
_BAR_SECONDS = 0.1
_JSON_SECONDS = 1.0
_WIDEST_BAR = 40
_NARROWEST_BAR = 10


class Progress:
    """What was done so far, shown as one of :data:`KINDS`.

    ``total`` is how many tracks are to be classified, None as long as it is not known. ``unchanged`` counts those that
    need no work beside it; they are no part of the rate. Both may be set at any time.

    Nothing is drawn where standard error is no terminal, or cannot erase a line (``TERM=dumb``), and where ``output``
    is a pipe: its reader (``| tee``, ``| grep``) may write to the same terminal at any time. Before the output
    writes to a terminal, the bar is erased.
    """

    def __init__(self, kind: str, total: int | None, output: Output) -> None:
        self.total, self.unchanged = total, 0
        self.summary, self.pace = Summary(), Pace()
        self._lock = threading.Lock()
        self._output, self._drawn = output, 0.0
        can_erase = sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._has_bar = kind == "bar" and total not in (0, 1) and can_erase and not _may_reach_a_terminal(output)
        self._closed = threading.Event()
        self._ticker: threading.Thread | None = None
        if kind == "json":
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()

    @property
    def left(self) -> int | None:
        """Tracks that still need work, None as long as that is not known."""
        return None if self.total is None else max(0, self.total - self.summary.total)

    def add(self, verdict: Verdict) -> None:
        """One more track is done."""
        with self._lock:
            self.summary.add(verdict)
            self.pace.add(verdict)
        self.draw()

    def clear(self) -> None:
        """Make way for a line of the output, where that is a terminal; :meth:`add` draws the bar again below."""
        if self._output.is_terminal:
            self._erase()
            self._drawn = 0.0  # to be drawn again at once

    def draw(self) -> None:
        """Draw the bar, unless that was done a moment ago."""
        now = time.monotonic()
        if self._has_bar and now - self._drawn >= _BAR_SECONDS:
            self._drawn = now
            self._send(_ERASE + self._line())

    def hide(self) -> None:
        """Erase the bar for good: what follows is said in words."""
        self._erase()
        self._has_bar = False

    def close(self) -> None:
        """Erase the bar, or write the last line of JSON. Closing twice is allowed."""
        self.hide()
        if self._ticker is not None and not self._closed.is_set():
            self._closed.set()
            self._ticker.join(_JSON_SECONDS)

    def snapshot(self) -> dict[str, Any]:
        """The numbers, as a line of JSON has them; what is not known is None."""
        with self._lock:
            left, rate = self.left, self.pace.per_minute
            seconds_left = None if left is None else self.pace.seconds_left(left)
            return {
                "event": "end" if self._closed.is_set() else "progress",
                "total": self.total,
                "done": self.summary.total,
                "left": left,
                "failed": self.summary.failed,
                "unchanged": self.unchanged,
                "tracks_per_minute": None if rate is None else round(rate, 1),
                "seconds": round(self.pace.elapsed, 1),
                "seconds_left": None if seconds_left is None else round(seconds_left, 1),
                "statuses": dict(self.summary.statuses),
                "decided_by": dict(self.summary.decided_by),
            }

    def _tick(self) -> None:
        while not self._closed.wait(_JSON_SECONDS):
            self._send(json.dumps(self.snapshot()) + "\n")
        self._send(json.dumps(self.snapshot()) + "\n")

    def _erase(self) -> None:
        if self._has_bar:
            self._send(_ERASE)

    def _line(self) -> str:
        """As wide as the terminal at most: a line that wraps could not be erased."""
        with suppress(OSError, ValueError):
            width = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - len("classify ") - 1
            done, total = self.summary.total, self.total
            text = f"{done} done" if total is None else f" {done}/{total}"
            for part in self._parts():
                if len(text) + len(part) + 2 <= width - (0 if total is None else _NARROWEST_BAR):
                    text += f", {part}"
            if total is None:
                return f"classify {text}"[: width + len("classify ")]
            room = min(_WIDEST_BAR, width - len(text))
            full = room * done // total if total else room
            filled, empty = ("━", "╌") if is_utf8(sys.stderr) else ("#", ".")
            return f"classify {filled * full}{empty * (room - full)}{text}" if room > 0 else text[:width]
        return ""

    def _parts(self) -> list[str]:
        """What follows the counts, what matters most first."""
        parts, left, rate, summary = [], self.left, self.pace.per_minute, self.summary
        if left and (seconds := self.pace.seconds_left(left)) is not None:
            parts.append(f"{_clock(seconds)} left")
        if rate is not None and summary.total:
            parts.append(f"{rate:.0f}/min")
        if summary.failed:
            parts.append(f"{summary.failed} failed")
        if answered := summary.decided_by.total():
            exits = summary.decided_by.most_common()
            parts.append(" ".join(f"{printable(stage)} {n / answered:.0%}" for stage, n in exits))
        return parts

    def _send(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):  # the terminal is gone; the verdicts need not be
            self._has_bar = False


def check_kind(kind: str) -> None:
    """Refuse what is none of :data:`KINDS`, before anything is opened.

    Raises:
        UsageError: it is none.
    """
    if kind not in KINDS:
        raise UsageError(f"--progress: expected one of {', '.join(KINDS)}, got {kind!r}")


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
