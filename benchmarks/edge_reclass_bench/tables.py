"""A record, and a comparison of two, as text for a terminal. Nothing is computed here but what is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edge_reclass_bench.compare import Comparison
from edge_reclass_bench.orders import answer
from edge_reclass_bench.record import PARTS, PERCENTILES, Estimate, Measure, Order, Proportion, Record, Run

__all__ = ["comparison_text", "estimate", "null_text", "orders_text", "record_text"]

NONE = "–"


def estimate(value: Estimate | None, digits: int | None = None) -> str:
    """``12.3 [11.9, 12.8]``: a value with its 95 % interval, where it has one."""
    if value is None:
        return NONE
    text = _number(value.value, digits)
    if value.low is None or value.high is None:
        return text
    return f"{text} [{_number(value.low, digits)}, {_number(value.high, digits)}]"


def _number(value: float, digits: int | None = None) -> str:
    if digits is None:
        size = abs(value)
        digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.01 or not size else 5
    return f"{value:.{digits}f}"


def _share(value: Proportion | None) -> str:
    return NONE if value is None else f"{value.share:.1%} [{value.low:.0%}, {value.high:.0%}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as they need; the first to the left, the others to the right."""
    every = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    ]


def record_text(record: Record) -> str:
    """All of a record that a terminal has room for."""
    return "\n".join(_record_lines(record)) + "\n"


def _record_lines(record: Record) -> Iterator[str]:
    subject, settings, environment = record.subject, record.settings, record.environment
    yield (
        f"{subject.bundle} ({subject.bundle_sha256[:12]}), policy {subject.policy.name}, on {subject.device}: "
        f"{len(record.tracks)} tracks ({subject.data_sha256[:12]}), {settings.threads} threads"
    )
    load = NONE if environment.load_before is None else f"{environment.load_before[0]:.2f}"
    load += "" if environment.load_after is None else f" → {environment.load_after[0]:.2f}"
    yield f"{subject.machine}; load {load}; edge-reclass {environment.version}, commit {environment.commit or NONE}"
    yield (
        f"until ≥ {settings.min_count} tracks and ≥ {settings.min_seconds:g} s per subject; 95 % intervals: "
        f"bootstrap over tracks and passes, {settings.resamples} resamples, seed {settings.seed}"
    )
    for note in environment.notes:
        yield f"note: {note}"
    yield from _section("stage: each stage alone, ms per track", _measures(_in_order(record.find("stage"))))
    stream = [m for m in record.measures if m.scenario == "single-stream" and m.part in {"track", "cpu"}]
    yield from _section("single-stream: decode to verdict, ms per track", _measures(stream))
    yield from _accounting(record)
    yield from _section("offline: tracks per minute", _measures(list(record.find("offline"))))
    yield from _section(
        "cold-start: a fresh process to its first verdict, ms", _measures(list(record.find("cold-start")))
    )
    yield from _section("build: seconds", _measures(list(record.find("build"))))
    yield from _section("null: overhead, ms per track", _measures(list(record.find("null"))))
    if record.orders:
        yield ""
        yield from orders_lines(record.orders)
    yield from _section("runs", _runs(record.runs))
    if record.absent:
        yield ""
        yield from (f"absent: {absent.what}: {absent.reason}" for absent in record.absent)
    if record.warnings:
        yield ""
        yield from (f"warning: {warning}" for warning in record.warnings)


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *lines] if lines else []


def _in_order(measures: Iterable[Measure]) -> list[Measure]:
    """By stage as it comes, then by part in the order of its way."""
    found = list(measures)
    subjects = list(dict.fromkeys(measure.subject for measure in found))
    return sorted(
        found, key=lambda m: (subjects.index(m.subject), PARTS.index(m.part) if m.part in PARTS else len(PARTS))
    )


def _measures(measures: Sequence[Measure]) -> list[str]:
    if not measures:
        return []
    rows = []
    for measure in measures:
        summary = measure.summary
        name = " ".join(filter(None, (measure.stage or measure.subject.removeprefix("single:"), measure.part)))
        if measure.part in {"track", "cpu"}:
            name = measure.subject + (", cold" if measure.phase == "cold" else "")
            name += ", processor time" if measure.part == "cpu" else ""
        percentiles = [summary.percentiles.get(f"p{percent}") for percent in PERCENTILES]
        rows.append(
            [
                name + (" (device clock)" if measure.clock == "device" else ""),
                str(summary.n),
                estimate(summary.mean),
                estimate(percentiles[0]),
                *(NONE if p is None else _number(p.value) for p in percentiles[1:]),
                _number(summary.max),
            ]
        )
    return table(("", "n", "mean", "p50", "p90", "p95", "p99", "max"), rows)


def _accounting(record: Record) -> Iterator[str]:
    books = record.accounting
    if books is None:
        return
    rows = [
        [
            flow.stage,
            str(flow.entered),
            str(flow.exited),
            _share(flow.reach),
            estimate(flow.alone),
            estimate(flow.inside),
        ]
        for flow in books.flow
    ]
    head = ("", "entered", "decided", "reach", "alone, ms", "in the cascade, ms")
    yield from _section(f"cascade: {books.answered} tracks answered", table(head, rows))
    if books.expected is not None:
        costs = books.expected
        parts = f"decode {estimate(costs.decode)} + Σ reach × cost alone"
        yield f"expected {estimate(costs.expected)} ms per track = {parts};"
        yield f"replayed track by track {estimate(costs.replayed)}; measured {estimate(costs.measured)}"
    if books.replay_agrees is not None:
        yield f"replayed verdicts equal to the measured: {books.replay_agrees.count} of {books.replay_agrees.total}"
    rows = [
        [
            baseline.name,
            estimate(baseline.milliseconds),
            estimate(baseline.relative, 3),
            _share(baseline.agreement),
            _share(baseline.accuracy),
            estimate(baseline.macro_f1, 3),
        ]
        for baseline in books.baselines
    ]
    judged = sum(track.label is not None and track.status == "ok" for track in record.tracks)
    head = ("", "ms per track", "of the ensemble", "agrees with it", "accuracy", "macro-F1")
    yield from _section(f"on the same tracks ({judged} labelled)", table(head, rows) if rows else [])


def orders_text(orders: Sequence[Order]) -> str:
    """The orders as a table, and what follows from them."""
    return "\n".join(orders_lines(orders)) + "\n"


def orders_lines(orders: Sequence[Order]) -> Iterator[str]:
    """See :func:`orders_text`."""
    yield "orders of the stages, replayed: expected cost at an agreement with the full ensemble"
    rows = [
        [
            " → ".join(order.stages),
            order.rule + ("" if order.target is None else f" ≥ {order.target:.1%}"),
            ", ".join(f"{accept:.3g}" for accept in order.accepts) or NONE,
            estimate(order.milliseconds),
            estimate(order.relative, 2),
            _share(order.agreement),
            ", ".join(f"{reach:.0%}" for reach in order.reach),
            _share(order.accuracy),
        ]
        for order in orders
    ]
    head = ("", "rule", "accept", "ms per track", "of the own order", "agreement", "reach", "accuracy")
    yield from table(head, rows)
    yield from answer(orders)


def _runs(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return []
    rows = [
        [
            f"{run.scenario} {run.subject}",
            f"{run.warm_up} + {run.passes}",
            str(run.count),
            f"{run.wall_seconds:.1f}",
            NONE if run.cpu_seconds is None else f"{run.cpu_seconds:.1f}",
            NONE if run.other_cpu is None else f"{run.other_cpu:.2f}",
            NONE if run.host_peak_bytes is None else f"{run.host_peak_bytes / 2**20:.0f}",
            NONE if run.device_peak_bytes is None else f"{run.device_peak_bytes / 2**20:.0f}",
            NONE if run.power_watts is None else _number(run.power_watts.value),
            NONE if run.joules_per_track is None else _number(run.joules_per_track),
        ]
        for run in runs
    ]
    head = (
        "",
        "warm-up + passes",
        "tracks",
        "wall, s",
        "CPU, s",
        "others' CPUs",
        "host, MiB",
        "device, MiB",
        "W",
        "J/track",
    )
    return table(head, rows)


def null_text(measures: Sequence[Measure]) -> str:
    """The overhead's table, and how to read it."""
    lines = ["null: overhead, ms per track", *_measures(measures)]
    means = {(m.subject, m.part): m.summary.percentiles.get("p50", m.summary.mean).value for m in measures}
    if ("harness", "track") in means and ("cascade", "overhead") in means:
        lines.append(
            f"the harness adds {means['harness', 'track'] * 1e3:.2f} µs to every track time and "
            f"{means['harness', 'loop'] * 1e3:.2f} µs between tracks; the cascade itself takes "
            f"{means['cascade', 'overhead'] * 1e3:.0f} µs per track beside its stages' work"
        )
    return "\n".join(lines) + "\n"


def comparison_text(comparisons: Sequence[Comparison], threshold: float, every: bool) -> str:
    """One row per measure; the parts only where ``every`` is asked for or they differ."""
    shown = [c for c in comparisons if every or c.headline or c.result not in {"no difference"}]
    rows = [
        [
            comparison.key,
            _number(comparison.a),
            _number(comparison.b),
            comparison.unit,
            estimate(comparison.slowdown, 3),
            f"{comparison.fastest:.3f}",
            f"{comparison.floor:.1%}",
            comparison.verdict + (" ← regression" if comparison.regression(threshold) else ""),
        ]
        for comparison in shown
    ]
    head = ("measure", "A", "B", "unit", "time B/A [99 %]", "fastest", "floor", "verdict")
    lines = table(head, rows)
    lines += [f"{c.key}: {c.note}" for c in shown if c.note]
    counts = {result: sum(c.result == result for c in comparisons) for result in ("slower", "faster", "unclear")}
    same = len(comparisons) - sum(counts.values())
    lines.append(
        f"{len(comparisons)} measures: {same} no difference, "
        + ", ".join(f"{count} {result}" for result, count in counts.items())
        + f"; regressions of {threshold:.0%} or more: {sum(c.regression(threshold) for c in comparisons)}"
    )
    unsure = [c for c in comparisons if c.headline and c.result == "no difference" and not c.excludes(threshold)]
    if unsure:
        lines.append(
            f"{len(unsure)} headlines without a difference are too unsteady to rule out {threshold:.0%}; "
            "measure longer, or on a quieter machine"
        )
    return "\n".join(lines) + "\n"
