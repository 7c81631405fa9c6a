"""``build``: how long this device takes to make its engines, in a folder of their own that is thrown away."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_reclass.cascade import load_bundle
from edge_reclass_bench.record import Absent, PolicyRecord, Run
from edge_reclass_bench.scenarios.context import Event, Key, Missing, Passed, Ran, Sample

if TYPE_CHECKING:
    from edge_reclass_bench.harness import Request

SUBJECT = "cascade"

Builder = Callable[[Sequence[str]], tuple[int, str, str]]
"""Runs ``edge-reclass build`` with these arguments; gives exit code, standard output and standard error."""


def build_process(arguments: Sequence[str]) -> tuple[int, str, str]:
    """``edge-reclass build`` with this Python."""
    command = [sys.executable, "-m", "edge_reclass", "build", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def measure_build(request: Request, policy: PolicyRecord, build: Builder = build_process) -> Iterator[Event]:
    """Build the engines of the policy's stages once, from nothing: no engine, no timing cache.

    ``total`` is the whole command; each stage's own time is what its build recorded, without verification. One build is
    one sample: it has no interval. Where it cannot be done, the record says why.
    """
    bundle = load_bundle(request.bundle)
    wanted = [name for name in policy.stages if bundle.manifest.stage(name).encoder.graph_files]
    if not wanted:
        yield Missing(Absent(what="build", reason="no stage of the policy has a graph to build"))
        return
    with tempfile.TemporaryDirectory(prefix="edge-reclass-bench-") as folder:
        arguments = [str(bundle.root), "--engines", str(Path(folder) / "engines"), "--format", "json"]
        for name in wanted:
            arguments += ["--stage", name]
        if request.build_sm is not None:
            arguments += ["--sm", request.build_sm]
        began = time.perf_counter()
        code, stdout, stderr = build(arguments)
        seconds = time.perf_counter() - began
    rows = _rows(stdout)
    if code or rows is None:
        last = (stderr.strip().splitlines() or ["it printed nothing"])[-1]
        yield Missing(Absent(what="build", reason=f"edge-reclass build, exit code {code}: {last}"))
        return
    samples, peaks = [Sample(Key("build", SUBJECT, "total", unit="s"), seconds)], []
    for row in rows:
        if row["action"] == "build" and row["build_seconds"] is not None:
            samples.append(Sample(Key("build", SUBJECT, "total", row["stage"], unit="s"), row["build_seconds"]))
            peaks += [row["build_peak_bytes"]] if row["build_peak_bytes"] else []
        else:
            yield Missing(Absent(what=f"build of {row['stage']}", reason=row["detail"] or row["action"]))
    yield Passed(SUBJECT, 0, seconds, samples)
    notes = [f"{row['stage']}: {row['precision']}, {'verified' if row['verified'] else 'not verified'}" for row in rows]
    run = Run(
        scenario="build",
        subject=SUBJECT,
        wall_seconds=seconds,
        warm_up=0,
        passes=1,
        count=len(rows),
        host_peak_bytes=max(peaks) if peaks else None,
        notes=notes,
    )
    yield Ran(run)


def _rows(text: str) -> list[dict[str, Any]] | None:
    try:
        rows = json.loads(text)
    except ValueError:
        return None
    return rows if isinstance(rows, list) and rows else None
