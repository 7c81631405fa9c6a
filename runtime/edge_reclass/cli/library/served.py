"""``classify --state`` while a service holds the state: the service scans, and its verdicts are shown here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_reclass.cli.library.updating import left_alone
from edge_reclass.cli.stopping import say
from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.library.state import absolute
from edge_reclass.run.sources import TrackSearch
from edge_reclass.run.text import printable

if TYPE_CHECKING:
    from edge_reclass.cli.progress import Progress
    from edge_reclass.client import Client, Scan
    from edge_reclass.run import Sink
    from edge_reclass.verdict import Verdict

_TICK: Final = 0.25


class ServedScan:
    """A scan that a service does for us.

    Raises:
        RequestRefusedError: the service takes no such scan, as of what lies outside of its roots.
        ServiceError: it cannot be reached.
    """

    def __init__(self, client: Client, paths: Sequence[str], *, redo: bool, retry_failed: bool) -> None:
        self._client = client
        for path in paths:
            try:
                path.encode()
            except UnicodeEncodeError as error:
                raise UsageError(
                    f"{printable(path)}: the service cannot be told a name that is not UTF-8; name the folder it is in"
                ) from error
        # With a key, a request whose answer was lost is sent again without a second scan.
        self._scan = client.start_scan(
            [absolute(path) for path in paths], redo=redo, retry_failed=retry_failed, key=uuid.uuid4().hex
        )

    def follow(self, sink: Sink, progress: Progress, wrote: Callable[[Verdict], None]) -> None:
        """Hand on verdicts as they are recorded, to the end. A signal takes the scan back.

        Raises:
            KeyboardInterrupt, SystemExit: a signal came.
            ServiceError: the service has gone.
        """
        cursor = self._scan.since
        try:
            while True:
                self._scan = self._client.scan(self._scan.id)  # before its verdicts: then none is left out
                progress.total, progress.unchanged = self._count("to_do"), self._count("unchanged")
                for change in self._client.verdicts(cursor, scan=self._scan.id):
                    cursor = change.cursor
                    sink.write(change.verdict)
                    wrote(change.verdict)
                if self._scan.over:
                    break
                time.sleep(_TICK)
        except (KeyboardInterrupt, SystemExit):
            self._client.cancel_scan(self._scan.id)
            sink.stop()
            progress.close()
            say(f"interrupted; scan {self._scan.id} of the service ends, and what it classified stays in the state")
            raise

    @property
    def search(self) -> TrackSearch:
        """What the service's search passed over, and could not search."""
        search = TrackSearch([])
        search.skipped_hidden, search.skipped_other = self._count("hidden"), self._count("other")
        search.problems = [(Path(folder), reason) for folder, reason in self._scan.problems]
        return search

    @property
    def found(self) -> int:
        """Tracks that are there."""
        return self._count("found")

    def left_alone(self, state: Path) -> str:
        """What was found and needed no verdict, in one line; empty if nothing."""
        names = ("unchanged", "moved", "retagged", "linked", "absent")
        return left_alone(state, **{name: self._count(name) for name in names})

    def check(self) -> None:
        """Raise what ended the scan early.

        Raises:
            UsageError: a folder is not there.
            EdgeReclassError: it was taken back, or failed otherwise.
        """
        scan: Scan = self._scan
        if scan.status == "cancelled":
            raise EdgeReclassError(f"scan {scan.id} was taken back by somebody; what it classified stays in the state")
        if scan.status == "failed":
            raise UsageError(printable(scan.error or f"scan {scan.id} failed"))

    def _count(self, name: str) -> int:
        return (self._scan.counts or {}).get(name, 0)
