"""A playlist per genre, in a folder: each is written whole, and only where something changed."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_reclass.errors import UsageError
from edge_reclass.host import replace_whole
from edge_reclass.library.label import Labels
from edge_reclass.library.m3u import playlist_of
from edge_reclass.library.names import component, key
from edge_reclass.library.shown import shown
from edge_reclass.library.state import State

_SUFFIX: Final = ".m3u8"
OURS: Final = "#EDGE-RECLASS:"
"""Begins the comment by which we know our own playlists; the state that they are made from stands behind it."""
SIMILAR: Final = f"{OURS}similar"
"""The comment of a playlist of what sounds alike."""


@dataclass(frozen=True)
class Written:
    """What became of the playlists: their files, and the tracks that no playlist can hold."""

    playlists: dict[str, int]
    """Tracks by the file's name, changed or not."""
    changed: int
    removed: list[Path]
    left_out: list[Path]


def write_playlists(state: State, folder: Path, labels: Labels, *, min_confidence: float = 0.0) -> Written:
    """Write a playlist for each genre into ``folder``, which is made where it is missing.

    What a person said wins, whatever the confidence. Unsure and absent tracks are in none. A playlist that was made
    from this state earlier and would be empty now is removed.

    Raises:
        UsageError: a file of that name is not ours, or the folder cannot be written; nothing was written then.
        OSError: a playlist cannot be written; each is the old or the new one.
    """
    tracks: dict[str, list[Path]] = defaultdict(list)
    for row in state.tracks():
        if (genre := row.sure_genre(min_confidence)) is not None:
            tracks[genre].append(row.file)
    mark = OURS + shown(os.path.realpath(state.path))
    names = _names(sorted(tracks))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(file for file in folder.iterdir() if file.name.endswith(_SUFFIX))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be used as a folder ({error.strerror}); name another") from error
    ours = {file.name for file in there if mark_of(file) == mark}
    # exFAT and SMB do not tell cases apart: rock.m3u8 would be overwritten by Rock.m3u8.
    taken = {name.casefold() for name in names.values()}
    if foreign := [file for file in there if file.name.casefold() in taken and file.name not in ours]:
        raise UsageError(
            f"{', '.join(file.name for file in foreign)} in {folder}: not made from {state.path}, and would be "
            "overwritten; remove it, or name another folder"
        )
    playlists, left_out, changed = {}, [], 0
    for genre, files in sorted(tracks.items()):
        target = folder / names[genre]
        playlist = playlist_of(files, folder, labels, (mark,))
        left_out += playlist.left_out
        if not len(playlist):
            continue
        content = playlist.content()
        playlists[target.name] = len(playlist)
        if not target.is_file() or target.read_bytes() != content:  # servers read what is newer
            replace_whole(target, content)
            changed += 1
    listed = {name.casefold() for name in playlists}
    removed = [folder / name for name in sorted(ours) if name.casefold() not in listed]
    for file in removed:
        file.unlink()
    return Written(playlists, changed, removed, left_out)


def mark_of(file: Path) -> str | None:
    """The comment of ours in a playlist; None where somebody else made it."""
    if file.is_symlink() or not file.is_file():
        return None
    with file.open("rb") as stream:
        lines = stream.read(1 << 16).split(b"\n")[:2]
    mark = lines[-1].decode("utf-8", "replace")
    return mark if mark.startswith(OURS) else None


def _names(genres: Sequence[str]) -> dict[str, str]:
    """A file's name for each genre, which every file system takes, and no two alike where case does not count."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for genre in genres:
        text, number = shown(genre), 1
        name = component(text, _SUFFIX) or f"_{_SUFFIX}"
        while key(name) in taken:
            number += 1
            name = component(text or "_", f" ({number}){_SUFFIX}")
        taken.add(key(name))
        names[genre] = name
    return names
