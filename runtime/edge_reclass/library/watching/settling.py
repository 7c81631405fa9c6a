"""Files that were noticed, until they are finished: size and time have stayed the same for a while."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_reclass.audio.formats import has_audio_suffix

if TYPE_CHECKING:
    from edge_reclass.run import Track


def is_heard(path: str, root: str) -> bool:
    """False for what is no audio by its name (downloads in progress: ``.part``, ``.!qB``) or hidden, also by a folder.

    Our own temporary files are hidden, too.
    """
    parts = Path(os.path.relpath(path, root)).parts
    return has_audio_suffix(parts[-1]) and not any(part.startswith(".") for part in parts)


@dataclass
class _File:
    size: int | None
    """None: it is not there."""
    mtime_ns: int | None
    since: float


class Settling:
    """Takes paths from any thread, and gives those back that are finished; so are files that have gone."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``seconds``: how long a file must stay as it is."""
        self.seconds = seconds
        self._clock = clock
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    def notice(self, path: str) -> None:
        """Something has happened to a file: it begins to settle anew."""
        with self._lock:
            self._files[path] = self._look(path)

    def due(self) -> list[str]:
        """The files that are finished, sorted; they are no longer known here."""
        now = self._clock()
        with self._lock:
            waited = [(path, file) for path, file in self._files.items() if now - file.since >= self.seconds]
            finished = []
            for path, file in waited:
                found = self._look(path)
                if (found.size, found.mtime_ns) == (file.size, file.mtime_ns):
                    finished.append(path)
                    del self._files[path]
                else:
                    self._files[path] = found
        return sorted(finished)

    def next_in(self) -> float | None:
        """Seconds until a file may be finished; None where none is waited for."""
        with self._lock:
            if not self._files:
                return None
            return max(0.0, min(file.since for file in self._files.values()) + self.seconds - self._clock())

    def is_ready(self, track: Track) -> bool:
        """Of a track that a search found: False where it may still be written, and then it is noticed.

        What nobody has seen being written is ready when its time is old enough.
        """
        path = str(track.path)
        if path in self._files:
            return False
        if track.mtime_ns is None or not 0 <= time.time() - track.mtime_ns / 1e9 < self.seconds:
            return True
        self.notice(path)
        return False

    def _look(self, path: str) -> _File:
        try:
            status = os.stat(path)  # noqa: PTH116
        except (OSError, ValueError):
            return _File(None, None, self._clock())
        return _File(status.st_size, status.st_mtime_ns, self._clock())
