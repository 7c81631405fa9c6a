"""Verdicts on their way into a state: tracks are marked before they begin, verdicts kept as they come.

A process that dies leaves its marks: these tracks are suspects. What was committed is safe from its death at once, and
from the machine's within a second, or 32 tracks, or a second of work.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import Final

from edge_reclass.errors import ANSWER_STATUSES, Status
from edge_reclass.host import usable_cpus
from edge_reclass.library.basis import Again, Basis, program
from edge_reclass.library.hashing import SoundHasher, borrowed, give_back
from edge_reclass.library.scanning import Work
from edge_reclass.library.state import State, now
from edge_reclass.run import Runner, Sink, Track
from edge_reclass.verdict import Verdict

DEATHS: Final = 2
"""Of a track's own worker, by which it is in quarantine."""

_SECONDS: Final = 1.0
_ROWS: Final = 32
_HASHES: Final = 256
"""Most audio hashes that are waited for while tracks go on."""

_Hash = tuple[int, int, "bytes | None"]
"""Of a track, with its size and mtime_ns afterwards."""

_DIED: Final = (Status.CRASHED, Status.TIMEOUT)


def find_suspects(state: State) -> int:
    """Turn the marks of a process that died into suspects; how many."""
    with state.transaction():
        return state.connection.execute(
            "UPDATE track SET suspect = suspect + 1, running_pid = NULL, running_since = NULL"
            " WHERE running_pid IS NOT NULL"
        ).rowcount


class Recorder:
    """Writes marks and verdicts of one run into a state, from one thread."""

    def __init__(self, state: State, basis: Basis, again: Again, scan: int | None = None) -> None:
        """``again.embeddings``: what verdicts hold of embeddings is kept. ``scan``: of the service, that this is."""
        self._state, self._db, self._basis, self._again = state, state.connection, basis, again
        self._program, self._scan = program(), scan
        self._pending: list[tuple[Track, Verdict, int]] = []
        self._committed = self._synced = time.monotonic()
        self._unsynced, self._unsynced_work = 0, 0.0
        self._hashers = [borrowed() for _ in range(max(1, usable_cpus() // 4))]
        self._free: SimpleQueue[SoundHasher] = SimpleQueue()
        for hasher in self._hashers:
            self._free.put(hasher)
        self._threads = ThreadPoolExecutor(len(self._hashers), thread_name_prefix="audio-hash")
        self._hashes: deque[tuple[bytes, Verdict, Future[_Hash]]] = deque()
        self._hashed: tuple[int | None, int | None] = None, None
        self._hash: Future[_Hash] = Future()

    def mark(self, track: Track) -> int:
        """A track begins; how often its own worker has died, as far as that still counts."""
        path = os.fsencode(track.path)
        with self._commit():
            (attempts,) = self._db.execute(
                "INSERT INTO track (path, running_pid, running_since, first_seen, last_seen)"
                " VALUES (?1, ?2, ?3, ?3, ?3) ON CONFLICT (path) DO UPDATE SET"
                " running_pid = ?2, running_since = ?3, last_seen = ?3, attempts ="
                " CASE WHEN size IS ?4 AND mtime_ns IS ?5 AND program IS ?6 AND NOT ?7"
                " THEN attempts ELSE 0 END RETURNING attempts",
                (
                    *(path, os.getpid(), now(), track.size, track.mtime_ns, self._program),
                    self._again.failed or self._again.everything,
                ),
            ).fetchone()
        return int(attempts)

    def keep(self, track: Track, verdict: Verdict, attempts: int) -> None:
        """A verdict came; ``attempts``: how often the track's own worker has died by now."""
        self._pending.append((track, verdict, attempts))
        if len(self._pending) >= _ROWS or time.monotonic() - self._committed >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what came."""
        with self._commit():
            pass

    def wait(self) -> None:
        """Nothing comes for a while: what came must not wait for what comes next."""
        if self._pending:
            self.flush()
        elif self._unsynced and time.monotonic() - self._synced >= _SECONDS:
            # Nothing is left to commit, and what commits nothing syncs nothing.
            with self._state.explained():
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._synced, self._unsynced, self._unsynced_work = time.monotonic(), 0, 0.0

    def hash_later(self, track: Track, verdict: Verdict) -> None:
        """What tells that only tags of a track changed is kept too, as soon as it is computed."""
        file = track.device, track.inode
        if file != self._hashed or file[1] is None:  # its other names follow it, and have its hash
            self._hashed, self._hash = file, self._threads.submit(self._sound, track)
        self._hashes.append((os.fsencode(track.path), verdict, self._hash))
        if len(self._hashes) > _HASHES:
            self.flush()
            self._hashes[0][2].exception()

    def _sound(self, track: Track) -> _Hash:
        hasher = self._free.get()
        try:
            sound = hasher(track.path, track.size)
        finally:
            self._free.put(hasher)
        status = track.path.stat()
        return status.st_size, status.st_mtime_ns, sound

    def end(self, *, complete: bool) -> None:
        """Commit everything; no track is in progress any more. Without ``complete``, hashes are not waited for."""
        self._threads.shutdown(wait=complete, cancel_futures=not complete)
        for hasher in self._hashers if not complete else ():
            hasher.stop()
        self._threads.shutdown()
        while self._hashers:
            hasher = self._hashers.pop()
            give_back(hasher) if complete else hasher.close()
        with self._commit(sync=True):
            self._db.execute("UPDATE track SET running_pid = NULL, running_since = NULL WHERE running_pid IS NOT NULL")

    @contextmanager
    def _commit(self, *, sync: bool = False) -> Iterator[None]:
        """A transaction with what is pending, and what is done within."""
        work = math.fsum(_milliseconds(verdict) or 0.0 for _, verdict, _ in self._pending) / 1e3
        self._unsynced += len(self._pending)
        self._unsynced_work += work
        began = time.monotonic()
        sync = sync or (
            self._unsynced > 0
            and (self._unsynced >= _ROWS or max(self._unsynced_work, began - self._synced) >= _SECONDS)
        )
        # A commit that is not synced is safe from the death of the process, and costs a tenth of one that is.
        self._db.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
        with self._state.transaction():
            for pending in self._pending:
                self._store(*pending)
            self._store_hashes()
            yield
        self._pending.clear()
        self._committed = began
        if sync:
            self._synced, self._unsynced, self._unsynced_work = began, 0, 0.0

    def _store(self, track: Track, verdict: Verdict, attempts: int) -> None:
        path, at = os.fsencode(track.path), now()
        if verdict.status == Status.MISSING:
            # It has gone since it was found, or never was there. What is known of it stays.
            self._db.execute("DELETE FROM track WHERE path = ? AND verdict IS NULL", (path,))
            self._db.execute(
                "UPDATE track SET absent_since = coalesce(absent_since, ?), running_pid = NULL, running_since = NULL"
                " WHERE path = ?",
                (at, path),
            )
            return
        size, mtime_ns = (verdict.size, verdict.mtime_ns) if verdict.size is not None else (track.size, track.mtime_ns)
        row = {
            "path": path,
            "size": size,
            "mtime_ns": mtime_ns,
            "device": track.device,
            "inode": track.inode,
            "audio_hash": None,
            "status": verdict.status,
            "genre": verdict.genre,
            "confidence": verdict.confidence,
            "decided_by": verdict.decided_by,
            "verdict": verdict.to_json(),
            "bundle_digest": self._basis.bundle_digest,
            "policy": self._basis.policy,
            "program": self._program,
            "options": self._basis.options,
            "milliseconds": _milliseconds(verdict),
            "scan": self._scan,
            "running_pid": None,
            "running_since": None,
            "attempts": attempts,
            "suspect": 0,
            "last_seen": at,
            "absent_since": None,
        }
        changed = "SELECT id FROM track WHERE path = :path AND (size IS NOT :size OR mtime_ns IS NOT :mtime_ns)"
        self._db.execute(f"DELETE FROM embedding WHERE track = ({changed})", row)
        # What a person said is of a sound. Where that is not known, it stays at the path.
        for (sound,) in self._db.execute(
            "INSERT OR REPLACE INTO set_aside SELECT audio_hash, correction.genre, correction.at FROM correction"
            f" JOIN track ON id = track WHERE audio_hash IS NOT NULL AND id = ({changed}) RETURNING audio_hash",
            row,
        ).fetchall():
            self._db.execute(f"DELETE FROM correction WHERE track = ({changed})", row)
            self._db.execute("UPDATE track SET audio_hash = NULL WHERE path = ?", (path,))
            self._give_back(sound)
        changed = ", ".join(f"{name} = excluded.{name}" for name in row if name != "path")
        (number,) = self._db.execute(
            f"INSERT INTO track ({', '.join(row)}, first_seen) VALUES (:{', :'.join(row)}, :last_seen)"
            f" ON CONFLICT (path) DO UPDATE SET {changed} RETURNING id",
            row,
        ).fetchone()
        self._db.execute(  # it holds for every name of a file
            "INSERT OR IGNORE INTO correction SELECT ?, correction.genre, correction.at FROM correction"
            " JOIN track ON id = track WHERE device = ? AND inode = ? AND size = ? AND mtime_ns = ? LIMIT 1",
            (number, track.device, track.inode, size, mtime_ns),
        )
        if self._again.embeddings:
            self._db.executemany(
                "INSERT OR REPLACE INTO embedding VALUES (?, ?, ?, ?)",
                [
                    (number, self._basis.bundle_digest, stage.name, stage.embedding)
                    for stage in verdict.stages
                    if stage.embedding is not None
                ],
            )

    def _store_hashes(self) -> None:
        """Of those that are computed; of a file that has changed meanwhile, none."""
        for path, verdict, future in [self._hashes.popleft() for _ in range(len(self._hashes))]:
            if not future.done():
                self._hashes.append((path, verdict, future))
            elif not future.cancelled() and future.exception() is None:
                size, mtime_ns, sound = future.result()
                if (size, mtime_ns) == (verdict.size, verdict.mtime_ns):
                    self._db.execute(
                        "UPDATE track SET audio_hash = ? WHERE path = ? AND size = ? AND mtime_ns = ?",
                        (sound, path, size, mtime_ns),
                    )
                    self._give_back(sound)

    def _give_back(self, sound: bytes | None) -> None:
        """What a person said of this sound, to the tracks that have it now."""
        if self._db.execute(
            "INSERT OR IGNORE INTO correction SELECT id, set_aside.genre, set_aside.at"
            " FROM set_aside JOIN track USING (audio_hash) WHERE audio_hash = ?",
            (sound,),
        ).rowcount:
            self._db.execute("DELETE FROM set_aside WHERE audio_hash = ?", (sound,))


class StateRunner:
    """Another runner's verdicts, each track marked before it begins, suspects first; a runner itself.

    A track is to blame when its own worker died, and not when the whole process did: so suspects are given one at a
    time to ``alone``, which classifies a track in a process of its own. A second death of a track's worker puts it in
    quarantine.
    """

    def __init__(
        self, recorder: Recorder, work: Work, runner: Runner, alone: Callable[[Track], Verdict] | None = None
    ) -> None:
        """``alone``: by default ``runner`` takes suspects too, one at a time."""
        self._recorder, self._work, self._runner, self._alone = recorder, work, runner, alone
        self._begun: dict[str, tuple[Track, int]] = {}
        self._kept: dict[str, list[Verdict]] = {}
        """Verdicts that are to be given, of all names of a file, by the path of the track."""

    def verdicts(
        self, tracks: Iterable[Track], came: Callable[[Verdict | None], None] = lambda _: None
    ) -> Iterator[Verdict]:
        """See :meth:`edge_reclass.run.Runner.verdicts`; the suspects of the work come before ``tracks``.

        Raises:
            UsageError: a track is not there, and neither is its root any more.
        """

        def keep(verdict: Verdict | None) -> None:
            self._keep(verdict)
            came(verdict)

        yield from self.try_alone(self._work.suspects)
        yield from self._give(self._runner.verdicts(self._mark(tracks), keep))

    def try_alone(self, suspects: Iterable[Track]) -> Iterator[Verdict]:
        """One at a time: the next begins when the last has its verdict."""
        for track in suspects:
            marked = self._mark([track])
            yield from self._give(map(self._alone, marked) if self._alone else self._runner.verdicts(marked))

    def finished(self) -> Iterator[Verdict]:
        """See :meth:`edge_reclass.run.Runner.finished`."""
        yield from self._give(self._runner.finished())

    def cancel(self) -> int:
        """See :meth:`edge_reclass.run.Runner.cancel`."""
        return self._runner.cancel()

    def close(self, timeout: float | None = None) -> bool:
        """See :meth:`edge_reclass.run.Runner.close`."""
        return self._runner.close(timeout)

    def _mark(self, tracks: Iterable[Track]) -> Iterator[Track]:
        for track in tracks:
            self._begun[str(track.path)] = track, self._recorder.mark(track)
            yield track

    def _give(self, verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
        """Each, and those of the other names of its file; kept before it is given."""
        for verdict in verdicts:
            self._keep(verdict)
            yield from self._kept.pop(verdict.path, ())

    def _keep(self, verdict: Verdict | None) -> None:
        """Keep it for all names of its file, unless that was done."""
        if verdict is None:
            self._recorder.wait()
            return
        if verdict.path not in self._begun:
            return
        track, attempts = self._begun.pop(verdict.path)
        attempts = attempts + 1 if verdict.status in _DIED else 0
        if attempts >= DEATHS:
            how = f"its worker died {attempts} times, now with {verdict.status}: {verdict.error}"
            verdict = replace(verdict, status=Status.QUARANTINED, error=f"{how}; --retry-failed tries it again")
        names = (track, *self._work.links.get(os.fsencode(track.path), ()))
        for name in names:
            if verdict.status in (Status.MISSING, Status.UNREADABLE):
                self._work.check_mounted(name)
            named = replace(verdict, path=str(name.path))
            self._recorder.keep(name, named, attempts)
            if verdict.status in ANSWER_STATUSES:
                self._recorder.hash_later(name, named)
            self._kept.setdefault(str(track.path), []).append(named)


class StateSink:
    """Another sink, of verdicts that a :class:`StateRunner` has kept; at the end everything is committed."""

    def __init__(self, recorder: Recorder, sink: Sink) -> None:
        self._recorder, self._sink = recorder, sink
        self.write = sink.write

    def finish(self) -> None:
        """See :meth:`edge_reclass.run.Sink.finish`."""
        self._recorder.end(complete=True)
        self._sink.finish()

    def stop(self) -> str | None:
        """See :meth:`edge_reclass.run.Sink.stop`."""
        self._recorder.end(complete=False)
        return self._sink.stop()


def _milliseconds(verdict: Verdict) -> float | None:
    """What a verdict took; None where nothing was heard."""
    if verdict.decode_milliseconds is None:
        return None
    return verdict.decode_milliseconds + math.fsum(stage.milliseconds for stage in verdict.stages)
