"""Horizontal bars in parts, on one axis, with an interval at their end.

Wide drawings have names on the left and values on the right; narrow ones have both above each bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_reclass_bench.report.scale import Scale, from_zero
from edge_reclass_bench.report.svg import Canvas
from edge_reclass_bench.report.text import width_of

__all__ = ["NARROW", "WIDE", "Bar", "Segment", "bar_chart"]

WIDE, NARROW = 1040.0, 440.0
"""Widths in pixels of the two forms of every drawing; the page shows the one that fits."""

_SIZE = 13.0
_LINE = 20.0
_BAR = 22.0
_GAP = 9.0
_GROUP_GAP = 16.0
_PAD = 8.0
_AXIS = 44.0
_LEAST_INTERVAL = 3.0
"""Pixels below which an interval would be a blot on its bar; its numbers stand beside it in any case."""


@dataclass(frozen=True)
class Segment:
    """One part of a bar: ``css`` is its colour's class, ``label`` stands in it where there is room."""

    css: str
    value: float
    label: str
    hint: str


@dataclass(frozen=True)
class Bar:
    """One bar: its ``name`` (and ``tag``, where several records are shown), its parts, and what is known of its end."""

    name: str
    segments: tuple[Segment, ...]
    value: str
    tag: str = ""
    interval: tuple[float, float] | None = None

    @property
    def end(self) -> float:
        return sum(segment.value for segment in self.segments)


def bar_chart(bars: Sequence[Bar], axis: str, *, width: float, whole: bool = False) -> tuple[Canvas, float]:
    """The drawing and its height. ``bars`` of one name are one group; ``axis`` is the axis' name and unit.

    ``whole``: values are counts, and so are the axis' numbers.
    """
    canvas = Canvas(width)
    narrow = width < 700.0
    values = max((width_of(bar.value, _SIZE) for bar in bars), default=0.0)
    names = max((width_of(bar.name, _SIZE) for bar in bars), default=0.0)
    tags = max((width_of(bar.tag, _SIZE) for bar in bars), default=0.0)
    tag_room = tags + _PAD if tags else 0.0
    left = _PAD if narrow else _PAD + min(names, 0.28 * width) + _PAD + tag_room
    right = width - _PAD - (0.0 if narrow else _PAD + min(values, 0.3 * width))
    ends = [end for bar in bars for end in (bar.end, *(bar.interval or ()))]
    scale = from_zero(ends, left, right, whole=whole)
    y = _PAD
    rows: list[tuple[Bar, float]] = []
    for i, bar in enumerate(bars):
        first = i == 0 or bars[i - 1].name != bar.name
        y += _GROUP_GAP if i and first and tags else 0.0
        if narrow:
            y += _LINE
            room = width - 3 * _PAD - min(width_of(bar.value, _SIZE), 0.6 * width)
            name = f"{bar.name} · {bar.tag}" if bar.tag else bar.name
            canvas.text(_PAD, y - 5, name, room=room)
            canvas.text(right, y - 5, bar.value, "t v", "end", room=0.6 * width)
        else:
            middle = y + _BAR / 2 + 0.35 * _SIZE
            if first:
                canvas.text(_PAD, middle, bar.name, room=left - 2 * _PAD - tag_room)
            if bar.tag:
                canvas.text(left - _PAD, middle, bar.tag, "t m", "end")
            canvas.text(right + 2 * _PAD, middle, bar.value, "t v", room=width - right - 2 * _PAD)
        rows.append((bar, y))
        y += _BAR + _GAP
    # In the narrow form, names and values lie between the bars: no line runs through them.
    stretches = [(top - 1, top + _BAR + 1) for _, top in rows] if narrow else [(_PAD, y)]
    _grid(canvas, scale, stretches, y, axis)
    for bar, top in rows:
        _draw(canvas, scale, bar, top)
    return canvas, y + _AXIS


def _grid(canvas: Canvas, scale: Scale, stretches: Sequence[tuple[float, float]], bottom: float, axis: str) -> None:
    for tick in scale.ticks(_SIZE, canvas.width):
        for begin, end in stretches:
            canvas.line(tick.at, begin, tick.at, end, "g")
        canvas.text(tick.centre, bottom + 16, tick.text, "t m", "middle")
    canvas.line(scale.left, bottom, scale.right, bottom, "a")
    room = scale.right - scale.left
    canvas.text((scale.left + scale.right) / 2, bottom + 36, axis, "t m", "middle", room=room)


def _draw(canvas: Canvas, scale: Scale, bar: Bar, top: float) -> None:
    position = 0.0
    for segment in bar.segments:
        begin, end = scale.at(position), scale.at(position + segment.value)
        position += segment.value
        # A hairline of background parts neighbours, unless that would leave nothing of a thin one.
        gap = 1.5 if end - begin > 4.0 and position < bar.end else 0.0
        canvas.rect(begin, top, end - begin - gap, _BAR, f"f {segment.css}", segment.hint)
        needed = width_of(segment.label, _SIZE)
        centre = (begin + end - gap) / 2
        # No label where there is no room for it, or where the interval would lie across it.
        free = bar.interval is None or centre + needed / 2 < scale.at(bar.interval[0]) - 6
        if end - begin - gap > needed + 10 and free:
            canvas.text(centre, top + _BAR / 2 + 0.35 * _SIZE, segment.label, "t o", "middle")
    low, high = (scale.at(value) for value in bar.interval or (0.0, 0.0))
    if high - low >= _LEAST_INTERVAL:
        middle = top + _BAR / 2
        for css in ("w h", "w"):
            canvas.line(low, middle, high, middle, css)
            for x in (low, high):
                canvas.line(x, middle - 5, x, middle + 5, css)
