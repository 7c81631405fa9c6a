"""States that hold made verdicts, written as a run writes them, without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_reclass.library.basis import Again, Basis
from edge_reclass.library.recording import Recorder
from edge_reclass.library.state import State
from edge_reclass.run import Track
from edge_reclass.verdict import ExcerptSeen, Score, StageReport, Verdict

DIGEST = "d" * 64


def answer(path: Path, scores: Mapping[str, float], status: str = "ok", **more: Any) -> Verdict:
    """A verdict with these scores, of which the best is its genre; ``stages`` said it, the last decided."""
    top = tuple(Score(genre, score) for genre, score in sorted(scores.items(), key=lambda item: -item[1]))
    best, sure = top[0].genre, top[0].score
    names: Sequence[str] = more.pop("stages", ("fma",))
    embeddings: Mapping[str, Sequence[float]] = more.pop("embeddings", {})
    stages = tuple(
        StageReport(
            name,
            best,
            sure,
            1.0,
            ExcerptSeen(65.0, 30.0),
            embedding=np.asarray(embeddings[name], "<f2").tobytes() if name in embeddings else None,
        )
        for name in names
    )
    genre = best if status == "ok" else None
    said = {"decided_by": names[-1], "reason": "made for a test", "at": "2026-01-02T03:04:05+00:00", **more}
    return Verdict(str(path), status, "made", "ladder", genre, sure, top=top, stages=stages, **said)


def failure(path: Path, status: str) -> Verdict:
    return Verdict(str(path), status, "made", "ladder", error=f"it is {status}", at="2026-01-02T03:04:05+00:00")


def fill(file: Path, verdicts: Iterable[Verdict]) -> Path:
    with State.open(file, create=True) as state:
        recorder = Recorder(state, Basis(DIGEST, "ladder", "made"), Again(embeddings=True))
        for verdict in verdicts:
            recorder.keep(Track(Path(verdict.path), 1, 1), verdict, 0)
        recorder.end(complete=True)
    return file


def absent(file: Path, path: Path) -> None:
    with State.open(file, write=True) as state, state.transaction():
        track = state.track(path)
        assert track is not None
        state.connection.execute("UPDATE track SET absent_since = '2026-01-02' WHERE id = ?", (track.id,))


def correct(file: Path, path: Path, genre: str) -> None:
    with State.open(file, write=True) as state:
        track = state.track(path)
        assert track is not None
        state.correct(track.id, genre)
