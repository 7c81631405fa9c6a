"""From bundles and labelled tracks to the record: hear, find what each bundle says, measure, compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from msgspec.structs import replace as changed

from edge_reclass import Bundle, __version__
from edge_reclass.errors import UsageError
from edge_reclass.run import printable
from edge_reclass_export.own_genres import same_genres
from edge_reclass_learn.evaluate.baselines.sources import sources
from edge_reclass_learn.evaluate.baselines.table import baselines
from edge_reclass_learn.evaluate.comparing import compare
from edge_reclass_learn.evaluate.encoders import encoders
from edge_reclass_learn.evaluate.evenly import evenly
from edge_reclass_learn.evaluate.hearing import HeardBundle, Options, fit_facts, hear_bundles
from edge_reclass_learn.evaluate.intervals import worth
from edge_reclass_learn.evaluate.measuring import Answered, judgement
from edge_reclass_learn.evaluate.record import Baseline, Comparison, DataFacts, GenreTracks, Judgement, Record
from edge_reclass_learn.evaluate.running import Ran, run
from edge_reclass_learn.evaluate.trial import Trial
from edge_reclass_learn.evaluate.verdicts import as_it_is, cross_validated, some_of, spread
from edge_reclass_learn.fit.doubts import source_warnings, without_listening
from edge_reclass_learn.fit.fitting import MIN_GROUPS, MIN_TRACKS, range_inputs
from edge_reclass_learn.fit.fitting import Options as FitOptions
from edge_reclass_learn.fit.judging import KINDS, Task
from edge_reclass_learn.fit.policies import ENOUGH
from edge_reclass_learn.hearing.examples import Example, numbers
from edge_reclass_learn.hearing.listening import listening
from edge_reclass_learn.hearing.memory import unknown_sounds
from edge_reclass_learn.progress import Say

FEW: Final = 20
"""Tracks of a genre below which a warning says that its figures are worth little."""
FEW_GROUPS: Final = 5
"""Groups below which a bootstrap that draws them says little."""


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
        UsageError: the data or the tags cannot be used, or a bundle knows none of its genres, or lacks the policy.
        BundleError, EngineError, DeviceError: a bundle cannot be used.
    """
    if options.tags is not None:  # what cannot be used is better refused before all is heard than after
        sources(options.tags)["tags"].opened()
    heard = hear_bundles(paths, data, options, say)
    first = heard[0]
    examples = list(first.examples.values())
    genres = Counter(example.genre for example in examples)
    trial = Trial(examples, sorted(genres), options.folds, options.seed, options.draws)
    answered = [_answered(one, trial, data, options, say) for one in heard]
    ran = [_run(one, options, say) for one in answered]
    judgements = [
        judgement(one, its.milliseconds, seed=options.seed, draws=options.draws)
        for one, its in zip(answered, ran, strict=True)
    ]
    compared = [_compared(answered[0], one, options) for one in answered[1:]]
    others = _baselines(trial, answered, judgements, options, say) if options.baselines else []
    warnings = _warnings(answered)
    if options.baselines and not others:
        warnings.append("warning: no genre is known by all bundles: --baselines has no tracks")
    record = Record(
        program=f"edge-reclass {__version__}",
        data=DataFacts(
            name=data.resolve().name,
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
        encoders=encoders(trial, heard, say) if options.encoders else [],
        warnings=warnings,
    )
    return Evaluated(record, answered)


def _answered(one: HeardBundle, trial: Trial, data: Path, options: Options, say: Say) -> Answered:
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
    fold_of = dict(zip(one.examples, trial.dealt.tolist(), strict=True))
    dealt = np.array([fold_of[example.name] for example in examples], np.intp)
    new_heads = options.cross_validate == "always" or (options.cross_validate == "auto" and bool(known))
    if new_heads:
        genres = [genre for genre in names if any(e.genre == genre for e in [*examples, *one.remembered])]
        task = _task(one, examples, genres, data, options, say)
        verdicts = cross_validated(
            task,
            one.policy,
            bundle.manifest.min_confidence,
            folds=options.folds,
            fixed=np.concatenate([dealt, np.full(len(one.remembered), -1, np.intp)]),
            seed=options.seed,
            say=lambda text: say(f"{one.name}: {text}"),
        )
        verdicts = some_of(spread(verdicts, genres, names), np.arange(len(examples)))
        how = _how_cross_validated(one, known, len(examples), genres, options)
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
        folds=options.folds if new_heads else None,
        dealt=dealt,
        known=known,
        missing=[GenreTracks(genre=genre, tracks=n) for genre, n in sorted(others.items())],
    )


def _run(one: Answered, options: Options, say: Say) -> Ran:
    """The real cascade on some of the tracks, from all over the data."""
    tracks = [path for example in one.examples if (path := Path(example.name)).is_file()]
    if not options.sample or not tracks:
        return Ran([], {})
    some = evenly(tracks, options.sample)
    return run(one.name, one.bundle, one.policy, some, options.devices, options.threads, say)


def _baselines(
    trial: Trial, answered: Sequence[Answered], judgements: Sequence[Judgement], options: Options, say: Say
) -> list[Baseline]:
    """The table of the baselines; every row, also those of bundles, is of the tracks whose genre all bundles know."""
    names = set.intersection(*({example.name for example in one.examples} for one in answered))
    common = trial.of({example.genre for example in trial.examples if example.name in names})
    if not common.examples:
        return []
    found = []
    for one, whole in zip(answered, judgements, strict=True):
        rows = np.array([row for row, example in enumerate(one.examples) if example.name in names], np.intp)
        said = one.verdicts.genre[rows]
        groups = [one.examples[row].group for row in rows.tolist()]
        classes = len(one.bundle.manifest.genres)
        its = worth(one.labels[rows], said, groups, classes, seed=options.seed, draws=options.draws)
        found.append(changed(whole, accuracy=its.accuracy, balanced=its.balanced, macro_f1=its.macro_f1))
    return baselines(common, options.cache, say, judgements=found, tags=options.tags)


def _task(
    one: HeardBundle, examples: Sequence[Example], genres: Sequence[str], data: Path, options: Options, say: Say
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
    kinds = fit_facts(bundle).get("heads")
    stages = {stage.name for stage in bundle.manifest.stages}
    return kinds if isinstance(kinds, dict) and set(kinds) <= stages and set(kinds.values()) <= set(KINDS) else {}


def _how_cross_validated(
    one: HeardBundle, known: int, tracks: int, genres: Sequence[str], options: Options
) -> list[str]:
    why = f"it was fitted on at least {known} of the {tracks} tracks" if known else "as you asked"
    how = [
        f"cross-validated in {options.folds} folds that share no group: {why}",
        "new heads on the bundle's encoders are fitted on the other folds, as edge-reclass fit does",
        "temperatures, range limits and thresholds are chosen for each fold on what is said of the others",
        f"a step that fewer than {ENOUGH} of those come to keeps at least the bundle's own threshold",
    ]
    if fit_facts(one.bundle).get("copies"):
        how.append("it was fitted on changed copies of its tracks as well, the new heads are not")
    if set(_kinds(one.bundle).values()) - {KINDS[0]}:
        how.append(
            "the kinds of heads are the bundle's: where its fit chose them on these tracks, that is no fresh test"
        )
    if one.remembered and set(genres) - {example.genre for example in one.remembered}:
        how.append("how much genres that the bundle remembers no track of are held back is chosen on all tracks")
    total = len(one.bundle.manifest.genres)
    if len(genres) < total:
        how.append(
            f"only the {len(genres)} of its {total} genres that the data have can be said: too easy by that much"
        )
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
        if one.folds is not None:
            found.append(f"warning: the figures of {one.name} are of new heads, and not of those in the bundle")
        elif one.known:
            found.append(f"warning: {one.name} is judged on tracks that it was fitted on: the figures are too high")
    if len({one.folds is None for one in answered}) > 1:
        found.append("warning: some bundles are cross-validated and others are judged as they are: heads that were"
                     " fitted on music like these tracks have an advantage")  # fmt: skip
    recipes = [_recipe(one.bundle) for one in answered if one.folds is not None]
    if len(recipes) > 1 and all(one == recipes[0] for one in recipes):
        found.append("warning: the cross-validated bundles hear alike and have the same kinds of heads, so that their"
                     " new heads are the same where they know the same genres: this compares policies and genres, not"
                     " heads")  # fmt: skip
    for one in answered:
        if one.folds is None and (unknown := unknown_sounds(one.bundle)):
            found.append(f"warning: {one.name} was fitted on {unknown} tracks without their audio: whether they are"
                         " among these can be seen by their likeness alone")  # fmt: skip
    first = answered[0]
    groups = len({example.group for example in first.examples})
    if groups < FEW_GROUPS:
        found.append(f"warning: all tracks are of {groups} groups: with fewer than {FEW_GROUPS}, intervals that draw"
                     " groups are too narrow to be believed")  # fmt: skip
    few = [
        names for number, names in enumerate(first.bundle.manifest.genres) if 0 < (first.labels == number).sum() < FEW
    ]
    if few:
        found.append(f"warning: fewer than {FEW} tracks of {', '.join(map(printable, few))}: look at the intervals")
    if len(set(first.labels.tolist())) > 1:
        rules = without_listening(first.examples, first.labels, first.dealt, len(first.bundle.manifest.genres))
        found += source_warnings(first.examples, rules, float(first.right.mean()))
    return found


def _recipe(bundle: Bundle) -> object:
    """All that new heads depend on, beside the genres: what is heard, by what, and the kinds of heads."""
    manifest, kinds = bundle.manifest, _kinds(bundle)
    stages = {
        stage.name: (stage.encoder, stage.excerpt or manifest.excerpt, stage.loudness, kinds.get(stage.name, KINDS[0]))
        for stage in manifest.stages
    }
    return stages, listening(bundle).givens
