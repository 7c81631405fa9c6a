"""What is to be written into which file: candidates, and the rules that choose among them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Final, Literal

from edge_reclass.errors import UsageError
from edge_reclass.library.state import State, absolute
from edge_reclass.library.tags.content import Change, Inventory
from edge_reclass.library.tags.names import check_name
from edge_reclass.verdict import Verdict

Mode = Literal["fill", "replace", "append"]

MIN_FURTHER: Final = 0.1
"""The least score of a second or third genre."""

_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "path": str,
    "genre": (str, NoneType),
    "confidence": (int, float, NoneType),
    "size": (int, NoneType),
    "mtime_ns": (int, NoneType),
}
"""Of what is used of a verdict that came from a file."""


@dataclass(frozen=True)
class Candidate:
    """A track as it was listed, with what was said of it."""

    path: Path
    verdict: Verdict | None
    corrected: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    track: int | None = None
    """Its row in the state, if it is from one."""

    @property
    def genre(self) -> str | None:
        """What a person said, else what the verdict says."""
        return self.corrected or (None if self.verdict is None else self.verdict.genre)

    @classmethod
    def of(cls, verdict: Verdict) -> Candidate:
        """A track with its verdict."""
        return cls(Path(verdict.path), verdict, None, verdict.size, verdict.mtime_ns)


@dataclass(frozen=True)
class Rules:
    """Which genres are written, and where one is there already."""

    mode: Mode = "fill"
    min_confidence: float = 0.0
    top: int = 1
    join: str | None = None
    names: Mapping[str, str | None] = field(default_factory=dict)

    def genres(self, candidate: Candidate) -> tuple[str, ...]:
        """The genres for a track, the surest first; none where nothing is sure enough.

        What a person said wins, and stands alone.

        Raises:
            NameRefused: a genre has a name that cannot be written.
        """
        verdict = candidate.verdict
        if candidate.corrected is not None:
            chosen = [candidate.corrected]
        elif (
            verdict is None
            or not verdict.ok
            or verdict.genre is None
            or (verdict.confidence or 0.0) < self.min_confidence
        ):
            return ()
        else:
            others = (one.genre for one in verdict.top if one.genre != verdict.genre and one.score >= MIN_FURTHER)
            chosen = [verdict.genre, *others][: self.top]
        named = dict.fromkeys(name for genre in chosen if (name := self.names.get(genre, genre)) is not None)
        for name in named:
            check_name(name)
        return (self.join.join(named),) if self.join is not None and named else tuple(named)

    def change(self, inventory: Inventory, genres: tuple[str, ...]) -> Change | None:
        """What to change in a file; None where nothing is to be."""
        old = inventory.genres
        if self.mode == "fill":
            return None if any(map(str.strip, old)) else Change(genres)
        if self.mode == "append":
            known = {genre.casefold() for genre in old}
            genres = (*old, *(genre for genre in genres if genre.casefold() not in known))
            return None if genres == old else _needed(inventory, Change(genres))
        return _needed(inventory, Change(genres, old if old != genres else ()))


def _needed(inventory: Inventory, change: Change) -> Change | None:
    return None if inventory.has(change) else change


def of_state(state: State, paths: Iterable[Path]) -> list[tuple[Path, int]]:
    """Paths and rows of the tracks of a state; with ``paths``, only those that lie there."""
    wanted = [absolute(path) for path in paths]
    listed = [(row.file, row.id) for row in state.tracks()]
    return [(path, row) for path, row in listed if not wanted or any(_lies_in(str(path), one) for one in wanted)]


def named(state: State, listed: Sequence[tuple[Path, int]]) -> list[Path]:
    """What the user named when the tracks were classified: folders, and the tracks that lie in none of them."""
    folders = set(state.roots())
    alone = {folder for folder in {path.parent for path, _ in listed} if folders.isdisjoint((folder, *folder.parents))}
    return [*folders, *(path for path, _ in listed if path.parent in alone)]


def candidates(state: State, listed: Iterable[tuple[Path, int]]) -> Iterator[Candidate]:
    """The tracks of :func:`of_state`, each read when it is its turn: rows change while files are written."""
    for path, _ in listed:
        if (row := state.track(path)) is not None:
            yield Candidate(path, row.verdict, row.corrected, row.size, row.mtime_ns, row.id)


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _verdict(plain: Mapping[str, object]) -> Verdict:
    verdict = Verdict.from_dict(plain)
    for name, kinds in _TYPES.items():
        value = getattr(verdict, name)
        if not isinstance(value, kinds):
            raise ValueError(f"{name}: got {value!r}")
    if "\0" in verdict.path:
        raise ValueError(f"path: got {verdict.path!r}")
    for score in verdict.top:
        if not isinstance(score.genre, str) or not isinstance(score.score, (int, float)):
            raise ValueError(f"top: got {score.genre!r}: {score.score!r}")
    return verdict


def of_verdicts(file: Path) -> list[Candidate]:
    """The tracks of a file that ``classify --format jsonl`` or ``json`` wrote; the last verdict of a track counts.

    Raises:
        UsageError: it is no such file.
    """
    try:
        text = file.read_text(encoding="utf-8")
        plain = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
        verdicts = {verdict.path: verdict for verdict in map(_verdict, plain)}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{file}: expected verdicts as  edge-reclass classify PATH -f jsonl -o {file.name}  writes them ({error})"
        ) from error
    return [Candidate.of(verdict) for verdict in verdicts.values()]
