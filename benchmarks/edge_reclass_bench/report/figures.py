"""The report's pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure as Canvas

from edge_reclass_bench.energy import throughput_over_time
from edge_reclass_bench.record import PARTS, Series
from edge_reclass_bench.report.sources import Source
from edge_reclass_learn.pages.drawing import colour, finished, style
from edge_reclass_learn.pages.skeleton import Figure

COLOURS = {
    "decode": colour("slate"),
    "resample": colour("teal"),
    "features": colour("green"),
    "fill": colour("orange"),
    "run": colour("blue"),
    "batch": colour("blue"),
    "head": colour("red"),
    "policy": colour("olive"),
    "other": colour("grey"),
    "exit": colour("green"),
    "on": colour("grey"),
}
"""By what is drawn."""


def figures(sources: Sequence[Source]) -> list[Figure]:
    """Every picture that these records have data for; one drawing per record, as scales differ."""
    drawers: tuple[tuple[str, str, Callable[[Source], Iterator[Canvas]]], ...] = (
        ("Who leaves where", "Tracks that enter each stage, and those that leave it decided.", _funnel),
        ("Latency per stage", "Mean milliseconds per track of each stage alone, part by part.", _latency),
        (
            "Passes in time",
            "Each pass of the cascade: its time as a multiple of the median. Flat is steady.",
            _timeline,
        ),
        ("Power, clocks, temperature", "Readings while the cascade ran back to back; grey: idle before.", _series),
    )
    found = []
    for title, lead, draw in drawers:
        for source in sources:
            name = f"{title} ({source.tag})" if source.tag else title
            with style():
                found += [finished(canvas, name, lead) for canvas in draw(source)]
    return found


def _canvas(rows: float) -> tuple[Canvas, Any]:
    canvas = Canvas(figsize=(7.2, 0.9 + 0.42 * rows))
    return canvas, canvas.subplots()


def _funnel(source: Source) -> Iterator[Canvas]:
    flow = source.books.flow
    if not flow:
        return
    canvas, axes = _canvas(len(flow))
    for row, stage in enumerate(flow):
        axes.barh(row, stage.exited, color=COLOURS["exit"])
        axes.barh(row, stage.entered - stage.exited, left=stage.exited, color=COLOURS["on"])
        axes.text(stage.entered, row, f"  {stage.exited} of {stage.entered} decided", va="center")
    axes.set_yticks(range(len(flow)), [stage.name for stage in flow])
    axes.invert_yaxis()
    axes.set_xlabel("tracks")
    axes.margins(x=0.25)
    yield canvas


def _latency(source: Source) -> Iterator[Canvas]:
    books = source.books
    bars = []
    for stage in books.stages:
        parts = {
            m.part: books.summaries[m.key].mean.value
            for m in books.record.find(scenario="stage", subject=f"single:{stage}", stage=stage, clock="host")
            if m.part != "total"
        }
        if parts:
            bars.append((stage, parts))
    if not bars:
        return
    canvas, axes = _canvas(len(bars) + 1)
    seen = []
    for row, (_, parts) in enumerate(bars):
        left = 0.0
        for part in sorted(parts, key=lambda name: PARTS.index(name) if name in PARTS else len(PARTS)):
            if parts[part] <= 0:
                continue
            label = None if part in seen else part
            seen.append(part)
            axes.barh(row, parts[part], left=left, color=COLOURS.get(part, COLOURS["other"]), label=label)
            left += parts[part]
        axes.text(left, row, f"  {left:.3g} ms", va="center")
    axes.set_yticks(range(len(bars)), [stage for stage, _ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("ms per track")
    axes.margins(x=0.15)
    axes.legend(ncols=1, loc="upper left", bbox_to_anchor=(1.0, 1.1))
    yield canvas


def _timeline(source: Source) -> Iterator[Canvas]:
    """Passes of the cascade, process after process, each track relative to its own median."""
    measure = source.books.measure(scenario="single-stream", subject="cascade", part="track")
    if measure is None:
        return
    usual = source.books.medians(scenario="single-stream", subject="cascade", part="track")
    passes: dict[tuple[int, int], list[float]] = {}
    for value, track, number, process in zip(
        measure.samples, measure.tracks, measure.passes, measure.processes, strict=True
    ):
        if track in usual:
            passes.setdefault((process, number), []).append(value / usual[track])
    rows = [sorted(values)[len(values) // 2] for _, values in sorted(passes.items())]
    if not rows:  # no track is in every pass
        return
    canvas, axes = _canvas(4)
    axes.plot(range(len(rows)), rows, marker="o", markersize=3, color=COLOURS["run"])
    processes = [process for process, _ in sorted(passes)]
    for i in range(1, len(processes)):
        if processes[i] != processes[i - 1]:
            axes.axvline(i - 0.5, color=COLOURS["on"], linewidth=0.7)
    axes.set_xlabel("pass (lines: a new process)")
    axes.set_ylabel("× median")
    axes.set_ylim(min(0.9, *rows) - 0.02, max(1.1, *rows) + 0.02)
    yield canvas


def _series(source: Source) -> Iterator[Canvas]:
    for busy in (series for series in source.books.record.series if series.phase == "busy"):
        idle = next((s for s in source.books.record.series if s.scenario == busy.scenario and s.phase == "idle"), None)
        yield from _one_series(busy, idle)


def _one_series(busy: Series, idle: Series | None) -> Iterator[Canvas]:
    kinds = {"W": ("watts",), "MHz": ("mhz:",), "°C": ("celsius:",)}
    found = {unit: [n for n in busy.values if n.startswith(starts)] for unit, starts in kinds.items()}
    rows = ["tracks/min", *(unit for unit, names in found.items() if names)]
    canvas = Canvas(figsize=(7.2, 1.3 * len(rows) + 0.4))
    every = canvas.subplots(len(rows), sharex=True, squeeze=False)[:, 0]
    every[0].plot(*throughput_over_time(busy), color=COLOURS["run"])
    for axes, unit in zip(every, rows, strict=True):
        for name in found.get(unit, ()):
            if idle is not None and name in idle.values:
                axes.plot([s - idle.ended for s in idle.seconds], idle.values[name], color=COLOURS["on"])
            axes.plot(busy.seconds, busy.values[name], label=name.partition(":")[2] or None)
        axes.set_ylabel(unit)
    every[-1].set_xlabel(f"seconds ({busy.scenario})")
    yield canvas
