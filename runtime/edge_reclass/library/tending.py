"""What is done to a state as a whole: forgetting tracks, taking in another state."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from edge_reclass.errors import UsageError
from edge_reclass.library.schema import FILE_COLUMNS
from edge_reclass.library.state import State, key, prefix


def forget(state: State, paths: Iterable[str | os.PathLike[str]], *, absent: bool = False) -> int:
    """Forget tracks: those at or below ``paths``, or with ``absent`` all that are not there (of these paths if any).

    Verdicts, corrections and embeddings go; files are not touched.

    Returns:
        How many.
    """
    places = [key(path) for path in paths]
    clauses = [f"({' OR '.join(['path = ? OR substr(path, 1, ?) = ?'] * len(places))})"] if places else []
    values = [value for place in places for value in (place, len(prefix(place)), prefix(place))]
    if absent:
        clauses.append("absent_since IS NOT NULL")
    if not clauses:
        raise ValueError("nothing to forget was named")
    with state.transaction():
        found = state.connection.execute(f"DELETE FROM track WHERE {' AND '.join(clauses)}", values).rowcount
        if not absent:
            for place in places:
                state.connection.execute(
                    "DELETE FROM root WHERE path = ? OR substr(path, 1, ?) = ?",
                    (place, len(prefix(place)), prefix(place)),
                )
    return found


@dataclass(frozen=True)
class Merged:
    """What was taken in."""

    new: int
    newer: int
    """Tracks that were known, of which the other state had a later verdict."""
    kept: int
    """Tracks that were known, and stayed."""
    corrections: int


def merge(state: State, other: str | os.PathLike[str]) -> Merged:
    """Take in another state: tracks, corrections and embeddings; of what both know, what is later. Not its journal.

    Raises:
        UsageError: ``other`` is no state of this version, or the same file.
    """
    with State.open(other) as opened:
        if opened.path.samefile(state.path):
            raise UsageError(f"{other}: it is the state that it would be merged into; name another one")
        uri = f"{opened.path.as_uri()}?mode=ro"
        db = state.connection
        with state.explained():
            db.execute("ATTACH ? AS other", (uri,))
            try:
                with state.transaction():
                    return _take_in(state)
            finally:
                db.execute("DETACH other")


def _take_in(state: State) -> Merged:
    db, columns = state.connection, ", ".join(FILE_COLUMNS)
    (total,) = db.execute("SELECT count(*) FROM other.track").fetchone()
    db.execute("CREATE TEMP TABLE taken (theirs INTEGER PRIMARY KEY, is_new INTEGER)")
    db.execute(
        "INSERT INTO taken SELECT theirs.id, ours.id IS NULL FROM other.track AS theirs"
        " LEFT JOIN main.track AS ours ON ours.path = theirs.path WHERE ours.id IS NULL OR theirs.verdict IS NOT NULL"
        " AND (ours.verdict IS NULL OR"
        " json_extract(theirs.verdict, '$.at') > json_extract(ours.verdict, '$.at'))"
    )
    new, newer = db.execute("SELECT coalesce(sum(is_new), 0), coalesce(sum(NOT is_new), 0) FROM taken").fetchone()
    changed = ", ".join(f"{name} = excluded.{name}" for name in FILE_COLUMNS)
    db.execute(
        f"INSERT INTO main.track (path, {columns}, first_seen, last_seen, absent_since)"
        f" SELECT path, {columns}, first_seen, last_seen, absent_since FROM other.track"
        f" WHERE id IN (SELECT theirs FROM taken) ON CONFLICT (path) DO UPDATE SET {changed}"
    )
    ours_seen, theirs_seen = _seen("main", "track"), _seen("other", "theirs")
    db.execute(
        "UPDATE main.track SET first_seen = min(track.first_seen, theirs.first_seen), absent_since ="
        f" CASE WHEN coalesce(theirs.absent_since, {theirs_seen}) > coalesce(track.absent_since, {ours_seen})"
        " THEN theirs.absent_since ELSE track.absent_since END,"
        f" last_seen = max({ours_seen}, {theirs_seen})"
        " FROM other.track AS theirs WHERE theirs.path = track.path"
    )
    pairs = "other.track AS theirs JOIN main.track AS ours ON ours.path = theirs.path"
    db.execute(
        f"DELETE FROM main.embedding WHERE track IN (SELECT ours.id FROM {pairs}"
        " WHERE theirs.id IN (SELECT theirs FROM taken))"
    )
    db.execute(
        "INSERT INTO main.embedding SELECT ours.id, vectors.bundle_digest, stage, vector"
        f" FROM other.embedding AS vectors JOIN ({pairs}) ON theirs.id = vectors.track"
        " WHERE theirs.id IN (SELECT theirs FROM taken)"
    )
    corrections = db.execute(
        "INSERT INTO main.correction SELECT ours.id, said.genre, said.at FROM other.correction AS said"
        f" JOIN ({pairs}) ON theirs.id = said.track WHERE true"
        " ON CONFLICT (track) DO UPDATE SET genre = excluded.genre, at = excluded.at WHERE excluded.at > correction.at"
    ).rowcount
    db.execute("INSERT OR IGNORE INTO main.set_aside SELECT audio_hash, genre, at FROM other.set_aside")
    db.execute(
        "INSERT INTO main.root SELECT path, device, seen FROM other.root WHERE true ON CONFLICT (path)"
        " DO UPDATE SET device = excluded.device, seen = excluded.seen WHERE excluded.seen > root.seen"
    )
    db.execute("DROP TABLE taken")
    return Merged(new, newer, total - new - newer, corrections)


def _seen(state: str, track: str) -> str:
    """An SQL expression: when a track was last seen. Of one that is there, its root says so too."""
    return (
        f"max({track}.last_seen, coalesce((SELECT max(root.seen) FROM {state}.root WHERE {track}.absent_since IS NULL"
        f" AND (root.path = x'2f' OR substr({track}.path, 1, length(root.path)) = root.path"
        f" AND substr({track}.path, length(root.path) + 1, 1) = x'2f')), ''))"
    )
