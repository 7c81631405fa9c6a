"""What a run gave, in a few lines: statuses, what needs an extra, which stages decided, and the genres."""

from __future__ import annotations

import importlib.util
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge_reclass.installing import install_command
from edge_reclass.run.text import printable

if TYPE_CHECKING:
    from edge_reclass.run.sources import TrackSearch
    from edge_reclass.verdict import Verdict


class Summary:
    """Counts verdicts as they come."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.genres: Counter[str] = Counter()
        self.failed = 0
        self.decided_by: Counter[str] = Counter()
        self._needs_codecs: Counter[str] = Counter()
        self._damaged = 0
        self._began = time.perf_counter()
        self._has_pyav = importlib.util.find_spec("av") is not None

    @property
    def total(self) -> int:
        """The verdicts so far."""
        return self.statuses.total()

    def add(self, verdict: Verdict) -> None:
        """Count one verdict."""
        from edge_reclass.audio.formats import needs_pyav

        self.statuses[verdict.status] += 1
        self.failed += verdict.failed
        self._damaged += verdict.damage is not None
        if verdict.decided_by is not None:
            self.decided_by[verdict.decided_by] += 1
        if verdict.genre is not None:
            self.genres[verdict.genre] += 1
        if verdict.status == "unsupported" and not self._has_pyav and needs_pyav(verdict.path):
            self._needs_codecs[os.path.splitext(verdict.path)[1].lower()] += 1  # noqa: PTH122

    def lines(self, search: TrackSearch) -> Iterator[str]:
        """The summary; the genres come last."""
        seconds = time.perf_counter() - self._began
        statuses = f": {_joined(self.statuses)}" if self.total else ""  # none: a shard that is empty
        yield f"{counted(self.total, 'track')} in {seconds:.1f} s{statuses}{skipped(search)}"
        if self._needs_codecs:
            kinds = _joined(self._needs_codecs)
            need = "needs" if self._needs_codecs.total() == 1 else "need"
            yield f"{kinds} {need} the extra [codecs]: {install_command('codecs')}"
        if self._damaged:
            yield f"{counted(self._damaged, 'track')} damaged, classified by what can be decoded"
        answered = self.decided_by.total()
        if answered:
            exits = (f"{printable(stage)} {n} ({n / answered:.0%})" for stage, n in self.decided_by.most_common())
            yield f"decided by: {', '.join(exits)}"
        if self.genres:
            yield "genres: " + ", ".join(f"{printable(genre)} {n}" for genre, n in self.genres.most_common())


def counted(number: int, what: str) -> str:
    """``1 track``, ``2 tracks``."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def skipped(search: TrackSearch) -> str:
    """What a search passed over, to be put behind another text; empty if nothing."""
    kinds = (("hidden", search.skipped_hidden), ("non-audio", search.skipped_other))
    parts = [(kind, number) for kind, number in kinds if number]
    if not parts:
        return ""
    last = "file" if parts[-1][1] == 1 else "files"
    return f"; skipped {' and '.join(f'{number} {kind}' for kind, number in parts)} {last}"


def _joined(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {printable(name)}" for name, number in counts.most_common())
