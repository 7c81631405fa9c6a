"""One process of a ``bench run``: opens the bundle, measures, and writes events as lines of JSON to standard output.

Started by ``harness.py`` with a :class:`Task` on standard input. Every process opens everything anew: what differs
between processes of one program is the error of the measurement.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct, field

from edge_reclass.cascade import Cascade, Options, Plan, Policy, Step, load_bundle
from edge_reclass.errors import EdgeReclassError
from edge_reclass_bench.policies import ensemble, needs, single
from edge_reclass_bench.record import PolicyRecord
from edge_reclass_bench.scenarios.agreement import measure_agreement
from edge_reclass_bench.scenarios.ceilings import measure_ceilings
from edge_reclass_bench.scenarios.context import Broke, Context, Event, Limits
from edge_reclass_bench.scenarios.context import Opened as OpenedEvent
from edge_reclass_bench.scenarios.energy import measure_energy
from edge_reclass_bench.scenarios.latency import measure_latency
from edge_reclass_bench.scenarios.offline import measure_offline, open_pool

if TYPE_CHECKING:
    from edge_reclass_bench.opened import Opened


T = TypeVar("T")


class Task(Struct, frozen=True, kw_only=True):
    """What one process is to measure."""

    bundle: str
    device: str
    policy: PolicyRecord
    paths: list[str]
    scenarios: list[str]
    limits: Limits
    seed: int
    baselines: bool = True
    threads: int | None = None
    batch: int = 16
    engines: str | None = None
    allow_random: bool = False
    jobs: int | None = None
    batches: list[int] = field(default_factory=list)
    jobs_swept: list[int] = field(default_factory=list)
    energy_seconds: float = 60.0
    sustained_seconds: float = 600.0


def policy_of(record: PolicyRecord) -> Policy:
    """The policy that a record keeps."""
    return Policy(record.name, record.vote, tuple(Step(s.after, s.weights, s.accept, s.windows) for s in record.steps))


def measure(task: Task) -> Iterator[Event]:
    """Measure in this process.

    Raises:
        UsageError, BundleError, EngineError, DeviceError: see ``Cascade.open``.
    """
    from edge_reclass_bench.opened import Opened
    from edge_reclass_doctor import machine

    bundle, policy = load_bundle(task.bundle), policy_of(task.policy)
    # Every audible track gets a genre, so that answers of different policies can be compared.
    options = Options(
        threads=task.threads,
        batch=task.batch,
        allow_random=task.allow_random,
        engines=None if task.engines is None else Path(task.engines),
        timed=True,
        min_confidence=0.0,
    )
    with machine.sensors() as sensors:
        context = Context(
            bundle,
            policy,
            task.device,
            options,
            [Path(path) for path in task.paths],
            task.limits,
            task.seed,
            sensors,
        )
        with Opened(bundle, task.device, ensemble(policy), options) as opened:
            yield OpenedEvent(
                opened.device,
                list(opened.notes),
                {s.name: s.precision for s in opened.plan.stages if s.precision is not None},
                _engines(opened.plan),
                {s.name: _signal(s.signal.excerpt, s.signal.rate) for s in opened.plan.stages},
            )
            context = replace(context, device=opened.device)  # what auto chose holds for all scenarios
            yield from measure_latency(context, _subjects(task, policy, needs(bundle.manifest), opened), task.scenarios)
            for scenario, seconds in (("energy", task.energy_seconds), ("sustained", task.sustained_seconds)):
                if scenario in task.scenarios:
                    yield from measure_energy(context, opened.cascade(policy), scenario=scenario, seconds=seconds)
        if "agreement" in task.scenarios:
            yield from measure_agreement(context)
        if "ceilings" in task.scenarios:
            yield from measure_ceilings(context)
        yield from _pools(context, task)


def _subjects(task: Task, policy: Policy, needed: Mapping[str, tuple[str, ...]], opened: Opened) -> dict[str, Cascade]:
    stream, stage = "single-stream" in task.scenarios, "stage" in task.scenarios
    wanted: dict[str, Policy] = {"cascade": policy}
    if stream and task.baselines and len(policy.stages) > 1:
        wanted["ensemble"] = ensemble(policy)
    if stage or (stream and task.baselines):
        wanted |= {f"single:{name}": single(name, needed[name]) for name in policy.stages}
    return {name: opened.cascade(each) for name, each in wanted.items()}


def _pools(context: Context, task: Task) -> Iterator[Event]:
    """The scenarios that open pools of their own."""
    # Device clocks would synchronise after every run, which a pipeline does not do.
    context = replace(context, options=replace(context.options, timed=False))
    if "offline" in task.scenarios:
        with open_pool(context, task.jobs) as pool:
            lanes = len(pool.cascades)
            yield from measure_offline(context, pool, lanes=lanes, notes=[f"{lanes} lanes"])
    if "sweep" not in task.scenarios:
        return
    for batch in task.batches:
        with open_pool(replace(context, options=replace(context.options, batch=batch)), task.jobs) as pool:
            lanes = len(pool.cascades)
            yield from measure_offline(context, pool, lanes=lanes, scenario="sweep", subject=f"batch={batch}")
    for jobs in task.jobs_swept:
        with open_pool(context, jobs) as pool:
            yield from measure_offline(context, pool, lanes=jobs, scenario="sweep", subject=f"jobs={jobs}")


def _engines(plan: Plan) -> dict[str, str]:
    """sha256 of the engines that were run: files that are none of the bundle's own."""
    from edge_reclass.bundle import file_entry

    return {stage.name: file_entry(stage.graph).sha256 for stage in plan.stages if isinstance(stage.graph, Path)}


def _signal(excerpt: object, rate: int | None) -> str:
    seconds, start = getattr(excerpt, "seconds", None), getattr(excerpt, "start", None)
    what = "all" if seconds is None else f"{seconds:g} s"
    return f"{what} from {start} at {'native rate' if rate is None else f'{rate} Hz'}"


def serve(kind: type[T], work: Callable[[T], Iterator[Struct]]) -> None:
    """Read a task of ``kind`` from standard input, and write the events of ``work`` to standard output.

    The exit code is that of the error that ended it, which is the last event; 130 for Ctrl-C, of which whoever reads
    the events knows already.
    """
    # What a library prints must not get among the events.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(event: Struct) -> None:
        out.write(msgspec.json.encode(event) + b"\n")
        out.flush()

    try:
        for event in work(msgspec.json.decode(sys.stdin.buffer.read(), type=kind)):
            send(event)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        broke = _broke(error)
        with contextlib.suppress(OSError):  # nobody listens any more
            send(broke)
        sys.exit(broke.exit_code)


def _broke(error: Exception) -> Broke:
    if isinstance(error, EdgeReclassError):
        return Broke(str(error), error.exit_code)
    what = "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
    return Broke(f"{what}: {error}", 1)


if __name__ == "__main__":
    serve(Task, measure)
