"""Which tracks are reviewed, in which order, what was said of them, and the way back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from edge_reclass.errors import Status
from edge_reclass.library.rows import TrackRow, Wanted
from edge_reclass.library.state import State


@dataclass(frozen=True)
class _Step:
    """What undoes one decision."""

    position: int
    track: int
    corrected: str | None
    skipped: bool


class Answers(Protocol):
    """Keeps what a person says; a state that is open for writing is one."""

    def correct(self, track: int, genre: str | None) -> None:
        """See :meth:`edge_reclass.library.State.correct`."""

    def skip(self, track: int, skipped: bool) -> None:
        """See :meth:`edge_reclass.library.State.skip`."""


class Queue:
    """The tracks of a state that want a person's ear. What is decided is in the state at once.

    These are the unsure ones and those with a genre of less confidence than ``below``. Tracks that somebody skipped,
    today or earlier, come last; those that were corrected are not asked about, unless ``again``.
    """

    def __init__(
        self,
        state: State,
        *,
        below: float,
        genre: str | None = None,
        surest_first: bool = False,
        again: bool = False,
        answers: Answers | None = None,
    ) -> None:
        """``answers``: keeps what is decided; by default ``state``, which is then open for writing."""
        self._state = state
        self._answers: Answers = state if answers is None else answers
        self.genres = sorted(state.all_genres(), key=str.casefold)
        self.position = 0
        self.decided = self.skipped = 0
        self._steps: list[_Step] = []
        later = state.skipped()
        found: dict[int, tuple[bool, float, bytes]] = {}
        wanted = [Wanted(status=Status.UNSURE), Wanted(status=Status.OK, below=below)]
        if again:
            wanted.append(Wanted(status="corrected"))
        for row in (row for one in wanted for row in state.tracks(one)):
            sure = row.confidence or 0.0
            doubted = row.status == Status.UNSURE or (row.status == Status.OK and sure < below)
            if doubted and (genre is None or genre == best_genre(row)):
                found[row.id] = (row.id in later, -sure if surest_first else sure, row.path)
        self._paths = [path for _, _, path in sorted(found.values())]

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def track(self) -> TrackRow | None:
        """The track that is asked about, as the state has it now; None at the end."""
        return self._state.track(os.fsdecode(self._paths[self.position])) if self.position < len(self) else None

    @property
    def can_go_back(self) -> bool:
        """True where there is a decision to take back."""
        return bool(self._steps)

    def correct(self, genre: str) -> None:
        """Keep that the present track is of ``genre``, and go on."""
        track = self._remember()
        self._answers.correct(track.id, genre)
        self._answers.skip(track.id, False)
        self.decided += 1
        if genre not in self.genres:
            self.genres = [*self.genres, genre]

    def skip(self) -> None:
        """Leave the present track for later, and go on."""
        self._answers.skip(self._remember().id, True)
        self.skipped += 1

    def back(self) -> TrackRow | None:
        """Take back the last decision and stand at its track again; None where there is none."""
        if not self._steps:
            return None
        step = self._steps.pop()
        was_skipped = step.track in self._state.skipped()
        self._answers.correct(step.track, step.corrected)
        self._answers.skip(step.track, step.skipped)
        self.position = step.position
        if was_skipped:
            self.skipped -= 1
        else:
            self.decided -= 1
        return self.track

    def _remember(self) -> TrackRow:
        track = self.track
        if track is None:
            raise IndexError("the end of the queue is reached")
        self._steps.append(_Step(self.position, track.id, track.corrected, track.id in self._state.skipped()))
        self.position += 1
        return track


def best_genre(row: TrackRow) -> str | None:
    """The genre that the verdict says, or would have said where it is unsure."""
    if row.genre is not None:
        return row.genre
    verdict = row.verdict
    return verdict.top[0].genre if verdict is not None and verdict.top else None
