"""From labelled tracks and a base bundle to a new bundle: hear, group, judge, fit, compare, write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from edge_reclass import Bundle
from edge_reclass.bundle import load, starter_path
from edge_reclass.errors import UsageError
from edge_reclass.run import printable
from edge_reclass_export.own_genres import same_genres
from edge_reclass_learn.data.corrections import from_state, is_state
from edge_reclass_learn.data.features import is_vectors, read_vectors
from edge_reclass_learn.data.labelled import Data, read_data
from edge_reclass_learn.fit.alone import alone
from edge_reclass_learn.fit.bundle import New, check_place, write_bundle
from edge_reclass_learn.fit.card import card
from edge_reclass_learn.fit.contest import Contest, contests, with_winners
from edge_reclass_learn.fit.held_back import hold_back, new_genres
from edge_reclass_learn.fit.judging import Judged, RangeInputs, Task, fit, judge
from edge_reclass_learn.fit.outcome import Outcome, outcome
from edge_reclass_learn.hearing.gather import Gathered, gather, gather_vectors
from edge_reclass_learn.hearing.hear import hear_nonsense
from edge_reclass_learn.hearing.listening import Listening, listening
from edge_reclass_learn.hearing.memory import fitted_sounds, recall, remember, unknown_sounds
from edge_reclass_learn.progress import Say

MIN_TRACKS: Final = 5
MIN_GROUPS: Final = 2
"""Of each genre."""


@dataclass(frozen=True)
class Options:
    """How to fit.

    base: bundle whose encoders are used; None: the starter
    cache: file that keeps what was heard
    keep_genres: also the genres of the base, from what it remembers
    folds, seed: the figures come from so many, and how the tracks are dealt into them
    threads: of the encoders; None: all CPUs
    copies: changed copies of each track that heads are fitted on, too
    head: kind of the heads, see judging.KINDS
    stage: of which vectors are, where the data do not say it
    """

    cache: Path
    base: Path | None = None
    keep_genres: bool = False
    folds: int = 5
    seed: int = 0
    threads: int | None = None
    copies: int = 0
    head: str = "logistic"
    stage: str | None = None


def fit_bundle(data: Path, output: Path, options: Options, say: Say) -> Outcome:
    """Fit heads to the labelled tracks of ``data``, and write the new bundle into ``output``, all at once at the end.

    Args:
        data: folder of genres, CSV, state file with corrections, or vectors of one stage (data/features.py).

    Raises:
        UsageError: the data cannot be used, or is too little; or the output folder cannot be used.
        BundleError, EngineError, DeviceError: the base bundle cannot be used.
    """
    there = check_place(output)
    base = load(options.base or starter_path())
    if is_vectors(data):
        return _fit_vectors(data, output, there, base, options, say)
    if options.stage is not None:
        raise UsageError(f"--stage {options.stage}: only for vectors (.npy, .npz); {data} is heard by all stages")
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
    old = base.manifest.genres if remembered else []
    read = _spelled(read, old)
    _require(Counter([t.genre for t in read.tracks] + [e.genre for e in remembered]), {}, "")
    kind = options.head
    if remembered and kind != "logistic" and {t.genre for t in read.tracks} - {e.genre for e in remembered}:
        raise UsageError(
            f"--head {kind}: genres that the base does not remember are added beside the old ones by logistic heads;"
            " leave --head out, or give folders or a CSV with tracks of all genres"
        )
    mixed = bool(remembered)
    gathered = gather(
        base, heard, read.tracks, known, options.cache, options.threads, say, mixed=mixed, copies=options.copies
    )
    task = Task(gathered.examples, _genres(gathered, old), heard, range_inputs(base, base, heard, options, say))
    found = _fitted(task, base, gathered, options, say)
    say("writing the bundle")
    write_bundle(output, there, base, _new(found))
    return found


def _fit_vectors(data: Path, output: Path, there: list[str], base: Bundle, options: Options, say: Say) -> Outcome:
    """As :func:`fit_bundle`, of what one stage made of tracks before; the new bundle has that stage alone."""
    if options.keep_genres or options.copies:
        given = "--keep-genres" if options.keep_genres else "--augment"
        raise UsageError(f"{given} needs audio that all stages hear; {data} has vectors of one stage: leave it out")
    vectors = read_vectors(data)
    lone = alone(base, vectors, options.stage, str(data))
    for note in vectors.notes:
        say(note)
    heard = listening(lone)
    gathered = gather_vectors(vectors, heard)
    task = Task(gathered.examples, _genres(gathered, []), heard, range_inputs(base, lone, heard, options, say))
    (name,) = heard.inputs
    takes_the_same = not vectors.published and base.manifest.stage(name).head.inputs == [name]
    found = _fitted(task, lone, gathered, options, say, comparable=takes_the_same)
    say("writing the bundle")
    new = _new(found)
    made = {"vectors_of": name, "published_by_fma": vectors.published, "policies": "one step, after all windows"}
    write_bundle(output, there, lone, replace(new, provenance={**new.provenance, **made}))
    return found


def _fitted(
    task: Task, base: Bundle, gathered: Gathered, options: Options, say: Say, *, comparable: bool = True
) -> Outcome:
    """Judge, fit on all, and look at what came out."""
    task, judged, compared = _judged(task, options, say)
    say("fitting on all tracks")
    fitted = fit(task, np.arange(len(task.examples)))
    new = new_genres(task.examples, task.genres)
    if new.any():
        heads = {stage: hold_back(head, judged.held_back[stage], new) for stage, head in fitted.heads.items()}
        fitted = replace(fitted, heads=heads)
    return outcome(task, fitted, judged, base, gathered, compared, comparable=comparable)


def _judged(task: Task, options: Options, say: Say) -> tuple[Task, Judged, list[Contest]]:
    """The task with the kinds of head that are taken, what they say out of fold, and how they were chosen."""
    judged = judge(task, options.folds, options.seed, say)
    if options.head == "logistic":
        return task, judged, []
    say(f"judging heads of the kind {options.head}")
    others = replace(task, kinds=dict.fromkeys(task.heard.inputs, options.head))
    other = judge(others, options.folds, options.seed, say)
    compared = contests(task, options.head, judged, other)
    return *with_winners(task, judged, other, compared), compared


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


def _genres(gathered: Gathered, base: Sequence[str]) -> list[str]:
    """The base's genres in their order, then the new ones by name; refuses what is too little."""
    examples = gathered.examples
    genres = [*base, *sorted({example.genre for example in examples} - set(base))]
    groups = {genre: len({e.group for e in examples if e.genre == genre}) for genre in genres}
    why = f"; {len(gathered.left_out)} tracks could not be heard" if gathered.left_out else ""
    _require(Counter(example.genre for example in examples), groups, why)
    return genres


def range_inputs(base: Bundle, fitted: Bundle, heard: Listening, options: Options, say: Say) -> dict[str, RangeInputs]:
    """What the range tests of the bundle that is ``fitted`` are given; ``base`` hears the made signals."""
    found = {}
    for stage in heard.inputs:
        test = fitted.manifest.stage(stage).head.range
        if test is not None:
            nonsense = hear_nonsense(base, listening(base), test.inputs, options.cache, options.threads, say)
            found[stage] = RangeInputs(tuple((name, heard.usual[name]) for name in test.inputs), nonsense)
    return found


def _new(found: Outcome) -> New:
    task, fitted, judged = found.task, found.fitted, found.judged
    old = [example for example in task.examples if example.remembered]
    policy = next(iter(found.policies))
    provenance: dict[str, object] = {
        "tracks": len(task.examples) - len(old),
        "copies": sum(len(example.copies) for example in task.examples),
        "groups": len({example.group for example in task.examples if not example.remembered}),
        "remembered_tracks": len(old),
        "sounds_unknown": sum(not example.sound for example in task.examples if not example.remembered)
        + (unknown_sounds(found.base) if old else 0),
        "data_sha256": found.read.digest,
        "out_of_fold_accuracy": round(found.accuracies[policy][0], 4),
        "heads": {stage: task.kinds.get(stage, "logistic") for stage in fitted.heads},
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
