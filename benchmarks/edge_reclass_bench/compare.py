"""Two records: is B slower, faster, or is there no difference?

**The unit is the process.** Each process of a run gives one value, paired by track; the interval is Welch's of the two
means, of 99 %, as a record has dozens of measures (``statistics.ratio``). Two records of one process each cannot be
compared: what differs between processes of one program would be taken for a difference between two.

**Guards against finding what is not there.** A difference counts only beyond a floor: 2 %, or what either record
differs from *itself* between the first and second half of its passes, if that is more. Other programs lengthen wall
time, but not without bound: what took ``o`` of ``n`` processors explains at most o/n of the wall time. A slowdown
within that bound which processor time does not share is ``unclear``; one beyond it is ``slower``.

**What counts as a regression**: a headline measure (whole tracks, whole stages, throughput, start-up) whose
slowdown is above the threshold with its whole interval. Where a headline is unclear, or its interval cannot rule out a
slowdown of :data:`RULE_OUT`, the comparison cannot tell, which is not the same as no regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from edge_reclass_bench.record import Measure, Record, Run
from edge_reclass_bench.scenarios import ONCE
from edge_reclass_bench.statistics import FEW_PROCESSES, Tables, centres, drift, ratio, tables
from edge_reclass_bench.values import Estimate

FLOOR = 0.02
THRESHOLD = 0.0
RULE_OUT = 0.05
OTHER_CPU = 0.15
"""Processors' worth of other programs' work from which they may have disturbed a run."""
_HEADLINES = frozenset({"track", "total", "throughput"})
"""And on the CPU ``cpu``; of what every process measures."""
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
    floor: float
    result: Result
    headline: bool
    note: str = ""

    def regression(self, threshold: float = THRESHOLD) -> bool:
        """Whether the slowdown is above ``threshold`` with its whole interval (exit code 1)."""
        low = self.slowdown.low
        return self.headline and self.result == "slower" and low is not None and low > 1 + threshold

    @property
    def cannot_tell(self) -> bool:
        """Whether a headline is unclear, or may hide a slowdown of :data:`RULE_OUT` (exit code 3)."""
        high = self.slowdown.high
        hidden = self.result == "no difference" and (high is None or max(high, 1 + self.floor) > 1 + RULE_OUT)
        return self.headline and (self.result == "unclear" or hidden)

    @property
    def verdict(self) -> str:
        """In words: ``slower by 21.0%``."""
        if self.result == "slower":
            return f"slower by {self.slowdown.value - 1:.1%}"
        if self.result == "faster":
            return f"faster by {1 - self.slowdown.value:.1%}"
        return self.result


def mismatches(a: Record, b: Record) -> list[str]:
    """What must match and does not: one line each, A's value first."""
    left: dict[str, Any] = {"subject": msgspec.to_builtins(a.subject)}
    right: dict[str, Any] = {"subject": msgspec.to_builtins(b.subject)}
    for name in ("jobs", "threads", "batch"):
        left[name], right[name] = getattr(a.settings, name), getattr(b.settings, name)
    left["environment"], right["environment"] = a.environment.thread_variables, b.environment.thread_variables
    return list(_differences(left, right))


def also_differs(a: Record, b: Record) -> list[str]:
    """What may differ, and may explain a difference: code, libraries, load. One line each, A's value first."""
    left, right = (
        {
            "code": record.environment.code_sha256[:12],
            "version": record.environment.version,
            "python": record.environment.python,
            "libraries": record.environment.libraries,
            "processes": record.settings.processes,
            "complete": record.complete,
            "load": None if record.environment.load_before is None else round(record.environment.load_before[0], 1),
        }
        for record in (a, b)
    )
    return list(_differences(left, right))


def _differences(left: Mapping[str, Any], right: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name in dict.fromkeys((*left, *right)):
        one, other = left.get(name), right.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{path}{name}.")
        elif one != other:
            yield f"{path}{name}: {_short(one)} against {_short(other)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "…"


def compare(a: Record, b: Record) -> Iterator[Comparison]:
    """Every warm measure that both records have, in A's order."""
    others = {measure.key: measure for measure in b.measures}
    support = _Support(a, b)
    names_a, names_b = [t.name for t in a.tracks], [t.name for t in b.tracks]
    for measure in a.measures:
        other = others.get(measure.key)
        if other is None or measure.phase == "cold" or measure.scenario == "peers" or measure.part == "other":
            continue
        pair = _paired(measure, names_a, other, names_b)
        if pair is not None and (measure.unit != "ms" or max(_mean(cells) for cells in pair) >= _QUIET):
            yield _compare(measure, *pair, support)


def _mean(cells: Tables) -> float:
    return float(centres(cells).mean())


def _paired(a: Measure, names_a: list[str], b: Measure, names_b: list[str]) -> tuple[Tables, Tables] | None:
    """Tables of the tracks that both have; None where there are none."""
    cells_a, tracks_a = tables(a.samples, a.tracks, a.passes, a.processes)
    cells_b, tracks_b = tables(b.samples, b.tracks, b.passes, b.processes)
    if not a.tracks and not b.tracks:
        return cells_a, cells_b
    rows_b = {names_b[track]: row for row, track in enumerate(tracks_b)}
    rows = [(row, rows_b[names_a[track]]) for row, track in enumerate(tracks_a) if names_a[track] in rows_b]
    if not rows:
        return None
    return [table[[i for i, _ in rows]] for table in cells_a], [table[[j for _, j in rows]] for table in cells_b]


class _Support:
    """What else speaks for or against a difference: processor time, and other programs' work during either run."""

    def __init__(self, a: Record, b: Record) -> None:
        self.on_cpu = a.subject.device == b.subject.device == "cpu"
        self._cores = a.subject.machine.cores
        self._runs = [{(run.scenario, run.subject): run for run in record.runs} for record in (a, b)]

    def _both(self, measure: Measure) -> list[Run]:
        # A single stage's run serves stage and single-stream, and is entered under one of them.
        scenarios = dict.fromkeys((measure.scenario, "stage", "single-stream"))
        found = (next((r for s in scenarios if (r := runs.get((s, measure.subject)))), None) for runs in self._runs)
        return [run for run in found if run is not None]

    def disturbed(self, measure: Measure) -> float:
        """Processors that other programs used, the larger of both runs; 0 where unknown."""
        return max((run.other_cpu or 0.0 for run in self._both(measure)), default=0.0)

    def most(self, others: float) -> float:
        """The largest slowdown that ``others`` processors of other programs can explain."""
        return 1 / (1 - min(others / self._cores, 0.95))

    def shared_by_cpu(self, measure: Measure, a: float, b: float) -> tuple[bool, float] | None:
        """Whether processor time per track changed by at least half of what this measure says, and B / A.

        None where processor time says nothing (other devices) or is unknown. In milliseconds, not shares: a stage is a
        part of its subject.
        """
        runs = self._both(measure)
        if not self.on_cpu or len(runs) < 2 or measure.unit not in {"ms", "tracks/min"}:
            return None
        cpu = [1e3 * (run.cpu_seconds or 0.0) / run.count if run.count else 0.0 for run in runs]
        if not all(cpu):
            return None
        wall = 60_000 / b - 60_000 / a if measure.unit == "tracks/min" else b - a
        return abs(cpu[1] - cpu[0]) >= 0.5 * abs(wall), cpu[1] / cpu[0]


def _compare(measure: Measure, cells_a: Tables, cells_b: Tables, support: _Support) -> Comparison:
    a, b = _mean(cells_a), _mean(cells_b)
    if measure.better == "higher":  # as time per track, so that above 1 is slower everywhere
        cells_a, cells_b = [1 / table for table in cells_a], [1 / table for table in cells_b]
    slowdown = ratio(cells_a, cells_b)
    floor = max([FLOOR, *_drifts(cells_a), *_drifts(cells_b)])
    result, note = _judge(slowdown, floor)
    others = support.disturbed(measure)
    if result in {"slower", "faster"} and measure.part != "cpu" and others > OTHER_CPU:
        note = f"other programs used {others:.1f} processors meanwhile"
        shared = support.shared_by_cpu(measure, a, b)
        if shared is not None and not shared[0]:
            note += f", processor time per track differs by {shared[1] - 1:+.1%}"
            size = max(slowdown.value, 1 / slowdown.value)
            if size <= support.most(others):
                result = "unclear"
            else:
                note += f": they explain at most {support.most(others) - 1:+.0%}"
    return Comparison(
        key=measure.key,
        unit=measure.unit,
        a=a,
        b=b,
        slowdown=slowdown,
        floor=floor,
        result=result,
        headline=measure.scenario not in ONCE
        and measure.clock == "host"
        and (measure.part in _HEADLINES or (measure.part == "cpu" and support.on_cpu)),
        note=note,
    )


def _drifts(cells: Tables) -> Iterator[float]:
    """How far a record differs from itself: the median over its processes of second half against first."""
    found = sorted(abs(own - 1) for table in cells if (own := drift(table)) is not None)
    if found:
        yield found[len(found) // 2]


def _judge(slowdown: Estimate, floor: float) -> tuple[Result, str]:
    if slowdown.low is None or slowdown.high is None:
        note = f"fewer than {FEW_PROCESSES} processes on one side: no interval"
        return ("no difference" if abs(slowdown.value - 1) <= floor else "unclear"), note
    if slowdown.low <= 1 <= slowdown.high or abs(slowdown.value - 1) <= floor:
        return "no difference", ""
    return ("slower" if slowdown.value > 1 else "faster"), ""


def worst(
    comparisons: Sequence[Comparison], threshold: float = THRESHOLD
) -> Literal["regression", "cannot tell", "fine"]:
    """What all comparisons together say."""
    if any(comparison.regression(threshold) for comparison in comparisons):
        return "regression"
    return "cannot tell" if any(comparison.cannot_tell for comparison in comparisons) else "fine"
