"""One ``bench run``: what is asked for, as the tasks of its processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Options, Policy, choose_policy, load_bundle, untrained
from edge_reclass.errors import UsageError
from edge_reclass.host import usable_cpus
from edge_reclass_bench import environment
from edge_reclass_bench.collector import Collector
from edge_reclass_bench.conduct import Reporter, conduct, process_events
from edge_reclass_bench.journal import Header
from edge_reclass_bench.labels import judgeable
from edge_reclass_bench.policies import needs
from edge_reclass_bench.record import PolicyRecord, Record, Settings, StepRecord
from edge_reclass_bench.scenarios import ONCE
from edge_reclass_bench.scenarios.build import measure_build
from edge_reclass_bench.scenarios.cold_start import measure_cold_start
from edge_reclass_bench.scenarios.context import Event, Limits
from edge_reclass_bench.statistics import SEED
from edge_reclass_bench.tracks import Tracks
from edge_reclass_bench.worker import Task

WORKER = "edge_reclass_bench.worker"

Starter = Callable[[Task], Iterator[Event]]
"""Runs a task in a process of its own; gives its events as they come."""


@dataclass(frozen=True)
class Request:
    """What ``bench run`` was asked for.

    Attributes:
        scenarios: some of ``scenarios.SCENARIOS``.
        labels: one per track, or None.
        processes, precision, max_seconds, min_passes, warm_up: see :class:`Settings`.
        baselines: measure the full ensemble and every single stage beside the cascade in ``single-stream``.
        jobs: lanes of ``offline``; None: as many as the device can make use of.
        batches, jobs_swept: what ``sweep`` measures.
        build_sm: compute capability that ``build`` builds for where there is no GPU (TensorRT-RTX).
    """

    tracks: Tracks
    scenarios: Sequence[str]
    bundle: Path | None = None
    device: str = "cpu"
    policy: str | Policy | None = None
    labels: Sequence[str | None] = ()
    options: Options = field(default_factory=Options)
    processes: int = 5
    precision: float = 0.02
    max_seconds: float = 600.0
    min_passes: int = 3
    warm_up: int = 1
    baselines: bool = True
    jobs: int | None = None
    batches: Sequence[int] = ()
    jobs_swept: Sequence[int] = ()
    energy_seconds: float = 60.0
    sustained_seconds: float = 600.0
    build_sm: str | None = None
    seed: int = SEED
    command: Sequence[str] | None = None
    output: Path | None = None


def run(request: Request, reporter: Reporter = Reporter(), start: Starter | None = None) -> Record:  # noqa: B008
    """Measure, and give the record; see :func:`conduct`.

    Raises:
        UsageError, BundleError, EngineError, DeviceError, MissingExtraError: see ``Cascade.open``.
        UsageError: no track has a genre, or the output cannot be written.
    """
    started = start or (lambda task: process_events(WORKER, task))
    bundle = load_bundle(request.bundle)
    policy = choose_policy(bundle, request.policy)
    before = environment.beginning([bundle.root])
    settings = Settings(
        processes=request.processes,
        precision=request.precision,
        max_seconds=request.max_seconds,
        min_passes=request.min_passes,
        warm_up=request.warm_up,
        jobs=request.jobs or 0,
        threads=usable_cpus() if request.options.threads is None else request.options.threads,
        batch=request.options.batch,
        seed=request.seed,
    )
    header = header_of(
        bundle, policy, request.tracks, settings, before, request.labels, request.device, request.command
    )
    repeated = set(request.scenarios) - ONCE
    return conduct(
        header,
        partial(_repeated, request, bundle, header.policy, started) if repeated else None,
        lambda: environment.environment(before, request.command),
        once=partial(_once, request, bundle, header.policy, started, alone=not repeated),
        output=request.output,
        check=lambda collector: _refuse_silence(collector, request.tracks.paths),
        reporter=reporter,
    )


def header_of(
    bundle: Bundle,
    policy: Policy,
    tracks: Tracks,
    settings: Settings,
    before: environment.Beginning,
    labels: Sequence[str | None] = (),
    device: str = "cpu",
    command: Sequence[str] | None = None,
) -> Header:
    """What is known of a run before its first pass."""
    judged, unknown = judgeable(labels or [None] * len(tracks.paths), bundle.manifest.genres)
    steps = [
        StepRecord(after=s.after, weights=dict(s.weights), accept=s.accept, windows=s.windows) for s in policy.steps
    ]
    return Header(
        bundle=bundle.name,
        bundle_sha256=bundle.digest,
        genres=list(bundle.manifest.genres),
        needs=needs(bundle.manifest),
        policy=PolicyRecord(name=policy.name, vote=policy.vote, steps=steps),
        device=device,
        machine=environment.identity(before.probe),
        data_sha256=tracks.sha256,
        data_digest_of=tracks.digest_of,
        synthetic=bool(untrained(bundle, policy)),
        names=list(tracks.names),
        labels=judged,
        settings=settings,
        environment=environment.environment(before, command),
        warnings=[
            f"{count} tracks are labelled {label!r}, which this bundle does not know; they are not judged"
            for label, count in sorted(unknown.items())
        ],
    )


def _repeated(
    request: Request, bundle: Bundle, policy: PolicyRecord, start: Starter, process: int, seconds: float
) -> Iterator[Event]:
    """What one process says of everything that every process measures."""
    if "cold-start" in request.scenarios:
        yield from measure_cold_start(request, policy, process)
    yield from start(
        _task(request, bundle, policy, [name for name in request.scenarios if name not in ONCE], process, seconds)
    )


def _once(request: Request, bundle: Bundle, policy: PolicyRecord, start: Starter, *, alone: bool) -> Iterator[Event]:
    """What is done once. Where it is ``alone``, a process asks for the verdicts in any case."""
    scenarios = [name for name in request.scenarios if name in ONCE]
    if alone or set(scenarios) - {"build"}:
        yield from start(_task(request, bundle, policy, scenarios, 0, request.max_seconds))
    if "build" in scenarios:
        yield from measure_build(request, policy)


def _task(
    request: Request, bundle: Bundle, policy: PolicyRecord, scenarios: list[str], process: int, seconds: float
) -> Task:
    options = request.options
    return Task(
        bundle=str(bundle.root),
        device=request.device,
        policy=policy,
        paths=[str(path) for path in request.tracks.paths],
        scenarios=scenarios,
        limits=Limits(request.warm_up, request.min_passes, most_seconds=seconds),
        seed=request.seed + process,
        baselines=request.baselines,
        threads=options.threads,
        batch=options.batch,
        engines=None if options.engines is None else str(options.engines),
        allow_random=options.allow_random,
        jobs=request.jobs,
        batches=list(request.batches),
        jobs_swept=list(request.jobs_swept),
        energy_seconds=request.energy_seconds,
        sustained_seconds=request.sustained_seconds,
    )


def _refuse_silence(collector: Collector, paths: Sequence[Path]) -> None:
    verdicts: list[dict[str, Any]] = [verdict for each in collector.verdicts.values() for verdict in each]
    if verdicts and not any(verdict["status"] == "ok" for verdict in verdicts):
        first = verdicts[0]
        why = first["status"] + (f", {first['error']}" if first["error"] else "")
        raise UsageError(
            f"none of the {len(paths)} tracks has a genre (the first: {first['path']}: {why}); nothing can be measured"
        )
