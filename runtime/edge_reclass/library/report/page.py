"""The page: figures as HTML, the rows as JSON for its script, all in one text."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from edge_reclass._version import __version__
from edge_reclass.errors import ANSWER_STATUSES, Status
from edge_reclass.library.label import Labels
from edge_reclass.library.report.figures import BINS, UNCLASSIFIED, Figures, figures
from edge_reclass.library.shown import shown
from edge_reclass.library.state import State, now

_FOLDER: Final = Path(__file__).parent
_SHOWN: Final = 30
"""So many genres stand there at once."""


def page(state: State, labels: Labels | None) -> str:
    """The report of a state as HTML; artist and title are from ``labels``, where there are any."""
    found = figures(state, labels)
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": _text(os.path.basename(state.path)),  # noqa: PTH119 - a name that may be any bytes
        "made": _text(f"{now()[:16].replace('T', ' ')} UTC, edge-reclass {__version__}"),
        "digest": digest,  # no other script may run: names come from anywhere
        "style": _part("page.css"),
        "script": script,
        "tiles": _tiles(found),
        "genres": _bars(found.genres.most_common(), "genre"),
        "histogram": _histogram(found),
        "funnel": _funnel(found),
        "statuses": _bars(found.statuses.most_common(), "status"),
        "data": _json(found.table()),
    }
    # In one go: what a name holds is not looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _part("page.html"))


def _part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _text(text: str) -> str:
    return html.escape(shown(text))


def _json(plain: Mapping[str, object]) -> str:
    """JSON that may stand in a script element: nothing in it can end that."""
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    return re.sub(r"[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _number(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _share(number: int, of: int) -> str:
    percent = 100 * number / of if of else 0.0
    return f"{percent:.1f}\u00a0%" if 0 < percent < 1 else f"{percent:.0f}\u00a0%"


def _tiles(found: Figures) -> str:
    failed = sum(n for status, n in found.statuses.items() if status not in (*ANSWER_STATUSES, UNCLASSIFIED))
    tiles = [
        ("tracks", found.tracks),
        ("with a genre", found.genres.total()),
        ("unsure", found.statuses[Status.UNSURE]),
        ("failed", failed),
        ("corrected by hand", found.corrected),
    ]
    tiles += [(name, n) for name, n in ((UNCLASSIFIED, found.statuses[UNCLASSIFIED]), ("absent", found.absent)) if n]
    return "".join(f"<div><dd>{_number(n)}</dd><dt>{name}</dt></div>" for name, n in tiles)


def _bars(counts: Sequence[tuple[str, int]], filter: str) -> str:
    """A table of a row for each name, with a bar; its link shows those tracks in the list. Many are folded away."""
    if not counts:
        return "<p>none yet</p>"
    most, total = max(n for _, n in counts), sum(n for _, n in counts)
    rows = [
        f'<tr><th scope="row"><a href="#{filter}={quote(shown(name), safe="")}">{_text(name)}</a></th>'
        f'<td class="bar" aria-hidden="true"><i style="width:{100 * n / most:.2f}%"></i></td>'
        f"<td>{_number(n)}</td><td>{_share(n, total)}</td></tr>"
        for name, n in counts
    ]
    text = _table((filter, "tracks", "share"), rows[:_SHOWN], heads_hidden=True)
    if rest := rows[_SHOWN:]:
        text += f"<details><summary>{len(rest)} more</summary>"
        text += _table((filter, "tracks", "share"), rest, heads_hidden=True) + "</details>"
    return text


def _table(heads: tuple[str, str, str], rows: Iterable[str], *, heads_hidden: bool = False) -> str:
    """A table of names, bars and two numbers; the heads may be for screen readers only."""
    name, first, second = (f'<th scope="col">{head}</th>' for head in heads)
    hidden = ' class="hidden"' if heads_hidden else ""
    return (
        f'<table class="bars{"" if heads_hidden else " funnel"}"><colgroup><col><col><col><col></colgroup>'
        f"<thead{hidden}><tr>{name}<td></td>{first}{second}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _histogram(found: Figures) -> str:
    most = max(map(sum, zip(found.sure, found.unsure, strict=True))) or 1
    bins = []
    for number, (sure, unsure) in enumerate(zip(found.sure, found.unsure, strict=True)):
        words = f"{number / BINS:.2f} to {(number + 1) / BINS:.2f}: {sure} sure, {unsure} unsure"
        bars = "".join(
            f'<i{kind} style="height:{100 * n / most:.2f}%"></i>'
            for kind, n in ((' class="unsure"', unsure), ("", sure))
        )
        bins.append(f'<li title="{words}"><span class="hidden">{words}</span>{bars}</li>')
    return "".join(bins)


def _funnel(found: Figures) -> str:
    """How many tracks each stage heard, and for how many of them it was enough."""
    heard = max(found.heard.values(), default=0)
    if not heard:
        return "<p>no track was heard yet</p>"
    return _table(
        ("stage", "heard", "decided"),
        (
            f'<tr><th scope="row"><a href="#stage={quote(shown(stage), safe="")}">{_text(stage)}</a></th>'
            f'<td class="bar" aria-hidden="true"><i class="pale" style="width:{100 * found.heard[stage] / heard:.2f}%">'
            f'<i style="width:{100 * found.decided[stage] / (found.heard[stage] or 1):.2f}%"></i></i></td>'
            f"<td>{_number(found.heard[stage])} ({_share(found.heard[stage], heard)})</td>"
            f"<td>{_number(found.decided[stage])} ({_share(found.decided[stage], found.heard[stage])})</td></tr>"
            for stage in found.stages
        ),
    )
