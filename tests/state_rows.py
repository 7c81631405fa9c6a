"""A small library with a state file, for tests that need no audio."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edge_reclass.library.state import State, now


def add(state: State, path: Path, genre: str | None = "Rock", *, status: str = "ok", confidence: float = 0.9) -> int:
    """A row for a file that is there; its id."""
    there = path.stat()
    with state.transaction():
        state.connection.execute(
            "INSERT INTO track (path, size, mtime_ns, device, inode, status, genre, confidence, first_seen, last_seen)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                os.fsencode(path),
                there.st_size,
                there.st_mtime_ns,
                there.st_dev,
                there.st_ino,
                status,
                genre,
                confidence,
                now(),
                now(),
            ),
        )
        return int(state.connection.execute("SELECT last_insert_rowid()").fetchone()[0])


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    return {
        os.fsdecode(os.fsencode(file.relative_to(root))): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def rows(state: Path) -> dict[str, str | None]:
    """Path of each track, and its genre."""
    with State.open(state) as opened:
        return {str(row.file): row.final_genre for row in opened.tracks()}


def second_file_system(tmp_path: Path) -> Path:
    """A folder on another file system than the tests'."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev or not os.access(shm, os.W_OK):
        pytest.skip("no second file system: /dev/shm is none, or cannot be written")
    if shutil.disk_usage(shm).free < 64 << 20:
        pytest.skip("no second file system: less than 64 MiB are free in /dev/shm")
    return shm / f"edge-reclass-{os.getpid()}-{tmp_path.name}"
