"""Two records: is B slower, faster, or is there no difference?

**Paired by track.** The ratio of a measure is the median over the tracks of (median over passes in B / the same in A);
see ``statistics.ratio``. On a shared machine disturbances come in bursts: the median over passes takes out those that
hit a minority of a track's samples, pairing takes out that tracks differ, and the interval draws passes as blocks,
since one disturbed pass is one event however many tracks it has.

**Guards against finding what is not there.** The interval is of 99 %, as a record has dozens of measures. A
difference counts only beyond a floor: 2 %, or what either record differs from *itself* between its first and second
half, if that is more; a machine that drifts by 6 % within one record cannot show 4 % between two. And where the
medians differ but each track's fastest samples do not, something disturbed one of the runs (other programs only ever
add time): that is ``unclear``, not ``slower``. So is a difference in wall time on the CPU that processor time does not
share while other programs were busy.

**What counts as a regression**: a headline measure (whole tracks, whole stages, throughput, start-up) that is slower,
by the threshold or more. Parts are listed to explain it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_reclass_bench.instability import OTHER_CPU
from edge_reclass_bench.record import Estimate, Measure, Record, Run, Subject
from edge_reclass_bench.statistics import RESAMPLES, Floats, drift, ratio, table

__all__ = ["FLOOR", "LEVEL", "THRESHOLD", "Comparison", "Result", "compare", "mismatches"]

LEVEL = 0.99
FLOOR = 0.02
THRESHOLD = 0.05
_HEADLINES = frozenset({"track", "total", "throughput"})
"""And on the CPU ``cpu``."""
_QUIET = 0.05
"""Milliseconds: shorter parts are timer noise and are not compared."""

Result = Literal["no difference", "faster", "slower", "unclear"]


@dataclass(frozen=True)
class Comparison:
    """One measure in both records.

    ``slowdown`` is B's time / A's (for throughput A's / B's): above 1 is slower, whatever the unit. ``floor`` is the
    smallest difference that these records could show. ``a`` and ``b`` are the means in the measure's unit.
    """

    key: str
    unit: str
    a: float
    b: float
    slowdown: Estimate
    fastest: float
    floor: float
    result: Result
    headline: bool
    note: str = ""

    def regression(self, threshold: float) -> bool:
        """Whether this ends ``bench compare`` with exit code 1."""
        return self.headline and self.result == "slower" and self.slowdown.value >= 1 + threshold

    def excludes(self, threshold: float) -> bool:
        """Whether "no difference" rules a slowdown by the threshold out; else the records are too unsteady to tell."""
        high = self.slowdown.high
        return self.result == "no difference" and self.floor <= threshold and high is not None and high < 1 + threshold

    @property
    def verdict(self) -> str:
        """In words: ``slower by 21 %``."""
        if self.result == "slower":
            return f"slower by {self.slowdown.value - 1:.1%}"
        if self.result == "faster":
            return f"faster by {1 - self.slowdown.value:.1%}"
        return self.result


def mismatches(a: Record, b: Record) -> list[str]:
    """What must match and does not: one sentence each, A's value first."""
    found = []
    for name in Subject.__struct_fields__:
        left, right = getattr(a.subject, name), getattr(b.subject, name)
        if left != right:
            found.append(f"subject.{name}: {_short(left)} against {_short(right)}")
    for name in ("jobs", "threads", "batch"):
        left, right = getattr(a.settings, name), getattr(b.settings, name)
        if left != right:
            found.append(f"settings.{name}: {left} against {right}")
    left, right = a.environment.thread_variables, b.environment.thread_variables
    if left != right:
        found.append(f"environment.thread_variables: {left} against {right}")
    return found


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "…"


def compare(a: Record, b: Record, *, resamples: int = RESAMPLES) -> Iterator[Comparison]:
    """Every warm measure that both records have, in A's order."""
    others = {measure.key: measure for measure in b.measures}
    support = _Support(a, b)
    names_a, names_b = [t.name for t in a.tracks], [t.name for t in b.tracks]
    for measure in a.measures:
        other = others.get(measure.key)
        if other is None or measure.phase == "cold" or measure.scenario in {"null", "peers"} or measure.part == "other":
            continue
        if measure.unit == "ms" and max(measure.summary.mean.value, other.summary.mean.value) < _QUIET:
            continue
        pair = _paired(measure, names_a, other, names_b)
        if pair is not None:
            yield _compare(measure, other, *pair, support, resamples)


def _paired(a: Measure, names_a: list[str], b: Measure, names_b: list[str]) -> tuple[Floats, Floats] | None:
    """Tables [tracks, passes] of the tracks that both have; None where there are none."""
    cells_a, tracks_a = table(a.samples, a.tracks, a.passes)
    cells_b, tracks_b = table(b.samples, b.tracks, b.passes)
    if not a.tracks and not b.tracks:
        return cells_a, cells_b
    rows_b = {names_b[track]: row for row, track in enumerate(tracks_b)}
    rows = [(row, rows_b[names_a[track]]) for row, track in enumerate(tracks_a) if names_a[track] in rows_b]
    if not rows:
        return None
    return cells_a[[i for i, _ in rows]], cells_b[[j for _, j in rows]]


class _Support:
    """What else speaks for or against a difference: processor time, and other programs' work during either run."""

    def __init__(self, a: Record, b: Record) -> None:
        self.on_cpu = a.subject.device == b.subject.device == "cpu"
        self._runs = [{(run.scenario, run.subject): run for run in record.runs} for record in (a, b)]

    def _run(self, measure: Measure, side: int) -> Run | None:
        runs = self._runs[side]
        # A single stage's run serves both scenarios and is entered under one of them.
        return next((runs[s, measure.subject] for s in _ALIKE[measure.scenario] if (s, measure.subject) in runs), None)

    def disturbed(self, measure: Measure) -> float:
        """Processors that other programs used, the larger of both runs; 0 where unknown."""
        runs = [run for side in (0, 1) if (run := self._run(measure, side)) is not None]
        return max((run.other_cpu or 0.0 for run in runs), default=0.0)

    def explained(self, measure: Measure, slowdown: float) -> tuple[bool, float] | None:
        """Whether the subject's processor time per track changed by at least half of what this measure says, and B / A.

        None where processor time says nothing (other devices) or is unknown. In milliseconds, not shares: a stage is a
        part of its subject, and a stage that half of the tracks enter counts for half.
        """
        runs = [run for side in (0, 1) if (run := self._run(measure, side)) is not None]
        if not self.on_cpu or len(runs) < 2 or measure.unit == "s":
            return None
        before, after = (1e3 * (run.cpu_seconds or 0.0) / run.count if run.count else 0.0 for run in runs)
        if not before or not after:
            return None
        mean = measure.summary.mean.value
        wall = 60_000 / mean if measure.unit == "tracks/min" else mean * min(1.0, measure.summary.n / runs[0].count)
        return (after - before) / (wall * (slowdown - 1)) >= 0.5, after / before


_ALIKE: Mapping[str, tuple[str, ...]] = defaultdict(
    tuple,
    {
        "stage": ("stage", "single-stream"),
        "single-stream": ("single-stream", "stage"),
        "offline": ("offline",),
        "cold-start": ("cold-start",),
        "build": ("build",),
    },
)


def _compare(a: Measure, b: Measure, cells_a: Floats, cells_b: Floats, support: _Support, resamples: int) -> Comparison:
    if a.better == "higher":  # as time per track, so that above 1 is slower everywhere
        cells_a, cells_b = 1 / cells_a, 1 / cells_b
    slowdown = ratio(cells_a, cells_b, level=LEVEL, resamples=resamples)
    fastest = float(np.median(_fast(cells_b) / _fast(cells_a)))
    drifts = [abs(own - 1) for cells in (cells_a, cells_b) if (own := drift(cells)) is not None]
    floor = max([FLOOR, *drifts])
    result, note = _judge(slowdown, fastest, floor)
    others = support.disturbed(a)
    if result in {"slower", "faster"} and a.part != "cpu" and others > OTHER_CPU:
        explained = support.explained(a, slowdown.value)
        note = f"other programs used {others:.1f} processors meanwhile"
        if explained is not None and not explained[0]:
            result = "unclear"
            note += f", and processor time per track differs by {explained[1] - 1:+.1%} only"
    return Comparison(
        key=a.key,
        unit=a.unit,
        a=a.summary.mean.value,
        b=b.summary.mean.value,
        slowdown=slowdown,
        fastest=fastest,
        floor=floor,
        result=result,
        headline=a.clock == "host" and (a.part in _HEADLINES or (a.part == "cpu" and support.on_cpu)),
        note=note,
    )


def _fast(cells: Floats) -> Floats:
    """Each track's tenth percentile; not the minimum, which falls with the number of passes."""
    fast: Floats = np.percentile(cells, 10, axis=1)
    return fast


def _judge(slowdown: Estimate, fastest: float, floor: float) -> tuple[Result, str]:
    if slowdown.low is None or slowdown.high is None:
        if abs(slowdown.value - 1) <= floor:
            return "no difference", "too few samples for an interval"
        return "unclear", "too few samples for an interval"
    if slowdown.low <= 1 <= slowdown.high or abs(slowdown.value - 1) <= floor:
        return "no difference", ""
    result: Result = "slower" if slowdown.value > 1 else "faster"
    # Half of the difference has to show in the fastest samples too.
    if (fastest - 1) / (slowdown.value - 1) < 0.5:
        return "unclear", f"the fastest samples differ by {fastest - 1:+.1%} only: one of the runs was disturbed"
    return result, ""
