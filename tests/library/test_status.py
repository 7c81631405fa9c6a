"""``library status``: what a state file holds, counted."""

from __future__ import annotations

from pathlib import Path

from command import run
from edge_reclass.library.state import State, now


def test_counts_leave_out_what_is_absent(tmp_path: Path) -> None:
    file = tmp_path / "library.state"
    with State.open(file, create=True) as state:
        for name, status, genre, absent in (
            ("a", "ok", "Rock", None),
            ("b", "ok", "Pop", now()),
            ("c", None, None, None),
        ):
            state.connection.execute(
                "INSERT INTO track (path, status, genre, first_seen, last_seen, absent_since) VALUES (?,?,?,?,?,?)",
                (name.encode(), status, genre, now(), now(), absent),
            )
        state.correct(1, "Jazz")
        counts = state.counts()
    assert (counts.tracks, counts.absent, counts.unclassified, counts.corrected) == (2, 1, 1, 1)
    assert counts.genres == {"Jazz": 1} and counts.statuses == {"ok": 1}


def test_status_says_what_is_missing(tmp_path: Path) -> None:
    done = run("library", "status", tmp_path / "none")
    assert done.returncode == 2 and "classify PATH --state" in done.stderr
