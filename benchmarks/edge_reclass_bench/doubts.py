"""Why a sceptic should not trust a figure: from the samples, and from what else the machine did.

The limits are conventions, chosen so that an idle machine with fixed clocks gives no warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edge_reclass_bench.books import Books
from edge_reclass_bench.statistics import FEW_PROCESSES

DRIFT = 0.05
"""Second half of the passes against the first."""
SCATTER = 0.15
"""Interquartile range of one track's times, relative to their median."""
OTHER_CPU = 0.15
"""Processors' worth of other programs' work."""
SMALL = 0.2
"""Milliseconds below which a part is timer noise, and no warning is worth its line."""
_WHOLE = frozenset({"track", "total", "throughput"})


def doubts(books: Books) -> list[str]:
    """Warnings, the most general first; what many measures share is one line that names the worst."""
    return [*_general(books), *_of_runs(books), *_of_measures(books), *books.record.warnings]


def doubts_of(tagged: Sequence[tuple[str, Books]]) -> list[str]:
    """What speaks against the figures of several records: each line once, behind the tags that it is of."""
    tags: dict[str, list[str]] = {}
    for tag, books in tagged:
        for line in doubts(books):
            tags.setdefault(line, []).append(tag)
    return [f"{', '.join(of)}: {line}" if of[0] else line for line, of in tags.items()]


def _general(books: Books) -> Iterator[str]:
    record = books.record
    if not record.complete:
        yield "incomplete: the run was broken off"
    processes = max((len(set(measure.processes)) for measure in record.measures), default=0)
    if processes < FEW_PROCESSES:
        yield (
            f"{processes} processes: no measurement error can be told, and no other record compared; "
            f"measure with --processes {FEW_PROCESSES} or more, and a --max-seconds that they fit into"
        )
    failed = sum(track.status not in {"ok", None} for track in record.tracks)
    if failed:
        yield f"{failed} of {len(record.tracks)} tracks have no genre (silent, too short or failed) and are not timed"
    if record.subject.synthetic:
        yield "untrained weights: times mean something, answers, agreement and accuracy nothing"
    machine = record.subject.machine
    if machine.clocks is None:
        yield "the processor's clocks cannot be read here: they may have changed while it was measured"
    elif " to " in machine.clocks:
        yield f"clocks are not locked ({machine.clocks}): docs/bench.md says how to lock them"


def _of_runs(books: Books) -> Iterator[str]:
    runs = books.record.runs
    busy = [(run.other_cpu, f"{run.scenario}/{run.subject}") for run in runs if (run.other_cpu or 0.0) > OTHER_CPU]
    if busy:
        worst, name = max((other or 0.0, name) for other, name in busy)
        yield (
            f"other programs used up to {worst:.2f} of {books.record.subject.machine.cores} processors meanwhile "
            f"({len(busy)} of {len(runs)} runs, most {name}): times are too long, processor times too"
        )
    for run in runs:
        if run.throttled:
            yield f"{run.scenario}/{run.subject}: throttled: {', '.join(run.throttled)}"


def _of_measures(books: Books) -> Iterator[str]:
    drifts: list[tuple[float, str, str]] = []
    scattered: list[tuple[float, str, str]] = []
    for measure in books.record.measures:
        summary = books.summaries[measure.key]
        if (
            measure.part not in _WHOLE
            or measure.phase == "cold"
            or (measure.unit == "ms" and summary.mean.value < SMALL)
        ):
            continue
        if summary.drift is not None and abs(summary.drift - 1) > DRIFT:
            drifts.append((abs(math.log(summary.drift)), measure.key, f"{summary.drift:.2f} times"))
        if summary.scatter is not None and summary.scatter > SCATTER:
            scattered.append((summary.scatter, measure.key, f"{summary.scatter:.0%}"))
    for found, meaning in (
        (drifts, "drift: the second half of the passes differs from the first"),
        (scattered, "unsteady: half of one track's samples spread over so much of their median"),
    ):
        if found:
            _, key, value = max(found)
            yield f"{meaning}: {len(found)} measure{'' if len(found) == 1 else 's'}, the worst {key}, {value}"
