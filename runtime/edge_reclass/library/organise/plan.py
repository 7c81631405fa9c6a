"""Which track goes where: made before anything is touched, the same each time."""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_reclass.errors import ANSWER_STATUSES, Word
from edge_reclass.library import names
from edge_reclass.library.organise.template import Template

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_reclass.library.rows import TrackRow
    from edge_reclass.library.tags import FileTags


class By(Word):
    """How a track comes to its new place."""

    LINK = "link"
    REFLINK = "reflink"
    COPY = "copy"
    MOVE = "move"


@dataclass(frozen=True)
class Step:
    """One file to bring to a new place. ``track`` is the row that goes with it, None where none does."""

    by: By
    source: Path
    target: Path
    track: int | None
    status: os.stat_result
    """Of the source when the plan was made."""


@dataclass
class Plan:
    """What is to be done, and why the rest is not."""

    root: Path
    steps: list[Step] = field(default_factory=list)
    in_place: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Tracks that have no place, by reason."""
    problems: list[tuple[Path, str]] = field(default_factory=list)
    """Tracks that have one, and cannot be brought there."""


@dataclass(frozen=True)
class Wishes:
    """What is asked for."""

    by: By
    template: Template
    unsure: str | None = None
    """The folder, in the place of a genre, of tracks without a sure genre; None: they are left out."""
    min_confidence: float = 0.0


NO_GENRE: Final = "no sure genre"
FAILED: Final = "not classified"


def make_plan(
    rows: Iterable[TrackRow],
    root: Path,
    wishes: Wishes,
    read_tags: Callable[[Path], FileTags] | None,
    made: Mapping[Path, list[Path]],
) -> Plan:
    """Find a place in ``root`` for each track.

    A track that is in its place, or has a link or copy there, needs nothing. Two tracks with one name, in whatever
    case, become ``name`` and ``name (2)``; so does a track whose name is taken by a file that is there already.

    Args:
        read_tags: None where the template does not ask for what tags say.
        made: for each source the links and copies that earlier runs made of it, and that are still there.
    """
    plan = Plan(root)
    folder = _Folder(root)
    waiting: list[tuple[TrackRow, os.stat_result, str]] = []
    for row in rows:
        genre = _genre(row, wishes)
        if genre is None:
            plan.left_out[NO_GENRE if row.status in ANSWER_STATUSES else FAILED] += 1
            continue
        try:
            status = _usable(row, wishes.by)
        except ValueError as reason:
            plan.problems.append((row.file, str(reason)))
            continue
        tags = None if read_tags is None else read_tags(row.file)
        relative = wishes.template.path(_values(row.file, genre, tags))
        waiting.append((row, status, relative))
    unplaced = []
    for row, status, relative in waiting:  # first those that stay, so that no other takes their names
        if (home := _home(folder, row.file, status, relative, wishes.by, made.get(row.file, []))) is None:
            unplaced.append((row, status, relative))
        else:
            with suppress(ValueError):  # in place behind a link, where nothing else goes
                folder.take(home)
            plan.in_place += 1
    for row, status, relative in unplaced:
        try:
            target = root / folder.free(relative)
        except ValueError as reason:
            plan.problems.append((row.file, str(reason)))
            continue
        old = made.get(row.file, [])
        if wishes.by is not By.MOVE and old:  # what an earlier run made of it follows its new genre
            plan.steps.append(Step(By.MOVE, old[-1], target, None, old[-1].lstat()))
        else:
            plan.steps.append(Step(wishes.by, row.file, target, row.id, status))
    return plan


def _genre(row: TrackRow, wishes: Wishes) -> str | None:
    if (genre := row.sure_genre(wishes.min_confidence)) is not None:
        return genre
    return wishes.unsure if row.status in ANSWER_STATUSES else None


def _usable(row: TrackRow, by: By) -> os.stat_result:
    """The status of a track's file.

    Raises:
        ValueError: it cannot be brought anywhere, or is not what was classified.
    """
    try:
        status = row.file.lstat()
        if stat.S_ISLNK(status.st_mode):
            if by is By.MOVE:
                raise ValueError("it is a link, which may lead nowhere from elsewhere; take --by link or copy")
            status = row.file.stat()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file")
    if (row.size, row.mtime_ns) != (status.st_size, status.st_mtime_ns):
        raise ValueError("it has changed since it was classified; classify it again")
    return status


def _values(file: Path, genre: str, tags: FileTags | None) -> dict[str, str]:
    values = {"genre": genre, "name": file.stem, "ext": file.suffix[1:].lower()}
    for name in ("artist", "album", "title", "track"):
        if value := getattr(tags, name, None):
            values[name] = value.zfill(2) if name == "track" and value.isdecimal() else value
    return values


def _home(folder: _Folder, file: Path, status: os.stat_result, relative: str, by: By, made: list[Path]) -> str | None:
    """Where the track, or what was made of it, is already as ``relative`` says; None if nowhere."""
    if by is By.MOVE:
        places = [file]
    else:
        places = [*made, *(folder.root / one for one in folder.occupied(relative))]
    for place in places:
        at = os.path.relpath(os.path.join(_real(str(place.parent)), place.name), folder.root)  # noqa: PTH118
        number = re.search(r" \((\d{1,6})\)$", os.path.splitext(at)[0])  # noqa: PTH122
        called = {relative} if number is None else {relative, _candidate(relative, int(number[1]))}
        if names.key(at) in map(names.key, called) and (
            by is By.MOVE or place in made or _is_made_of(place, status, by)
        ):
            return at
    return None


@lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _is_made_of(place: Path, source: os.stat_result, by: By) -> bool:
    try:
        status = place.lstat()
    except OSError:
        return False
    if by is By.LINK:
        return os.path.samestat(status, source)
    return (status.st_size, status.st_mtime_ns) == (source.st_size, source.st_mtime_ns)


def _candidate(relative: str, number: int) -> str:
    """``a (2).mp3`` of ``a.mp3``, no longer than a name may be; the first is the name itself."""
    if number < 2:
        return relative
    head, name = os.path.split(relative)
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    return os.path.join(head, names.component(stem, f" ({number}){suffix}"))  # noqa: PTH118


class _Folder:
    """The names below a folder: those that are there, and those that were given away since. Paths are relative."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, dict[str, tuple[str, bool]]] = {}
        """For each folder, key → name as it is spelt, and whether it is a folder."""

    def take(self, relative: str) -> None:
        """Give a name away."""
        folder = self._spelt(os.path.dirname(relative))  # noqa: PTH120
        name = os.path.basename(relative)  # noqa: PTH119
        self._list(folder)[names.key(name)] = (name, False)

    def free(self, relative: str) -> str:
        """The first of the names for ``relative`` that is not taken, its folders spelt as they are; takes it.

        Raises:
            ValueError: what should be a folder is none.
        """
        folder = self._spelt(os.path.dirname(relative))  # noqa: PTH120
        listing = self._list(folder)
        for number in itertools.count(1):
            candidate = _candidate(os.path.basename(relative), number)  # noqa: PTH119
            if names.key(candidate) not in listing:
                break
        listing[names.key(candidate)] = (candidate, False)
        return f"{folder}/{candidate}" if folder else candidate

    def occupied(self, relative: str) -> Iterator[str]:
        """The names for ``relative`` that are taken, up to the first that is not."""
        try:
            folder = self._spelt(os.path.dirname(relative))  # noqa: PTH120
        except ValueError:
            return
        listing = self._list(folder)
        for number in itertools.count(1):
            candidate = _candidate(os.path.basename(relative), number)  # noqa: PTH119
            if (found := listing.get(names.key(candidate))) is None:
                return
            yield f"{folder}/{found[0]}" if folder else found[0]

    def _spelt(self, folder: str) -> str:
        """The same folder, each part as it is spelt where it is there already; new parts are remembered."""
        spelt = ""
        for part in filter(None, folder.split("/")):
            name, is_folder = self._list(spelt).setdefault(names.key(part), (part, True))
            spelt = f"{spelt}/{name}" if spelt else name
            if not is_folder:
                raise ValueError(f"{self.root / spelt} is no folder (a link is none)")
        return spelt

    def _list(self, folder: str) -> dict[str, tuple[str, bool]]:
        listing = self._listed.get(folder)
        if listing is None:
            try:
                with os.scandir(self.root / folder) as entries:
                    found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            except FileNotFoundError:
                found = []
            except OSError as error:
                raise ValueError(f"{self.root / folder}: {error.strerror}") from error
            listing = self._listed[folder] = {names.key(name): (name, is_folder) for name, is_folder in found}
        return listing
