"""One run of peers: clips, tasks, and the record that comes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import choose_policy, untrained
from edge_reclass.errors import UsageError
from edge_reclass_bench import environment
from edge_reclass_bench.peers.clips import Clip, decoded
from edge_reclass_bench.peers.contest import Task, hold
from edge_reclass_bench.peers.tasks import TASKS, encoder_tasks, features_task, file_task
from edge_reclass_bench.record import (
    FORMAT,
    KIND,
    Measure,
    Peer,
    PolicyRecord,
    Record,
    Settings,
    StepRecord,
    Subject,
    TrackEntry,
)
from edge_reclass_bench.tracks import Tracks

__all__ = ["measure_peers"]

_RATES = (44_100, 22_050)
_CLIP_SECONDS = 30.0


def measure_peers(
    bundle: Bundle,
    tracks: Tracks,
    settings: Settings,
    *,
    tasks: Sequence[str] = TASKS,
    rates: Sequence[int] = _RATES,
    encoders: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """Hold the contests of ``tasks`` (some of ``TASKS``) and give their record.

    ``settings.min_count`` passes over the tracks are measured, after ``settings.warm_up``; ``rates`` are those of the
    features, in Hz; ``encoders`` are the stages whose encoders are compared, by default all.

    Raises:
        UsageError: no track can be decoded, or the librosa that two of the tasks need is not installed.
        EdgeReclassError: a peer's answers are not ours.
    """
    before, load_before = environment.probe([bundle.root]), environment.load_average()
    clips = list(decoded(tracks.paths, _CLIP_SECONDS))
    if not clips:
        raise UsageError(f"none of the {len(tracks.paths)} tracks can be decoded; name others")
    measures: list[Measure] = []
    peers: list[Peer] = []

    def take(found: Task | Peer) -> None:
        if isinstance(found, Peer):
            say(f"{found.task}: {found.reason}")
            peers.append(found)
            return
        say(f"{found.name}: edge-reclass beside {', '.join(other.title for other in found.others)}")
        measured, compared = hold(found, settings)
        measures.extend(measured)
        peers.extend(compared)

    if "features" in tasks:
        for rate in rates:
            with ExitStack() as resources:
                take(features_task(clips, rate, resources))
    if "encoders" in tasks:
        for found in encoder_tasks(bundle, clips, settings.threads, encoders):
            take(found)
    if "files" in tasks:
        with ExitStack() as resources:
            take(file_task(bundle, clips, settings.threads, resources))
    return Record(
        kind=KIND,
        format=FORMAT,
        subject=_subject(bundle, tracks, environment.machine_line(before)),
        settings=settings,
        environment=environment.environment(before=before, load_before=load_before, notes=[], paths=[bundle.root]),
        tracks=_entries(tracks, clips),
        measures=measures,
        runs=[],
        peers=peers,
        warnings=_warnings(settings),
    )


def _subject(bundle: Bundle, tracks: Tracks, machine: str) -> Subject:
    policy = choose_policy(bundle)
    steps = [StepRecord(after=step.after, weights=dict(step.weights), accept=step.accept) for step in policy.steps]
    return Subject(
        bundle=bundle.name,
        bundle_sha256=bundle.digest,
        genres=list(bundle.manifest.genres),
        policy=PolicyRecord(name=policy.name, vote=policy.vote, steps=steps),
        device="cpu",
        data_sha256=tracks.sha256,
        data_digest_of=tracks.digest_of,
        scenarios=["peers"],
        machine=machine,
        synthetic=bool(untrained(bundle, policy)),
    )


def _entries(tracks: Tracks, clips: Sequence[Clip]) -> list[TrackEntry]:
    """The clips first, for the measures' track numbers point at them, then what could not be decoded."""
    names = dict(zip(tracks.paths, tracks.names, strict=True))
    used = [TrackEntry(name=names[clip.path], status="ok", seconds=len(clip.samples) / clip.rate) for clip in clips]
    known = {clip.path for clip in clips}
    return used + [TrackEntry(name=name, status="error") for path, name in names.items() if path not in known]


def _warnings(settings: Settings) -> list[str]:
    if settings.min_count < 6:
        return [f"{settings.min_count} passes: too few for an interval that tells much"]
    return []
