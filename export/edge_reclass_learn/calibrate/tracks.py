"""Which tracks are counted: one of each artist, drawn before anything is heard.

Tracks of one artist are not independent, and the tests take it that they are. Which track of an artist, and whether
the artist is chosen on or tested with, comes from a seed and from names alone: with the same seed the same tracks give
the same parts on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge_reclass import Bundle
from edge_reclass.errors import UsageError
from edge_reclass.library import State, Wanted
from edge_reclass.run import TrackSearch, printable
from edge_reclass_learn.data.corrections import from_state, is_state
from edge_reclass_learn.data.groups import group
from edge_reclass_learn.data.labelled import Data, Labelled, read_data, with_tags

CHOOSING: Final = 3
"""One of so many artists is chosen on, the others are tested with."""


def read(data: Path, bundle: Bundle, *, labelled: bool) -> Data:
    """The tracks of a folder, a CSV or a state file; without ``labelled`` their genres do not matter, and may be "".

    Raises:
        UsageError: there is no track, or ``labelled`` and no label.
    """
    if is_state(data):
        if labelled:
            return from_state(data, bundle, [])
        with State.open(data) as state:
            found = [Labelled(row.file, "") for row in state.tracks(Wanted())]
        if not found:
            raise UsageError(f"{data}: no track in it; edge-reclass classify ~/Music --state {data}  enters some")
        return with_tags(found)
    if labelled or not data.is_dir():
        return read_data(data)
    search = TrackSearch([data])
    found = [Labelled(track.path, "") for track in search]
    if not found:
        raise UsageError(f"{data}: no audio found")
    read = with_tags(found)
    problems = (f"warning: {printable(str(path))}: cannot be searched ({why})" for path, why in search.problems)
    return Data(read.tracks, (*read.notes, *problems))


def drawn(tracks: Sequence[Labelled], seed: int, most: int | None = None) -> list[Labelled]:
    """One track of each artist or album, in an order by chance; at most ``most``."""
    found: dict[str, Labelled] = {}
    for track, name in zip(tracks, group([track.belongs for track in tracks], []), strict=True):
        if name not in found or _chance(seed, track.path.name) < _chance(seed, found[name].path.name):
            found[name] = track
    return sorted(found.values(), key=lambda track: _chance(seed, _key(track)))[:most]


def choosing(track: Labelled, seed: int) -> bool:
    """Whether a track is chosen on; else it is tested with."""
    return int.from_bytes(_chance(seed + 1, _key(track))[:4], "big") % CHOOSING == 0


def _key(track: Labelled) -> str:
    return repr(min(track.belongs)) if track.belongs else track.path.name


def _chance(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed} {text}".encode(errors="surrogateescape")).digest()
