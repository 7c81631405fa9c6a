"""What the tags of a file say, for people: artist, title, album, track number, genres."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from edge_reclass.errors import MissingExtraError


@dataclass(frozen=True)
class FileTags:
    """What a file says of itself; None or empty where it says nothing."""

    artist: str | None = None
    title: str | None = None
    album: str | None = None
    track: str | None = None
    """The number alone: "3" of "3/12"."""
    genres: tuple[str, ...] = ()
    seconds: float | None = None
    """How long it plays, as its headers say."""


_ID3: Final = ("TPE1", "TIT2", "TALB", "TRCK", "TCON")
_ASF: Final = ("Author", "Title", "WM/AlbumTitle", "WM/TrackNumber", "WM/Genre")
_MP4: Final = ("\xa9ART", "\xa9nam", "\xa9alb", "trkn", "\xa9gen")
_PLAIN: Final = ("artist", "title", "album", "tracknumber", "genre")
_APE: Final = ("Artist", "Title", "Album", "Track", "Genre")


def import_mutagen() -> Any:
    """Import mutagen.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import mutagen
    except ModuleNotFoundError as error:
        raise MissingExtraError("tags are read and written by mutagen, which is not installed", "tags") from error
    return mutagen


def read(path: str | os.PathLike[str]) -> FileTags:
    """Read the tags of a file. A file that is not there, is damaged, or has none gives an empty result.

    Raises:
        MissingExtraError: mutagen (the extra ``tags``) is not installed.
    """
    mutagen = import_mutagen()
    try:
        if not os.path.isfile(path):  # noqa: PTH113 - a pipe would have to be waited for
            return FileTags()
        with open(path, "rb") as file:  # noqa: PTH123
            return tags_of(mutagen.File(file), file)
    except Exception:  # mutagen raises whatever a damaged file makes it raise
        return FileTags()


def tags_of(opened: Any, file: Any) -> FileTags:
    """The tags of what mutagen opened; an mp3 may have an APE tag beside, which mutagen passes over."""
    tags = None if opened is None else opened.tags
    found = FileTags() if tags is None else _of(tags)
    if type(opened).__name__ in ("MP3", "TrueAudio") and not found.genres:
        file.seek(0)
        found = _filled(found, _ape_beside(file))
    return replace(found, seconds=getattr(getattr(opened, "info", None), "length", None) or None)


def _filled(first: FileTags, second: FileTags) -> FileTags:
    return FileTags(*(getattr(first, name) or getattr(second, name) for name in FileTags.__dataclass_fields__))


def _ape_beside(file: Any) -> FileTags:
    from mutagen.apev2 import APEv2, error

    try:
        return _of(APEv2(file))
    except error:
        return FileTags()


def _of(tags: Any) -> FileTags:
    kind = type(tags).__name__
    if hasattr(tags, "getall"):  # ID3, in whatever file
        return _fields(_ID3, lambda key: _id3(tags, key))
    if kind == "MP4Tags":
        return _fields(
            _MP4, lambda key: (value[0] if isinstance(value, tuple) else value for value in tags.get(key, ()))
        )
    if kind == "ASFTags":
        return _fields(_ASF, lambda key: tags.get(key, ()))
    if kind == "APEv2":
        return _fields(_APE, lambda key: list(tags[key]) if key in tags else ())
    return _fields(_PLAIN, lambda key: tags.get(key, ()))


def _id3(tags: Any, key: str) -> Iterable[object]:
    for frame in tags.getall(key):
        yield from frame.genres if key == "TCON" else frame.text


def _fields(keys: tuple[str, ...], values: Callable[[str], Iterable[object]]) -> FileTags:
    artist, title, album, track = (_first(values(key)) for key in keys[:4])
    number = None if track is None else track.partition("/")[0].strip() or None
    genres = tuple(text for value in values(keys[4]) if (text := str(value).strip("\0 ")))
    return FileTags(artist, title, album, number, genres)


def _first(values: Iterable[object]) -> str | None:
    return next((text for value in values if (text := str(value).strip("\0 "))), None)
