"""Pictures, drawn by matplotlib as SVG that stands in a page and takes the page's colours.

Text stays text, in the page's font; colours are written as ``currentColor`` and CSS variables, so that one drawing
serves the light and the dark page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from xml.sax.saxutils import quoteattr

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from edge_reclass_learn.pages.skeleton import COLOURS, Figure
from edge_reclass_learn.pages.text import readable

mpl.use("svg")

INK: Final = "#010203"
"""Stands for the text's colour until the drawing is in the page."""
GROUND: Final = "#fdfcfb"
"""Stands for the page's colour."""
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are what they are
    "svg.hashsalt": "edge-reclass",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def colour(name: str) -> str:
    """A colour of ``COLOURS`` as matplotlib takes it."""
    return COLOURS[name][0]


@contextmanager
def style() -> Iterator[None]:
    """Whatever is drawn in here is drawn as the pages want it."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The reader's fonts draw the text; matplotlib's own, which lack most scripts, only measure it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support", category=UserWarning)
        yield


def finished(canvas: Canvas, title: str, lead: str, alternative: str = "") -> Figure:
    """The drawing with its title. To be called within ``style``.

    Args:
        canvas: what was drawn
        title: of the picture
        lead: what it shows, as text beside it
        alternative: what is read to those who cannot see it; without it the title is
    """
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    canvas.savefig(out, format="svg", bbox_inches="tight", metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in every drawing, but a page may have an id only once
    text = text.replace(INK, "currentColor").replace(GROUND, "var(--page)")
    for name, (light, _) in COLOURS.items():
        text = text.replace(light, f"var(--{name}, {light})")
    # The page gives the width; without a height of its own the drawing keeps its shape. On a phone it is not drawn
    # smaller than it can be read.
    tag, _, rest = text.partition(">")
    width = float(tag.split('viewBox="')[1].split()[2])
    size = f' style="min-width:{min(width, 560):.0f}px;max-width:{1.6 * width:.0f}px"'
    label = quoteattr(readable(alternative or title))
    tag = re.sub(r' (width|height)="[^"]*"', "", tag)
    return Figure(title, lead, f'{tag}{size} role="img" aria-label={label}>{rest}')
