"""The tables of a state file, as numbered migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

APPLICATION_ID: Final = 0x65726C62
"""In the header of the file: it is ours ("erlb")."""

_FIRST = """
CREATE TABLE root (
    path BLOB PRIMARY KEY,          -- absolute, as bytes
    device INTEGER NOT NULL,        -- st_dev when it was last seen
    seen TEXT NOT NULL              -- when it was last searched through, to the end
) STRICT, WITHOUT ROWID;

CREATE TABLE track (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- the journal speaks of them: never given twice
    path BLOB NOT NULL UNIQUE,      -- absolute, as bytes: names are not always UTF-8
    size INTEGER, mtime_ns INTEGER, device INTEGER, inode INTEGER,
    audio_hash BLOB,                -- of the packets: what no tagger changes; computed when needed
    status TEXT, genre TEXT, confidence REAL, decided_by TEXT,
    verdict TEXT,                   -- JSON, the whole of it; NULL: not classified yet
    bundle_digest TEXT, policy TEXT,
    program TEXT,                   -- what classified, and its decoders: a new one may do what failed
    options TEXT,                   -- what else changes verdicts, as min_confidence=0.4
    milliseconds REAL,
    running_pid INTEGER, running_since TEXT,  -- in progress
    attempts INTEGER NOT NULL DEFAULT 0,      -- how often its own worker died or ran out of time
    suspect INTEGER NOT NULL DEFAULT 0,       -- in progress when a whole process died
    first_seen TEXT NOT NULL,
    last_seen TEXT NOT NULL,        -- of a track that is there, its root's "seen" may be later
    absent_since TEXT
) STRICT;
CREATE INDEX track_genre ON track (genre);
CREATE INDEX track_status ON track (status);
CREATE INDEX track_inode ON track (device, inode);
CREATE INDEX track_audio_hash ON track (audio_hash);

CREATE TABLE embedding (
    track INTEGER NOT NULL REFERENCES track ON DELETE CASCADE,
    bundle_digest TEXT NOT NULL, stage TEXT NOT NULL,
    vector BLOB NOT NULL,           -- float16, little endian
    PRIMARY KEY (track, bundle_digest, stage)
) STRICT, WITHOUT ROWID;

CREATE TABLE correction (           -- what a person said; wins over the verdict
    track INTEGER PRIMARY KEY REFERENCES track ON DELETE CASCADE,
    genre TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;

CREATE TABLE set_aside (            -- what a person said of a sound that is not at its path any more
    audio_hash BLOB PRIMARY KEY,
    genre TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;

CREATE TABLE skipped (              -- left for later by a person in review
    track INTEGER PRIMARY KEY REFERENCES track ON DELETE CASCADE,
    at TEXT NOT NULL
) STRICT;

"""


FILE_COLUMNS: Final = (
    *("size", "mtime_ns", "device", "inode", "audio_hash", "status", "genre", "confidence", "decided_by", "verdict"),
    *("bundle_digest", "policy", "program", "options", "milliseconds", "attempts"),
)
"""What two names of one file have in common in ``track``."""

_JOURNAL = """
CREATE TABLE journal_run (          -- of what writes into or moves files: tag, organise
    id INTEGER PRIMARY KEY,
    command TEXT NOT NULL, at TEXT NOT NULL,
    undone_at TEXT
) STRICT;
CREATE TABLE journal_step (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES journal_run ON DELETE CASCADE,
    path BLOB NOT NULL,
    step TEXT NOT NULL,             -- JSON: what was done and what undoes it
    undo BLOB,                      -- bytes that undo it, where JSON is no place for them
    done INTEGER NOT NULL DEFAULT 0,
    undone INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX journal_step_run ON journal_step (run);
CREATE INDEX journal_step_path ON journal_step (path);
"""


def _statements(script: str) -> tuple[str, ...]:
    return tuple(statement for statement in script.split(";\n") if statement.strip())


JOURNAL: Final = _statements(_JOURNAL)
"""The tables of a journal, in a state or in a file of its own."""


def _first(connection: sqlite3.Connection) -> None:
    for statement in (*_statements(_FIRST), *JOURNAL):
        connection.execute(statement)


_SECOND = """
CREATE TABLE sequence (             -- one row: the number of the last change of what is known of a track
    value INTEGER NOT NULL
) STRICT;
-- By the number of the change that made a track what it is, readers ask for what came since.
ALTER TABLE track ADD COLUMN change INTEGER;
-- The scan of the service that gave it its verdict.
ALTER TABLE track ADD COLUMN scan INTEGER;
UPDATE track SET change = id WHERE verdict IS NOT NULL;
INSERT INTO sequence SELECT coalesce(max(id), 0) FROM track;
CREATE UNIQUE INDEX track_change ON track (change);

CREATE TABLE scan (                 -- what the service was asked to look at
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    idempotency_key TEXT UNIQUE,
    request TEXT NOT NULL,          -- JSON
    status TEXT NOT NULL,           -- waiting, running, done, failed, cancelled
    asked TEXT NOT NULL, began TEXT, ended TEXT,
    since INTEGER NOT NULL,         -- the number of the last change before it
    counts TEXT,                    -- JSON: what was found and done
    error TEXT
) STRICT;

CREATE TABLE tag_plan (             -- genres that may be written into files, once a person approved
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL,          -- JSON
    status TEXT NOT NULL,           -- preparing, ready, failed, approved, applied
    asked TEXT NOT NULL, approved TEXT, applied TEXT,
    run INTEGER,                    -- of the journal: what takes it back
    error TEXT
) STRICT;
CREATE TABLE tag_plan_step (
    plan INTEGER NOT NULL REFERENCES tag_plan ON DELETE CASCADE,
    number INTEGER NOT NULL,
    path BLOB NOT NULL,
    before TEXT NOT NULL, genres TEXT NOT NULL,  -- JSON: the genres that the file has, and is to have
    outcome TEXT,                   -- once it was applied: written, or why not
    PRIMARY KEY (plan, number)
) STRICT, WITHOUT ROWID;
"""

_NUMBERED = (
    ("track_added", "AFTER INSERT ON track WHEN NEW.verdict IS NOT NULL", "NEW.id"),
    (
        "track_changed",
        "AFTER UPDATE OF path, verdict, absent_since ON track WHEN NEW.verdict IS NOT NULL AND (NEW.verdict IS NOT"
        " OLD.verdict OR NEW.path IS NOT OLD.path OR NEW.absent_since IS NOT OLD.absent_since)",
        "NEW.id",
    ),
    ("correction_added", "AFTER INSERT ON correction", "NEW.track"),
    ("correction_changed", "AFTER UPDATE ON correction", "NEW.track"),
    ("correction_removed", "AFTER DELETE ON correction", "OLD.track"),
)
"""Triggers: whoever writes, each change of what is known of a track gets the next number."""


def _second(connection: sqlite3.Connection) -> None:
    for statement in _statements(_SECOND):
        connection.execute(statement)
    for name, when, track in _NUMBERED:
        connection.execute(
            f"CREATE TRIGGER {name} {when} BEGIN UPDATE sequence SET value = value + 1;"
            f" UPDATE track SET change = (SELECT value FROM sequence) WHERE id = {track}; END"
        )


MIGRATIONS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (_first, _second)
"""Number i takes a file from ``user_version`` i to i + 1; what was released is never changed."""
