"""What is to be done: the tracks of some files and folders, held against what a state knows of them.

Unchanged is a track of the same path, size and time. Of what changed, the verdict stays where only tags did; of what is
new, where it was moved here. What is not there any more keeps its verdict, and is absent; but first it is asked whether
its disk is there at all.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import stat
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edge_reclass.errors import UsageError
from edge_reclass.library.basis import Again, Basis, stale
from edge_reclass.library.hashing import SoundHasher, borrowed, give_back
from edge_reclass.library.schema import FILE_COLUMNS
from edge_reclass.library.state import State, absolute, now, prefix
from edge_reclass.run import Track, TrackSearch, printable

_NAMED: Final = 8
"""Most places that an error names."""


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count`` (from 1) of all tracks, by a hash of the path."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Of ``2/3``. Raises ``UsageError``."""
        first, slash, second = text.partition("/")
        if slash and first.isascii() and first.isdecimal() and second.isascii() and second.isdecimal():
            shard = cls(int(first), int(second))
            if 1 <= shard.index <= shard.count:
                return shard
        raise UsageError(f"--shard: expected I/N with I from 1 to N, such as 1/4, got {text!r}")

    def holds(self, path: bytes) -> bool:
        """Whether a track of this path belongs to it."""
        return zlib.crc32(path) % self.count == self.index - 1


@dataclass
class Work:
    """What a look at files and folders found, and what is left to do."""

    search: TrackSearch
    suspects: list[Track] = field(default_factory=list)
    """In progress when a process died with them: tried first, each alone."""
    tracks: list[Track] = field(default_factory=list)
    """All others."""
    links: dict[bytes, list[Track]] = field(default_factory=dict)
    """By the path of a track: others that lead to the same file, and get the same verdict."""
    unchanged: int = 0
    linked: int = 0
    """Other names of files whose verdict was known."""
    moved: int = 0
    retagged: int = 0
    absent: int = 0
    """Not there any more, found out now."""
    elsewhere: int = 0
    """Of other shards."""
    roots: dict[bytes, int] = field(default_factory=dict)
    """The folders that were searched, and their devices."""

    @property
    def found(self) -> int:
        """Tracks that are there, those of other shards too."""
        return self.unchanged + self.linked + self.moved + self.retagged + self.elsewhere + self.to_do

    @property
    def all_tracks(self) -> list[Track]:
        """Those to do: each gets a verdict."""
        return [*self.suspects, *self.tracks, *(track for links in self.links.values() for track in links)]

    @property
    def to_do(self) -> int:
        """Verdicts to come."""
        return len(self.suspects) + len(self.tracks) + sum(map(len, self.links.values()))

    def leave(self, which: Callable[[Track], bool]) -> None:
        """Take tracks off what is left to do, with the other names of their files."""
        self.suspects, self.tracks = ([one for one in some if not which(one)] for some in (self.suspects, self.tracks))
        kept = {os.fsencode(track.path) for track in (*self.suspects, *self.tracks)}
        self.links = {path: names for path, names in self.links.items() if path in kept}

    def check_mounted(self, track: Track) -> None:
        """A track was found and is not there any more, or cannot be read.

        Raises:
            UsageError: its disk, or the root that it lies in, went too.
        """
        path = os.fsencode(track.path)
        roots = [item for item in self.roots.items() if path.startswith(prefix(item[0]))]
        gone = [root for root, device in roots if _is_elsewhere(root, device)]
        if track.device is not None and _device_of(os.path.realpath(path)) != track.device:
            gone.append(_real_folder(path))
        if gone:
            raise UsageError(f"{printable(os.fsdecode(gone[0]))}: it was there, and is not any more: not mounted?")


class _Known(NamedTuple):
    """What is compared of a row."""

    id: int
    size: int | None
    mtime_ns: int | None
    device: int | None
    inode: int | None
    again: int
    """Its verdict is to be made again."""
    suspect: int
    absent: int


def look(
    state: State,
    paths: Iterable[str | os.PathLike[str]],
    basis: Basis,
    again: Again = Again(),  # noqa: B008 - it cannot be changed
    shard: Shard | None = None,
    between: Callable[[], None] = lambda: None,
    within: Iterable[str | os.PathLike[str]] | None = None,
) -> Work:
    """Search files and folders, note in the state what moved, was retagged or went, and say what is to be done.

    ``between`` is called after each track, never within a transaction; what it raises ends the look. ``within``: see
    :class:`edge_reclass.run.TrackSearch`.

    Raises:
        UsageError: a disk seems not to be mounted; nothing was noted.
    """
    sound = borrowed()
    try:
        with state.explained():
            given = [absolute(path) for path in paths]
            return _Look(state, given, basis, again, shard, sound, between, within).work()
    finally:
        give_back(sound)


class _Look:
    def __init__(
        self,
        state: State,
        paths: list[str],
        basis: Basis,
        again: Again,
        shard: Shard | None,
        sound: SoundHasher,
        between: Callable[[], None],
        within: Iterable[str | os.PathLike[str]] | None,
    ) -> None:
        self._within = within
        self._sound, self._between = sound, between
        self._state, self._db, self._shard = state, state.connection, shard
        self._stale, self._stale_values = stale(basis, again)
        self._given = paths
        self._work = Work(TrackSearch(paths, within))
        for path in paths:
            with suppress(OSError, ValueError):  # its verdict says so
                status = os.stat(path)  # noqa: PTH116
                if stat.S_ISDIR(status.st_mode):
                    self._work.roots[os.fsencode(path)] = status.st_dev
        self._roots = self._work.roots.keys()
        self._empty = set(self._roots)
        """Roots in which no track was found yet."""
        self._unseen = self._load()
        self._to_do: list[tuple[int, Track, int]] = []
        """With the place in the search, and whether it is a suspect."""
        self._new: list[tuple[int, Track]] = []
        self._changed: list[tuple[int, Track, _Known]] = []
        self._returned: list[int] = []
        self._named: list[int] = []
        """Unchanged tracks that lie below no root."""
        self._devices: defaultdict[int, set[int]] = defaultdict(set)
        """What the devices of known tracks that were found are called now; it may change when a machine starts."""
        self._copies: Counter[int] = Counter()
        """Known tracks that were found as another file on another device, by the device that they were on."""
        self._replaced: list[tuple[int | None, int | None, int]] = []
        """Device, inode and row of unchanged tracks that are another file now."""
        self._vanished: dict[bytes, _Known] = {}
        self._begun = 0.0

    def _load(self) -> dict[bytes, _Known]:
        rows = self._db.execute(
            f"SELECT path, id, size, mtime_ns, device, inode, {self._stale}, suspect, absent_since IS NOT NULL"
            " FROM track",
            self._stale_values,
        )
        return {row[0]: _Known._make(row[1:]) for row in rows}

    def work(self) -> Work:
        for path in self._given:
            self._refuse_gone(path)
        for place, track in enumerate(self._work.search):
            self._sort(place, track)
            self._between()
        self._vanished = self._find_vanished()
        self._refuse_unmounted()
        self._place_new()
        for place, track, row in self._changed:
            self._pause()
            if not row.again and self._is_retagged(track, row.id):
                self._seen_as(track, row.id)
                self._work.retagged += 1
            else:
                self._to_do.append((place, track, row.suspect))
        self._note({path: row for path, row in self._vanished.items() if path in self._unseen})
        self._share()
        return self._work

    def _sort(self, place: int, track: Track) -> None:
        path = os.fsencode(track.path)
        if self._empty and track.size is not None:
            self._empty.difference_update(_folders(path))
        if self._shard is not None and not self._shard.holds(path):
            self._work.elsewhere += 1
            return
        row = self._unseen.get(path)
        if row is None:
            self._new.append((place, track))
            return
        if track.size is None:  # named, or a link that leads nowhere: as if it were not found
            return
        del self._unseen[path]
        if row.device is not None and track.device is not None:
            if track.device == row.device or track.inode == row.inode:
                self._devices[row.device].add(track.device)
            else:  # the disk moved to another one; or it is out, and this copy lies in its mount point
                self._copies[row.device] += 1
        if (track.size, track.mtime_ns) != (row.size, row.mtime_ns):
            self._changed.append((place, track, row))
        elif row.again:
            self._to_do.append((place, track, row.suspect))
        else:
            self._work.unchanged += 1
            if track.inode != row.inode:
                self._replaced.append((track.device, track.inode, row.id))
            if not self._is_searched(path):
                self._named.append(row.id)
        if row.absent:
            self._returned.append(row.id)

    def _is_searched(self, path: bytes) -> bool:
        return any(folder in self._roots for folder in _folders(path))

    def _find_vanished(self) -> dict[bytes, _Known]:
        """Of what was there: what lies below the roots, or is named, and is there no more."""
        named = {os.fsencode(path) for path in self._given}
        hidden = [prefix(os.fsencode(folder)) for folder, _ in self._work.search.problems]
        return {
            path: row
            for path, row in self._unseen.items()
            if not row.absent
            and (path in named or self._is_searched(path))
            and (self._shard is None or self._shard.holds(path))
            and not path.startswith(tuple(hidden))
            and _is_gone(path)
        }

    def _refuse_gone(self, path: str) -> None:
        if os.path.exists(path):  # noqa: PTH110
            return
        below = prefix(os.fsencode(path))
        (known,) = self._db.execute(
            "SELECT count(*) FROM track WHERE path > ? AND path < ? AND absent_since IS NULL",
            (below, below[:-1] + b"0"),
        ).fetchone()
        if known:
            raise self._not_mounted([below[:-1]], f"it is not there, and {known} tracks below it are known")

    def _refuse_unmounted(self) -> None:
        for root in sorted(self._empty):
            gone = sum(path.startswith(prefix(root)) for path in self._vanished)
            if gone and all(
                track.size is None for track in TrackSearch([os.fsdecode(root)], self._within)
            ):  # else another name of one
                raise self._not_mounted([root], f"no track is in it, and {gone} are known")
        folders: dict[bytes, int] = {}
        lost = Counter(row.device for row in self._vanished.values())
        for path, row in self._vanished.items():
            if row.device is None or row.device in self._devices or self._copies[row.device] > lost[row.device]:
                continue  # its disk is there: others of its tracks were found, or copies of most
            folder = _real_folder(path)
            if folder not in folders:
                folders[folder] = _device_of(folder)
            if folders[folder] != row.device:
                what = f"{lost[row.device]} known tracks are not there, and neither is the disk that they were on"
                raise self._not_mounted(self._places_on(row.device), what)

    def _places_on(self, device: int) -> list[bytes]:
        """The highest searched folders of which all that is known went with a device, as the state has them."""
        gone = {path for path, row in self._vanished.items() if row.device == device}
        rows = self._db.execute("SELECT path FROM track WHERE absent_since IS NULL OR device IS NOT ?", (device,))
        shared = {folder for (path,) in rows if path not in gone for folder in _folders(path)}
        places = set()
        for path in gone:
            place = path
            for folder in _folders(path):
                is_inside = place == path or folder in self._roots or self._is_searched(folder)
                if folder in shared or not is_inside:
                    break
                place = folder
            places.add(place)
        return sorted(places)

    def _not_mounted(self, places: list[bytes], what: str) -> UsageError:
        names = [os.fsdecode(place) for place in places]
        forget = shlex.join(map(printable, [str(self._state.path), *names[:_NAMED]]))
        more = f" (and {len(names) - _NAMED} more)" if len(names) > _NAMED else ""
        return UsageError(
            f"{printable(names[0])}: {what}: not mounted? Nothing was marked. If they were deleted:"
            f" edge-reclass library forget {forget}{more}"
        )

    def _place_new(self) -> None:
        """What is new: another name of a file that is known, moved here, or to be done."""
        sizes = {row.size for row in self._unseen.values() if row.size is not None} if self._new else set()
        for place, track in self._new:
            self._pause()
            if track.size is None:
                self._to_do.append((place, track, 0))
            elif (twin := self._twin(track)) is not None:
                self._adopt(track, twin)
                self._work.linked += 1
            elif (old := self._old_path(track, sizes)) is not None:
                row = self._unseen.pop(old)
                self._seen_as(track, row.id)
                if row.again:
                    self._to_do.append((place, track, row.suspect))
                else:
                    self._work.moved += 1
            else:
                self._to_do.append((place, track, 0))

    def _twin(self, track: Track) -> int | None:
        """A row of the same file under another name, whose verdict stands."""
        row = self._db.execute(
            f"SELECT id, path FROM track WHERE device = ? AND inode = ? AND size = ? AND mtime_ns = ? AND NOT"
            f" ({self._stale})",
            (track.device, track.inode, track.size, track.mtime_ns, *self._stale_values),
        ).fetchone()
        return int(row[0]) if row is not None and not _is_gone(row[1]) else None

    def _adopt(self, track: Track, twin: int) -> None:
        at, copied = now(), ", ".join(FILE_COLUMNS)
        row = self._write(
            f"INSERT INTO track (path, first_seen, last_seen, {copied}) SELECT ?, ?, ?, {copied} FROM track"
            " WHERE id = ?",
            (os.fsencode(track.path), at, at, twin),
        ).lastrowid
        self._write(
            "INSERT INTO embedding SELECT ?, bundle_digest, stage, vector FROM embedding WHERE track = ?", (row, twin)
        )
        self._write("INSERT INTO correction SELECT ?, genre, at FROM correction WHERE track = ?", (row, twin))

    def _old_path(self, track: Track, sizes: set[int]) -> bytes | None:
        """Where a new track was before, if it is one that is known and there no more.

        The same file under a new name, or the same sound. That is looked for only where a track of this size, or this
        inode, went: it takes a look at the whole file.
        """
        same_file = self._gone("device = ? AND inode = ?", track.device, track.inode)
        for path in same_file:
            row = self._unseen[path]
            if (row.size, row.mtime_ns) == (track.size, track.mtime_ns):
                return path
        if (same_file or track.size in sizes) and (sound := self._sound(track.path, track.size)) is not None:
            return next(filter(self._has_left, self._gone("audio_hash = ?", sound)), None)
        return None

    def _gone(self, where: str, *values: object) -> list[bytes]:
        """Paths that were not found, and at which there is nothing."""
        rows = self._db.execute(f"SELECT path FROM track WHERE {where} ORDER BY path", values)
        return [path for (path,) in rows if path in self._unseen and _is_gone(path)]

    def _has_left(self, path: bytes) -> bool:
        """Whether a track that is gone was there no more with its disk in place: of one that is out, this is a copy."""
        row = self._unseen[path]
        return bool(row.absent) or path in self._vanished or row.device == _device_of(_real_folder(path))

    def _is_retagged(self, track: Track, row: int) -> bool:
        (stored,) = self._db.execute("SELECT audio_hash FROM track WHERE id = ?", (row,)).fetchone()
        return stored is not None and self._sound(track.path, track.size) == stored

    def _seen_as(self, track: Track, row: int) -> None:
        """The track of this row is this file now; its verdict stays."""
        self._write(
            "UPDATE track SET path = ?, size = ?, mtime_ns = ?, device = ?, inode = ?, last_seen = ?,"
            " absent_since = NULL WHERE id = ?",
            (os.fsencode(track.path), track.size, track.mtime_ns, track.device, track.inode, now(), row),
        )

    def _write(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        """In a transaction that is committed once a second: hashing a library takes its time."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
            self._begun = time.monotonic()
        cursor = self._db.execute(statement, values)
        if time.monotonic() - self._begun > 1:
            self._commit()
        return cursor

    def _pause(self) -> None:
        if not self._db.in_transaction:
            self._between()

    def _commit(self) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def _note(self, vanished: dict[bytes, _Known]) -> None:
        """What went, what is there again, and that the roots were searched."""
        at, work = now(), self._work
        renumbered = {old: next(iter(new)) for old, new in self._devices.items() if len(new) == 1 and old not in new}
        work.absent = len(vanished)
        broken = [os.fsencode(folder) for folder, _ in work.search.problems]
        self._commit()
        with self._state.transaction():
            for path, seen in self._db.execute("SELECT path, seen FROM root").fetchall():
                self._db.executemany(
                    "UPDATE track SET last_seen = max(last_seen, ?) WHERE id = ?",
                    [(seen, row.id) for name, row in vanished.items() if name.startswith(prefix(path))],
                )
            self._db.executemany(
                "UPDATE track SET absent_since = ? WHERE id = ?", [(at, row.id) for row in vanished.values()]
            )
            self._db.executemany(
                "UPDATE track SET absent_since = NULL, last_seen = ? WHERE id = ?",
                [(at, row) for row in self._returned],
            )
            self._db.executemany("UPDATE track SET last_seen = ? WHERE id = ?", [(at, row) for row in self._named])
            self._db.executemany(
                "UPDATE track SET device = -? WHERE device = ?",
                [(new, old) for old, new in renumbered.items()],
            )
            if renumbered:  # in two steps, for two disks may have changed places
                self._db.execute("UPDATE track SET device = -device WHERE device < 0")
            self._db.executemany("UPDATE track SET device = ?, inode = ? WHERE id = ?", self._replaced)
            for root, device in self._work.roots.items():
                if not any((folder + b"/").startswith(prefix(root)) for folder in broken):
                    self._db.execute("INSERT OR REPLACE INTO root VALUES (?, ?, ?)", (root, device, at))

    def _share(self) -> None:
        """Of several names of one file, one is done for all."""
        first: dict[tuple[int | None, ...], bytes] = {}
        for _, track, suspect in sorted(self._to_do, key=lambda one: (not one[2], one[0])):  # suspects first
            if track.device is not None and track.inode is not None:
                # Size and time too: some file systems have one inode number for all.
                file = track.device, track.inode, track.size, track.mtime_ns
                leader = first.setdefault(file, os.fsencode(track.path))
                if leader != os.fsencode(track.path):
                    self._work.links.setdefault(leader, []).append(track)
                    continue
            (self._work.suspects if suspect else self._work.tracks).append(track)
        self._to_do = []


def _is_gone(path: bytes) -> bool:
    """True where there is nothing; what cannot be looked at may well be there."""
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _folders(path: bytes) -> Iterator[bytes]:
    """All folders that an absolute path lies in."""
    while (folder := os.path.dirname(path)) != path:  # noqa: PTH120
        yield folder
        path = folder


def _real_folder(path: bytes) -> bytes:
    return os.path.dirname(os.path.realpath(path))  # noqa: PTH120


def _is_elsewhere(folder: bytes, device: int) -> bool:
    try:
        return os.stat(folder).st_dev != device  # noqa: PTH116
    except OSError:
        return True


def _device_of(path: bytes) -> int:
    """Of the path, or the deepest folder above that is there."""
    while True:
        try:
            return os.stat(path).st_dev  # noqa: PTH116
        except OSError:
            path = os.path.dirname(path)  # noqa: PTH120
