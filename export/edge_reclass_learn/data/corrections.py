"""Labelled tracks from a state file: what people said. What only a verdict says is never a label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass import Bundle
from edge_reclass.errors import UsageError
from edge_reclass.library import State, TrackRow, Wanted
from edge_reclass_learn.data.labelled import Data, Labelled, check_genres, with_tags

_LARGEST: Final = float(np.finfo(np.float16).max)
_SQLITE = b"SQLite format 3\0"


def is_state(path: Path) -> bool:
    """Whether a file looks like a state file: an SQLite database."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def from_state(path: Path, base: Bundle, stages: Sequence[str]) -> Data:
    """The corrected tracks of a state file.

    Where the state keeps the embeddings of all ``stages`` of ``base``, the file of a track is not needed. What is not
    there otherwise is left out, and a note says how many.

    Raises:
        UsageError: it is no state file, or nobody has corrected anything in it.
    """
    with State.open(path) as state:
        rows = list(state.tracks(Wanted(status="corrected", absent=None)))
        kept = _kept(state, base, stages, {row.id for row in rows})
        sounds = {track: state.audio_hash(track) for track in kept}
    if not rows:
        raise UsageError(
            f"{path}: nobody has said of a track what it is, and a verdict is no label;"
            f" edge-reclass review {path} asks about the tracks that are unsure"
        )
    rows = _one_each(rows)
    there = [row for row in rows if row.id in kept or row.absent_since is None]
    notes = []
    if there != rows:
        notes.append(f"left out: {len(rows) - len(there)} corrected tracks whose files are not there any more")
    tracks = [Labelled(row.file, row.corrected or "", kept=kept.get(row.id), sound=sounds.get(row.id)) for row in there]
    check_genres(path, (track.genre for track in tracks))
    found = with_tags(tracks)
    if kept:
        notes.append(f"kept embeddings are used for {sum(track.kept is not None for track in tracks)} tracks")
    return Data(found.tracks, (*notes, *found.notes))


def _kept(state: State, base: Bundle, stages: Sequence[str], wanted: set[int]) -> dict[int, dict[str, bytes]]:
    """The embeddings of the tracks of which those of all stages are kept, float16."""
    found: dict[int, dict[str, bytes]] = {}
    for stage in stages:
        for ids, vectors in state.embeddings(base.digest, stage):
            for track, vector in zip(ids, finite(vectors), strict=True):
                if track in wanted:
                    found.setdefault(track, {})[stage] = vector.astype("<f2").tobytes()
    return {track: by_stage for track, by_stage in found.items() if len(by_stage) == len(stages)}


def finite(kept: NDArray[np.float32]) -> NDArray[np.float16]:
    """Kept vectors as float16, with its limits where it could not hold a value."""
    return np.nan_to_num(kept, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST).astype(np.float16)


def _one_each(rows: Sequence[TrackRow]) -> list[TrackRow]:
    """One row of each file, however many names it has."""
    found: dict[str, TrackRow] = {}
    for row in rows:
        found.setdefault(os.path.realpath(row.file), row)
    return list(found.values())
