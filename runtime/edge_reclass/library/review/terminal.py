"""A terminal of which every key is read at once, and which is as before however that ends."""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from edge_reclass.errors import UsageError
from edge_reclass.run.text import is_utf8

if TYPE_CHECKING:
    from rich.text import Text

_ENTER = "\x1b[?1049h\x1b[?25l"
"""The other screen, so that what stood on the terminal is there again afterwards; no cursor."""
_LEAVE = "\x1b[?25h\x1b[?1049l"

NAMES: Final = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x0c": "redraw",
    "\x1b": "escape",
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
}
"""Keys that are no character; terminals in application mode send ESC O where these have ESC [."""

_KEY: Final = re.compile(r"\x1b(?:O.|\[[0-9;?]*[ -/]*[@-~])|.", re.DOTALL)
_BEGUN: Final = re.compile(r"\x1b(?:O|\[[0-9;?]*[ -/]*)?")
"""A key of which more may come: a line may be slow."""
_ESCAPE_SECONDS = 0.05
_QUIT = 128 + signal.SIGQUIT


class Terminal:
    """Standard input and output, as a screen with keys; a context manager.

    Raises:
        UsageError: they are no terminal, or one that cannot place its cursor.
    """

    def __init__(self) -> None:
        for stream, name in ((sys.stdin, "standard input"), (sys.stdout, "standard output")):
            if stream is None or not stream.isatty():
                raise UsageError(
                    f"review: expected a terminal, but {name} is none; "
                    "edge-reclass library list STATE --status unsure lists the tracks"
                )
        if os.environ.get("TERM", "") in ("", "dumb"):
            raise UsageError("review: expected a terminal that can place its cursor; set TERM, for example TERM=xterm")
        from rich.console import Console

        self._input, self._output = sys.stdin.fileno(), sys.stdout
        self.utf8 = is_utf8(sys.stdout)
        self._encoding = sys.stdout.encoding
        self._decode = codecs.getincrementaldecoder(sys.stdin.encoding or "utf-8")(errors="replace").decode
        self._unread = ""
        # rich obeys NO_COLOR and what TERM can show.
        self._console = Console(force_terminal=True, legacy_windows=False, highlight=False, markup=False)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines; a terminal that does not know says 80 × 24."""
        with suppress(OSError):
            columns, lines = os.get_terminal_size(self._output.fileno())
            if columns and lines:
                return columns, lines
        return 80, 24

    def show(self, lines: Sequence[Text]) -> None:
        """Draw ``lines``, of which as many are drawn as there is room for, each cut at the width."""
        columns, rows = self.size
        self._console.width = columns
        drawn = []
        for line in lines[:rows]:
            line = line.copy()
            line.truncate(columns, overflow="ellipsis" if self.utf8 else "crop")
            with self._console.capture() as capture:
                self._console.print(line, end="", no_wrap=True, crop=True, soft_wrap=True)
            # Emptied first: in the last column some terminals would take the last character with it.
            drawn.append("\x1b[2K" + capture.get())
        self._send("\x1b[H" + "\r\n".join(drawn) + ("" if len(drawn) == rows else "\r\n\x1b[J"))

    def key(self, seconds: float) -> str | None:
        """The next key: a character, or one of the names; None where none came in time.

        Raises:
            EOFError: the terminal is gone.
        """
        if not self._unread:
            self._read(seconds)
        while _BEGUN.fullmatch(self._unread) and self._read(_ESCAPE_SECONDS):
            pass
        match = _KEY.match(self._unread)
        if match is None:
            return None
        self._unread = self._unread[match.end() :]
        text = match[0].replace("\x1bO", "\x1b[") if len(match[0]) > 1 else match[0]
        return NAMES.get(text, text if text.isprintable() else "")

    def _read(self, seconds: float) -> bool:
        """True where something came in time."""
        if not select.select([self._input], [], [], seconds)[0]:
            return False
        try:
            content = os.read(self._input, 1024)
        except OSError:  # hung up
            content = b""
        if not content:
            raise EOFError
        self._unread += self._decode(content)
        return True

    def _send(self, text: str) -> None:
        """All of it, in the terminal's own encoding; what that does not have is a question mark."""
        content = text.encode(self._encoding, "replace")
        while content:
            content = content[os.write(self._output.fileno(), content) :]

    def __enter__(self) -> Terminal:
        self._before = termios.tcgetattr(self._input)
        self._quit = signal.signal(signal.SIGQUIT, lambda *_: sys.exit(_QUIT))
        try:
            mode = termios.tcgetattr(self._input)
            mode[0] &= ~(termios.IXON | termios.ISTRIP)  # Ctrl-S would freeze the screen
            mode[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)  # ISIG stays: Ctrl-C ends it
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            for key in (termios.VSUSP, termios.VQUIT):  # Ctrl-Z and Ctrl-\ would leave this screen to the shell
                mode[6][key] = b"\0"
            termios.tcsetattr(self._input, termios.TCSADRAIN, mode)
            self._output.flush()
            self._send(_ENTER)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        try:
            with suppress(OSError, termios.error):  # the terminal is gone
                # Keys that nobody read are not for the shell.
                termios.tcsetattr(self._input, termios.TCSAFLUSH, self._before)
        finally:
            with suppress(OSError):
                self._send(_LEAVE)
            signal.signal(signal.SIGQUIT, self._quit)
