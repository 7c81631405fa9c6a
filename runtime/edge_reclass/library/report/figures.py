"""What the report counts and lists, gathered in one pass over a state."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from edge_reclass.errors import Status
from edge_reclass.library.label import Labels
from edge_reclass.library.rows import TrackRow, Wanted
from edge_reclass.library.shown import shown
from edge_reclass.library.state import State
from edge_reclass.library.tags import FileTags

BINS: Final = 20
"""Of the histogram of confidence, 0 to 1."""
UNCLASSIFIED: Final = "not classified"


class _Stage(msgspec.Struct):
    name: str
    genre: str | None


class _Score(msgspec.Struct):
    genre: str


class _Verdict(msgspec.Struct):
    """What of a verdict the report needs; reading all of it takes ten times as long."""

    stages: list[_Stage] | None
    top: list[_Score] | None


def _verdict(text: str) -> _Verdict:
    try:
        return msgspec.json.decode(text, type=_Verdict)
    except msgspec.DecodeError:  # a name that is not UTF-8 stands as lone surrogates, which json takes
        return msgspec.convert(json.loads(text), _Verdict)


@dataclass
class _Column:
    """Text that repeats: each once, and a number for each row."""

    names: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    _known: dict[str, int] = field(default_factory=dict)

    def add(self, text: str | None) -> None:
        """One more row; None is no text."""
        if text is None:
            self.numbers.append(-1)
            return
        number = self._known.setdefault(text, len(self.names))
        if number == len(self.names):
            self.names.append(shown(text))
        self.numbers.append(number)


@dataclass
class Figures:
    """The counts, by what they count, and the rows of the table as columns."""

    tracks: int = 0
    absent: int = 0
    corrected: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    genres: Counter[str] = field(default_factory=Counter)
    sure: list[int] = field(default_factory=lambda: [0] * BINS)
    unsure: list[int] = field(default_factory=lambda: [0] * BINS)
    heard: Counter[str] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)
    stages: list[str] = field(default_factory=list)
    """In the order in which they are asked."""
    _text: dict[str, _Column] = field(
        default_factory=lambda: {name: _Column() for name in ("folder", "artist", "genre", "status", "stage")}
    )
    _names: list[str] = field(default_factory=list)
    _titles: list[str | int] = field(default_factory=list)
    _confidence: list[int] = field(default_factory=list)
    _said: list[int] = field(default_factory=list)

    def add(self, row: TrackRow, tags: FileTags) -> None:
        """Count one track, and make it a row."""
        verdict = None if row.verdict_json is None else _verdict(row.verdict_json)
        status = row.status or UNCLASSIFIED
        self.tracks += 1
        self.statuses[status] += 1
        genre = row.final_genre
        if row.corrected is not None:
            self.corrected += 1
        if genre is not None:
            self.genres[genre] += 1
        if row.confidence is not None and row.status in (Status.OK, Status.UNSURE):
            bins = self.unsure if row.status == Status.UNSURE else self.sure
            bins[min(int(row.confidence * BINS), BINS - 1)] += 1
        names = [stage.name for stage in verdict.stages or ()] if verdict is not None else []
        self.heard.update(names)
        if row.decided_by is not None:
            self.decided[row.decided_by] += 1
        self._order(names)
        if genre is None and verdict is not None and verdict.top:
            genre = verdict.top[0].genre  # what it would have been
        folder, name = os.path.split(os.fsdecode(row.path))
        for column, text in (
            ("folder", folder),
            ("artist", tags.artist),
            ("genre", genre),
            ("status", status),
            ("stage", row.decided_by),
        ):
            self._text[column].add(text)
        self._names.append(shown(name))
        self._titles.append(shown(tags.title) if tags.title else 0)
        self._confidence.append(-1 if row.confidence is None else round(row.confidence * 1000))
        self._said.append(int(row.corrected is not None))

    def _order(self, names: list[str]) -> None:
        """Place stages that are new behind the one that was asked before them."""
        for before, name in zip([None, *names], names, strict=False):
            if name not in self.stages:
                self.stages.insert(0 if before is None else self.stages.index(before) + 1, name)

    def table(self) -> dict[str, Any]:
        """The rows, column by column: what the page's script reads."""
        texts = {name: {"names": column.names, "rows": column.numbers} for name, column in self._text.items()}
        own = {"name": self._names, "title": self._titles, "confidence": self._confidence, "said": self._said}
        return {**texts, **own}


def figures(state: State, labels: Labels | None) -> Figures:
    """Count what a state holds; artist and title are from ``labels``."""
    found = Figures(absent=state.counts().absent)
    for row in state.tracks(Wanted()):
        found.add(row, FileTags() if labels is None else labels.tags(row.file))
    return found
