"""``--map``: the genres of a head that are not the bundle's, and what each of them is there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from edge_reclass.bundle import HeadEntry, Share, YamlError, genre_faults, parse_yaml
from edge_reclass.errors import UsageError

Counterpart = str | dict[str, Share] | None


class OwnGenres(Struct, forbid_unknown_fields=True, frozen=True):
    """As ``genres`` and ``map`` of a head stand in a manifest; ``genres`` is None where the head's file names them."""

    map: dict[str, Counterpart]
    genres: Annotated[list[str], Meta(min_length=2)] | None = None

    def enter(self, head: HeadEntry) -> HeadEntry:
        """``head`` with these genres."""
        return replace(head, genres=self.genres, map=self.map)


def read_own_genres(path: Path) -> OwnGenres:
    """Read a file of ``--map``: YAML or JSON with ``map``, and ``genres`` in the order of the logits.

    Raises:
        UsageError: it cannot be read, or is no such file.
    """
    try:
        return msgspec.convert(parse_yaml(path.read_text(encoding="utf-8")), OwnGenres)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (YamlError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{path}: expected map, and genres where the head's file does not name them: {error}"
        ) from error


def check_own_genres(own: OwnGenres, names: Sequence[str], genres: Sequence[str], where: str) -> OwnGenres:
    """``own`` of a head whose classes are ``names``, for a bundle with ``genres``.

    Raises:
        UsageError: they do not fit together; the message begins with ``where``.
    """
    if len(genres) < 2:
        raise UsageError(f"{where}: name the genres of the new bundle with --genres A,B,..., which map leads to")
    own = replace(own, genres=list(names))
    if wrong := list(genre_faults(where, own.enter(HeadEntry(file="", inputs=[])), genres)):
        raise UsageError("; ".join(wrong))
    return own


def same_genres(theirs: Sequence[str], ours: Sequence[str]) -> Mapping[str, str]:
    """Our name of each genre that they have too; letters and digits decide (``hiphop`` is ``Hip-Hop``)."""
    known = {_plain(genre): genre for genre in ours}
    return {genre: known[_plain(genre)] for genre in theirs if _plain(genre) in known}


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def by_name(
    genres: Sequence[str], known: Mapping[str, str], given: Mapping[str, Counterpart]
) -> dict[str, Counterpart]:
    """A map of ``genres``: what is ``given`` of them, else the genre that is ``known`` under another spelling.

    Raises:
        UsageError: neither says anything of some of them.
    """
    found: dict[str, Counterpart] = {**known, **given}
    if missing := [genre for genre in genres if genre not in found]:
        raise UsageError(
            f"the bundle has no genre called {', '.join(missing)}: say with --map FILE what they are there"
            f" (map: {{{missing[0]}: GENRE}}, or null for none)"
        )
    return {genre: found[genre] for genre in genres} | {genre: to for genre, to in given.items() if genre not in genres}
