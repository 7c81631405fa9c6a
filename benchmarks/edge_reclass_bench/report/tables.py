"""The report's tables, once for the page and for Markdown: titles, columns and cells as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_reclass_bench.record import PERCENTILES, Estimate, Measure, Proportion, Record
from edge_reclass_bench.report.source import Source, decode_measure, stage_names, stage_parts
from edge_reclass_bench.report.text import interval, number, percent, plain

__all__ = ["Column", "Table", "environment_tables", "facts", "figure_tables", "warnings_of"]

NOTHING = "–"
"""What stands in a cell that has no value."""


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers are set flush right."""

    name: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Cells are text without any markup; ``note`` says what a reader has to know."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def warnings_of(sources: Sequence[Source]) -> list[str]:
    """What speaks against the figures, and what is not there: one sentence each, after the records it belongs to."""
    tags: dict[str, list[str]] = {}
    for source in sources:
        record = source.record
        lines = [f"absent: {absent.what}: {absent.reason}" for absent in record.absent]
        if record.subject.synthetic and not any(line.startswith("untrained weights") for line in record.warnings):
            lines.insert(0, "untrained weights: times mean something; answers, accuracy and exit shares do not")
        for line in dict.fromkeys([*record.warnings, *lines]):
            tags.setdefault(line, []).append(source.tag)
    return [f"{', '.join(of)}: {line}" if of[0] else line for line, of in tags.items()]


def facts(sources: Sequence[Source]) -> Table:
    """What was measured, on what, and how: a column per record."""
    cells = [_facts(source) for source in sources]
    keys = list(dict.fromkeys(key for column in cells for key in column))
    rows = tuple((key, *(column.get(key, NOTHING) for column in cells)) for key in keys)
    heads = tuple(Column(source.tag or "measured") for source in sources)
    return Table("What was measured, and on what", (Column(""), *heads), rows)


def _facts(source: Source) -> dict[str, str]:
    record = source.record
    subject, settings, environment = record.subject, record.settings, record.environment
    gpu = environment.machine_before.get("gpu")
    answered = sum(track.status in {"ok", "silent", "too_short"} for track in record.tracks)
    # Machine-wide load counts the measurement itself.
    load = " → ".join(_load(values) for values in (environment.load_before, environment.load_after))
    warm_up = f"{settings.warm_up} warm-up {'pass' if settings.warm_up == 1 else 'passes'}"
    return {
        "record": source.name,
        "machine": subject.machine,
        "device": subject.device + (f" ({gpu.get('name')})" if isinstance(gpu, dict) and gpu.get("name") else ""),
        "bundle": f"{subject.bundle}, sha256 {subject.bundle_sha256[:12]}…",
        "weights": "untrained (synthetic): answers mean nothing" if subject.synthetic else "as in the bundle",
        "policy": _policy(record),
        "precision": ", ".join(f"{stage}: {precision}" for stage, precision in subject.precisions.items()) or NOTHING,
        "engines": ", ".join(f"{stage} {digest[:12]}…" for stage, digest in subject.engines.items()) or "none",
        "tracks": f"{len(record.tracks)}, {answered} with an answer; data sha256 {subject.data_sha256[:12]}…"
        f" (of {subject.data_digest_of})",
        "scenarios": ", ".join(subject.scenarios),
        "until at least": f"{plain(settings.min_seconds)} s and {settings.min_count} tracks"
        f" of each subject, in whole passes, after {warm_up}",
        "lanes, threads, batch": f"{settings.jobs}, {settings.threads}, {settings.batch}",
        "load (1 min), before → after": load,
        "thread variables": _pairs(environment.thread_variables) or "none set",
        "libraries": _pairs(environment.libraries),
        "edge-reclass": f"{environment.version}, commit {environment.commit or 'unknown'}",
        "Python": environment.python,
        "command": " ".join(environment.command),
        "when": environment.created,
        "notes": "; ".join(environment.notes) or NOTHING,
    }


def _load(values: Sequence[float] | None) -> str:
    return f"{values[0]:.2f}" if values else "unknown"


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _policy(record: Record) -> str:
    policy = record.subject.policy
    steps = [f"{step.after}" + (f" > {plain(step.accept)}" if step.accept is not None else "") for step in policy.steps]
    return f"{policy.name} ({policy.vote}): {', then '.join(steps)}"


def figure_tables(sources: Sequence[Source]) -> list[Table]:
    """All tables of numbers that were measured, in the order of the page's figures; empty ones are left out."""
    several = len(sources) > 1
    builders: tuple[Callable[[Record], Table], ...] = (
        _stages,
        _tracks,
        _flow,
        _baselines,
        _orders,
        _throughput,
        _peers,
        _runs,
        _measures,
    )
    tables = []
    for build in builders:
        made = [build(source.record) for source in sources]
        rows = [
            (source.tag, *row) if several else row
            for source, table in zip(sources, made, strict=True)
            for row in table.rows
        ]
        if rows:
            columns = ((Column("record"),) if several else ()) + made[0].columns
            tables.append(Table(made[0].title, columns, tuple(rows), made[0].note))
    return tables


def _percentile_columns(unit: str) -> tuple[Column, ...]:
    return tuple(Column(f"p{p}, {unit}", True) for p in PERCENTILES)


def _percentiles(measure: Measure) -> tuple[str, ...]:
    known = measure.summary.percentiles
    return tuple(interval(known[key]) if (key := f"p{p}") in known else NOTHING for p in PERCENTILES)


def _stages(record: Record) -> Table:
    columns = (
        Column("stage"),
        Column("part"),
        Column("clock"),
        Column("tracks", True),
        Column("mean [95 %], ms", True),
        *_percentile_columns("ms"),
        Column("max, ms", True),
    )
    rows = []
    decode = decode_measure(record)
    measures = [("(every track)", decode)] if decode is not None else []
    for stage in stage_names(record):
        measures += [(stage, measure) for measure in stage_parts(record, stage).values()]
    for name, measure in measures:
        summary = measure.summary
        rows.append(
            (
                name,
                measure.part,
                measure.clock,
                str(summary.tracks),
                interval(summary.mean),
                *_percentiles(measure),
                number(summary.max),
            )
        )
    note = (
        "Warm. Mean over tracks of each track's median. run holds copy_in, compute and copy_out, which are the device's"
        " own times where it has a clock. A percentile stands only where there are enough samples for its interval."
    )
    return Table("Latency per stage and part", columns, tuple(rows), note)


def _tracks(record: Record) -> Table:
    columns = (
        Column("scenario"),
        Column("subject"),
        Column("phase"),
        Column("samples", True),
        Column("mean [95 %], ms", True),
        *_percentile_columns("ms"),
        Column("max, ms", True),
    )
    rows = tuple(
        (
            measure.scenario,
            measure.subject,
            measure.phase,
            str(measure.summary.n),
            interval(measure.summary.mean),
            *_percentiles(measure),
            number(measure.summary.max),
        )
        for measure in record.measures
        if measure.part == "track" and measure.unit == "ms" and measure.scenario != "null"
    )
    return Table("Latency per track, decode to verdict", columns, rows)


def _flow(record: Record) -> Table:
    columns = (
        Column("stage"),
        Column("entered", True),
        Column("left here", True),
        Column("reach", True),
        Column("alone, ms", True),
        Column("inside, ms", True),
    )
    rows = tuple(
        (
            flow.stage,
            str(flow.entered),
            str(flow.exited),
            _share(flow.reach),
            _estimate(flow.alone),
            _estimate(flow.inside),
        )
        for flow in (record.accounting.flow if record.accounting else [])
    )
    note = (
        "Alone: mean cost over all tracks; inside: over the tracks that entered the stage within the cascade, both"
        " without decode. Statuses: " + (_counts(record.accounting.statuses) if record.accounting else NOTHING) + "."
    )
    return Table("Who leaves where", columns, rows, note)


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in values.items()) or NOTHING


def _baselines(record: Record) -> Table:
    columns = (
        Column("way"),
        Column("stages"),
        Column("per track [95 %], ms", True),
        Column("of the full ensemble", True),
        Column("agrees with it", True),
        Column("accuracy", True),
        Column("macro-F1", True),
    )
    books = record.accounting
    rows = []
    if books and books.expected:
        order = ", ".join(step.after for step in record.subject.policy.steps)
        for name, estimate in (
            ("cascade, expected: decode + Σ reach × cost", books.expected.expected),
            ("cascade, replayed track by track", books.expected.replayed),
            ("cascade, measured", books.expected.measured),
        ):
            rows.append((name, order, interval(estimate), *[NOTHING] * 4))
    for line in books.baselines if books else []:
        rows.append(
            (
                line.name,
                ", ".join(line.stages),
                interval(line.milliseconds),
                _estimate(line.relative),
                _share(line.agreement),
                _share(line.accuracy),
                _estimate(line.macro_f1),
            )
        )
    return Table("The cascade beside what it could be replaced with", columns, tuple(rows))


def _orders(record: Record) -> Table:
    columns = (
        Column("order"),
        Column("thresholds"),
        Column("per track [95 %], ms", True),
        Column("of the policy's order", True),
        Column("agrees with the ensemble", True),
        Column("reach", True),
        Column("accuracy", True),
    )
    rows = tuple(
        (
            ", ".join(order.stages),
            f"{order.rule}: " + ", ".join(plain(accept) for accept in order.accepts),
            interval(order.milliseconds),
            _estimate(order.relative),
            _share(order.agreement),
            ", ".join(percent(share) for share in order.reach),
            _share(order.accuracy),
        )
        for order in record.orders
    )
    note = (
        "Replayed from the recorded answers. given: the policy itself; carried: its thresholds by position; tuned: the"
        " cheapest thresholds at the agreement that is asked for."
    )
    return Table("Orders of the stages", columns, rows, note)


def _throughput(record: Record) -> Table:
    columns = (Column("scenario"), Column("subject"), Column("lanes", True), Column("tracks/min [95 %]", True))
    rows = tuple(
        (measure.scenario, measure.subject, str(record.settings.jobs), interval(measure.summary.mean))
        for measure in record.measures
        if measure.unit == "tracks/min"
    )
    return Table("Throughput", columns, rows)


def _peers(record: Record) -> Table:
    columns = (
        Column("task"),
        Column("peer"),
        Column("peer, median", True),
        Column("edge-reclass, median", True),
        Column("peer / ours [95 %]", True),
        Column("remarks"),
    )
    by_key = {measure.key: measure for measure in record.measures}
    rows = []
    for peer in record.peers:
        theirs = next(record.find(scenario="peers", subject=peer.name, phase=None), None)
        ours = by_key.get(peer.ours or "")
        remarks = [peer.reason or "", _pairs(peer.settings), _pairs(peer.versions)]
        rows.append(
            (
                peer.task,
                peer.title,
                _median(theirs),
                _median(ours),
                _estimate(peer.ratio),
                "; ".join(remark for remark in remarks if remark),
            )
        )
    return Table("Beside other programs, in turn in the same run", columns, tuple(rows))


def _median(measure: Measure | None) -> str:
    if measure is None:
        return NOTHING
    known = measure.summary.percentiles.get("p50")
    return interval(known or measure.summary.mean, measure.unit)


def _runs(record: Record) -> Table:
    columns = (
        Column("scenario"),
        Column("subject"),
        Column("wall, s", True),
        Column("warm-up", True),
        Column("passes", True),
        Column("tracks", True),
        Column("own CPU, s", True),
        Column("others' CPUs", True),
        Column("host peak, MB", True),
        Column("device peak, MB", True),
        Column("power, W", True),
        Column("J per track", True),
        Column("clocks, MHz; temperatures, °C; notes"),
    )
    rows = tuple(
        (
            run.scenario,
            run.subject,
            number(run.wall_seconds),
            str(run.warm_up),
            str(run.passes),
            str(run.count),
            _plain(run.cpu_seconds),
            _plain(run.other_cpu),
            _plain(run.host_peak_bytes, 1e-6),
            _plain(run.device_peak_bytes, 1e-6),
            _estimate(run.power_watts) + (f" ({run.power_source})" if run.power_source else ""),
            _plain(run.joules_per_track),
            "; ".join([*_ranges(run.clocks_mhz), *_ranges(run.temperatures), *run.throttled, *run.notes]) or NOTHING,
        )
        for run in record.runs
    )
    return Table("Runs: duration, memory, power, and what else the machine did", columns, rows)


def _measures(record: Record) -> Table:
    columns = (
        Column("measure"),
        Column("unit"),
        Column("n", True),
        Column("mean [95 %]", True),
        *(Column(f"p{p} [95 %]", True) for p in PERCENTILES),
        Column("min", True),
        Column("max", True),
        Column("scatter", True),
        Column("drift", True),
    )
    rows = tuple(
        (
            measure.key,
            measure.unit,
            str(measure.summary.n),
            interval(measure.summary.mean),
            *_percentiles(measure),
            number(measure.summary.min),
            number(measure.summary.max),
            _plain(measure.summary.scatter),
            _plain(measure.summary.drift),
        )
        for measure in record.measures
    )
    note = (
        "scenario/subject/stage/part/phase/clock. Scatter: interquartile range over median within a track; drift:"
        " second half of the passes over the first."
    )
    return Table("Every measure", columns, rows, note)


def environment_tables(sources: Sequence[Source]) -> list[Table]:
    """What the probe found on each machine, before and after; absent values are left out."""
    tables = []
    for source in sources:
        environment = source.record.environment
        before, after = (dict(_leaves(part)) for part in (environment.machine_before, environment.machine_after))
        keys = list(dict.fromkeys([*before, *after]))
        rows = tuple((key, before.get(key, NOTHING), after.get(key, NOTHING)) for key in keys)
        if rows:
            title = "Machine before and after" + (f" ({source.tag})" if source.tag else "")
            tables.append(Table(title, (Column(""), Column("before"), Column("after")), rows))
    return tables


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value in a tree of dictionaries and lists, with its path; None is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        if all(not isinstance(inner, Mapping | list | tuple) for inner in value):
            if value:
                yield path, ", ".join(str(inner) for inner in value)
        else:
            for i, inner in enumerate(value):
                yield from _leaves(inner, f"{path}[{i}]")
    elif value is not None:
        yield path, str(value)


def _estimate(estimate: Estimate | None) -> str:
    return NOTHING if estimate is None else interval(estimate)


def _share(proportion: Proportion | None) -> str:
    if proportion is None:
        return NOTHING
    share, low, high = (percent(value) for value in (proportion.share, proportion.low, proportion.high))
    return f"{share} [{low}, {high}] ({proportion.count} of {proportion.total})"


def _plain(value: float | None, factor: float = 1.0) -> str:
    return NOTHING if value is None else number(value * factor)


def _ranges(values: Mapping[str, Iterable[float]]) -> list[str]:
    return [f"{sensor} {'–'.join(number(bound) for bound in bounds)}" for sensor, bounds in values.items()]
