"""A genre written into a file so that nothing else changes and no crash leaves half a file; and taken back.

The file itself is never written. A copy in the same folder gets the new tags, is read again, and is held against the
file: every other tag and the audio have to be the same. Then the copy gets the file's owner, permissions, attributes
and access lists, is brought onto the disk, and the journal gets what undoes it. Only then it takes the file's name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_reclass.audio import audio_hash
from edge_reclass.audio.pieces import Piece
from edge_reclass.library.journal import Journal, Step, sync_folder, temporary
from edge_reclass.library.tags.containers import container_of, opened, reads_back
from edge_reclass.library.tags.content import Change, Container, Inventory, Refused, Rewritable, Saved, blocks
from edge_reclass.library.tags.patch import make_patch, read_patch

COMMAND = "tag"
"""Its name in the journal."""

_SPARE_BYTES = 1 << 20
"""What has to be free on the disk beside the copy."""


@dataclass(frozen=True)
class Found:
    """A file that may be written: what is in it, and its state when it was looked at."""

    path: Path
    inventory: Inventory
    status: os.stat_result


def look(path: Path) -> Found:
    """What the tags of a file are.

    Raises:
        Refused: it cannot be read, or its format or tags are of a kind that is not written.
    """
    with _open(path) as (fd, status):
        return Found(path, opened(fd, container_of(fd, path), deep=False).inventory(), status)


def write(
    found: Found, change: Change, journal: Journal, run: int, *, tracks: Sequence[int] = (), keep_mtime: bool = False
) -> None:
    """Write ``change`` into the file that was found.

    Args:
        found: of :func:`look`; the file has to be as it was then.
        change: what to write.
        journal: where the step is noted.
        run: its run there.
        tracks: rows of the journal's state that speak of this file.
        keep_mtime: leave the file's time as it was; servers that go by it will not see the genre.

    Raises:
        Refused: it was not written, and why.
        EdgeReclassError: the journal cannot be written.
    """
    path = found.path
    with _claim(path) as (fd, status):
        if not _same(status, found.status):
            raise Refused("it was changed while this run went on")
        container = container_of(fd, path)
        tags = opened(fd, container, deep=True)
        _need_space(path.parent, status.st_size)
        with temporary(path.parent) as (copy, out):
            _apply(tags, fd, status.st_size, change, copy, out)
            _prove(path, out, copy, tags.inventory(), change, container)
            _dress(fd, status, out)
            if keep_mtime:
                os.utime(out, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(out)
            new = os.fstat(out)
            what = {
                "kind": COMMAND,
                "genres": change.genres,
                "before": found.inventory.genres,
                "tracks": list(tracks),
                "old": {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _sha256(fd)},
                "new": {"mtime_ns": new.st_mtime_ns, "sha256": _sha256(out)},
            }
            step = journal.step(run, path, what, make_patch(fd, out))
            if not _is_still(path, status):  # the disk took its time
                with journal.transaction():
                    journal.drop(step)
                raise Refused("it was changed while this run went on")
            try:
                copy.replace(path)
            except OSError:
                settle(journal, step)
                raise
            _done(journal, step, os.fstat(out))


def settle(journal: Journal, step: Step) -> None:
    """Note whether a step has happened, if the file holds what was there before or after it.

    A file that is not there, such as on a disk that is not mounted, or that somebody has changed, leaves it open.
    """
    try:
        with _open(step.path) as (fd, status):
            now = _sha256(fd)
    except (OSError, Refused):
        return
    if now == step.what["new"]["sha256"]:
        _done(journal, step, status)
    elif now == step.what["old"]["sha256"]:
        with journal.transaction():
            journal.drop(step)


def recover(journal: Journal) -> list[Step]:
    """Bring in order what a crash left: steps of which it is not known whether they happened, and temporary files.

    Returns:
        The steps of which it is still not known.
    """
    for step in journal.unfinished(COMMAND):
        settle(journal, step)
    journal.tidy(COMMAND)
    return journal.unfinished(COMMAND)


def written_by_us(journal: Journal, path: Path, status: os.stat_result) -> bool:
    """True if nobody has changed the file at ``path`` since it was last written from this journal."""
    step = journal.latest(path)
    return step is not None and step.what.get("new", {}).get("mtime_ns") == status.st_mtime_ns


def take_back(journal: Journal, step: Step) -> None:
    """Make the file again what it was before ``step``, byte for byte, with its time.

    Raises:
        Refused: it was not, and why: somebody has changed the file since, or it is gone.
        EdgeReclassError: the journal cannot be written.
    """
    path, old = step.path, step.what["old"]
    with _claim(path) as (fd, status):
        now = _sha256(fd)
        if now == old["sha256"] and status.st_mtime_ns == old["mtime_ns"]:
            _undone(journal, step, status)  # a crash came between the file and the journal
            return
        if now != step.what["new"]["sha256"]:
            raise Refused("it was changed after this run wrote it; it is left as it is")
        if step.undo is None:
            raise Refused(f"the journal {journal.path} is damaged: nothing is kept to undo step {step.id}")
        _need_space(path.parent, old["size"])
        with temporary(path.parent) as (copy, out):
            _copy(fd, read_patch(step.undo), out)
            if _sha256(out) != old["sha256"]:
                raise Refused("what the journal keeps does not make the old file; it is left as it is")
            _dress(fd, status, out)
            os.utime(out, ns=(status.st_atime_ns, old["mtime_ns"]))
            os.fsync(out)
            if not _is_still(path, status):
                raise Refused("it was changed while this run went on")
            copy.replace(path)
            _undone(journal, step, os.fstat(out))


def _done(journal: Journal, step: Step, status: os.stat_result) -> None:
    with suppress(OSError):  # the file is there; after a power cut, settling tells which of the two it is
        sync_folder(step.path.parent)
    with journal.transaction():
        journal.done(step)
        _note(journal, step, status)


def _undone(journal: Journal, step: Step, status: os.stat_result) -> None:
    with suppress(OSError):  # as above
        sync_folder(step.path.parent)
    with journal.transaction():
        journal.done(step)  # a crash may have left that open
        journal.undone(step)
        _note(journal, step, status)


def _note(journal: Journal, step: Step, status: os.stat_result) -> None:
    if journal.state is not None:
        for row in journal.state.tracks_by_id(step.what["tracks"]).values():
            with suppress(OSError):  # a track that has moved since is another file
                if os.path.samestat(row.file.stat(), status):
                    journal.state.wrote(row.id, status)


@contextmanager
def _open(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"cannot be read ({error.strerror})") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("no regular file")
        yield fd, status
    finally:
        os.close(fd)


@contextmanager
def _claim(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """The open file, locked against other runs of ours, if it may be written."""
    with _open(path) as (fd, status), _reasons():
        check_writable(path, status)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("another run is writing it") from None
        except OSError:  # a file system without locks
            pass
        yield fd, status


def check_writable(path: Path, status: os.stat_result) -> None:
    """Raise where a file may not be written; permissions are never changed for it.

    Raises:
        Refused: it or its folder is read-only.
    """
    if not status.st_mode & 0o222:  # root could
        raise Refused("read-only")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
        raise Refused("no permission to write it, or to make files in its folder")


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(f"cannot be written ({error.strerror or error})") from error


def _same(first: os.stat_result, second: os.stat_result) -> bool:
    return all(getattr(first, name) == getattr(second, name) for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns"))


def _is_still(path: Path, status: os.stat_result) -> bool:
    try:
        return _same(status, path.lstat())
    except OSError:
        return False


def _need_space(folder: Path, size: int) -> None:
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < size + _SPARE_BYTES:
        raise Refused(f"no space for a copy: {(size + _SPARE_BYTES) / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free")


def _apply(tags: Container, fd: int, size: int, change: Change, copy: Path, out: int) -> None:
    if isinstance(tags, Rewritable):
        _copy(fd, tags.pieces(change), out)
        return
    _copy(fd, [(0, size)], out)
    if not isinstance(tags, Saved):
        raise TypeError(f"{type(tags).__name__} can neither give pieces nor save")
    try:
        tags.save(copy, change)
    except Exception as error:  # mutagen raises whatever an unusual file makes it raise
        raise Refused(f"mutagen cannot write it ({_short(error)})") from error


def _prove(path: Path, out: int, copy: Path, before: Inventory, change: Change, container: str) -> None:
    """Read the copy anew: the genre is there, and nothing else has changed."""
    try:
        after = opened(out, container, deep=True).inventory()
    except Refused as error:
        raise Refused(f"the result would not be readable: {error}") from error
    if (name := before.differs(after)) is not None:
        raise Refused(f"would change more than the genre: {name}")
    if not after.has(change):
        raise Refused(f"the genre would read back as {', '.join(after.genres) or 'nothing'}")
    if before.original and after.original != before.original:
        raise Refused("would change the original genre that was kept")
    if audio_hash(path) != audio_hash(copy):
        raise Refused("would change the audio")
    try:
        reads = reads_back(container, out, change)
    except Exception as error:  # as above
        raise Refused(f"mutagen cannot read the result ({_short(error)})") from error
    if not reads:
        raise Refused("mutagen reads another genre from the result")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _copy(fd: int, pieces: Sequence[Piece], out: int) -> None:
    """Write pieces of the open file ``fd`` into ``out``; the file system shares the blocks where it can.

    Raises:
        OSError: the disk is full, or fails.
    """
    for piece in pieces:
        if isinstance(piece, bytes):
            _write(out, piece)
            continue
        offset, left = piece
        while left:
            try:
                done = os.copy_file_range(fd, out, left, offset_src=offset)
            except OSError:
                break  # of another kind, or an old kernel: the bytes are read and written below
            if not done:
                break
            offset, left = offset + done, left - done
        for block in blocks(fd, offset, left):
            _write(out, block)
            left -= len(block)
        if left:
            raise Refused("damaged: it ends early")


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def _dress(fd: int, status: os.stat_result, out: int) -> None:
    """Give the copy the owner, permissions, attributes and access lists of the file.

    Raises:
        Refused: one of them cannot be kept.
    """
    fresh = os.fstat(out)
    if (fresh.st_uid, fresh.st_gid) != (status.st_uid, status.st_gid):
        try:
            os.fchown(out, status.st_uid, status.st_gid)
        except OSError as error:
            raise Refused(f"its owner or group cannot be kept ({error.strerror})") from error
    os.fchmod(out, stat.S_IMODE(status.st_mode))
    wanted, there = _attributes(fd), _attributes(out)
    for name in there.keys() - wanted.keys():
        if _is_users(name):  # an access list that the folder gives to new files
            os.removexattr(out, name)
    for name, value in wanted.items():
        if there.get(name) == value:
            continue
        try:
            os.setxattr(out, name, value)
        except OSError as error:
            if _is_users(name):
                raise Refused(f"its attribute {name} cannot be kept ({error.strerror})") from error


def _attributes(fd: int) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}
    except OSError:  # a file system without them
        return {}


def _is_users(name: str) -> bool:
    """Security labels are the system's, which sets them itself."""
    return name.startswith(("user.", "system.posix_acl"))


def _sha256(fd: int) -> str:
    one = hashlib.sha256()
    for block in blocks(fd, 0, os.fstat(fd).st_size):
        one.update(block)
    return one.hexdigest()
