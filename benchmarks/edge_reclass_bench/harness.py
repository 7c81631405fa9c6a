"""One ``bench run``: opens what is to be measured, runs the scenarios, and puts the record together."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from edge_reclass.cascade import Cascade, Options, Plan, Policy, choose_policy, load_bundle, untrained
from edge_reclass.errors import UsageError
from edge_reclass.host import usable_cpus
from edge_reclass.verdict import Verdict
from edge_reclass_bench import environment
from edge_reclass_bench.accounting import account
from edge_reclass_bench.instability import instability
from edge_reclass_bench.labels import judgeable
from edge_reclass_bench.opened import Opened
from edge_reclass_bench.orders import MOST_STAGES, study
from edge_reclass_bench.policies import ensemble, needs, single
from edge_reclass_bench.record import (
    FORMAT,
    KIND,
    PolicyRecord,
    Record,
    Settings,
    StageAnswers,
    StepRecord,
    Subject,
    TrackEntry,
)
from edge_reclass_bench.scenarios.build import measure_build
from edge_reclass_bench.scenarios.cold_start import measure_cold_start
from edge_reclass_bench.scenarios.context import Context, Outcome
from edge_reclass_bench.scenarios.latency import Latency, measure_latency
from edge_reclass_bench.scenarios.null import measure_null, null_policy, write_clip
from edge_reclass_bench.scenarios.offline import measure_offline, open_pool
from edge_reclass_bench.statistics import RESAMPLES, SEED
from edge_reclass_bench.tracks import Tracks
from edge_reclass_bench.watch import Sensors
from edge_reclass_doctor import machine

__all__ = ["Request", "null_outcome", "run"]

NULL_CLIPS = 10


@dataclass(frozen=True)
class Request:
    """What ``bench run`` was asked for.

    Attributes:
        scenarios: some of ``scenarios.SCENARIOS``.
        labels: one per track, or None.
        baselines: measure the full ensemble and every single stage beside the cascade in ``single-stream``.
        jobs: lanes of ``offline``; None: as many as the device can make use of.
        processes: of ``cold-start``.
        read_sensors: of the machine, while it is measured.
        build_sm: compute capability that ``build`` builds for where there is no GPU (TensorRT-RTX).
    """

    tracks: Tracks
    scenarios: Sequence[str]
    bundle: Path | None = None
    device: str = "cpu"
    policy: str | Policy | None = None
    labels: Sequence[str | None] = ()
    options: Options = field(default_factory=Options)
    min_seconds: float = 10.0
    min_count: int = 100
    warm_up: int = 1
    baselines: bool = True
    jobs: int | None = None
    processes: int = 7
    build_sm: str | None = None
    seed: int = SEED
    resamples: int = RESAMPLES
    read_sensors: bool = True
    command: Sequence[str] | None = None
    say: Callable[[str], None] = lambda _: None


def run(request: Request) -> Record:
    """Measure, and give the record.

    Raises:
        UsageError, BundleError, EngineError, DeviceError, MissingExtraError: see ``Cascade.open``.
        UsageError: no track has a genre.
    """
    bundle = load_bundle(request.bundle)
    policy = choose_policy(bundle, request.policy)
    before, load_before = environment.probe([bundle.root]), environment.load_average()
    threads = usable_cpus() if request.options.threads is None else request.options.threads
    settings = Settings(
        min_seconds=request.min_seconds,
        min_count=request.min_count,
        warm_up=request.warm_up,
        jobs=request.jobs or 0,
        threads=threads,
        batch=request.options.batch,
        seed=request.seed,
        resamples=request.resamples,
    )
    with ExitStack() as resources:
        sensors: Sensors | None = resources.enter_context(machine.sensors()) if request.read_sensors else None
        context = Context(
            bundle,
            policy,
            request.device,
            replace(request.options, timed=True),
            request.tracks.paths,
            settings,
            processes=request.processes,
            sensors=sensors,
            say=request.say,
        )
        latency, plan, device, notes = _latency(context, request)
        context = replace(context, device=device)  # what auto chose holds for all scenarios
        outcomes: list[Outcome] = [latency]
        if "offline" in request.scenarios:
            outcome, lanes = _offline(context, request.jobs)
            outcomes.append(outcome)
            settings = msgspec.structs.replace(settings, jobs=lanes)
        if "cold-start" in request.scenarios:
            outcomes.append(measure_cold_start(context, _first_ok(latency, request.tracks)))
        if "build" in request.scenarios:
            outcomes.append(measure_build(context, sm=request.build_sm))
        if "null" in request.scenarios:
            outcomes.append(null_outcome(context))
    labels, unknown = judgeable(request.labels or [None] * len(request.tracks.paths), bundle.manifest.genres)
    subject = Subject(
        bundle=bundle.name,
        bundle_sha256=bundle.digest,
        genres=list(bundle.manifest.genres),
        policy=PolicyRecord(
            name=policy.name,
            vote=policy.vote,
            steps=[StepRecord(after=s.after, weights=dict(s.weights), accept=s.accept) for s in policy.steps],
        ),
        device=device,
        data_sha256=request.tracks.sha256,
        data_digest_of=request.tracks.digest_of,
        scenarios=list(request.scenarios),
        machine=environment.machine_line(before),
        precisions={s.name: s.precision for s in plan.stages if s.precision is not None},
        engines=_engines(plan),
        synthetic=bool(untrained(bundle, policy)),
    )
    record = Record(
        kind=KIND,
        format=FORMAT,
        subject=subject,
        settings=settings,
        environment=environment.environment(
            before=before,
            load_before=load_before,
            notes=notes,
            command=request.command or sys.argv,
            paths=[bundle.root],
        ),
        tracks=_entries(request.tracks, labels, latency.verdicts.get("cascade")),
        measures=[measure for outcome in outcomes for measure in outcome.measures],
        runs=[each for outcome in outcomes for each in outcome.runs],
        answers=_answers(bundle.manifest.genres, plan, latency.verdicts, needs(bundle.manifest)),
        absent=[absent for outcome in outcomes for absent in outcome.absent],
    )
    if "cascade" in latency.verdicts:
        record = msgspec.structs.replace(record, accounting=account(record, latency.verdicts))
    if record.answers and len(policy.stages) <= MOST_STAGES and any(record.find("stage")):
        record = msgspec.structs.replace(record, orders=study(record))
    warnings = [
        *(warning for outcome in outcomes for warning in outcome.warnings),
        *(
            f"{count} tracks are labelled {label!r}, which this bundle does not know; they are not judged"
            for label, count in sorted(unknown.items())
        ),
        *instability(record),
    ]
    return msgspec.structs.replace(record, warnings=warnings)


def _latency(context: Context, request: Request) -> tuple[Latency, Plan, str, list[str]]:
    """Run ``stage`` and ``single-stream``, or, where neither is wanted, one pass for the verdicts."""
    policy, everything = context.policy, ensemble(context.policy)
    needed = needs(context.bundle.manifest)
    stream, stage = "single-stream" in request.scenarios, "stage" in request.scenarios
    subjects: dict[str, Policy] = {"cascade": policy} if stream or not stage else {}
    if stream and request.baselines and len(policy.stages) > 1:
        subjects["ensemble"] = everything
    if stage or (stream and request.baselines):
        subjects |= {f"single:{name}": single(name, needed[name]) for name in policy.stages}
    with Opened(context.bundle, context.device, everything, context.options) as opened:
        cascades: Mapping[str, Cascade] = {name: opened.cascade(each) for name, each in subjects.items()}
        if stream or stage:
            latency = measure_latency(context, cascades, request.scenarios)
        else:
            latency = Latency(verdicts={"cascade": [cascades["cascade"].classify(path) for path in context.paths]})
        if not any(v.status == "ok" for verdicts in latency.verdicts.values() for v in verdicts):
            raise UsageError(
                f"none of the {len(context.paths)} tracks has a genre "
                f"(the first: {_first_failure(latency)}); there is nothing to measure"
            )
        return latency, opened.plan, opened.device, list(opened.notes)


def _first_failure(latency: Latency) -> str:
    verdict = next(iter(latency.verdicts.values()))[0]
    return f"{verdict.path}: {verdict.status}" + (f", {verdict.error}" if verdict.error else "")


def _first_ok(latency: Latency, tracks: Tracks) -> Path:
    verdicts = next(iter(latency.verdicts.values()))
    return tracks.paths[next(i for i, verdict in enumerate(verdicts) if verdict.status == "ok")]


def _offline(context: Context, jobs: int | None) -> tuple[Outcome, int]:
    # Device clocks would synchronise after every run, which a pipeline does not do.
    context = replace(context, options=replace(context.options, timed=False))
    with open_pool(context, jobs) as pool:
        lanes = len(pool.cascades)
        outcome = measure_offline(context, pool, [f"{lanes} lanes"])
        for stage, batches in pool.batches.items():
            windows = sum(size * count for size, count in enumerate(batches))
            mean = windows / max(1, sum(batches))
            outcome.runs[0].notes.append(f"{stage}: {sum(batches)} batches of {mean:.1f} windows on average")
    return outcome, lanes


def null_outcome(context: Context, most_seconds: float = 1.0) -> Outcome:
    """The scenario ``null`` with clips of its own, for at most ``most_seconds`` where the settings want more."""
    policy = null_policy(context.bundle)
    encoder = context.bundle.manifest.stage(policy.steps[-1].after).encoder
    rate = encoder.rate if isinstance(encoder.rate, int) else 44_100
    settings = msgspec.structs.replace(context.settings, min_seconds=min(most_seconds, context.settings.min_seconds))
    with tempfile.TemporaryDirectory(prefix="edge-reclass-bench-") as folder:
        paths = [Path(folder) / f"noise{i}.wav" for i in range(NULL_CLIPS)]
        for i, path in enumerate(paths):
            write_clip(path, rate, i)
        return measure_null(replace(context, policy=policy, paths=paths, settings=settings))


def _engines(plan: Plan) -> dict[str, str]:
    """sha256 of the engines that were run: files that are none of the bundle's own."""
    from edge_reclass.bundle import file_entry

    return {stage.name: file_entry(stage.graph).sha256 for stage in plan.stages if isinstance(stage.graph, Path)}


def _entries(tracks: Tracks, labels: Sequence[str | None], verdicts: Sequence[Verdict] | None) -> list[TrackEntry]:
    if verdicts is None:
        return [TrackEntry(name=name, label=label) for name, label in zip(tracks.names, labels, strict=True)]
    return [
        TrackEntry(
            name=name,
            label=label,
            status=verdict.status,
            genre=verdict.genre,
            decided_by=verdict.decided_by,
            seconds=max((report.excerpt.seconds for report in verdict.stages), default=None),
        )
        for name, label, verdict in zip(tracks.names, labels, verdicts, strict=True)
    ]


def _answers(
    genres: Sequence[str],
    plan: Plan,
    verdicts: Mapping[str, Sequence[Verdict]],
    needed: Mapping[str, Sequence[str]],
) -> list[StageAnswers]:
    """Each stage's probabilities: the scores of the policy under which it decides alone."""
    found = []
    for stage in plan.stages:
        said = verdicts.get(f"single:{stage.name}")
        if said is None:
            continue
        rows: list[list[float] | None] = []
        for verdict in said:
            scores = {score.genre: score.score for score in verdict.top}
            rows.append([scores[genre] for genre in genres] if verdict.status == "ok" else None)
        excerpt, rate = stage.signal.excerpt, stage.signal.rate
        seconds = "all" if excerpt.seconds is None else f"{excerpt.seconds:g} s"
        signal = f"{seconds} from {excerpt.start} at {'native rate' if rate is None else f'{rate} Hz'}"
        found.append(StageAnswers(stage=stage.name, needs=list(needed[stage.name]), signal=signal, probabilities=rows))
    return found
