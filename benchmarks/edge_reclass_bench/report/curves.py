"""Distributions as the share of tracks that took at most so long (ECDF), with their percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_reclass_bench.report.scale import Scale, suited
from edge_reclass_bench.report.svg import Canvas
from edge_reclass_bench.report.text import number, width_of

__all__ = ["Curve", "domain", "ecdf_chart"]

_SIZE = 13.0
_PAD = 8.0
_PLOT = 220.0
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_MOST_POINTS = 600


@dataclass(frozen=True)
class Curve:
    """One distribution: ``css`` is its colour's class; ``percentiles`` are (name, share, value) to be marked."""

    name: str
    css: str
    samples: tuple[float, ...]
    percentiles: tuple[tuple[str, float, float], ...]


def domain(curves: Sequence[Curve]) -> tuple[float, ...]:
    """The values that an axis for ``curves`` has to hold; give it to every chart that is to have the same axis."""
    values = [value for curve in curves for value in curve.samples]
    return (min(values), max(values)) if values else (0.0, 1.0)


def ecdf_chart(
    curves: Sequence[Curve], axis: str, unit: str, *, width: float, values: tuple[float, ...]
) -> tuple[Canvas, float]:
    """The drawing and its height. ``values`` as ``domain`` gives them; percentiles are listed below the axis."""
    canvas = Canvas(width)
    left = _PAD + width_of("100\u00a0%", _SIZE) + _PAD
    scale = suited(values, left, width - 3 * _PAD)
    top, bottom = _PAD + 12.0, _PAD + 12.0 + _PLOT
    _frame(canvas, scale, top, bottom, axis)
    for curve in curves:
        canvas.path(_steps(curve.samples, scale, top, bottom), f"c {curve.css}")
    for curve in curves:
        for name, share, value in curve.percentiles:
            hint = f"{curve.name}, {name}: {number(value)} {unit}"
            canvas.dot(scale.at(value), bottom - share * _PLOT, f"d {curve.css}", hint)
    y = bottom + 64.0
    for curve in curves:
        y = _list_percentiles(canvas, curve, unit, y)
    return canvas, y - 8.0


def _frame(canvas: Canvas, scale: Scale, top: float, bottom: float, axis: str) -> None:
    for share in _SHARES:
        y = bottom - share * (bottom - top)
        canvas.line(scale.left, y, scale.right, y, "g" if share else "a")
        canvas.text(scale.left - _PAD, y + 0.35 * _SIZE, f"{100 * share:g}\u00a0%", "t m", "end")
    for tick in scale.ticks(_SIZE, canvas.width):
        canvas.line(tick.at, top, tick.at, bottom, "g")
        canvas.text(tick.centre, bottom + 20, tick.text, "t m", "middle")
    name = f"{axis}, logarithmic" if scale.log else axis
    canvas.text((scale.left + scale.right) / 2, bottom + 40, name, "t m", "middle", room=scale.right - scale.left)


def _steps(samples: Sequence[float], scale: Scale, top: float, bottom: float) -> list[tuple[float, float]]:
    """The staircase; of many samples only as many steps as can be seen."""
    ordered = sorted(samples)
    n = len(ordered)
    shown = (
        range(n) if n <= _MOST_POINTS else sorted({round(i * (n - 1) / _MOST_POINTS) for i in range(_MOST_POINTS + 1)})
    )
    points = [(scale.left, bottom)]
    height = bottom
    for i in shown:
        x = scale.at(ordered[i])
        points.append((x, height))
        height = bottom - (i + 1) / n * (bottom - top)
        points.append((x, height))
    return [*points, (scale.right, height)]


def _list_percentiles(canvas: Canvas, curve: Curve, unit: str, y: float) -> float:
    """``warm (n = 58): p50 12 · p90 40 ms``, broken where a line is full; the base line of what follows."""
    canvas.dot(_PAD + 4, y - 4.5, f"d {curve.css}")
    count = len(curve.samples)
    words = [f"{curve.name}, {count} {'sample' if count == 1 else 'samples'}:"]
    words += [f"{name} {number(value)}" for name, _, value in curve.percentiles] or ["too few for percentiles"]
    words[-1] += f" {unit}" if curve.percentiles else ""
    indent = _PAD + 16.0
    x = indent
    for i, word in enumerate(words):
        needed = width_of(word, _SIZE)
        if i and x + needed > canvas.width - _PAD:
            x, y = indent, y + 20.0
        canvas.text(x, y, word, room=canvas.width - _PAD - x)
        x += needed + 14.0
    return y + 24.0
