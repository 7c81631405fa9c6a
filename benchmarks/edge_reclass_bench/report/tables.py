"""Every table of a report: the answer, what was measured, all numbers. Nothing is computed here but what is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from edge_reclass_bench.books import Books
from edge_reclass_bench.compare import THRESHOLD, Comparison, worst
from edge_reclass_bench.energy import energies, kept
from edge_reclass_bench.record import PARTS, Measure
from edge_reclass_bench.report.sources import Source
from edge_reclass_bench.report.text import interval, mean, optional, share
from edge_reclass_bench.scenarios.agreement import bound
from edge_reclass_bench.statistics import ratio, tables
from edge_reclass_bench.targets import targets
from edge_reclass_bench.values import PERCENTILES, Estimate
from edge_reclass_learn.pages.table import Table
from edge_reclass_learn.pages.text import NOTHING, number, percent, plain

_GIB = 2**30
_NOT_MEASURED = "not measured"

Builder = Callable[[Books], Table]


def answer(sources: Sequence[Source]) -> Table:
    """What most readers came for: a column per record; no row where nothing of it was measured."""
    columns = [_answer(source.books) for source in sources]
    found = any(value not in {NOTHING, _NOT_MEASURED} for column in columns for value in column.values())
    return _beside("The answer", sources, columns if found else [])


def _answer(books: Books) -> dict[str, str]:
    cells = {"per track, decode to verdict": NOTHING, "tracks per minute": NOTHING, "energy per track": NOTHING}
    if track := books.measure(scenario="single-stream", subject="cascade", part="track"):
        cells["per track, decode to verdict"] = mean(books.summaries[track.key]) + "\u00a0ms"
    if rate := books.measure(scenario="offline", subject="cascade", part="throughput"):
        cells["tracks per minute"] = mean(books.summaries[rate.key])
    found = list(energies(books.record))
    for energy in found:
        if not isinstance(energy, str) and energy.scenario == "energy":
            above = "" if energy.above_idle is None else f", {number(energy.above_idle)} above idle"
            cells["energy per track"] = f"{number(energy.joules_per_track)}\u00a0J{above} ({energy.source})"
    if cells["energy per track"] == NOTHING and found:
        cells["energy per track"] = str(found[0]).partition(": ")[2]
    way = books.way("cascade")
    cells["cost, every stage on every track = 1"] = NOTHING if way is None else optional(way.relative)
    cells["says what every stage together says"] = share(None if way is None else way.agreement)
    cells["right, of the labelled tracks"] = share(None if way is None else way.accuracy)
    for target in targets(books):
        met = {True: "met", False: "missed", None: _NOT_MEASURED}[target.met]
        cells[f"target: {target.name}"] = met if target.met is None else f"{met} ({target.got})"
    return cells


def facts(sources: Sequence[Source]) -> Table:
    """What was measured, on what, and how: a column per record."""
    return _beside("What was measured, on what, and how", sources, [_facts(source) for source in sources])


def _beside(title: str, sources: Sequence[Source], columns: Sequence[Mapping[str, str]]) -> Table:
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = tuple((key, *(column.get(key, NOTHING) for column in columns)) for key in keys)
    names = (f"{source.tag}: {source.name}" if source.tag else source.name for source in sources)
    return Table(title, ("", *names), rows)


def _facts(source: Source) -> dict[str, str]:
    record = source.books.record
    subject, settings, environment, machine = (
        record.subject,
        record.settings,
        record.environment,
        record.subject.machine,
    )
    loads = (environment.load_before, environment.load_after)
    steps = [
        step.after
        + (f" ({step.windows} windows)" if step.windows is not None else "")
        + (f" > {plain(step.accept)}" if step.accept is not None else "")
        for step in subject.policy.steps
    ]
    found = {
        "processor": f"{machine.cpu}, {machine.cores} cores, {', '.join((*machine.instructions, *machine.caches))}",
        "board": machine.board,
        "GPU": machine.gpu,
        "driver, CUDA, TensorRT": ", ".join(filter(None, (machine.driver, machine.cuda, machine.tensorrt))),
        "power mode": machine.power_mode,
        "clocks": machine.clocks,
        "kernel": machine.kernel,
        "device": subject.device,
        "bundle": f"{subject.bundle}, sha256 {subject.bundle_sha256[:12]}…",
        "policy": f"{subject.policy.name} ({subject.policy.vote}): {', then '.join(steps)}",
        "precision": ", ".join(f"{stage}: {precision}" for stage, precision in subject.precisions.items()),
        "engines": ", ".join(f"{stage} {digest[:12]}…" for stage, digest in subject.engines.items()),
        "tracks": f"{len(record.tracks)}, {len(source.books.answered)} with a genre; data sha256 "
        f"{subject.data_sha256[:12]}… (of {subject.data_digest_of})",
        "processes, passes": f"{max((m.processes[-1] for m in record.measures), default=0) + 1} processes, at least "
        f"{settings.min_passes} passes each after {settings.warm_up} to warm up; wanted ±{percent(settings.precision)}",
        "lanes, threads, batch": f"{settings.jobs or 'as many as are of use'}, {settings.threads}, {settings.batch}",
        "load (1 min), before → after": " → ".join("unknown" if not load else f"{load[0]:.2f}" for load in loads),
        "thread variables": _pairs(environment.thread_variables),
        "libraries": _pairs(environment.libraries),
        "edge-reclass": f"{environment.version}, code sha256 {environment.code_sha256[:12]}…",
        "Python": environment.python,
        "command": " ".join(environment.command),
        "when": environment.created,
        "notes": "; ".join(environment.notes),
    }
    return {key: value for key, value in found.items() if value}


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def numbers(sources: Sequence[Source]) -> list[Table]:
    """All tables of what was measured; empty ones are left out, several records are below one another."""
    builders: tuple[Builder, ...] = (
        *(_stages, _tracks, _flow, _ways, _rates, _starts, _energy, _sustained, _ceilings, _files, _peers, _runs),
    )
    found = []
    for build in builders:
        made = [build(source.books) for source in sources]
        several = len(sources) > 1
        rows = [
            (source.tag, *row) if several else row
            for source, table in zip(sources, made, strict=True)
            for row in table.rows
        ]
        if rows:
            columns = (("record",) if several else ()) + made[0].columns
            found.append(Table(made[0].title, columns, tuple(rows), made[0].note))
    return found


def absent(sources: Sequence[Source]) -> Table:
    """What was asked for and is not here, each with its reason."""
    rows = [
        (source.tag or source.name, one.what, one.reason) for source in sources for one in source.books.record.absent
    ]
    return Table("Not here", ("record", "what", "why"), tuple(rows))


_SUMMARY = (">mean", *(f">p{p}" for p in PERCENTILES), ">slow passes")
_NOTE = (
    "Mean over tracks of each track's median: ± is the error of measuring it (99 %, over processes), the brackets say"
    " how far other tracks like these would move it. Percentiles are over tracks, where there are enough of them. Slow"
    " passes: the 95th and 99th percentile of a pass over a track, as a multiple of its median."
)


def _summary(books: Books, measure: Measure) -> tuple[str, ...]:
    summary = books.summaries[measure.key]
    marks = (summary.percentiles.get(f"p{p}") for p in PERCENTILES)
    tail = ", ".join(f"×\u202f{value:.2f}" for value in summary.tail.values())
    return (mean(summary), *(optional(mark) for mark in marks), tail or NOTHING)


def _place(measure: Measure) -> int:
    return PARTS.index(measure.part) if measure.part in PARTS else len(PARTS)


def _stages(books: Books) -> Table:
    rows = []
    for stage in books.stages:
        found = sorted(books.record.find(scenario="stage", subject=f"single:{stage}"), key=_place)
        rows += [(stage, m.part, m.clock, *_summary(books, m)) for m in found]
    columns = ("stage", "part", "clock", *_SUMMARY)
    return Table("Latency per stage and part, ms", columns, tuple(rows), _NOTE)


def _tracks(books: Books) -> Table:
    rows = []
    for measure in books.record.measures:
        if measure.scenario == "single-stream" and measure.part in {"track", "cpu"}:
            way = books.way(measure.subject)
            what = {"track": "decode to verdict", "cpu": "processor time"}[measure.part]
            rows.append((measure.subject if way is None else way.name, what, measure.phase, *_summary(books, measure)))
    note = "cold: the first track on freshly opened stages. Processor time is of all threads."
    return Table("Latency per track, ms", ("way", "of", "phase", *_SUMMARY), tuple(rows), note)


def _flow(books: Books) -> Table:
    rows = tuple(
        (f.name, str(f.entered), str(f.exited), share(f.reach), optional(f.alone), optional(f.inside))
        for f in books.flow
    )
    statuses = ", ".join(f"{count} {name}" for name, count in books.statuses.items())
    note = f"Alone: mean over all tracks; inside: over those that entered; both without decode. Statuses: {statuses}."
    return Table("Who leaves where", ("stage", ">entered", ">left", "reach", ">alone, ms", ">inside, ms"), rows, note)


def _ways(books: Books) -> Table:
    rows = [
        (
            way.name,
            interval(way.milliseconds),
            optional(way.relative),
            share(way.agreement),
            share(way.accuracy),
            optional(way.macro_f1),
        )
        for way in books.ways
    ]
    note = ""
    if (costs := books.costs) is not None:
        note = (
            f"The cascade's {interval(costs.measured, 'ms')} were to be expected as {interval(costs.expected, 'ms')}:"
            f" decode {number(costs.decode.value)} + Σ reach × cost alone. Track by track they add up to"
            f" {number(costs.replayed.value)}; what is left, {interval(costs.residual, 'ms')}, is the cascade's own."
        )
    columns = ("way", ">per track, ms", ">every stage = 1", "agrees with it", "accuracy", ">macro-F1")
    return Table("The cascade beside what it could be replaced with", columns, tuple(rows), note)


def _rates(books: Books) -> Table:
    rows = []
    for measure in books.record.measures:
        if measure.part == "throughput":
            waits = books.measure(scenario=measure.scenario, subject=measure.subject, part="track")
            latency = () if waits is None else _summary(books, waits)
            rows.append((f"{measure.scenario} {measure.subject}", mean(books.summaries[measure.key]), *latency[:3]))
    columns = ("scenario", ">tracks/min", ">latency, ms", ">p50", ">p90")
    return Table("Throughput, and latency at it", columns, tuple((*row, *[NOTHING] * (5 - len(row))) for row in rows))


def _starts(books: Books) -> Table:
    rows = tuple(
        (m.scenario, m.stage or m.part, m.phase, f"{mean(books.summaries[m.key])}\u00a0{m.unit}")
        for m in books.record.measures
        if m.scenario in {"cold-start", "build"}
    )
    note = "cold: bundle, track and libraries were taken out of memory before, as far as the table of runs says."
    return Table("A fresh process to its first verdict; engines", ("scenario", "part", "files", ">takes"), rows, note)


def _energy(books: Books) -> Table:
    rows = []
    for found in energies(books.record):
        if not isinstance(found, str):
            idle = NOTHING if found.idle_watts is None else number(found.idle_watts)
            above = NOTHING if found.above_idle is None else number(found.above_idle)
            busy = (f"{number(found.seconds)} s, {found.readings}", number(found.watts), idle)
            rows.append((found.scenario, found.source, *busy, number(found.joules_per_track), above))
    columns = ("scenario", "sensor", ">span, readings", ">W", ">idle W", ">J per track", ">above idle")
    return Table(
        "Energy", columns, tuple(rows), "Trapezoid rule over the readings within the span; idle was measured before."
    )


def _sustained(books: Books) -> Table:
    rows = []
    for series in books.record.series:
        if series.phase == "busy":
            held, span = kept(series), series.ended - series.began
            rate = f"{60 * series.count / span:.3g}" if span else NOTHING
            rows.append((series.scenario, number(span), rate, NOTHING if held is None else percent(held)))
    columns = ("scenario", ">seconds", ">tracks/min", ">last quarter of first")
    return Table("Speed over minutes", columns, tuple(rows))


def _ceilings(books: Books) -> Table:
    rows = []
    for whole in books.record.find(scenario="ceilings", part="graph"):
        products, rate = (
            books.measure(scenario="ceilings", subject=whole.subject, stage=whole.stage, part=part)
            for part in ("products", "rate")
        )
        if products is not None and rate is not None:
            taken, least = (books.summaries[measure.key].mean.value for measure in (whole, products))
            wrong = " wrong: faster than its products" if least > taken else ""
            of = f"{100 * least / taken:.0f}\u00a0%{wrong}"
            cells = (number(taken), number(least), of, number(books.summaries[rate.key].mean.value))
            rows.append((whole.stage or NOTHING, *cells))
    columns = ("stage", ">graph, ms", ">its products alone, ms", ">share", ">their rate, GFLOP/s")
    note = "At the stage's largest batch. The products alone are the least that the graph could take."
    return Table("Ceilings", columns, tuple(rows), note)


def _files(books: Books) -> Table:
    bounds = {id(file): low for file, low in bound(books.record.files)}
    rows = []
    for file in books.record.files:
        agreed = NOTHING
        if file.agrees is not None and file.of:
            agreed = f"{file.agrees} of {file.of}; at least {percent(bounds[id(file)])} with 95 % confidence"
        rows.append((file.stage, file.precision, file.kind, number(file.bytes / 1e6), agreed))
    columns = ("stage", "precision", "kind", ">MB", "says the genre that FP32 says")
    return Table("Precisions", columns, tuple(rows))


def peer_ratio(theirs: Measure, ours: Measure | None) -> Estimate | None:
    """Peer / ours, paired by track; None where ours was not measured, or not on the same tracks."""
    if ours is None:
        return None
    (one, ran), (other, tracks) = (tables(m.samples, m.tracks, m.passes, m.processes) for m in (ours, theirs))
    return ratio(one, other) if ran == tracks and len(one[0]) else None


def _peers(books: Books) -> Table:
    by_key = {measure.key: measure for measure in books.record.measures}
    rows = []
    for peer in books.record.peers:
        theirs, ours = books.measure(scenario="peers", subject=peer.name), by_key.get(peer.ours or "")
        cells = [NOTHING if m is None else f"{mean(books.summaries[m.key])}\u00a0{m.unit}" for m in (theirs, ours)]
        compared = None if theirs is None else peer_ratio(theirs, ours)
        remarks = "; ".join(filter(None, (peer.reason, _pairs(peer.settings), _pairs(peer.versions))))
        rows.append((peer.task, peer.title, *cells, optional(compared), remarks or NOTHING))
    columns = ("task", "peer", ">peer", ">edge-reclass", ">peer / ours [99 %]", "remarks")
    return Table("Peers: the same work, in turn", columns, tuple(rows))


def _runs(books: Books) -> Table:
    rows = tuple(
        (
            f"{run.scenario} {run.subject}",
            f"{run.warm_up} + {run.passes}",
            f"{run.count}" + (f", {run.failed} failed" if run.failed else ""),
            number(run.wall_seconds),
            NOTHING if run.cpu_seconds is None else number(run.cpu_seconds),
            NOTHING if run.other_cpu is None else f"{run.other_cpu:.2f}",
            NOTHING if run.host_peak_bytes is None else f"{run.host_peak_bytes / _GIB:.2f}",
            NOTHING if run.device_peak_bytes is None else f"{run.device_peak_bytes / _GIB:.2f}",
            "; ".join((*run.throttled, *run.notes)) or NOTHING,
        )
        for run in books.record.runs
    )
    columns = (
        "run",
        "warm-up + passes",
        ">tracks",
        ">wall, s",
        ">CPU, s",
        ">others' CPUs",
        ">host, GiB",
        ">device, GiB",
        "notes",
    )
    return Table("Runs", columns, rows)


def comparison(comparisons: Sequence[Comparison], every: bool, threshold: float = THRESHOLD) -> Table:
    """One row per measure; the parts only where ``every`` is asked for or they differ.

    ``threshold``: from which slowdown on a headline is called a regression.
    """
    rows = tuple(
        (
            one.key,
            f"{number(one.a)} → {number(one.b)}\u00a0{one.unit}",
            interval(one.slowdown),
            percent(one.floor),
            one.verdict
            + (" ← regression" if one.regression(threshold) else " ← cannot tell" if one.cannot_tell else ""),
            one.note or NOTHING,
        )
        for one in comparisons
        if every or one.headline or one.result != "no difference"
    )
    columns = ("measure", ">A → B", ">time B/A [99 %]", ">floor", "verdict", "remarks")
    return Table("B against A", columns, rows, "".join(_conclusion(comparisons, threshold)))


def _conclusion(comparisons: Sequence[Comparison], threshold: float) -> Iterator[str]:
    counts = {result: sum(c.result == result for c in comparisons) for result in ("slower", "faster", "unclear")}
    same = len(comparisons) - sum(counts.values())
    parts = [f"{same} no difference", *(f"{count} {result}" for result, count in counts.items())]
    yield f"{len(comparisons)} measures: {', '.join(parts)}. "
    yield {
        "regression": "A regression.",
        "cannot tell": "These records cannot tell whether there is a regression: measure more processes, or longer.",
        "fine": "No regression.",
    }[worst(comparisons, threshold)]
