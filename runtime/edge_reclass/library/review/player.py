"""Plays a track with a player that is installed, in the background."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

PLAYERS: Final[dict[str, Callable[[str, float], list[str]]]] = {
    "mpv": lambda file, start: ["--no-video", "--no-terminal", f"--start={start:.2f}", "--", file],
    "ffplay": lambda file, start: ["-nodisp", "-autoexit", "-loglevel", "quiet", "-ss", f"{start:.2f}", "-i", file],
}
"""By the program's name, the first that is installed: its arguments for a file, from so many seconds on."""

_PATIENCE = 2.0


class Player:
    """At most one track plays at a time; a context manager that ends it."""

    def __init__(self) -> None:
        self.name = next((name for name in PLAYERS if shutil.which(name)), None)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_playing(self) -> bool:
        """True while a track plays."""
        return self._process is not None and self._process.poll() is None

    def play(self, file: Path, start: float) -> None:
        """Play ``file``, an absolute path, from ``start`` seconds on, instead of what plays.

        Raises:
            OSError: the player cannot be started.
        """
        self.stop()
        if self.name is not None:
            self._process = subprocess.Popen(
                [self.name, *PLAYERS[self.name](str(file), start)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is ours
            )

    def failed(self) -> int | None:
        """The exit status of a player that could not play the track, once; else None."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._process = None
        return code or None

    def stop(self) -> None:
        """Be silent."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
