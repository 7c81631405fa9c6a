"""What a track calls itself: by its tags, else by its file's name."""

from __future__ import annotations

from pathlib import Path

from edge_reclass.errors import MissingExtraError
from edge_reclass.library.tags import FileTags, read


class Labels:
    """Reads the tags of files; a file without is called by its name.

    ``problem`` says why no tags are read at all, where mutagen is not installed; None where they are.
    """

    def __init__(self) -> None:
        self.problem: str | None = None

    def tags(self, file: Path) -> FileTags:
        """What a file says of itself, as far as it can be read."""
        if self.problem is None:
            try:
                return read(file)
            except MissingExtraError as error:
                self.problem = str(error)
        return FileTags()


def name_of(file: Path, tags: FileTags) -> str:
    """``Artist - Title``, on one line; the file's name without its ending where there is no title."""
    if not tags.title:
        return file.stem
    return " ".join((f"{tags.artist} - {tags.title}" if tags.artist else tags.title).split())
