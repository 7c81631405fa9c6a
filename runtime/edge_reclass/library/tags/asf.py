"""ASF files (wma): written by mutagen, proven by what is read here object by object."""

from __future__ import annotations

import os
from pathlib import Path

from edge_reclass.library.tags.content import ORIGINAL, Change, Inventory, Place, Refused, digest, digest_of, read_at

_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_CONTENT = bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c")
_EXTENDED = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
_METADATA = bytes.fromhex("eacbf8c5af5b77488467aa8c44fa4cca")
_LIBRARY = bytes.fromhex("941c23449894d149a1411d134e457054")
_PADDING = bytes.fromhex("74d40618dfca0945a4ba9aabcb96aae8")
_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_FIELDS = ("Title", "Author", "Copyright", "Description", "Rating")
_GENRE = "WM/Genre"


class Asf:
    """An ASF file. Readers turn the order of several genres around, so that it gets one."""

    def __init__(self, fd: int, container: str, deep: bool) -> None:  # noqa: ARG002
        """Read the objects of an open file.

        Raises:
            Refused: they do not fit into it.
        """
        self._fd, self._deep = fd, deep
        self._genres: list[str] = []
        self._original: list[str] = []
        self._rest: list[tuple[str, bytes]] = []
        head = read_at(fd, 0, 30)
        size = int.from_bytes(head[16:24], "little")
        if size > os.fstat(fd).st_size or size < 30 or size > 1 << 28:
            raise Refused("damaged: its header is longer than the file")
        self._objects(read_at(fd, 30, size - 30))
        if deep:
            self._rest.append(("audio", digest_of(fd, size, os.fstat(fd).st_size - size)))

    def inventory(self) -> Inventory:
        """See :class:`Container`."""
        return Inventory((Place("ASF", tuple(self._genres), one=True),), tuple(self._original), tuple(self._rest))

    def save(self, copy: Path, change: Change) -> None:
        """See :class:`Saved`."""
        from mutagen.asf import ASF

        opened = ASF(copy)
        opened[_GENRE] = [change.genres[0]]
        if change.original and not self._original:
            opened[ORIGINAL] = list(change.original)
        opened.save()

    def _objects(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at + 16 : at + 24], "little")
            if size < 24 or at + size > len(data):
                raise Refused("damaged: an object is longer than the header that holds it")
            self._object(data[at : at + 16], data[at + 24 : at + size])
            at += size

    def _object(self, guid: bytes, body: bytes) -> None:
        if guid == _CONTENT:
            at = 10
            for i, name in enumerate(_FIELDS):
                size = int.from_bytes(body[2 * i : 2 * i + 2], "little")
                self._attribute(name, 0, body[at : at + size], 0, 0)
                at += size
        elif guid == _EXTENDED:
            self._descriptors(body)
        elif guid == _EXTENSION:
            self._objects(body[22:])
        elif guid in (_METADATA, _LIBRARY):
            self._records(body)
        elif guid == _FILE:
            self._rest.append(("file properties", digest(body[:16], body[24:])))  # between them, the file's size
        elif guid != _PADDING:
            self._rest.append((f"object {guid.hex()}", digest(body)))

    def _descriptors(self, body: bytes) -> None:
        at = 2
        for _ in range(int.from_bytes(body[:2], "little")):
            name, at = _sized(body, at, 2)
            kind, at = int.from_bytes(body[at : at + 2], "little"), at + 2
            value, at = _sized(body, at, 2)
            self._attribute(_text(name), kind, value, 0, 0)

    def _records(self, body: bytes) -> None:
        at = 2
        for _ in range(int.from_bytes(body[:2], "little")):
            language, stream, named, kind = (int.from_bytes(body[at + i : at + i + 2], "little") for i in (0, 2, 4, 6))
            size, at = int.from_bytes(body[at + 8 : at + 12], "little"), at + 12
            if at + named + size > len(body):
                raise Refused("damaged: its attributes are longer than they say")
            name, value = _text(body[at : at + named]), body[at + named : at + named + size]
            self._attribute(name, kind, value, language, stream)
            at += named + size

    def _attribute(self, name: str, kind: int, value: bytes, language: int, stream: int) -> None:
        """What is said of the track, wherever it is said."""
        if name == _GENRE and kind == 0:
            self._genres += [text] if (text := _text(value)) else []
        elif name == ORIGINAL and kind == 0:
            self._original.append(_text(value))
        elif kind == 0 and not _text(value):
            pass  # as good as none
        else:
            plain = _text(value).encode() if kind == 0 else value
            if kind == 2:  # of 16 or 32 bits, by where it stands
                plain = b"1" if any(value) else b"0"
            self._rest.append((name, digest(bytes([kind]), plain, str((language, stream)).encode())))


def _sized(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    size = int.from_bytes(data[at : at + width], "little")
    if at + width + size > len(data):
        raise Refused("damaged: its attributes are longer than they say")
    return data[at + width : at + width + size], at + width + size


def _text(data: bytes) -> str:
    return data.decode("utf-16-le", errors="replace").rstrip("\0")
