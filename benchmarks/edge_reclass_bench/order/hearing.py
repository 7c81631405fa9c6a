"""One record of what every stage of a bundle says of every track, and of what that takes: heard, or reused."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Cascade, Policy, Step, StepAnswer, choose_policy
from edge_reclass.errors import TrackError, UsageError
from edge_reclass.run import printable
from edge_reclass_bench.conduct import Reporter
from edge_reclass_bench.labels import from_csv, groups_from_csv, judgeable
from edge_reclass_bench.policies import NEVER, needs
from edge_reclass_bench.tracks import Tracks, content
from edge_reclass_learn import Answers, Heard, Said, StageFacts, TrackAnswers
from edge_reclass_learn import answers as records

_ALONE = 1  # one lane on one thread: what a track costs, not how many run at once


Known = list[tuple[str | None, str]]
"""Each track's label, and its group: tracks of one group are never on both sides."""


def known(bundle: Bundle, tracks: Tracks, table: Path | None, reporter: Reporter) -> Known:
    """What the CSV ``table`` says. Files of one content are one group, whatever it says of them."""
    labels: list[str | None] = [None] * len(tracks.paths)
    groups = list(labels)
    if table is not None:
        labels, unknown = judgeable(from_csv(table, tracks.paths), bundle.manifest.genres)
        groups = groups_from_csv(table, tracks.paths)
        if unknown:
            listed = ", ".join(f"{label} ({n})" for label, n in sorted(unknown.items()))
            reporter.say(f"warning: labels that the bundle does not know are not judged: {listed}")
    same: dict[str, str] = {}
    try:
        read = [content(path) for path in tracks.paths]
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read ({error.strerror}); take it out of the paths") from error
    named = (same.setdefault(c, f"group {g}" if g else c) for c, g in zip(read, groups, strict=True))
    return list(zip(labels, named, strict=True))


def asking(bundle: Bundle, counts: Iterable[int]) -> Policy:
    """A policy with a step after each of ``counts`` of windows that a stage has, for all stages of the bundle.

    Stages come in the manifest's order, each after those that its head needs.
    """
    needed, order = needs(bundle.manifest), list[str]()
    while len(order) < len(needed):
        order.append(next(name for name in needed if name not in order and set(needed[name]) <= set(order)))
    steps: list[Step] = []
    for name in order:
        early = [Step(name, {name: 1.0}, NEVER, count) for count in sorted(set(counts))]
        steps += [step for step in early if _fits(bundle, [*steps, step, Step(name, {name: 1.0})])]
        steps.append(Step(name, {name: 1.0}, NEVER))
    return Policy("order", "soft", (*steps[:-1], Step(order[-1], {order[-1]: 1.0})))


def _fits(bundle: Bundle, steps: Sequence[Step]) -> bool:
    try:
        choose_policy(bundle, Policy("order", "soft", tuple(steps)))
    except UsageError:  # the stage does not have so many windows
        return False
    return True


def hear(
    bundle: Bundle, tracks: Tracks, about: Known, asked: Policy, device: str, engines: Path | None, reporter: Reporter
) -> Answers:
    """Hear every track once, at every step of ``asked``, in one lane.

    Raises:
        UsageError: no stage hears anything in any of the tracks.
        UsageError, BundleError, EngineError, DeviceError: see ``Cascade.open``.
    """
    made: list[TrackAnswers] = []
    left_out: list[str] = []
    with Cascade.open(bundle, device, asked, threads=_ALONE, engines=engines) as cascade:
        # What another program takes from a processor is no cost of ours; what a GPU takes is no processor's time.
        clock = time.process_time if cascade.device == "cpu" else time.perf_counter
        stages = [_facts(cascade, name) for name in asked.stages]
        for i, path in enumerate(tracks.paths):
            name = printable(tracks.names[i])
            reporter.progress(f"{i + 1} of {len(tracks.paths)}: {name}")
            try:
                if not made:
                    cascade.step_answers(path)  # the first time is dearer
                decoding, said = cascade.step_answers(path, clock)
            except TrackError as error:
                left_out.append(f"{name} ({error.status})")
                continue
            if all(answer.probabilities is None for answer in said):
                left_out.append(f"{name} (silent)")
                continue
            heard = {stage.name: _heard([a for a in said if a.stage == stage.name]) for stage in stages}
            label, group = about[i]
            made.append(TrackAnswers(name=name, group=group, label=label, decode=decoding, stages=heard))
        reporter.progress("")
        device = cascade.device
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        reporter.say(f"warning: without an answer, and left out: {', '.join(left_out[:3])}{more}")
    if not made:
        raise UsageError(f"no stage hears anything in these {len(tracks.paths)} tracks; take others")
    return Answers(
        digest=bundle.digest,
        genres=bundle.manifest.genres,
        min_confidence=bundle.manifest.min_confidence,
        stages=stages,
        tracks=made,
        tracks_sha256=tracks.sha256,
        heard_with=device,
    )


def _facts(cascade: Cascade, name: str) -> StageFacts:
    stage = next(stage for stage in cascade.plan.stages if stage.name == name)
    return StageFacts(
        name=name,
        signal=f"{stage.signal.rate or 'native'}, {stage.signal.excerpt}",
        windows=list(cascade.plan.policy.windows(name)),
        needs=[other for other in stage.head_inputs if other != name],
        whole=stage.encoder.window_samples is None,
        says=None if stage.map is None else [cascade.plan.genres[genre] for genre in sorted(stage.map.says)],
    )


def _heard(said: Sequence[StepAnswer]) -> Heard:
    return Heard(
        of=said[0].windows.of,
        seconds=said[0].excerpt.seconds,
        resample=sum(answer.resample_milliseconds for answer in said),
        said=[
            Said(
                windows=answer.windows.heard,
                probabilities=None if answer.probabilities is None else list(answer.probabilities),
                outside=answer.outside,
                abstains=answer.abstains,
                cost=answer.milliseconds,
            )
            for answer in said
        ],
    )


def reuse(file: Path, bundle: Bundle, tracks: Tracks, about: Known, asked: Policy, device: str) -> Answers:
    """The record in ``file``, with what is now known of its tracks.

    Raises:
        UsageError: it is none, or of another bundle, other tracks, another device or fewer windows.
    """
    answers = records.load(file)
    have = {facts.name: facts.windows for facts in answers.stages}
    want = {name: list(asked.windows(name)) for name in asked.stages}
    if all(set(counts) <= set(have.get(name, [])) for name, counts in want.items()):
        have = want
    for what, expected, got in (
        ("bundle", bundle.digest[:12], answers.digest[:12]),
        ("tracks", tracks.sha256[:12], answers.tracks_sha256[:12]),
        ("device", answers.heard_with if device == "auto" else device, answers.heard_with),
        ("windows", want, have),
    ):
        if expected != got:
            raise UsageError(f"--answers {file}: of another {what}: expected {expected}, got {got}; name a new file")
    facts = dict(zip(map(printable, tracks.names), about, strict=True))
    again = [msgspec.structs.replace(t, label=facts[t.name][0], group=facts[t.name][1]) for t in answers.tracks]
    return records.narrowed(msgspec.structs.replace(answers, tracks=again), want)
