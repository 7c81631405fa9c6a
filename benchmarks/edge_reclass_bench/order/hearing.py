"""One record of what every stage of a bundle says of every track, and of what that takes: heard, or reused."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Cascade, Policy
from edge_reclass.errors import TrackError, UsageError
from edge_reclass.run import printable
from edge_reclass_bench.conduct import Reporter
from edge_reclass_bench.labels import from_csv, groups_from_csv, judgeable
from edge_reclass_bench.tracks import Tracks, content
from edge_reclass_learn import Answers, TrackAnswers
from edge_reclass_learn import answers as records
from edge_reclass_learn.hearing.recording import stage_facts, stage_heard

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
        stages = [stage_facts(cascade, name) for name in asked.stages]
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
            heard = {stage.name: stage_heard([a for a in said if a.stage == stage.name]) for stage in stages}
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
