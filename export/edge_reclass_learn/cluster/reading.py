"""Unlabelled music: a folder, a table, or the kept embeddings of a state file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass import Bundle
from edge_reclass.errors import UsageError
from edge_reclass.library import State, Wanted
from edge_reclass_learn.data.corrections import finite, is_state
from edge_reclass_learn.data.groups import group, near_duplicates
from edge_reclass_learn.data.labelled import Labelled, with_tags
from edge_reclass_learn.data.unlabelled import read_unlabelled
from edge_reclass_learn.fit.gain import base_answers
from edge_reclass_learn.hearing.examples import Example, Facts
from edge_reclass_learn.hearing.hear import hear
from edge_reclass_learn.hearing.listening import Listening
from edge_reclass_learn.progress import Say

MOST_COMPARED: Final = 20_000
"""Tracks up to which all are compared with all, to find those that are the same recording."""


@dataclass(frozen=True)
class Music:
    """Tracks without labels, and what is known of each.

    tracks: without a genre, in the order of their sounds
    vectors: float32[n, dim] by stage
    genres: what the bundle says, sure or not; a person's word where there is one; None where nothing is known
    facts: None where there was no file to look at
    groups: tracks of one group belong together: an artist, an album, a recording
    left_out: how many tracks could not be used, by reason
    digest: of what was heard
    """

    tracks: Sequence[Labelled]
    vectors: Mapping[str, NDArray[np.float32]]
    genres: Sequence[str | None]
    facts: Sequence[Facts | None]
    groups: Sequence[str]
    left_out: Mapping[str, int]
    notes: Sequence[str]
    digest: str


def read_music(
    data: Path, bundle: Bundle, heard: Listening, stages: Sequence[str], cache: Path, threads: int | None, say: Say
) -> Music:
    """The music of ``data`` as the stages of ``bundle`` hear it.

    Of a state file only ``stages`` are read; otherwise all stages of the bundle hear the tracks.

    Raises:
        UsageError: the data or the cache cannot be used, or the embeddings are of another bundle.
        BundleError, EngineError, DeviceError: see ``Cascade.open``.
    """
    if is_state(data):
        return _from_state(data, bundle, stages)
    found = read_unlabelled(data)
    for note in found.notes:
        say(note)
    clips, lost = hear(bundle, heard, found.tracks, cache, threads, say)
    clips.sort(key=lambda clip: (clip.sound, clip.track.path))  # what is found depends on no name and no order of rows
    examples = [Example(str(one.track.path), "", "", one.embeddings, one.windows, one.facts) for one in clips]
    genres: list[str | None] = []
    if examples:
        say("asking the bundle")
        policy = next(iter(heard.policies.values()))
        names = bundle.manifest.genres
        genres = [names[i] for i in base_answers(bundle, heard, examples).genres(policy).tolist()]
    fullest = {stage: counts[-1] for stage, counts in heard.counts.items()}
    vectors = {s: np.array([one.embeddings[s, count] for one in clips], np.float32) for s, count in fullest.items()}
    tracks = [replace(one.track, belongs=(*one.track.belongs, ("sound", one.sound.hex()))) for one in clips]
    groups, notes = _groups(tracks, vectors)
    return Music(
        [one.track for one in clips],
        vectors,
        genres,
        [one.facts for one in clips],
        groups,
        Counter(one.why for one in lost),
        notes,
        _digest([one.sound.hex() for one in clips]),
    )


def _from_state(path: Path, bundle: Bundle, stages: Sequence[str]) -> Music:
    with State.open(path) as state:
        rows = {row.id: row for row in state.tracks(Wanted(absent=False))}
        blocks = {stage: _kept(state, bundle.digest, stage) for stage in stages}
        if not all(len(ids) for ids, _ in blocks.values()):
            raise UsageError(_none_kept(state, path, bundle, stages))
    shared = set.intersection(*(set(ids.tolist()) for ids, _ in blocks.values())) & rows.keys()
    places = {stage: {track: i for i, track in enumerate(ids.tolist())} for stage, (ids, _) in blocks.items()}

    def sound(track: int) -> tuple[bytes, bytes]:
        """In the order of what was heard: what is found depends on no name."""
        vectors = b"".join(kept[places[stage][track]].tobytes() for stage, (_, kept) in blocks.items())
        return hashlib.sha256(vectors).digest(), rows[track].path

    order = sorted(shared, key=sound)
    vectors = {
        stage: kept[[places[stage][track] for track in order]].astype(np.float32) for stage, (_, kept) in blocks.items()
    }
    own = [rows[track] for track in order]
    read = with_tags([Labelled(row.file, "") for row in own])
    groups, notes = _groups(read.tracks, vectors)
    classified = sum(row.status in ("ok", "unsure") for row in rows.values())
    missing = max(classified - len(own), 0)
    if missing:
        notes.append(
            f"warning: {missing} tracks stopped before {' and '.join(stages)} heard them; edge-reclass classify FOLDER"
            f" --state {path} --policy POLICY --keep-embeddings --redo, with a policy without early exits, hears them"
        )
    return Music(
        read.tracks,
        vectors,
        [row.final_genre for row in own],
        [None] * len(own),
        groups,
        {"no kept embedding": missing} if missing else {},
        [*read.notes, *notes],
        _digest([sound(track)[0].hex() for track in order]),
    )


def _kept(state: State, digest: str, stage: str) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Ids int64[n] and vectors float16[n, dim], as the state keeps them; what float16 could not hold at its limit."""
    ids, vectors = [np.empty(0, np.int64)], []
    for some, block in state.embeddings(digest, stage):
        ids.append(np.array(some, np.int64))
        vectors.append(finite(block))
    return np.concatenate(ids), np.concatenate(vectors) if vectors else np.empty((0, 0), np.float16)


def _none_kept(state: State, path: Path, bundle: Bundle, stages: Sequence[str]) -> str:
    query = "SELECT bundle_digest, stage, count(*) FROM embedding GROUP BY bundle_digest, stage ORDER BY 3 DESC"
    kept = state.connection.execute(query).fetchall()
    again = f"edge-reclass classify FOLDER --state {path} --bundle {bundle.root} --keep-embeddings --redo keeps them"
    wanted = f"{path}: expected kept embeddings of {' and '.join(stages)} of the bundle {bundle.name}"
    if own := [f"{stage} ({n} tracks)" for digest, stage, n in kept if digest == bundle.digest]:
        return f"{wanted}; there are those of {', '.join(own)}: choose with --stage, or {again}"
    if kept:
        return (
            f"{wanted} ({bundle.digest[:12]}); it keeps those of another bundle ({kept[0][0][:12]}): name that with"
            f" --bundle, or {again}"
        )
    return f"{wanted}; it keeps none: {again}"


def _groups(tracks: Sequence[Labelled], vectors: Mapping[str, NDArray[np.float32]]) -> tuple[list[str], list[str]]:
    """The group of each track, and notes."""
    pairs, notes = [], []
    if len(tracks) <= MOST_COMPARED:
        pairs = near_duplicates(list(vectors.values())) if tracks else []
    else:
        notes.append(f"more than {MOST_COMPARED} tracks: it was not looked for copies of the same recording")
    return group([one.belongs for one in tracks], [(pair.first, pair.second) for pair in pairs]), notes


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
