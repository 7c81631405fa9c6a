"""Which tracks are counted: one of each artist, drawn before anything is heard.

Tracks of one artist are not independent, and the tests take it that they are. Which track of an artist, and whether
the artist is chosen on or tested with, comes from a seed and from the sounds alone. So the same tracks give the same
parts on every device, wherever they lie and whatever they are called. For other tracks, a certificate keeps short
digests of all tracks of the artists that were chosen on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_reclass import Bundle
from edge_reclass.errors import UsageError
from edge_reclass.library import State, Wanted
from edge_reclass_learn.data.corrections import from_state, is_state
from edge_reclass_learn.data.groups import group
from edge_reclass_learn.data.labelled import Data, Labelled, read_data, with_tags
from edge_reclass_learn.data.unlabelled import read_unlabelled
from edge_reclass_learn.hearing.memory import short

CHOOSING: Final = 3
"""One of so many artists is chosen on, the others are tested with."""
_DIGITS: Final = 10
"""Of a sound's digest in a certificate. Two sounds of the same digits only leave out one artist too many."""


@dataclass(frozen=True)
class Drawn:
    """A track that is counted. ``sound`` is its digest; ``artist`` has short digests of all tracks of its artist."""

    track: Labelled
    sound: bytes
    artist: frozenset[str]


def read(data: Path, bundle: Bundle, *, labelled: bool) -> Data:
    """The tracks of a folder, a CSV or a state file; the genre of each is "" unless they are ``labelled``.

    Raises:
        UsageError: there is no track, or no label where they are ``labelled``.
    """
    if is_state(data):
        if labelled:
            return from_state(data, bundle, [])
        with State.open(data) as state:
            found = [Labelled(row.file, "") for row in state.tracks(Wanted())]
        if not found:
            raise UsageError(f"{data}: no track in it; edge-reclass classify ~/Music --state {data}  enters some")
        return with_tags(found)
    return read_data(data) if labelled else read_unlabelled(data)


def drawn(tracks: Sequence[tuple[Labelled, bytes]], seed: int, most: int | None = None) -> list[Drawn]:
    """One track of each artist or album, in an order by chance; at most ``most``.

    Args:
        tracks: each with the digest of its sound. Those of one sound count as of one artist.
    """
    names = group([[*track.belongs, ("sound", sound.hex())] for track, sound in tracks], [])
    artists: dict[str, list[tuple[Labelled, bytes]]] = {}
    for name, one in zip(names, tracks, strict=True):
        artists.setdefault(name, []).append(one)
    found = []
    for some in artists.values():
        track, sound = min(some, key=lambda one: (_chance(seed, one[1]), one[0].path))
        found.append(Drawn(track, sound, frozenset(_digits(other) for _, other in some)))
    return sorted(found, key=lambda one: _chance(seed, one.sound))[:most]


def choosing(one: Drawn, seed: int) -> bool:
    """Whether a track is chosen on; else it is tested with."""
    return int.from_bytes(_chance(seed + 1, one.sound)[:4], "big") % CHOOSING == 0


def kept(chosen_on: Sequence[Drawn]) -> str:
    """What a certificate keeps of the tracks that were chosen on: digits of the sounds of all of their artists."""
    return "".join(sorted(frozenset().union(*(one.artist for one in chosen_on))))


def was_chosen_on(one: Drawn, kept: str) -> bool:
    """Whether a track, or another one of its artist, is among those that a certificate keeps."""
    return not one.artist.isdisjoint(kept[i : i + _DIGITS] for i in range(0, len(kept), _DIGITS))


def _digits(sound: bytes) -> str:
    return f"{short(sound):016x}"[:_DIGITS]


def _chance(seed: int, sound: bytes) -> bytes:
    return hashlib.sha256(b"%d " % seed + sound).digest()
