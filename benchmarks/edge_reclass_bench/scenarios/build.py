"""``build``: how long this device takes to make its engines, in a folder of their own that is thrown away."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_reclass_bench.record import Absent
from edge_reclass_bench.scenarios.context import Collector, Context, Key, Outcome

__all__ = ["Builder", "build_process", "measure_build"]

SUBJECT = "cascade"

Builder = Callable[[Sequence[str]], tuple[int, str, str]]
"""Runs ``edge-reclass build`` with these arguments; gives exit code, standard output and standard error."""


def build_process(arguments: Sequence[str]) -> tuple[int, str, str]:
    """``edge-reclass build`` with this Python."""
    command = [sys.executable, "-m", "edge_reclass", "build", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def measure_build(context: Context, build: Builder = build_process, sm: str | None = None) -> Outcome:
    """Build the engines of the policy's stages once, from nothing: no engine, no timing cache.

    ``total`` is the whole command; each stage's own time is what its build recorded, without verification. One build is
    one sample: it has no interval. Where it cannot be done, the record says why.
    """
    graphs = [s.name for s in context.bundle.manifest.stages if s.encoder.graph_files]
    wanted = [name for name in context.policy.stages if name in graphs]
    if not wanted:
        return Outcome(absent=[Absent(what="build", reason="no stage of the policy has a graph to build")])
    collector, watch = Collector(), context.watch()
    with tempfile.TemporaryDirectory(prefix="edge-reclass-bench-") as folder:
        arguments = [str(context.bundle.root), "--engines", str(Path(folder) / "engines"), "--format", "json"]
        for name in wanted:
            arguments += ["--stage", name]
        if sm is not None:
            arguments += ["--sm", sm]
        began = context.clock()
        with watch:
            code, stdout, stderr = build(arguments)
        seconds = context.clock() - began
    rows = _rows(stdout)
    if code or rows is None:
        last = (stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return Outcome(absent=[Absent(what="build", reason=f"edge-reclass build, exit code {code}: {last}")])
    collector.add(Key("build", SUBJECT, "total", unit="s"), seconds, 0)
    absent, peaks = [], []
    for row in rows:
        if row["action"] == "build" and row["build_seconds"] is not None:
            collector.add(Key("build", SUBJECT, "total", row["stage"], unit="s"), row["build_seconds"], 0)
            peaks += [row["build_peak_bytes"]] if row["build_peak_bytes"] else []
        else:
            absent.append(Absent(what=f"build of {row['stage']}", reason=row["detail"] or row["action"]))
    notes = [f"{row['stage']}: {row['precision']}, {'verified' if row['verified'] else 'not verified'}" for row in rows]
    run = watch.run(
        "build", SUBJECT, warm_up=0, passes=1, count=len(rows), notes=notes, host_peak=max(peaks) if peaks else None
    )
    context.say(f"build: {seconds:.1f} s")
    return Outcome(collector.measures(context.settings), [run], absent)


def _rows(text: str) -> list[dict[str, Any]] | None:
    try:
        rows = json.loads(text)
    except ValueError:
        return None
    return rows if isinstance(rows, list) and rows else None
