"""A page: one HTML file that loads nothing. Its style, its colours in light and dark, and the parts it is made of."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edge_reclass_learn.pages.table import text_of

COLOURS: Final = {
    "slate": ("#5b6770", "#9fb0bd"),
    "teal": ("#0f766e", "#5cc8bb"),
    "green": ("#2b7a2f", "#86cf88"),
    "orange": ("#9a5800", "#f0b060"),
    "blue": ("#1d5fbf", "#7fb2ff"),
    "red": ("#b3261e", "#ff9a91"),
    "olive": ("#6a5b00", "#d6c65a"),
    "grey": ("#8f8f8f", "#959ca3"),
}
"""What is drawn with, on a light and on a dark page; in a page's style each is a variable: ``var(--blue)``."""

_GROUND: Final = {
    "page": ("#fff", "#14171a"),
    "panel": ("#f5f6f8", "#1e2327"),
    "text": ("#17191c", "#e9ecef"),
    "muted": ("#535a63", "#a9b1ba"),
    "rule": ("#d9dde2", "#343a41"),
    "warn": ("#8a3d00", "#ffc489"),
    # As three numbers, so that a style can make it transparent. Text on the full colour has a contrast above 4.5.
    "tint": ("106 165 240", "42 99 189"),
}


def _variables(which: int) -> str:
    return ";".join(f"--{name}:{pair[which]}" for name, pair in (_GROUND | COLOURS).items())


_STYLE: Final = f"""
:root{{color-scheme:light dark;{_variables(0)}}}
@media (prefers-color-scheme:dark){{:root{{{_variables(1)}}}}}
""" + (
    """*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}
main{max-width:76rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2rem 0 .3rem}
p,li,td{overflow-wrap:break-word}a{color:var(--blue)}
.sub,.note,caption{color:var(--muted);font-size:.9rem}.sub,.note{max-width:46rem}
caption{text-align:left;padding:.4rem 0;font-weight:600}
.scroll{overflow-x:auto;margin:.8rem 0}table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
th{vertical-align:bottom}td{max-width:26rem}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr>:first-child{position:sticky;left:0;background:var(--page);min-width:6.5rem;max-width:11rem;overflow-wrap:anywhere;
z-index:1}
.answer{background:var(--panel);padding:.2rem 1rem 1rem;border-radius:.5rem}.answer td{font-size:1rem}
.answer tr>:first-child{background:var(--panel)}
.warn{border-left:.3rem solid var(--warn);padding:.1rem 1rem;margin:1.5rem 0;color:var(--warn)}
.warn h2{margin-top:.3rem}.warn ul{padding-left:1.2rem;margin:.3rem 0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,31rem),1fr));gap:0 2.5rem}
figure{margin:0;overflow-x:auto}figure svg{width:100%;height:auto;display:block}
code{overflow-wrap:anywhere}:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
@media print{.scroll,figure{overflow:visible}tr>:first-child{position:static}}
"""
)


@dataclass(frozen=True)
class Figure:
    """A picture: its title, what it shows in words (also for who cannot see it), and its SVG."""

    title: str
    lead: str
    svg: str


def document(title: str, parts: Iterable[str], *, style: str = "", script: str = "", media: str = "'none'") -> str:
    """The page.

    Args:
        title: of the window; any text
        parts: HTML that is already escaped; empty ones are left out
        style: CSS beside what all pages have
        script: the only one that may run: names come from anywhere
        media: where audio may be loaded from, as in a Content-Security-Policy; ``file:`` for a page beside its music
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    may_run = f"'sha256-{digest}'" if script else "'none'"
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src {media}; script-src {may_run};"
        " base-uri 'none'; form-action 'none'"
    )
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<title>{text_of(title)}</title><style>{_STYLE}{style}</style></head><body><main>",
        *parts,
        "</main>",
        f"<script>{script}</script>" if script else "",
        "</body></html>",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def section(title: str, *parts: str, css: str = "") -> str:
    """A part of the page under a heading; nothing where all of ``parts`` (HTML) are empty."""
    inside = "".join(parts)
    kind = f' class="{css}"' if css else ""
    return f"<section{kind}><h2>{text_of(title)}</h2>{inside}</section>" if inside else ""


def warned(title: str, lines: Sequence[str]) -> str:
    """What to know before a number is believed; nothing where there are no ``lines``."""
    items = "".join(f"<li>{text_of(line)}</li>" for line in lines)
    return section(title, f"<ul>{items}</ul>" if items else "", css="warn")


def figure(drawn: Figure) -> str:
    """The picture under its title."""
    lead = f'<p class="sub">{text_of(drawn.lead)}</p>' if drawn.lead else ""
    return f"<section><h2>{text_of(drawn.title)}</h2>{lead}<figure tabindex=0>{drawn.svg}</figure></section>"


def embedded(content: bytes, identity: str) -> str:
    """JSON that stands in the page under ``identity``, to be read by programs; nothing in it can end its element."""
    # A "<" in a text could end the element; as an escape of JSON it means the same.
    text = content.decode("utf-8").replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="{identity}">{text}</script>'
