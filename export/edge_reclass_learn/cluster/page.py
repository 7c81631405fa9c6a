"""The page to listen and to name on: of each cluster its middle, its edge and what is known; all numbers below."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np

from edge_reclass.errors import MissingExtraError
from edge_reclass.library import FileTags, read_tags
from edge_reclass_learn.cluster.clustering import BETWEEN, Clusters
from edge_reclass_learn.cluster.reading import Music
from edge_reclass_learn.cluster.record import Group, Record
from edge_reclass_learn.cluster.stability import Stability
from edge_reclass_learn.pages.skeleton import Figure, document, figure, section, warned
from edge_reclass_learn.pages.table import Table, html, text_of
from edge_reclass_learn.pages.text import NOTHING, count, number, percent, short

MIDDLE: Final = 5
EDGE: Final = 3
"""Tracks that are shown of each cluster."""
_SCRIPT: Final = Path(__file__).with_name("page.js")
_STYLE: Final = """
.cluster{border-top:1px solid var(--rule)}.cluster ul{padding-left:1.2rem;margin:.3rem 0}
.cluster .warn{margin:.5rem 0;padding:.1rem .8rem}.lists{display:grid;gap:0 2.5rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}.lists ol{list-style:none;padding:0;margin:.2rem 0}
.lists h3{font-size:.9rem;margin:.6rem 0 0;color:var(--muted)}.lists li{margin:.35rem 0;overflow-wrap:anywhere}
audio{display:block;width:100%;max-width:24rem;height:2.2rem}
input,button{font:inherit;color:inherit;background:var(--panel);border:1px solid var(--muted);border-radius:.3rem;
padding:.25rem .5rem}input{width:min(100%,18rem)}button{cursor:pointer}
#bar{position:sticky;bottom:0;background:var(--page);border-top:1px solid var(--rule);padding:.6rem 0;z-index:2}
svg text{fill:currentColor;font-size:12px}
"""


def page(record: Record, music: Music, found: Clusters, genres: Sequence[str], notes: Sequence[str]) -> str:
    """The page.

    Args:
        genres: of the bundle, offered as names
        notes: what to know before a name is given
    """
    clusters = len(record.clusters)
    title = f"{count(clusters)} clusters of {count(record.tracks)} tracks"
    names = "".join(f'<option value="{text_of(genre)}">' for genre in genres)
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="sub">By what {text_of(" and ".join(record.stages))} of the bundle {text_of(record.bundle)} hears;'
        f" clustering {record.name}.</p>",
        _how(),
        warned("Before you give a name", [note.removeprefix("warning: ") for note in notes]),
        f'<datalist id="genres">{names}</datalist>',
        *(_cluster(group, record, music, found) for group in record.clusters),
        _bar(),
        _curve(record),
        section("All numbers", *(html(table) for table in _tables(record))),
    ]
    script = f'document.body.dataset.clustering="{record.name}";\n{_SCRIPT.read_text(encoding="utf-8")}'
    return document(f"edge-reclass cluster: {title}", parts, style=_STYLE, script=script, media="file:")


def _how() -> str:
    hand = (
        "<noscript><p>This browser runs no script here. Write a file <code>names.csv</code> by hand: a line"
        " <code>cluster,genre</code>, then a line for each cluster that has a name, such as"
        " <code>3,Bossa Nova</code>.</p></noscript>"
    )
    return section(
        "What to do",
        "<ol><li>Listen to a few tracks of each cluster: from its middle, and from its edge.</li>"
        "<li>Write a genre where the cluster is one. Several may have the same. Leave the field empty where it is none:"
        " those tracks are left out.</li><li>Save the names, and give them to"
        f" <code>edge-reclass cluster -o FOLDER --names names.csv</code>. Then <code>edge-reclass fit"
        f" FOLDER/labelled.csv -o mine</code>.</li></ol>{hand}",
        css="answer",
    )


def _bar() -> str:
    return (
        '<p id="bar" hidden><button id="save" type="button">Save names.csv</button>'
        ' <span id="said" role="status"></span></p>'
    )


def _cluster(group: Group, record: Record, music: Music, found: Clusters) -> str:
    inner = list(_shown(music, found, group.number - 1))
    middle, edge = inner[:MIDDLE], inner[MIDDLE:]
    heard = ", ".join(f"{text_of(genre)} {percent(n / group.tracks)}" for genre, n in list(group.genres.items())[:3])
    said = f"<li>The bundle calls its tracks: {heard}</li>" if heard else ""
    if group.near:
        said += f"<li>Nearest genres that the bundle remembers: {text_of(', '.join(group.near))}</li>"
    said += "".join(f"<li>{text_of(line)}</li>" for line in group.apart)
    alarm = "".join(f"<p>{text_of(line)}</p>" for line in group.warnings)
    field = (
        f'<p><label>Genre of cluster {group.number} <input list="genres" data-cluster="{group.number}" maxlength="100"'
        ' autocomplete="off"></label></p>'
    )
    lists = "".join(
        f"<div><h3>{words}</h3><ol>{''.join(_track(music, i) for i in some)}</ol></div>"
        for words, some in (("From its middle", middle), ("From its edge", edge))
        if some
    )
    return (
        f'<section class="cluster"><h2>Cluster {group.number}: {count(group.tracks)} tracks'
        f" ({percent(group.tracks / record.tracks)})</h2><ul>{said}</ul>"
        f'{f"<div class=warn>{alarm}</div>" if alarm else ""}{field}<div class="lists">{lists}</div></section>'
    )


def _shown(music: Music, found: Clusters, cluster: int) -> Iterator[int]:
    """Numbers of tracks to listen to, MIDDLE from the middle, then up to EDGE from the edge; groups in turn."""
    own = np.flatnonzero(found.labels == cluster)
    own = own[np.argsort(found.distances[own], kind="stable")]
    middle = _one_of_each(music, own.tolist())[:MIDDLE]
    yield from middle
    far = found.far
    rest = [i for i in own[::-1].tolist() if i not in middle and not far[i]]
    yield from _one_of_each(music, rest)[:EDGE]


def _one_of_each(music: Music, tracks: Sequence[int]) -> list[int]:
    """The tracks, the first of each group before all others."""
    first: dict[str, int] = {}
    for i in tracks:
        first.setdefault(music.groups[i], i)
    return [*first.values(), *(i for i in tracks if first[music.groups[i]] != i)]


def _track(music: Music, number: int) -> str:
    path = music.tracks[number].path
    address = "file://" + quote(os.fsencode(path))
    try:
        tags = read_tags(path)
    except MissingExtraError:
        tags = FileTags()
    named = " – ".join(short(one, 80) for one in (tags.artist, tags.title) if one)
    own = f"{named} · " if named else ""
    file = short(f"{path.parent.name}/{path.name}", 100)
    label = text_of(named or file)
    return (
        f'<li>{text_of(own)}<a href="{address}">{text_of(file)}</a>'
        f'<audio controls preload="none" src="{address}" aria-label="{label}"></audio></li>'
    )


def _curve(record: Record) -> str:
    """How stable each number of clusters is, as a picture; nothing where fewer than two were tried."""
    steps = record.curve
    if len(steps) < 2:
        return ""
    left, top, width, height, most = 40.0, 12.0, 560.0, 220.0, max(one.clusters for one in steps)

    def place(clusters: int, value: float) -> str:
        return f"{left + width * clusters / most:.1f},{top + height * (1 - max(value, 0.0)):.1f}"

    lines = []
    for name, colour, dashes, values in (
        ("two parts of the music agree", "blue", "", [one.agreement for one in steps]),
        ("shuffled points agree", "slate", ' stroke-dasharray="5 4"', [one.by_chance for one in steps]),
    ):
        points = " ".join(place(one.clusters, value) for one, value in zip(steps, values, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="var(--{colour})" stroke-width="2"{dashes}/>')
        above = top + height * (1 - max(values[-4:])) - 8  # the text stands over the line's right end
        lines.append(f'<text x="{left + width}" y="{above:.1f}" text-anchor="end">{name}</text>')
    marks = [f'<text x="{left + width / 2}" y="{top + height + 36}" text-anchor="middle">number of clusters</text>']
    marks += [
        f'<text x="{left - 6}" y="{top + height * (1 - value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in (0.0, 0.5, 1.0)
    ]
    for one in steps:
        if one.clusters in (2, 5, 10, 15, 20, 25, 30):
            x = place(one.clusters, 0).split(",")[0]
            marks.append(f'<text x="{x}" y="{top + height + 18}" text-anchor="middle">{one.clusters}</text>')
    chosen = place(record.asked or 0, 0).split(",")[0]
    marks.append(
        f'<line x1="{chosen}" x2="{chosen}" y1="{top}" y2="{top + height}" stroke="var(--orange)" stroke-width="2"/>'
        f'<line x1="{left}" x2="{left + width}" y1="{top + height}" y2="{top + height}" stroke="var(--muted)"/>'
    )
    lead = (
        "Adjusted Rand index of pairs of random parts of the music, by the number of clusters; 1: the same clusters."
        f" Taken is the largest number whose lead over shuffled points cannot be told from the best:"
        f" {record.asked} (the upright line). Two or three clusters agree well in any data."
    )
    svg = f'<svg viewBox="0 0 620 280" role="img" aria-label="{text_of(lead)}" style="max-width:44rem">'
    return figure(Figure("How many clusters", lead, f"{svg}{''.join(marks)}{''.join(lines)}</svg>"))


def _tables(record: Record) -> Iterator[Table]:
    yield Table(
        "Clusters",
        (">cluster", ">tracks", "called by the bundle", "nearest genres", ">far", ">between"),
        tuple(_row(group) for group in record.clusters),
        f"far: further from the centre than nearly all. between: at more than {BETWEEN:g} of the distance to the next"
        " centre; left out unless both clusters get the same name.",
    )
    if record.curve:
        columns = (">clusters", ">agreement", ">of shuffled points", ">lead", ">error", ">silhouette")
        yield Table("How stable", columns, tuple(map(_step, record.curve)))
    if record.follows:
        yield Table(
            "What the clusters follow besides the sound",
            ("what", ">adjusted mutual information"),
            tuple((what, number(share)) for what, share in record.follows.items()),
            "0: no more than by chance, 1: the clusters are that.",
        )
    facts = [
        ("tracks", count(record.tracks)),
        ("in no cluster", count(record.loose)),
        *((f"left out, {why}", count(n)) for why, n in record.left_out.items()),
        ("method", record.method if record.smallest is None else f"{record.method}, at least {record.smallest} tracks"),
        ("dimensions", f"{record.dimensions} of the embeddings, with {percent(record.explained)} of their variance"),
        ("bundle", f"{record.bundle} {record.bundle_digest[:12]}"),
        ("seed", str(record.seed)),
        ("edge-reclass", record.version),
    ]
    yield Table("Where it comes from", ("what", "value"), tuple(facts))


def _row(group: Group) -> tuple[str, ...]:
    heard = ", ".join(f"{genre} {n}" for genre, n in list(group.genres.items())[:3])
    near = ", ".join(group.near)
    return (
        str(group.number),
        count(group.tracks),
        heard or NOTHING,
        near or NOTHING,
        str(group.far),
        str(group.between),
    )


def _step(one: Stability) -> tuple[str, ...]:
    values = (one.agreement, one.by_chance, one.lead, one.error, one.silhouette)
    return (str(one.clusters), *(f"{value:.3f}" for value in values))
