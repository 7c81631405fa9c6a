"""The report's figures: from records to bars and curves. A figure whose scenario was not run is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from edge_reclass_bench.record import Estimate, Measure, Peer, Record, StageFlow
from edge_reclass_bench.report.bars import NARROW, WIDE, Bar, Segment, bar_chart
from edge_reclass_bench.report.curves import Curve, domain, ecdf_chart
from edge_reclass_bench.report.source import Source, decode_measure, stage_names, stage_parts
from edge_reclass_bench.report.svg import Canvas
from edge_reclass_bench.report.text import duration, interval, number, percent

__all__ = ["PART_NAMES", "Drawing", "Figure", "figures"]

PART_NAMES: Mapping[str, str] = {
    "decode": "decode",
    "resample": "resample",
    "features": "features",
    "fill": "fill windows",
    "run": "run (copies and compute)",
    "copy_in": "copy in",
    "compute": "compute",
    "copy_out": "copy out",
    "launch": "launch and wait",
    "head": "head",
    "policy": "policy",
    "other": "other",
}
"""What the parts are called in legends, in the order of a track's way."""

_COLD_START = {
    "start": ("p-other", "start Python"),
    "import": ("p-fill", "import"),
    "open": ("p-run", "open the bundle"),
    "first": ("p-features", "first verdict"),
}
_SECONDS_FROM = 10_000.0
"""Milliseconds from which an axis is in seconds."""


@dataclass(frozen=True)
class Drawing:
    """One chart in its wide and its narrow form; the canvas knows its texts, which a test looks at."""

    wide: tuple[Canvas, float]
    narrow: tuple[Canvas, float]
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure of the page: ``legend`` is (class of the colour, name); ``description`` is for those who see nothing."""

    key: str
    title: str
    lead: str
    legend: tuple[tuple[str, str], ...]
    drawings: tuple[Drawing, ...]
    description: str


def figures(sources: Sequence[Source]) -> list[Figure]:
    """All figures for which ``sources`` have measures, in the order of the page."""
    builders: tuple[Callable[[Sequence[Source]], Figure | None], ...] = (
        _stages,
        _distribution,
        _funnel,
        _costs,
        _throughput,
        _cold_start,
        _peers,
    )
    return [figure for build in builders if (figure := build(sources)) is not None]


def _bars(bars: Sequence[Bar], axis: str, *, whole: bool = False) -> Drawing:
    wide, narrow = (bar_chart(bars, axis, width=width, whole=whole) for width in (WIDE, NARROW))
    return Drawing(wide, narrow)


def _described(bars: Iterable[Bar]) -> str:
    return "; ".join(f"{bar.name}{f' ({bar.tag})' if bar.tag else ''}: {bar.value}" for bar in bars)


@dataclass(frozen=True)
class _Row:
    """A bar before its unit is chosen: parts in milliseconds."""

    name: str
    tag: str
    parts: tuple[tuple[str, str, float], ...]
    """Class of the colour, name, milliseconds."""
    total: Estimate

    def bar(self, unit: str, factor: float) -> Bar:
        segments = tuple(
            Segment(css, value * factor, name, f"{name}: {number(value * factor)} {unit}")
            for css, name, value in self.parts
            if value > 0.0
        )
        return Bar(self.name, segments, duration(self.total), self.tag, _bounds(self.total, factor))


def _bounds(estimate: Estimate, factor: float = 1.0) -> tuple[float, float] | None:
    if estimate.low is None or estimate.high is None:
        return None
    return estimate.low * factor, estimate.high * factor


def _unit(rows: Sequence[_Row]) -> tuple[str, float]:
    return ("s", 1e-3) if max(row.total.value for row in rows) >= _SECONDS_FROM else ("ms", 1.0)


def _time_figure(
    key: str, title: str, lead: str, rows: Sequence[_Row], axis: str, legend: tuple[tuple[str, str], ...]
) -> Figure | None:
    if not rows:
        return None
    unit, factor = _unit(rows)
    bars = [row.bar(unit, factor) for row in rows]
    return Figure(key, title, lead, legend, (_bars(bars, f"{axis}, {unit}"),), _described(bars))


def _stages(sources: Sequence[Source]) -> Figure | None:
    names = list(dict.fromkeys(name for source in sources for name in stage_names(source.record)))
    rows = []
    for source in sources:
        decode = decode_measure(source.record)
        if decode is not None:
            mean = decode.summary.mean
            rows.append(_Row("decode", source.tag, (("p-decode", PART_NAMES["decode"], mean.value),), mean))
    for name in names:
        for source in sources:
            parts = stage_parts(source.record, name)
            if parts:
                rows.append(_Row(name, source.tag, _split(parts), _total(parts)))
    used = {css for row in rows for css, _, value in row.parts if value > 0.0}
    legend = tuple((f"p-{part}", text) for part, text in PART_NAMES.items() if f"p-{part}" in used)
    lead = (
        "What one track costs in each stage, warm: the mean over tracks of each track's median, in its parts. Every"
        " track is decoded once. The line at a bar's end is the 95 % interval of the whole."
    )
    figure = _time_figure("stages", "Latency per stage", lead, rows, "time per track", legend)
    shares = [_shares(row) for row in rows if len(row.parts) > 1 and row.total.value > 0.0]
    if figure is None or not shares:
        return figure
    drawing = _bars(shares, "share of the stage's own time, %")
    return replace(figure, drawings=(*figure.drawings, replace(drawing, caption="What each stage spends its time on")))


def _shares(row: _Row) -> Bar:
    """The parts of one bar in percent of their sum; cheap stages show theirs as well as dear ones."""
    whole = sum(value for *_, value in row.parts) or 1.0
    segments = tuple(
        Segment(css, 100 * value / whole, name, f"{name}: {percent(value / whole)}")
        for css, name, value in row.parts
        if value > 0.0
    )
    largest = max(row.parts, key=lambda part: part[2])
    return Bar(row.name, segments, f"{largest[1]} {percent(largest[2] / whole)}", row.tag)


def _split(parts: Mapping[tuple[str, str], Measure]) -> tuple[tuple[str, str, float], ...]:
    """The parts of one stage that add up to it: ``run`` gives way to the device's own times where there are any."""
    host = {part: measure.summary.mean.value for (part, clock), measure in parts.items() if clock == "host"}
    device = {part: measure.summary.mean.value for (part, clock), measure in parts.items() if clock == "device"}
    if device and "run" in host:
        host["launch"] = max(0.0, host.pop("run") - sum(device.values()))
        host |= device
    inner = {part: value for part, value in host.items() if part in PART_NAMES}
    if not inner and "total" in host:
        inner = {"other": host["total"]}
    return tuple((f"p-{part}", text, inner[part]) for part, text in PART_NAMES.items() if part in inner)


def _total(parts: Mapping[tuple[str, str], Measure]) -> Estimate:
    total = parts.get(("total", "host"))
    if total is not None:
        return total.summary.mean
    return Estimate(value=sum(value for _, _, value in _split(parts)))


def _distribution(sources: Sequence[Source]) -> Figure | None:
    panels = [(source, _curves(source.record)) for source in sources]
    panels = [(source, curves) for source, curves in panels if curves]
    if not panels:
        return None
    everything = [curve for _, curves in panels for curve in curves]
    values = domain(everything)
    unit, factor = ("s", 1e-3) if values[1] >= _SECONDS_FROM else ("ms", 1.0)
    scaled = tuple(value * factor for value in values)
    axis = f"time per track, decode to verdict, {unit}"

    def draw(curves: Sequence[Curve], width: float) -> tuple[Canvas, float]:
        return ecdf_chart([_in_unit(curve, factor) for curve in curves], axis, unit, width=width, values=scaled)

    drawings = tuple(
        Drawing(draw(curves, WIDE), draw(curves, NARROW), f"{source.tag}: {source.name}" if source.tag else "")
        for source, curves in panels
    )
    lead = (
        "Share of the tracks that were done within a time, one after another: in the first pass of a freshly opened"
        " cascade (cold) and afterwards (warm). Dots are percentiles, where there are enough samples for them."
    )
    legend = tuple(dict.fromkeys((curve.css, curve.name) for curve in everything))
    described = "; ".join(
        f"{curve.name}: " + ", ".join(f"{name} {number(value * factor)} {unit}" for name, _, value in curve.percentiles)
        for curve in everything
    )
    return Figure("distribution", "Latency of one track", lead, legend, drawings, described)


def _curves(record: Record) -> list[Curve]:
    curves = []
    for phase in ("cold", "warm"):
        for measure in record.find(
            scenario="single-stream", subject="cascade", part="track", phase=phase, clock="host"
        ):
            marks = tuple(
                (key, float(key[1:]) / 100, estimate.value) for key, estimate in measure.summary.percentiles.items()
            )
            curves.append(Curve(phase, f"s-{phase}", tuple(measure.samples), marks))
    return curves


def _in_unit(curve: Curve, factor: float) -> Curve:
    marks = tuple((name, share, value * factor) for name, share, value in curve.percentiles)
    return Curve(curve.name, curve.css, tuple(sample * factor for sample in curve.samples), marks)


def _funnel(sources: Sequence[Source]) -> Figure | None:
    with_books = [source for source in sources if source.record.accounting and source.record.accounting.flow]
    if not with_books:
        return None
    bars = []
    names = list(dict.fromkeys(flow.stage for source in with_books for flow in _flow(source)))
    for name in names:
        for source in with_books:
            for flow in _flow(source):
                if flow.stage != name:
                    continue
                further = flow.entered - flow.exited
                segments = (
                    Segment("s-exit", flow.exited, "decided", f"{flow.exited} decided here"),
                    Segment("s-on", further, "go on", f"{further} go on"),
                )
                text = f"{flow.entered} in ({percent(flow.reach.share)}), {flow.exited} decided"
                bars.append(Bar(name, tuple(s for s in segments if s.value), text, source.tag))
    lead = "How many tracks reach each stage, and how many are decided there."
    legend = (("s-exit", "decided here"), ("s-on", "go on to the next stage, or end without an answer"))
    return Figure("funnel", "Who leaves where", lead, legend, (_bars(bars, "tracks", whole=True),), _described(bars))


def _flow(source: Source) -> list[StageFlow]:
    return source.record.accounting.flow if source.record.accounting else []


def _costs(sources: Sequence[Source]) -> Figure | None:
    rows = []
    for source in sources:
        books = source.record.accounting
        if books is None:
            continue
        if books.expected is not None:
            rows.append(_plain_row("cascade, expected", source.tag, "s-expected", books.expected.expected))
            rows.append(_plain_row("cascade, measured", source.tag, "s-measured", books.expected.measured))
        rows += [
            _plain_row(_way(line.name), source.tag, "s-baseline", line.milliseconds)
            for line in books.baselines
            if line.name != "cascade" or books.expected is None
        ]
    names = list(dict.fromkeys(row.name for row in rows))
    rows.sort(key=lambda row: names.index(row.name))
    lead = (
        "Mean time per track: the cascade as expected from its parts (decode + Σ reach × cost of the stage alone) and"
        " as measured, beside the full ensemble and each stage alone on the same tracks."
    )
    legend = (("s-expected", "expected"), ("s-measured", "measured"), ("s-baseline", "baselines"))
    return _time_figure("costs", "What the cascade saves", lead, rows, "mean time per track", legend)


def _way(name: str) -> str:
    if name.startswith("single:"):
        return f"{name.removeprefix('single:')} alone"
    return {"ensemble": "full ensemble", "cascade": "cascade, measured"}.get(name, name)


def _plain_row(name: str, tag: str, css: str, estimate: Estimate) -> _Row:
    return _Row(name, tag, ((css, "", estimate.value),), estimate)


def _throughput(sources: Sequence[Source]) -> Figure | None:
    bars = []
    for source in sources:
        for measure in source.record.measures:
            if measure.unit != "tracks/min":
                continue
            mean = measure.summary.mean
            segments = (Segment("s-measured", mean.value, "", f"{number(mean.value)} tracks/min"),)
            name = _lanes(measure, source.record)
            bars.append(Bar(name, segments, interval(mean, "tracks/min"), source.tag, _bounds(mean)))
    if not bars:
        return None
    names = list(dict.fromkeys(bar.name for bar in bars))
    bars.sort(key=lambda bar: names.index(bar.name))
    lead = "Tracks per minute with all of them at hand, as many at a time as there are lanes; longer is better."
    return Figure("throughput", "Throughput", lead, (), (_bars(bars, "tracks per minute"),), _described(bars))


def _lanes(measure: Measure, record: Record) -> str:
    """``offline, 2 lanes``; the subject stands there where it is not the cascade."""
    jobs = record.settings.jobs
    what = measure.scenario if measure.subject == "cascade" else f"{measure.scenario}, {measure.subject}"
    return f"{what}, {jobs} {'lane' if jobs == 1 else 'lanes'}"


def _cold_start(sources: Sequence[Source]) -> Figure | None:
    rows = []
    for source in sources:
        found = {measure.part: measure for measure in source.record.find(scenario="cold-start", phase=None)}
        parts = tuple(
            (css, text, _milliseconds(found[part]).value) for part, (css, text) in _COLD_START.items() if part in found
        )
        if not parts:
            continue
        total = _milliseconds(found["total"]) if "total" in found else Estimate(value=sum(value for *_, value in parts))
        rows.append(_Row("fresh process", source.tag, parts, total))
    lead = "From the start of a process to its first verdict, in parts."
    legend = tuple(_COLD_START.values())
    return _time_figure("cold-start", "Cold start", lead, rows, "time", legend)


def _milliseconds(measure: Measure) -> Estimate:
    """A measure's mean in milliseconds."""
    mean, factor = measure.summary.mean, 1e3 if measure.unit == "s" else 1.0
    low, high = _bounds(mean, factor) or (None, None)
    return Estimate(value=mean.value * factor, low=low, high=high)


def _peers(sources: Sequence[Source]) -> Figure | None:
    rows = [(source, peer) for source in sources for peer in source.record.peers if peer.ratio is not None]
    bars = [_peer_bar(source, peer, peer.ratio) for source, peer in rows if peer.ratio is not None]
    if not bars:
        return None
    lead = (
        "Time of other programs for the same task, in turn with edge-reclass in the same run, divided by its time:"
        " above 1, edge-reclass is faster."
    )
    return Figure("peers", "Beside other programs", lead, (), (_bars(bars, "ratio of times"),), _described(bars))


def _peer_bar(source: Source, peer: Peer, ratio: Estimate) -> Bar:
    segment = Segment("s-baseline", ratio.value, "", f"{number(ratio.value)} times")
    return Bar(f"{peer.task}: {peer.title}", (segment,), f"{interval(ratio)}\u00a0×", source.tag, _bounds(ratio))
