"""Runs measuring processes one after another until the figures are precise enough, and makes the record of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_reclass.errors import BundleError, DeviceError, EdgeReclassError, EngineError, UsageError
from edge_reclass_bench.collector import Collector
from edge_reclass_bench.journal import Header, Journal, assemble
from edge_reclass_bench.record import Measure, Record, Settings
from edge_reclass_bench.scenarios.context import Broke, Event, Lapped, Passed
from edge_reclass_bench.statistics import centres, error_of, tables

_ERRORS: dict[int, type[EdgeReclassError]] = {
    error.exit_code: error for error in (UsageError, BundleError, EngineError, DeviceError)
}


@dataclass(frozen=True)
class Reporter:
    """``say`` takes a line for people, ``progress`` one that may be written over; time comes from ``clock``."""

    say: Callable[[str], None] = lambda _: None
    progress: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic


def conduct(
    header: Header,
    events: Callable[[int, float], Iterator[Event]] | None,
    environment: Callable[[], dict[str, Any]],
    *,
    once: Callable[[], Iterator[Event]] | None = None,
    output: Path | None = None,
    check: Callable[[Collector], None] = lambda _: None,
    reporter: Reporter = Reporter(),
) -> Record:
    """Take the events of process after process, and give the record; a Ctrl-C gives what was measured by then.

    Args:
        header: what is known before the first pass, the settings among it.
        events: of process number n, which should measure for so many seconds; None: nothing is repeated.
        environment: called at the end.
        once: of what is done once, when all processes are through: it has a length of its own, and takes nothing of
            their time. The record has it as the first process's.
        output: where every event is kept at once, in a file with ``.partial`` behind its name.
        check: looks at what the first process found, and raises where it is not worth going on.
        reporter: how people are told.

    Raises:
        UsageError, BundleError, EngineError, DeviceError: what a process ended with, and where what was measured by
            then is kept; or the output cannot be written.
        KeyboardInterrupt: before anything was measured.
    """
    settings, collector = header.settings, Collector()
    began, complete, process = reporter.clock(), True, 0
    with Journal(output, header) as journal:

        def take(event: Event) -> None:
            if isinstance(event, Broke):
                raise _ERRORS.get(event.exit_code, EdgeReclassError)(event.message)
            journal.add(event, process)
            collector.add(event, process)

        try:
            while events is not None and _wanted(settings, collector, process, reporter.clock() - began):
                left = settings.max_seconds - (reporter.clock() - began)
                for event in events(process, max(1.0, left / max(1, settings.processes - process))):
                    take(event)
                    if isinstance(event, Passed):
                        reporter.progress(_progress(settings, event, process, reporter.clock() - began))
                if process == 0:
                    check(collector)
                process += 1
            process = 0
            for event in () if once is None else once():
                take(event)
                if text := _progress_once(event):
                    reporter.progress(text)
            if events is None:
                check(collector)
        except BaseException as error:
            if not collector.anything:
                journal.remove()
                raise
            if isinstance(error, EdgeReclassError) and journal.path is not None:
                kept = f"what was measured by then is kept: edge-reclass bench report {journal.path}"
                raise _ERRORS.get(error.exit_code, EdgeReclassError)(f"{error}; {kept}") from error
            if not isinstance(error, KeyboardInterrupt):
                raise
            complete = False
            reporter.say("interrupted: the record holds what was measured by then")
        finally:
            reporter.progress("")
        record = assemble(header, collector, environment(), complete=complete)
    if complete and events is not None:
        reporter.say(_precision(record))
    return record


def _wanted(settings: Settings, collector: Collector, process: int, elapsed: float) -> bool:
    """Whether another process is started."""
    if process == 0:
        return True
    if elapsed >= settings.max_seconds:
        return False
    errors = [error for measure in headlines(collector.measures) if (error := error_of_measure(measure)) is not None]
    return process < settings.processes or (bool(errors) and max(errors) > settings.precision)


def headlines(measures: Sequence[Measure]) -> Iterator[Measure]:
    """What the precision is asked of: the cascade's tracks, each stage's total, throughput, start-up, our own tasks."""
    for measure in measures:
        whole = measure.subject == "cascade" and measure.part in {"track", "throughput", "total"}
        stage = measure.scenario == "stage" and measure.part == "total"
        ours = measure.scenario == "peers" and measure.subject.startswith("edge-reclass")
        if measure.phase == "warm" and measure.scenario not in {"sweep", "build"} and (whole or stage or ours):
            yield measure


def error_of_measure(measure: Measure) -> float | None:
    """The measurement error of ``measure``, relative to its mean; None with fewer than five processes."""
    cells, _ = tables(measure.samples, measure.tracks, measure.passes, measure.processes)
    return error_of(centres(cells).mean(axis=1)) if cells and cells[0].size else None


def _progress(settings: Settings, event: Passed, process: int, elapsed: float) -> str:
    left = max(0.0, min(elapsed / (process + 0.5) * settings.processes, settings.max_seconds) - elapsed)
    return (
        f"process {process + 1} of {settings.processes}: {event.subject}, pass {event.number + 1}, "
        f"{event.seconds:.1f} s; {elapsed:.0f} s so far, about {left:.0f} s left"
    )


def _progress_once(event: Event) -> str | None:
    if isinstance(event, Passed):
        scenario = event.samples[0].key.scenario if event.samples else event.subject
        return f"once: {scenario}, {event.subject}, pass {event.number + 1}, {event.seconds:.1f} s"
    if isinstance(event, Lapped):
        series = event.series
        return f"once: {series.scenario}, {series.phase}, {series.ended - series.began:.0f} s"
    return None


def _precision(record: Record) -> str:
    errors = {m.key: error for m in headlines(record.measures) if (error := error_of_measure(m)) is not None}
    if not errors:
        return "measurement error unknown: it takes five processes or more; raise --processes or --max-seconds"
    wanted = record.settings.precision
    key, error = max(errors.items(), key=lambda item: item[1])
    met = "" if error <= wanted else f"; {wanted:.1%} was wanted: raise --max-seconds, or wait for a quiet machine"
    return f"measurement error of the headlines: at most ±{error:.1%} ({key}){met}"


def process_events(module: str, task: object, kind: Any = Event, seconds: float | None = None) -> Iterator[Any]:
    """Run ``python -m module`` with a task on its standard input; gives its events, of type ``kind``, as they come.

    After ``seconds`` the process is killed with everything that it has started.

    Raises:
        EdgeReclassError: it ended without saying why.
    """
    command = [sys.executable, "-m", module]
    apart = seconds is not None  # a group of its own, to be killed as one
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=apart) as child:
        assert child.stdin is not None and child.stdout is not None  # noqa: S101 - they are pipes
        guard = threading.Timer(seconds or 0.0, os.killpg, (child.pid, signal.SIGKILL))
        if apart:
            guard.start()
        broke = False
        try:
            with contextlib.suppress(BrokenPipeError), child.stdin:  # it has died: its exit code says more
                child.stdin.write(msgspec.json.encode(task))
            for line in child.stdout:
                event = msgspec.json.decode(line, type=kind)
                broke = broke or isinstance(event, Broke)
                yield event
        except BaseException:  # whoever takes the events has had enough
            child.terminate()
            raise
        finally:
            code = child.wait()
            guard.cancel()
        if code and not broke:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise EdgeReclassError(f"a measuring process ended with {how}; its errors are above")
