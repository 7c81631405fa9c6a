"""What a cluster holds, what sets it apart, and what it may be besides a genre: a source, a length, one artist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.run import printable
from edge_reclass_learn.cluster.clustering import Clusters, Numbers
from edge_reclass_learn.cluster.reading import Music
from edge_reclass_learn.cluster.record import Group
from edge_reclass_learn.cluster.space import Space
from edge_reclass_learn.hearing.examples import Example, Facts

LISTED: Final = 3
"""Genres that are said of a cluster."""
MOSTLY: Final = 0.5
"""Share of a cluster's tracks from which one artist, album or source is said."""
_NAMED: Final = {"artist": "by the artist", "album": "from the album", "group": "of the group"}
_BINS: Final = 5


@dataclass(frozen=True)
class _Fact:
    """Something of a file that can be measured without listening for music, and how its ends are called."""

    name: str
    low: str
    high: str
    text: str

    def of(self, facts: Facts) -> float:
        return {"length": facts.seconds, "level": facts.level, "sampling rate": facts.rate, "bit rate": facts.kilobits}[
            self.name
        ]


_FACTS: Final = (
    _Fact("length", "shorter", "longer", "{:.0f} s"),
    _Fact("level", "softer", "louder", "{:.0f} dB"),
    _Fact("sampling rate", "a lower sampling rate", "a higher sampling rate", "{:.0f} Hz"),
    _Fact("bit rate", "a lower bit rate", "a higher bit rate", "{:.0f} kbit/s"),
)


def groups(music: Music, found: Clusters, near: Sequence[Sequence[str]]) -> list[Group]:
    """What is said of each cluster.

    Args:
        near: of each cluster, the genres whose remembered tracks lie near, see :func:`near_genres`
    """
    far, between = found.far, found.between
    told = []
    for number in range(len(found)):
        own = np.flatnonzero(found.labels == number)
        genres = Counter(genre for i in own.tolist() if (genre := music.genres[i]) is not None)
        told.append(
            Group(
                number=number + 1,
                tracks=len(own),
                genres=dict(genres.most_common()),
                near=list(near[number][:LISTED]),
                apart=list(_apart(music, own)),
                warnings=list(_warnings(music, own)),
                far=int(far[own].sum()),
                between=int((between & ~far)[own].sum()),
            )
        )
    return told


def near_genres(remembered: Sequence[Example], space: Space, found: Clusters) -> list[list[str]]:
    """Of each cluster, genres by how near the mean of their remembered tracks lies to its centre, the nearest first."""
    if not remembered:
        return [[] for _ in range(len(found))]
    fullest = {asked[0]: asked for asked in remembered[0].embeddings if asked[0] in space.scalers}
    points = space.place({s: np.stack([one.embeddings[a] for one in remembered]) for s, a in fullest.items()})
    names = sorted({one.genre for one in remembered})
    of = np.array([names.index(one.genre) for one in remembered])
    means = np.stack([points[of == i].mean(axis=0) for i in range(len(names))])
    far = np.linalg.norm(found.centres[:, None] - means[None], axis=2)
    return [[names[i] for i in order] for order in far.argsort(axis=1, kind="stable").tolist()]


def follows(music: Music, labels: Numbers) -> dict[str, float]:
    """How much the clusters tell of the source, length, level and rates of their tracks, and the other way round.

    Adjusted mutual information (Vinh, Epps, Bailey, JMLR 2010), 0: no more than by chance, 1: the same partition.
    Numbers are cut into fifths. What is the same in all tracks, or not known of one, is left out.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    own = np.flatnonzero(labels >= 0)
    found = {}
    for name, values in _known(music, own):
        if len(set(values.tolist())) > 1:
            found[name] = round(float(adjusted_mutual_info_score(values, labels[own])), 4)
    return found


def _known(music: Music, own: Numbers) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """What is known of each of the tracks ``own``, as numbers of classes."""
    sources = [music.tracks[i].source for i in own]
    if all(sources):
        yield "source", np.unique(np.array(sources), return_inverse=True)[1]
    facts = [music.facts[i] for i in own]
    there = [one for one in facts if one is not None]
    if there and len(there) == len(facts):
        for fact in _FACTS:
            values = np.array([fact.of(one) for one in there])
            inner = np.unique(np.quantile(values, np.arange(1, _BINS) / _BINS))
            yield fact.name, np.searchsorted(inner, values, side="left")


def _apart(music: Music, own: Numbers) -> Iterator[str]:
    """In what most tracks of a cluster lie beyond what most tracks have: its median outside of their middle half."""
    for fact in _FACTS:
        values = np.array([np.nan if one is None else fact.of(one) for one in music.facts])
        if np.isnan(values).any():
            continue
        low, high = np.quantile(values, (0.25, 0.75))
        middle, all_middle = float(np.median(values[own])), float(np.median(values))
        if not low <= middle <= high:
            word = fact.low if middle < low else fact.high
            yield f"{word}: {fact.text.format(middle)}, all tracks {fact.text.format(all_middle)} (medians)"
    ((folder, count),) = Counter(str(music.tracks[i].path.parent) for i in own).most_common(1)
    if count > MOSTLY * len(own) and len({track.path.parent for track in music.tracks}) > 1:
        yield f"{count} of {len(own)} from the folder {printable(folder)}"


def _warnings(music: Music, own: Numbers) -> Iterator[str]:
    """Why a cluster may be no genre."""
    total = len(own)
    for key, words in _NAMED.items():
        names = Counter(value for i in own for kind, value in music.tracks[i].belongs if kind == key)
        name, count = names.most_common(1)[0] if names else ("", 0)
        if count > MOSTLY * total and count > 1:
            said = name.rsplit("/", 1)[-1] if key == "album" else name
            yield f"{count} of {total} tracks are {words} {printable(said)}: it may be that, and no genre"
    ((_, count),) = Counter(music.groups[i] for i in own).most_common(1)
    if count > MOSTLY * total and count > 1 and not any(music.tracks[i].belongs for i in own):
        yield f"{count} of {total} tracks seem to be the same recording: it may be that, and no genre"
    sources: Mapping[str, int] = Counter(source for i in own if (source := music.tracks[i].source))
    everywhere = Counter(track.source for track in music.tracks if track.source)
    for source, count in sources.items():
        share = everywhere[source] / len(music.tracks)
        if len(everywhere) > 1 and count > 0.9 * total and share < 0.6:
            yield (
                f"{count} of {total} tracks come from {printable(source)}, as {share:.0%} of all do: what sounds alike"
                " may be the source"
            )
