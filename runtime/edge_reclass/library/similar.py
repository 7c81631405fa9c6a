"""Tracks that sound alike: by the cosine of the embeddings that a state keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import UsageError
from edge_reclass.library.rows import TrackRow
from edge_reclass.library.state import State

_LARGEST: Final = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Neighbours:
    """The tracks most like one, the most alike first, among ``compared`` that ``stage`` has heard too."""

    stage: str
    compared: int
    found: list[tuple[float, TrackRow]]
    """Cosine, -1 to 1, and the track."""


def similar(state: State, path: str | os.PathLike[str], top: int, stage: str | None = None) -> Neighbours:
    """The ``top`` tracks that sound most like the one at ``path``.

    Compared are embeddings of the same bundle and stage, by default the last stage that heard this track. Each value is
    first brought to mean 0 and deviation 1 over the library: the hand-crafted features have scales from 1e-3 to 1e4,
    and their cosine would be that of the largest few.

    Raises:
        UsageError: the track is not in the state, or no such embedding of it is kept.
    """
    track = state.track(path)
    if track is None:
        raise UsageError(
            f"{os.fsdecode(path)}: is not in {state.path}; "
            f"edge-reclass classify FILE --state {state.path} --keep-embeddings adds it"
        )
    kept = state.kept_stages(track.id)
    if track.bundle_digest is None or not kept:
        raise UsageError(
            f"{track.file}: no embedding is kept of it ({track.status or 'not classified yet'}); edge-reclass classify "
            f"PATH --state {state.path} --keep-embeddings keeps those of its tracks"
        )
    if stage is None:
        verdict = track.verdict
        order = [] if verdict is None else [report.name for report in verdict.stages]
        stage = max(kept, key=lambda name: order.index(name) if name in order else -1)
    elif stage not in kept:
        raise UsageError(f"--stage: expected one of {', '.join(kept)}, which are kept of this track, got {stage!r}")
    ids, scores, compared = _nearest(state, track.bundle_digest, stage, track.id, top)
    rows = state.tracks_by_id(ids)
    return Neighbours(stage, compared, [(score, rows[i]) for i, score in zip(ids, scores, strict=True)])


def _nearest(state: State, digest: str, stage: str, track: int, top: int) -> tuple[list[int], list[float], int]:
    """The ids and cosines of the nearest, and how many were compared. Reads all vectors twice, block by block."""
    count, own = 0, None
    total = squares = np.zeros(1)
    for ids, vectors in _finite(state, digest, stage):
        count += len(ids)
        total = total + vectors.sum(axis=0, dtype=np.float64)
        squares = squares + np.square(vectors, dtype=np.float64).sum(axis=0)
        if track in ids:
            own = vectors[ids.index(track)]
    if own is None:  # the track itself is absent
        raise UsageError("this track was not there when its library was last looked through; classify it again")
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    deviation[deviation < 1e-6 * (np.abs(mean) + 1e-6)] = np.inf  # a value that is the same everywhere tells nothing
    query = _unit((own[None] - mean) / deviation)[0]
    best_ids = np.empty(0, np.int64)
    best = np.empty(0)
    for ids, vectors in _finite(state, digest, stage):
        scores = _unit((vectors - mean) / deviation) @ query
        best = np.concatenate([best, scores])
        best_ids = np.concatenate([best_ids, np.asarray(ids, np.int64)])
        others = best_ids != track
        best, best_ids = best[others], best_ids[others]
        order = np.argsort(-best, kind="stable")[:top]
        best, best_ids = best[order], best_ids[order]
    return best_ids.tolist(), best.tolist(), count - 1


def _finite(state: State, digest: str, stage: str) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """The kept embeddings; what float16 could not hold stands at its limit."""
    for ids, vectors in state.embeddings(digest, stage):
        yield ids, np.nan_to_num(vectors, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST)


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1.0, lengths)
