"""One scan while it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from edge_reclass import CascadePool, Verdict
from edge_reclass.errors import FAILURE_STATUSES, UsageError
from edge_reclass.library import Again, Basis, State, Updater, Work
from edge_reclass.run import Track
from edge_reclass_service.keeping.wire import Counts, ScanRequest

PATIENCE: Final = 5.0
"""Seconds that a scan which is interrupted waits for the tracks that are being classified."""


_MOST_OUTSIDE: Final = 1000
"""Of what is outside, so much is listed; all of it is counted."""


class Cancelled(Exception):
    """Somebody took the scan back."""


class Running:
    """Looks at files and folders and classifies; counts as it goes. A sink of its own verdicts.

    Args:
        roots: what links lead to outside of these is left out.
        number: of the scan; verdicts that it has from before a kill or a loan are not made again.
        between: see :class:`edge_reclass.library.Updater`.
        told: is told of each verdict.
    """

    def __init__(
        self,
        number: int,
        request: ScanRequest,
        roots: Sequence[str],
        between: Callable[[], None],
        told: Callable[[Verdict], None],
    ) -> None:
        self._roots = roots
        self.id = number
        self.counts = Counts()
        self.problems: list[tuple[str, str]] = []
        self.error: str | None = None
        """Which folders are not there."""
        self._again = Again(request.redo, request.retry_failed)
        self._between, self._told = between, told
        self._before: dict[bytes, tuple[int | None, int | None]] = {}
        """What it classified before: path, size and time of its tracks."""
        self._unchanged = self._left = 0

    def run(self, state: State, paths: Sequence[str], basis: Basis, pool: Callable[[], CascadePool]) -> None:
        """Do what is left to do. A folder that is not there stops no other.

        Raises:
            Cancelled, Interrupted: what ``between`` raises.
            DeviceError: the device is lost.
            EdgeReclassError: the state cannot be written.
        """
        failed = 0
        for path, size, mtime_ns, status in state.connection.execute(
            "SELECT path, size, mtime_ns, status FROM track WHERE scan = ?", (self.id,)
        ):
            self._before[path] = size, mtime_ns
            failed += status in FAILURE_STATUSES
        self.counts.done = self.counts.to_do = len(self._before)
        self.counts.failed = failed
        self._unchanged = -len(self._before)
        updater = Updater(
            *(state, pool, basis),
            again=self._again,
            between=self._between,
            patience=PATIENCE,
            scan=self.id,
            within=self._roots,
        )
        # Folders one by one, so that one that is not mounted costs no other; files together, for each look takes time.
        folders = [path for path in paths if os.path.isdir(path)]  # noqa: PTH112
        files = [path for path in paths if path not in set(folders)]
        for some in [[folder] for folder in folders] + ([files] if files else []):
            self._left = 0
            try:
                updater.update(some, self, ready=self._is_ready, found=self._found)
            except UsageError as error:
                self.error = str(error) if self.error is None else f"{self.error}; {error}"

    def _is_ready(self, track: Track) -> bool:
        if self._before.get(os.fsencode(track.path)) == (track.size, track.mtime_ns):
            self._left += 1
            return False
        return True

    def _found(self, work: Work) -> None:
        counts = self.counts
        counts.found += work.found + self._left
        counts.to_do += work.to_do
        self._unchanged += work.unchanged + self._left
        counts.unchanged = max(0, self._unchanged)
        counts.moved += work.moved
        counts.retagged += work.retagged
        counts.linked += work.linked
        counts.absent += work.absent
        counts.hidden += work.search.skipped_hidden
        counts.other += work.search.skipped_other
        self.problems += [(os.fspath(folder), reason) for folder, reason in work.search.problems]
        outside = work.search.outside
        counts.outside += len(outside)
        self.problems += [(os.fspath(path), "it leads out of the roots") for path in outside[:_MOST_OUTSIDE]]

    def write(self, verdict: Verdict) -> None:
        """See :meth:`edge_reclass.run.Sink.write`."""
        self.counts.done += 1
        self.counts.failed += verdict.failed
        self._told(verdict)

    def finish(self) -> None:
        """See :meth:`edge_reclass.run.Sink.finish`."""

    def stop(self) -> str | None:
        """See :meth:`edge_reclass.run.Sink.stop`."""
        return None
