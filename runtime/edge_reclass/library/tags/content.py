"""What is found in a file and what is to be written; what all containers share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from edge_reclass.audio.pieces import Piece

ORIGINAL: Final = "ORIGINALGENRE"
"""The field that keeps the genre that a file had before the first change."""

PADDING: Final = 1024
"""Bytes left free where a tag has to grow, so that the next change moves nothing."""


class Refused(Exception):
    """A file is not written; the message says why."""


@dataclass(frozen=True)
class Change:
    """The genres to write, the surest first, and what was there before, to be kept where nothing is kept yet."""

    genres: tuple[str, ...]
    original: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """One of the tags of a file, and the genres in it. ``new``: it is not there yet. ``one``: it can hold one genre."""

    name: str
    genres: tuple[str, ...]
    new: bool = False
    one: bool = False

    def after(self, change: Change) -> tuple[str, ...]:
        """What it is to hold."""
        return change.genres[:1] if self.one else change.genres


@dataclass(frozen=True)
class Inventory:
    """All tags of a file: the genres of each place, the kept original, and everything else, by name, as hashes.

    The first place is where a file of its kind has its genre; it is always named, even if it is not there yet.
    """

    places: tuple[Place, ...]
    original: tuple[str, ...]
    rest: tuple[tuple[str, bytes], ...]

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres of the first place that has any."""
        return next((place.genres for place in self.places if place.genres), ())

    def has(self, change: Change) -> bool:
        """True if the first place holds the new genres, and no other place another one."""
        first, *others = self.places
        return first.genres == first.after(change) and all(
            not place.genres or _folded(place.genres) == _folded(place.after(change)) for place in others
        )

    def differs(self, other: Inventory) -> str | None:
        """The first thing beside the genre that is not the same in ``other``; None where all is.

        A place that was not there may bring a header of its own.
        """
        left, right = list(self.rest), list(other.rest)
        for item in self.rest:
            if item in right:
                right.remove(item)
                left.remove(item)
        added = tuple(place.name for place in self.places if place.new)
        extra = [name for name, _ in right if not name.startswith(added)] if added else [name for name, _ in right]
        return left[0][0] if left else extra[0] if extra else None


def _folded(genres: tuple[str, ...]) -> list[str]:
    return [genre.casefold() for genre in genres]  # ID3v1 has spellings of its own


class Container(Protocol):
    """The tags of an open file of some format."""

    def inventory(self) -> Inventory:
        """What is in it."""


@runtime_checkable
class Rewritable(Container, Protocol):
    """A format whose tags are written here."""

    def pieces(self, change: Change) -> list[Piece]:
        """The changed file, as pieces of this one."""


@runtime_checkable
class Saved(Container, Protocol):
    """A format whose tags mutagen writes."""

    def save(self, copy: Path, change: Change) -> None:
        """Write the change into a copy of the file."""


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Exactly ``length`` bytes.

    Raises:
        Refused: the file ends before.
    """
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise Refused("damaged: it ends within a tag or chunk")
    return data


def blocks(fd: int, offset: int, length: int, size: int = 1 << 20) -> Iterator[bytes]:
    """A part of a file, piece by piece; ends early where the file does."""
    end = offset + length
    while offset < end:
        block = os.pread(fd, min(size, end - offset), offset)
        if not block:
            return
        yield block
        offset += len(block)


def digest(*parts: bytes) -> bytes:
    """A hash of bytes."""
    one = blake2b(digest_size=16)
    for part in parts:
        one.update(len(part).to_bytes(8, "little"))
        one.update(part)
    return one.digest()


def digest_of(fd: int, offset: int, length: int) -> bytes:
    """A hash of a part of a file."""
    one = blake2b(digest_size=16)
    for block in blocks(fd, offset, length):
        one.update(block)
    return one.digest()
