"""One track of a state file, and which tracks are wanted."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from edge_reclass.errors import Status
from edge_reclass.verdict import Score, Verdict


@dataclass(frozen=True)
class TrackRow:
    """A track as the state knows it. ``verdict`` is its JSON, None where it was not classified yet."""

    id: int
    path: bytes
    size: int | None
    mtime_ns: int | None
    status: str | None
    genre: str | None
    """What the verdict says; None where it is no genre."""
    corrected: str | None
    """What a person said, which wins."""
    confidence: float | None
    decided_by: str | None
    verdict_json: str | None
    bundle_digest: str | None
    policy: str | None
    first_seen: str
    last_seen: str
    absent_since: str | None
    change: int | None = None
    """The number of the change that made the row what it is; they rise. None where there is no verdict yet."""
    scan: int | None = None
    """Of the service, which gave it its verdict."""

    @property
    def file(self) -> Path:
        """The path as Python has it."""
        return Path(os.fsdecode(self.path))

    @property
    def final_genre(self) -> str | None:
        """What a person said, else what the verdict says."""
        return self.genre if self.corrected is None else self.corrected

    def sure_genre(self, min_confidence: float) -> str | None:
        """What a person said, whatever the confidence; else what the verdict says, if it is so sure."""
        sure = self.status == Status.OK and (self.confidence or 0.0) >= min_confidence
        return self.genre if self.corrected is None and sure else self.corrected

    @property
    def verdict(self) -> Verdict | None:
        """The whole verdict, of the track where it lies now."""
        if self.verdict_json is None:
            return None
        return Verdict.from_dict({**json.loads(self.verdict_json), "path": os.fsdecode(self.path)})

    @property
    def final_verdict(self) -> Verdict | None:
        """The whole verdict, with what a person said in place of what the stages did."""
        verdict = self.verdict
        if verdict is None or self.corrected is None:
            return verdict
        others = tuple(score for score in verdict.top if score.genre != self.corrected)
        return replace(
            verdict,
            status=Status.OK,
            genre=self.corrected,
            confidence=1.0,
            decided_by=None,
            reason="corrected by a person",
            reason_code=None,
            top=(Score(self.corrected, 1.0), *others),
            error=None,
        )


@dataclass(frozen=True)
class Wanted:
    """Which tracks: all conditions hold. ``below`` is a confidence, which a corrected track is never below.

    ``status`` is what the verdict says, or ``corrected``. ``since`` is an ISO date or time, UTC: what was classified or
    corrected then or later.
    """

    genre: str | None = None
    status: str | None = None
    below: float | None = None
    since: str | None = None
    absent: bool | None = False
    """True: only what was not there when last looked for; False: only what was; None: both."""
    below_path: bytes | None = None
    """What the path begins with."""
    scan: int | None = None
    """What this scan of the service classified."""
