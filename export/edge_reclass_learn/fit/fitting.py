"""From labelled tracks and a base bundle to a new bundle: hear, group, judge, fit, compare, write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from edge_reclass import Bundle
from edge_reclass.bundle import load, starter_path
from edge_reclass.errors import UsageError
from edge_reclass.run import printable
from edge_reclass_learn.data.corrections import from_state, is_state
from edge_reclass_learn.data.labelled import Data, read_data
from edge_reclass_learn.fit.bundle import New, check_place, write_bundle
from edge_reclass_learn.fit.card import card
from edge_reclass_learn.fit.gain import range_given, same_genres
from edge_reclass_learn.fit.held_back import hold_back, new_genres
from edge_reclass_learn.fit.judging import RangeInputs, Task, fit, judge
from edge_reclass_learn.fit.outcome import Outcome, outcome
from edge_reclass_learn.hearing.examples import Example
from edge_reclass_learn.hearing.gather import gather
from edge_reclass_learn.hearing.hear import hear_nonsense
from edge_reclass_learn.hearing.listening import Listening, listening
from edge_reclass_learn.hearing.memory import fitted_sounds, recall, remember

MIN_TRACKS: Final = 5
MIN_GROUPS: Final = 2
"""Of each genre."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to fit.

    base: bundle whose encoders are used; None: the starter
    cache: file that keeps what was heard
    keep_genres: also the genres of the base, from what it remembers
    folds: from which the figures come
    threads: of the encoders; None: all CPUs
    """

    cache: Path
    base: Path | None = None
    keep_genres: bool = False
    folds: int = 5
    seed: int = 0
    threads: int | None = None


def fit_bundle(data: Path, output: Path, options: Options, say: Say) -> Outcome:
    """Fit heads to the labelled tracks of ``data``, and write the new bundle into ``output``, all at once at the end.

    Args:
        data: folder of genres, CSV, or state file with corrections.

    Raises:
        UsageError: the data cannot be used, or is too little; or the output folder cannot be used.
        BundleError, EngineError, DeviceError: the base bundle cannot be used.
    """
    there = check_place(output)
    base = load(options.base or starter_path())
    heard = listening(base)
    corrections = is_state(data)
    read = from_state(data, base, list(heard.inputs)) if corrections else read_data(data)
    for note in read.notes:
        say(note)
    known = recall(base, heard)
    remembered = known if corrections or options.keep_genres else []
    if (corrections or options.keep_genres) and not remembered:
        raise UsageError(
            f"{base.root}: this bundle does not keep embeddings of the tracks that it was fitted on, for all of its"
            " stages, so that its genres would be forgotten; give another --bundle (the starter, or one that"
            " edge-reclass fit made), or folders with tracks of all genres"
        )
    read = _spelled(read, base.manifest.genres if remembered else [])
    _require(Counter([t.genre for t in read.tracks] + [e.genre for e in remembered]), {}, "")
    mixed = bool(remembered)
    gathered = gather(base, heard, read.tracks, known, options.cache, options.threads, say, mixed=mixed)
    examples, left_out = list(gathered.examples), gathered.left_out
    genres = _genres(examples, base.manifest.genres if remembered else [])
    groups = {genre: len({e.group for e in examples if e.genre == genre}) for genre in genres}
    why = f"; {len(left_out)} tracks could not be heard" if left_out else ""
    _require(Counter(example.genre for example in examples), groups, why)
    task = Task(examples, genres, heard, range_inputs(base, heard, options, say))
    judged = judge(task, options.folds, options.seed, say)
    say("fitting on all tracks")
    fitted = fit(task, np.arange(len(examples)))
    new = new_genres(examples, genres)
    heads = {stage: hold_back(head, judged.held_back[stage], new) for stage, head in fitted.heads.items()}
    fitted = replace(fitted, heads=heads)
    found = outcome(task, fitted, judged, base, gathered)
    say("writing the bundle")
    write_bundle(output, there, base, _new(found))
    return found


def _spelled(data: Data, genres: Sequence[str]) -> Data:
    """Labels that are genres of the base under another spelling, as the base spells them."""
    known = same_genres(sorted({track.genre for track in data.tracks}), genres)
    return replace(data, tracks=tuple(replace(t, genre=known.get(t.genre, t.genre)) for t in data.tracks))


def _require(tracks: Counter[str], groups: Mapping[str, int], why: str) -> None:
    """Refuse what is too little to learn from and to judge by."""
    few = [f"{printable(genre)} has {n}" for genre, n in sorted(tracks.items()) if n < MIN_TRACKS]
    if few:
        raise UsageError(f"expected at least {MIN_TRACKS} tracks of each genre: {', '.join(few)}{why}; add tracks")
    lone = [printable(genre) for genre, n in sorted(groups.items()) if n < MIN_GROUPS]
    if lone:
        raise UsageError(
            f"expected tracks of at least {MIN_GROUPS} groups (artists) in each genre: all of {', '.join(lone)} belong"
            f" together{why}; without another artist nobody can tell a genre from a voice: add one"
        )
    if len(tracks) < 2:
        raise UsageError(f"expected at least 2 genres, got {', '.join(map(printable, tracks)) or 'none'}{why}")


def _genres(examples: Sequence[Example], base: Sequence[str]) -> list[str]:
    """The base's genres in their order, then the new ones by name."""
    return [*base, *sorted({example.genre for example in examples} - set(base))]


def range_inputs(base: Bundle, heard: Listening, options: Options, say: Say) -> dict[str, RangeInputs]:
    """What each stage's range test is given, and the made signals, heard by the base."""
    found = {}
    for stage in heard.inputs:
        test = base.manifest.stage(stage).head.range
        if test is not None:
            nonsense = hear_nonsense(base, heard, test.inputs, options.cache, options.threads, say)
            found[stage] = RangeInputs(range_given(heard, stage, test.inputs), nonsense)
    return found


def _new(found: Outcome) -> New:
    task, fitted, judged = found.task, found.fitted, found.judged
    old = [example for example in task.examples if example.remembered]
    policy = next(iter(found.policies))
    provenance: dict[str, object] = {
        "tracks": len(task.examples) - len(old),
        "groups": len({example.group for example in task.examples if not example.remembered}),
        "remembered_tracks": len(old),
        "data_sha256": found.read.digest,
        "out_of_fold_accuracy": round(found.accuracies[policy][0], 4),
        "strengths": dict(fitted.strengths),
        "new_genres_held_back": {stage: round(amount, 4) for stage, amount in judged.held_back.items()},
        "policies": "those of the base, with thresholds chosen again on the answers out of fold",
        "min_confidence": "of the base",
    }
    licence = found.base.manifest.provenance.get("heads_licence")
    if old and licence is not None:
        provenance["base_heads_licence"] = licence
    return New(
        task.genres,
        fitted,
        judged.temperatures,
        judged.limits,
        found.policies,
        remember(task.examples, task.heard, task.genres, fitted_sounds(found.base) if old else ()),
        card(found),
        provenance,
    )
