"""``cold-start``: from starting a process to its first verdict, several times over.

The parts are ``start`` (the interpreter, up to its first line of ours), ``import``, ``open`` (the hashes of the bundle,
the encoders) and ``first`` (the first track); ``total`` is their sum. The clock is CLOCK_MONOTONIC, which all processes
of a machine share. The pages of all files are in memory by then: emptying that cache takes root, so a record says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_reclass.errors import EdgeReclassError
from edge_reclass_bench.scenarios.context import Collector, Context, Key, Outcome

__all__ = ["Starter", "measure_cold_start", "start_process"]

SUBJECT = "cascade"
_PARTS = (("start", "spawned", "entered"), ("import", "entered", "imported"), ("open", "imported", "opened"))

Starter = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Starts a process for a task; gives what it printed, with ``spawned``, all moments in ns of one clock."""


def start_process(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``cold_child.py`` with this Python.

    Raises:
        EdgeReclassError: it failed; the message has its last line.
    """
    source = Path(__file__).with_name("cold_child.py").read_text(encoding="utf-8")
    spawned = time.monotonic_ns()
    done = subprocess.run([sys.executable, "-c", source, json.dumps(task)], check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise EdgeReclassError(f"cold-start: the process ended with exit code {done.returncode}: {last}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said | {"spawned": spawned}


def measure_cold_start(context: Context, track: Path, start: Starter = start_process) -> Outcome:
    """Start ``context.processes`` processes, after one that warms the page cache and is not counted."""
    options, policy = context.options, context.policy
    task = {
        "bundle": str(context.bundle.root),
        "device": context.device,
        "track": str(track),
        "policy": {
            "name": policy.name,
            "vote": policy.vote,
            "steps": [{"after": s.after, "weights": dict(s.weights), "accept": s.accept} for s in policy.steps],
        },
        "options": {
            "threads": options.threads,
            "max_rate": options.max_rate,
            "max_seconds": options.max_seconds,
            "batch": options.batch,
            "allow_random": options.allow_random,
            "engines": None if options.engines is None else str(options.engines),
            "min_confidence": options.min_confidence,
        },
    }
    start(task)
    collector, watch = Collector(), context.watch()
    peaks: list[int] = []
    statuses: set[str] = set()
    for number in range(context.processes):
        with watch:
            said = start(task)
        statuses.add(said["status"])
        if said["peak_bytes"] is not None:
            peaks.append(said["peak_bytes"])
        for part, begin, end in (*_PARTS, ("first", "opened", "answered"), ("total", "spawned", "answered")):
            collector.add(Key("cold-start", SUBJECT, part), (said[end] - said[begin]) / 1e6, number)
    context.say(f"cold-start: {context.processes} processes")
    run = watch.run(
        "cold-start",
        SUBJECT,
        warm_up=1,
        passes=context.processes,
        count=context.processes,
        notes=["page cache warm: the bundle and the track had been read before"],
        host_peak=max(peaks) if peaks else None,
    )
    warnings = [] if statuses == {"ok"} else [f"cold-start: the track's status was {', '.join(sorted(statuses))}"]
    return Outcome(collector.measures(context.settings), [run], warnings=warnings)
