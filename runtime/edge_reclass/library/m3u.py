"""Playlists: UTF-8 m3u with paths relative to the playlist."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_reclass.library.label import Labels, name_of
from edge_reclass.library.shown import shown

_HEAD: Final = "#EXTM3U"


@dataclass
class Playlist:
    """The lines of a playlist that will lie in ``folder``; names and lengths are from ``labels``.

    ``left_out`` are the tracks that it cannot hold: names that are not UTF-8, of more than one line, or with a blank at
    their end.
    """

    folder: Path
    labels: Labels
    comments: tuple[str, ...] = ()
    left_out: list[Path] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _folders: dict[str, str] = field(default_factory=dict)

    def add(self, file: Path) -> None:
        """One more track; its name and length are read from the file."""
        entry = self._relative(file)
        if not _can_stand_on_a_line(entry):
            self.left_out.append(file)
            return
        tags = self.labels.tags(file)
        seconds = -1 if tags.seconds is None else round(tags.seconds)
        self._lines += [f"#EXTINF:{seconds},{shown(name_of(file, tags))}", entry]

    def __len__(self) -> int:
        return len(self._lines) // 2

    def content(self) -> bytes:
        """The file: UTF-8 without a byte order mark."""
        return "".join(f"{line}\n" for line in (_HEAD, *self.comments, *self._lines)).encode("utf-8")

    def _relative(self, file: Path) -> str:
        """From the playlist to the file, through no link to a folder: what ``..`` means there depends on the reader."""
        above, name = os.path.split(file)
        relative = self._folders.get(above)
        if relative is None:
            # The file itself may be a link: it is listed where it lies in the library.
            relative = self._folders[above] = os.path.relpath(os.path.realpath(above), os.path.realpath(self.folder))
        entry = name if relative == "." else f"{relative}/{name}"
        # Else a reader takes it for a comment or an address, or cuts the blank off.
        return f"./{entry}" if entry[0] in "# \t" or ":" in entry.split("/")[0] else entry


def playlist_of(files: Iterable[Path], folder: Path, labels: Labels, comments: tuple[str, ...] = ()) -> Playlist:
    """The playlist of ``files``, in their order."""
    made = Playlist(folder, labels, comments)
    for file in files:
        made.add(file)
    return made


def _can_stand_on_a_line(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return not text[-1].isspace() and not set(text) & {"\n", "\r"}  # readers cut the blank off
