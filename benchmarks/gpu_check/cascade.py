"""Stage ``cascade``: tracks per minute of the whole cascade over made audio files, pipelined.

The heads have random weights, so which stage decides says nothing about music. Two policies bracket what a trained
bundle would do: every track through all stages, and thresholds chosen from the first run's confidences so that about
half of the tracks leave after each stage. What share really left stands beside every figure.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edge_reclass.bundle import load
from edge_reclass.cascade import DEFAULT_BATCH, Policy, Step
from edge_reclass.errors import EngineError
from edge_reclass.host import usable_cpus
from edge_reclass.run import CascadePool
from edge_reclass.verdict import Verdict
from gpu_check.exports import FMA
from gpu_check.journal import Journal, NotHere
from gpu_check.settings import Settings
from gpu_check.subjects import require
from gpu_check.tracks import library

__all__ = ["chains", "policy", "run", "thresholds"]

_GPU_BATCH = 24
"""Windows of one run: four tracks of 30 s of MERT."""

_LAST = "openjmla"
_PASSES = 20


def run(settings: Settings, journal: Journal) -> None:
    """See the module."""
    made = journal.do("library", lambda: _library(settings), expect=20.0)
    if not made or not settings.bundle.is_dir():
        return
    paths = [Path(path) for path in made["paths"]]
    paths = [paths[number % len(paths)] for number in range(settings.tracks)]
    present = [stage.name for stage in load(settings.bundle).manifest.stages]
    for device in ("cpu",) if settings.device == "cpu" else ("cuda", "tensorrt"):
        for chain in chains(present):
            arrow = " → ".join(chain)
            found = _series(settings, journal, f"{device}, {arrow}, all", device, policy(chain), paths)
            if found is None:
                continue
            accept = thresholds(chain, found["confidences"])
            _series(settings, journal, f"{device}, {arrow}, early exit", device, policy(chain, accept), paths)


def _library(settings: Settings) -> dict[str, Any]:
    count, seconds = (3, 4.0) if settings.tiny else (24, 40.0)
    workers = 1 if settings.tiny else usable_cpus()
    paths = library(settings.state / "audio", min(count, settings.tracks), seconds, workers)
    return {"paths": [str(path) for path in paths], "seconds_each": seconds}


def chains(present: Sequence[str]) -> list[tuple[str, ...]]:
    """The cascades that the bundle's stages make: the features, one MERT, OpenJMLA; as far as they are there."""
    merts = [name for name in present if name.startswith("mert-")]
    first, last = (tuple(name for name in wanted if name in present) for wanted in ((FMA,), (_LAST,)))
    return [(*first, mert, *last) for mert in merts] or [(*first, *last)]


def policy(chain: Sequence[str], accept: Sequence[float] = ()) -> Policy:
    """Each stage alone decides; it stops above its threshold, without thresholds never before the last."""
    limits: list[float | None] = [*(accept or [1.0] * (len(chain) - 1)), None]
    steps = tuple(Step(name, {name: 1.0}, limit) for name, limit in zip(chain, limits, strict=True))
    return Policy("early-exit" if accept else "all-stages", "soft", steps)


def thresholds(chain: Sequence[str], confidences: dict[str, list[float]]) -> list[float]:
    """The median confidence of every stage but the last."""
    return [statistics.median(confidences[name]) for name in chain[:-1]]


def _series(
    settings: Settings, journal: Journal, name: str, device: str, wanted: Policy, paths: list[Path]
) -> dict[str, Any] | None:
    """One measurement per number of lanes; gives the first that there is."""
    first = None
    for jobs in settings.jobs:
        item = f"{name}, {jobs} lanes"
        expect = 2.0 if settings.tiny else 45.0
        found = journal.do(item, partial(_measure, settings, device, wanted, jobs, paths), expect=expect)
        if found:
            shares = ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in found["decided_by"].items())
            print(f"  {item}: {found['tracks_per_minute']:.0f} tracks/min; decided by {shares}")
            first = first or found
    return first


def _measure(settings: Settings, device: str, wanted: Policy, jobs: int, paths: list[Path]) -> dict[str, Any]:
    require(device)
    try:
        pool = CascadePool.open(
            jobs,
            settings.bundle,
            device,
            wanted,
            allow_random=True,
            engines=settings.state / "engines",
            batch=DEFAULT_BATCH if device == "cpu" else _GPU_BATCH,
        )
    except EngineError as error:
        if device == "tensorrt":  # no engine could be built here, which the stage build says
            raise NotHere(str(error)) from error
        raise
    with pool:
        list(pool.classify_many(paths[: 2 * jobs]))
        verdicts: list[Verdict] = []
        began = time.perf_counter()
        for _ in range(_PASSES):
            verdicts += pool.classify_many(paths)
            seconds = time.perf_counter() - began
            if seconds >= settings.seconds:
                break
        notes, batches = list(pool.notes), {name: list(counts) for name, counts in pool.batches.items()}
    found = summarised(verdicts, wanted.stages)
    bad = [verdict for verdict in verdicts if verdict.failed]
    return found | {
        "tracks_per_minute": 60.0 * len(verdicts) / seconds,
        "tracks": len(verdicts),
        "seconds": seconds,
        "lanes": jobs,
        "accept": [step.accept for step in wanted.steps],
        "notes": notes,
        "shared_batches": batches,
        "faults": [f"{len(bad)} tracks failed: {bad[0].path}: {bad[0].error}"] if bad else [],
    }


def summarised(verdicts: Sequence[Verdict], stages: Sequence[str]) -> dict[str, Any]:
    """Shares, statuses, medians of the stages' and their parts' milliseconds, and the stages' confidences."""
    decided = Counter(verdict.decided_by for verdict in verdicts if verdict.decided_by is not None)
    stage_ms: dict[str, list[float]] = {name: [] for name in stages}
    part_ms: dict[str, list[float]] = {}
    confidences: dict[str, list[float]] = {name: [] for name in stages}
    for verdict in verdicts:
        for report in verdict.stages:
            stage_ms[report.name].append(report.milliseconds)
            if report.confidence is not None:
                confidences[report.name].append(report.confidence)
            for part in report.parts:
                part_ms.setdefault(f"{report.name}, {part.name} ({part.clock})", []).append(part.milliseconds)
    decode = [verdict.decode_milliseconds for verdict in verdicts if verdict.decode_milliseconds is not None]
    return {
        "decided_by": {name: decided[name] / len(verdicts) for name in stages},
        "statuses": dict(Counter(verdict.status for verdict in verdicts)),
        "decode_ms": statistics.median(decode) if decode else None,
        "stage_ms": {name: statistics.median(values) for name, values in stage_ms.items() if values},
        "part_ms": {name: statistics.median(values) for name, values in part_ms.items()},
        "confidences": {name: [round(value, 6) for value in values] for name, values in confidences.items() if values},
    }
