"""From bundles and labelled tracks to the record: hear, find what each bundle says, measure, compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass import Bundle, __version__
from edge_reclass.errors import UsageError
from edge_reclass.run import printable
from edge_reclass_learn.data.folds import deal
from edge_reclass_learn.evaluate.baselines.table import baselines
from edge_reclass_learn.evaluate.comparing import compare
from edge_reclass_learn.evaluate.encoders import encoders
from edge_reclass_learn.evaluate.gathering import Listener, Options, Say, listeners
from edge_reclass_learn.evaluate.measuring import Answered, judgement
from edge_reclass_learn.evaluate.record import Comparison, DataFacts, GenreTracks, Record
from edge_reclass_learn.evaluate.running import Ran, run
from edge_reclass_learn.evaluate.trial import Trial
from edge_reclass_learn.evaluate.verdicts import as_it_is, cross_validated, some_of, spread
from edge_reclass_learn.fit.doubts import baselines as without_listening
from edge_reclass_learn.fit.doubts import source_warnings
from edge_reclass_learn.fit.fitting import MIN_GROUPS, MIN_TRACKS, range_inputs
from edge_reclass_learn.fit.fitting import Options as FitOptions
from edge_reclass_learn.fit.gain import same_genres
from edge_reclass_learn.fit.judging import KINDS, Task
from edge_reclass_learn.hearing.examples import Example, numbers

FEW: Final = 20
"""Tracks of a genre below which a warning says that its figures are worth little."""


@dataclass(frozen=True)
class Evaluated:
    """The record, and what each bundle said of each track, which the record does not hold."""

    record: Record
    answered: Sequence[Answered]


def evaluate(paths: Sequence[Path], data: Path, options: Options, say: Say) -> Evaluated:
    """Judge bundles on the labelled tracks of ``data`` that all of them can hear.

    Args:
        paths: folders of at least one bundle
        data: folder of genres, CSV, or state file with corrections

    Raises:
        UsageError: the data cannot be used, or a bundle knows none of its genres, or lacks the policy.
        BundleError, EngineError, DeviceError: a bundle cannot be used.
    """
    heard = listeners(paths, data, options, say)
    first = heard[0]
    answered = [_answered(one, data, options, say) for one in heard]
    ran = [_run(one, options, say) for one in answered]
    judgements = [
        judgement(one, its.milliseconds, seed=options.seed, draws=options.draws)
        for one, its in zip(answered, ran, strict=True)
    ]
    compared = [_compared(answered[0], one, options) for one in answered[1:]]
    examples = list(first.examples.values())
    genres = Counter(example.genre for example in examples)
    trial = Trial(examples, sorted(genres), options.folds, options.seed, options.draws)
    others = baselines(trial, options.cache, say, judgements=judgements, tags=options.tags) if options.baselines else []
    probes = encoders(trial, heard, say) if options.encoders else []
    record = Record(
        program=f"edge-reclass {__version__}",
        data=DataFacts(
            name=data.name,
            sha256=first.digest,
            tracks=len(examples),
            groups=len({example.group for example in examples}),
            left_out=first.given - len(examples),
            genres=[GenreTracks(genre=genre, tracks=n) for genre, n in sorted(genres.items())],
        ),
        seed=options.seed,
        draws=options.draws,
        bundles=judgements,
        comparisons=[one for one in compared if one is not None],
        agreements=[agreement for its in ran for agreement in its.agreements],
        baselines=others,
        encoders=probes,
        warnings=_warnings(answered),
    )
    return Evaluated(record, answered)


def _answered(one: Listener, data: Path, options: Options, say: Say) -> Answered:
    """What the bundle says of the tracks whose genre it knows."""
    bundle = one.bundle
    names, every = bundle.manifest.genres, list(one.examples.values())
    spelled = same_genres(sorted({example.genre for example in every}), names)
    examples = [replace(example, genre=spelled[example.genre]) for example in every if example.genre in spelled]
    others = Counter(example.genre for example in every if example.genre not in spelled)
    if not examples:
        raise UsageError(
            f"{data}: {bundle.root} knows none of its genres ({', '.join(map(printable, sorted(others)))}); it knows"
            f" {', '.join(map(printable, names))}: rename the folders or the column, or name another bundle"
        )
    known = sum(example.name in one.known for example in examples)
    folds = None
    if options.cross_validate == "always" or (options.cross_validate == "auto" and known):
        genres = [genre for genre in names if any(e.genre == genre for e in [*examples, *one.remembered])]
        task = _task(one, examples, genres, data, options, say)
        own = np.array([not example.remembered for example in task.examples])
        limit = bundle.manifest.min_confidence
        verdicts, folds = cross_validated(
            task, one.policy, limit, folds=options.folds, seed=options.seed, say=lambda text: say(f"{one.name}: {text}")
        )
        verdicts, folds = some_of(spread(verdicts, genres, names), own), folds[own]
        how = _how_cross_validated(one, known, len(examples), len(genres), options)
    else:
        verdicts = as_it_is(bundle, one.heard, examples, one.policy)
        how = ["judged as it is: its own heads and thresholds, on what its stages hear of the tracks"]
        if known:
            how.append(f"its heads were fitted on at least {known} of the tracks: the figures are too high")
    return Answered(
        name=one.name,
        bundle=bundle,
        policy=one.policy,
        examples=examples,
        labels=numbers(examples, names),
        verdicts=verdicts,
        how=how,
        dealt=options.folds if folds is not None else None,
        folds=_dealt(examples, names, options) if folds is None else folds,
        known=known,
        missing=[GenreTracks(genre=genre, tracks=n) for genre, n in sorted(others.items())],
    )


def _run(one: Answered, options: Options, say: Say) -> Ran:
    """The real cascade on some of the tracks, from all over the data."""
    tracks = [path for example in one.examples if (path := Path(example.name)).is_file()]
    if not options.sample or not tracks:
        return Ran([], {})
    places = np.unique(np.linspace(0, len(tracks) - 1, min(options.sample, len(tracks))).round().astype(int))
    some = [tracks[place] for place in places.tolist()]
    return run(one.name, one.bundle, one.policy, some, options.devices, options.threads, say)


def _dealt(examples: Sequence[Example], names: Sequence[str], options: Options) -> NDArray[np.intp]:
    return deal(numbers(examples, names), [example.group for example in examples], options.folds, options.seed)


def _task(
    one: Listener, examples: Sequence[Example], genres: Sequence[str], data: Path, options: Options, say: Say
) -> Task:
    every = [*examples, *one.remembered]
    for genre in genres:
        own = [example for example in every if example.genre == genre]
        groups = {example.group for example in own}
        if len(own) < MIN_TRACKS or len(groups) < MIN_GROUPS or len(genres) < 2:
            raise UsageError(
                f"{data}: to cross-validate {one.name}, expected at least 2 genres, with {MIN_TRACKS} tracks in"
                f" {MIN_GROUPS} groups (artists) each; {printable(genre)} has {len(own)} in {len(groups)}; add tracks,"
                " or judge the bundle as it is: --cross-validate never"
            )
    fit = FitOptions(options.cache, one.bundle.root, threads=options.threads)
    ranges = range_inputs(one.bundle, one.bundle, one.heard, fit, say)
    return Task(every, genres, one.heard, ranges, _kinds(one.bundle))


def _kinds(bundle: Bundle) -> Mapping[str, str]:
    """The kinds of heads that ``edge-reclass fit`` gave a bundle, by stage; nothing where it made none."""
    told = bundle.manifest.provenance.get("fit")
    kinds = told.get("heads") if isinstance(told, dict) else None
    stages = {stage.name for stage in bundle.manifest.stages}
    return kinds if isinstance(kinds, dict) and set(kinds) <= stages and set(kinds.values()) <= set(KINDS) else {}


def _how_cross_validated(one: Listener, known: int, tracks: int, genres: int, options: Options) -> list[str]:
    why = f"it was fitted on at least {known} of the {tracks} tracks" if known else "as you asked"
    how = [
        f"cross-validated in {options.folds} folds that share no group: {why}",
        "new heads on the bundle's encoders are fitted on the other folds, as edge-reclass fit does",
        "temperatures, range limits and thresholds are chosen for each fold on what is said of the others",
    ]
    total = len(one.bundle.manifest.genres)
    if genres < total:
        how.append(f"only the {genres} of its {total} genres that the data have can be said: too easy by that much")
    if one.remembered:
        how.append(f"{len(one.remembered)} tracks that the bundle remembers are fitted on as well")
    return how


def _compared(first: Answered, second: Answered, options: Options) -> Comparison | None:
    """None where there is no track whose genre both know."""
    rows = {example.name: row for row, example in enumerate(first.examples)}
    both = [(rows[e.name], row) for row, e in enumerate(second.examples) if e.name in rows]
    if not both:
        return None
    a, b = (np.array(one, np.intp) for one in zip(*both, strict=True))
    ours = first.bundle.manifest.genres
    theirs = second.bundle.manifest.genres
    same = same_genres(theirs, ours)
    alike = np.array([ours.index(same[genre]) if genre in same else -1 for genre in theirs], np.intp)
    genres = [ours[number] for number in np.unique(first.labels[a]).tolist()]
    return compare(
        (first.name, second.name),
        (first.right[a], second.right[b]),
        first.verdicts.genre[a] == alike[second.verdicts.genre[b]],
        [first.examples[row].group for row in a.tolist()],
        genres,
        seed=options.seed,
        draws=options.draws,
    )


def _warnings(answered: Sequence[Answered]) -> list[str]:
    """What a reader should know before believing the figures, the loudest first."""
    found = []
    for one in answered:
        if one.dealt is not None:
            found.append(f"warning: the figures of {one.name} are of new heads, and not of those in the bundle")
        elif one.known:
            found.append(f"warning: {one.name} is judged on tracks that it was fitted on: the figures are too high")
    if len({one.dealt is None for one in answered}) > 1:
        found.append("warning: some bundles are cross-validated and others are judged as they are: heads that were"
                     " fitted on music like these tracks have an advantage")  # fmt: skip
    graphs = [_encoders(one.bundle) for one in answered if one.dealt is not None]
    if len(graphs) > 1 and all(one == graphs[0] for one in graphs):
        found.append("warning: the cross-validated bundles have the same encoders, so that their new heads are the"
                     " same where they know the same genres: this compares policies and genres, not heads")  # fmt: skip
    first = answered[0]
    few = [
        names for number, names in enumerate(first.bundle.manifest.genres) if 0 < (first.labels == number).sum() < FEW
    ]
    if few:
        found.append(f"warning: fewer than {FEW} tracks of {', '.join(map(printable, few))}: look at the intervals")
    if len(set(first.labels.tolist())) > 1:
        rules = without_listening(first.examples, first.labels, first.folds, len(first.bundle.manifest.genres))
        found += source_warnings(first.examples, rules, float(first.right.mean()))
    return found


def _encoders(bundle: Bundle) -> list[object]:
    return [(stage.name, stage.encoder, stage.excerpt, stage.head.inputs) for stage in bundle.manifest.stages]
