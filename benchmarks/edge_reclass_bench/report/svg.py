"""A drawing of boxes, lines and texts as inline SVG. Colours are classes: the page says what they look like.

Every text keeps the box that it takes, so that a test can hold each drawing against overlaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Literal, NamedTuple

from edge_reclass_bench.report.text import fit, readable, width_of

__all__ = ["Anchor", "Box", "Canvas", "PlacedText"]

Anchor = Literal["start", "middle", "end"]
TEXT_SIZE = 13.0
_ASCENT, _DESCENT = 0.80, 0.24


class Box(NamedTuple):
    """A rectangle in pixels: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def inside(self, other: Box) -> bool:
        return (
            other.left <= self.left
            and other.top <= self.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )


class PlacedText(NamedTuple):
    """A text of a drawing and the box it takes at most."""

    text: str
    box: Box


class Canvas:
    """Collects elements; the height is given when it is written, for it is known last."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.texts: list[PlacedText] = []
        self._parts: list[str] = []

    def rect(self, left: float, top: float, width: float, height: float, css: str, hint: str = "") -> None:
        """A filled box; ``hint`` is what a pointer that rests on it is told."""
        shape = f'<rect class="{css}" x="{_f(left)}" y="{_f(top)}" width="{_f(max(0.0, width))}" height="{_f(height)}"'
        self._parts.append(f"{shape}><title>{_escaped(hint)}</title></rect>" if hint else f"{shape}/>")

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A straight line."""
        self._parts.append(f'<line class="{css}" x1="{_f(x1)}" y1="{_f(y1)}" x2="{_f(x2)}" y2="{_f(y2)}"/>')

    def path(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """Straight lines from point to point."""
        steps = " ".join(f"{'L' if i else 'M'}{_f(x)} {_f(y)}" for i, (x, y) in enumerate(points))
        self._parts.append(f'<path class="{css}" d="{steps}"/>')

    def dot(self, x: float, y: float, css: str, hint: str = "") -> None:
        """A small filled circle."""
        shape = f'<circle class="{css}" cx="{_f(x)}" cy="{_f(y)}" r="4"'
        self._parts.append(f"{shape}><title>{_escaped(hint)}</title></circle>" if hint else f"{shape}/>")

    def text(
        self, x: float, y: float, text: str, css: str = "t", anchor: Anchor = "start", room: float | None = None
    ) -> None:
        """A text whose base line is at ``y``; cut with an ellipsis at ``room`` pixels, whole when pointed at."""
        text = readable(text)
        shown = text if room is None else fit(text, TEXT_SIZE, room)
        width = width_of(shown, TEXT_SIZE)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = Box(left, y - _ASCENT * TEXT_SIZE, left + width, y + _DESCENT * TEXT_SIZE)
        self.texts.append(PlacedText(shown, box))
        hint = f"<title>{_escaped(text)}</title>" if shown != text else ""
        where = f'x="{_f(x)}" y="{_f(y)}"' + ("" if anchor == "start" else f' text-anchor="{anchor}"')
        self._parts.append(f'<text class="{css}" {where}>{hint}{_escaped(shown)}</text>')

    def svg(self, height: float, *, identity: str, title: str, description: str, css: str) -> str:
        """The drawing as one ``<svg>`` element with a title and a description for those who do not see it."""
        return (
            f'<svg class="{css}" viewBox="0 0 {_f(self.width)} {_f(height)}" width="{_f(self.width)}"'
            f' height="{_f(height)}" role="img" aria-labelledby="{identity}-t {identity}-d">'
            f'<title id="{identity}-t">{_escaped(title)}</title><desc id="{identity}-d">{_escaped(description)}</desc>'
            + "".join(self._parts)
            + "</svg>"
        )


def _f(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _escaped(text: str) -> str:
    return escape(readable(text), quote=True)
