"""Why a sceptic should not trust a figure: warnings from the samples, and from what else the machine did.

The limits are conventions, chosen so that an idle machine with fixed clocks gives no warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edge_reclass_bench.record import Measure, Record, Run
from edge_reclass_bench.statistics import outliers, table

__all__ = ["instability"]

DRIFT = 0.05
"""Second half of the passes against the first."""
SCATTER = 0.15
"""Interquartile range of one track's times, relative to their median."""
OUTLIERS = 0.05
"""Share of samples beyond Tukey's outer fence."""
OTHER_CPU = 0.15
"""Processors' worth of other programs' work."""
CLOCK_CHANGE = 0.10
FEW_PASSES = 5
SMALL = 0.2
"""Milliseconds below which a part is timer noise, and no warning is worth its line."""
_WHOLE = frozenset({"track", "total", "throughput"})


def instability(record: Record) -> list[str]:
    """Warnings, the most general first; what many measures share is one line that names the worst."""
    return [
        *_few(record),
        *_of_runs(record.runs),
        *_of_measures(record.measures),
    ]


def _of_measures(measures: Sequence[Measure]) -> Iterator[str]:
    drifts: list[tuple[float, str, str]] = []
    scattered: list[tuple[float, str, str]] = []
    outlying: list[tuple[float, str, str]] = []
    for measure in measures:
        summary = measure.summary
        if (
            measure.part not in _WHOLE
            or measure.phase == "cold"
            or measure.scenario == "null"
            or (measure.unit == "ms" and summary.mean.value < SMALL)
        ):
            continue
        if summary.drift is not None and abs(summary.drift - 1) > DRIFT:
            drifts.append((abs(math.log(summary.drift)), measure.key, f"{summary.drift:.2f} times"))
        if summary.scatter is not None and summary.scatter > SCATTER:
            scattered.append((summary.scatter, measure.key, f"{summary.scatter:.0%}"))
        share = outliers(table(measure.samples, measure.tracks, measure.passes)[0])
        if share is not None and share > OUTLIERS:
            outlying.append((share, measure.key, f"{share:.0%}"))
    for found, meaning in (
        (
            drifts,
            "drift: the second half of the passes differs from the first; the machine changed while it was measured",
        ),
        (scattered, "unsteady: half of one track's samples spread over so much of their median"),
        (outlying, "outliers: so many samples lie beyond Q3 + 3 IQR of their track"),
    ):
        if found:
            _, key, value = max(found)
            yield f"{meaning}: {_counted(len(found), 'measure')}, the worst {key}, {value}"


def _of_runs(runs: Sequence[Run]) -> Iterator[str]:
    names = {id(run): f"{run.scenario}/{run.subject}" for run in runs}
    busy = [(run.other_cpu, names[id(run)]) for run in runs if run.other_cpu is not None and run.other_cpu > OTHER_CPU]
    if busy:
        worst, name = max(busy)
        yield (
            f"other programs used up to {worst:.2f} processors meanwhile ({_counted(len(busy), 'run')}, most {name}):"
            " wall times are too long, by how much is unknown; processor times are nearer to the truth"
        )
    for run in runs:
        if run.throttled:
            yield f"{names[id(run)]}: throttled: {', '.join(run.throttled)}"
    changed: dict[str, tuple[float, float]] = {}
    for run in runs:
        for clock, (low, high) in run.clocks_mhz.items():
            lowest, highest = changed.get(clock, (low, high))
            changed[clock] = (min(low, lowest), max(high, highest))
    for clock, (low, high) in changed.items():
        if high > 0 and (high - low) / high > CLOCK_CHANGE:
            yield f"the clock of {clock} went from {low:.0f} to {high:.0f} MHz; fix clocks before measuring"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _few(record: Record) -> Iterator[str]:
    passes = [run.passes for run in record.runs if run.scenario in {"stage", "single-stream"}]
    if passes and min(passes) < FEW_PASSES:
        yield (
            f"only {min(passes)} passes: intervals hardly see what changes from pass to pass; "
            "raise --min-seconds or --min-count"
        )
    failed = sum(track.status not in {"ok", None} for track in record.tracks)
    if failed:
        yield f"{failed} of {len(record.tracks)} tracks have no genre (silent, too short or failed) and are not timed"
    if record.subject.synthetic:
        yield "untrained weights: times mean something, answers, agreement and accuracy nothing"
    replayed = record.accounting.replay_agrees if record.accounting is not None else None
    if replayed is not None and replayed.count < replayed.total:
        yield (
            f"replayed answers differ from the measured cascade on {replayed.total - replayed.count} of "
            f"{replayed.total} tracks: orders are off by as much"
        )
