"""MP4 files (m4a, m4b, alac): the genre, with every other item left as its bytes are.

mutagen would sort the items and write some anew, in other widths. Where the list of items grows beyond the free space
behind it, what follows moves, and the tables of chunk offsets are corrected.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edge_reclass.audio.pieces import Piece
from edge_reclass.library.tags.content import (
    ORIGINAL,
    PADDING,
    Change,
    Inventory,
    Place,
    Refused,
    digest,
    digest_of,
    read_at,
)

_PARENTS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta", b"meta", b"ilst"})
_FREE = frozenset({b"free", b"skip", b"wide"})
_FREEFORM = f"----:com.apple.iTunes:{ORIGINAL}"
_META = "moov/udta/meta"
_ABOVE = ("moov", "moov/udta", _META)
_DEEPEST = 8
"""Levels of atoms above one that is looked into; real files have five."""
_MAX_ITEM = 256 << 20


class _Node(NamedTuple):
    at: int
    data: int
    end: int
    to_the_end: bool
    """Its size is given as 0: it ends with the file."""


class Mp4:
    """An MP4 file."""

    def __init__(self, fd: int, container: str, deep: bool) -> None:  # noqa: ARG002
        """Read the atoms of an open file.

        Raises:
            Refused: they do not fit into it, or it is of a kind that is not written.
        """
        self._fd, self._deep = fd, deep
        self._media: list[tuple[int, int]] = []
        self._offsets: list[tuple[str, int, bytes]] = []  # path, where, table
        self._nodes: dict[str, _Node] = {}
        self._list: tuple[int, int] | None = None
        self._beside: list[tuple[bytes, int, int]] = []
        self._items: list[tuple[bytes, bytes]] = []
        self._genres: list[str] = []
        self._original: list[str] = []
        self._foreign: dict[str, list[str]] = {}
        """Genres beside the list of items, by name, as QuickTime and 3GPP have them."""
        self._rest: list[tuple[str, bytes]] = []
        self._walk(0, os.fstat(fd).st_size, "")
        if not self._media:
            raise Refused("damaged: it holds no audio data")
        if "moov" not in self._nodes:
            raise Refused("damaged: it has no index")
        for name, _, table in self._offsets:
            self._rest.append((name, self._relative(table, 8 if name.endswith("co64") else 4)))

    def inventory(self) -> Inventory:
        """See :class:`Container`."""
        new = _META not in self._nodes
        return Inventory(
            (
                Place(_META if new else "MP4", tuple(self._genres), new=new),
                *(Place(name, tuple(genres)) for name, genres in self._foreign.items()),
            ),
            tuple(self._original),
            tuple(self._rest),
        )

    def pieces(self, change: Change) -> list[Piece]:
        """See :class:`Container`."""
        if any(place.genres and place.genres != place.after(change) for place in self.inventory().places[1:]):
            raise Refused(f"it has another genre in its {' and '.join(self._foreign)}, which is not written")
        path, at, room, make = self._spot()
        items: list[bytes] = []
        genre: bytes | None = _atom(b"\xa9gen", b"".join(map(_data, change.genres)))
        for kind, item in self._items:
            if kind not in (b"\xa9gen", b"gnre"):
                items.append(item)
            elif genre is not None:
                items.append(genre)
                genre = None
        if genre is not None:
            items.append(genre)
        if change.original and not self._original:
            names = _atom(b"mean", bytes(4) + b"com.apple.iTunes") + _atom(b"name", bytes(4) + ORIGINAL.encode())
            items.append(_atom(b"----", names + b"".join(map(_data, change.original))))
        content = make(_atom(b"ilst", b"".join(items)))
        spare = room - len(content)
        if spare < 0 or 0 < spare < 8:
            spare = PADDING
        if spare and path != "moov":  # free space belongs beside the list
            content += _atom(b"free", bytes(spare - 8))
        grown = len(content) - room
        edits = [(at, room, content)]
        if grown:
            edits += [self._resized(self._nodes[p], grown) for p in _ABOVE if path.startswith(p)]
            edits += self._moved(at, grown)
        return _spliced(os.fstat(self._fd).st_size, sorted(edits))

    def _spot(self) -> tuple[str, int, int, Callable[[bytes], bytes]]:
        """Of the list of items: what it is in, where, how many bytes it may replace, what has to stand around it."""
        if self._list is not None:
            begin, end = self._list
            free = next((stop for kind, start, stop in self._beside if kind in _FREE and start == end), end)
            return _META, begin, free - begin, lambda items: items
        if _META in self._nodes:
            return _META, self._nodes[_META].end, 0, lambda items: items

        def meta(items: bytes) -> bytes:
            handler = _atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
            return _atom(b"meta", bytes(4) + handler + items + _atom(b"free", bytes(PADDING)))

        if "moov/udta" in self._nodes:
            return "moov/udta", self._nodes["moov/udta"].data, 0, meta
        return "moov", self._nodes["moov"].end, 0, lambda items: _atom(b"udta", meta(items))

    def _resized(self, node: _Node, grown: int) -> tuple[int, int, bytes]:
        """The size of an atom, corrected."""
        if node.data - node.at == 16:
            return node.at + 8, 8, (node.end - node.at + grown).to_bytes(8, "big")
        if node.to_the_end:
            return node.at, 4, bytes(4)
        return node.at, 4, (node.end - node.at + grown).to_bytes(4, "big")

    def _moved(self, at: int, grown: int) -> list[tuple[int, int, bytes]]:
        """The tables of chunk offsets, corrected for what moves with everything behind ``at``."""
        edits = []
        for path, place, table in self._offsets:
            width = 8 if path.endswith("co64") else 4
            parts = [table[:8]]
            for i in range(8, len(table) - width + 1, width):
                offset = int.from_bytes(table[i : i + width], "big")
                offset += grown if offset >= at else 0
                if offset >= 1 << 8 * width:
                    raise Refused("its audio would lie beyond 4 GB, which its tables cannot hold")
                parts.append(offset.to_bytes(width, "big"))
            fixed = b"".join(parts)
            edits.append((place, len(fixed), fixed))
        return edits

    def _walk(self, at: int, end: int, path: str) -> None:
        while at < end:
            if end - at < 8:
                if path == "moov/udta" and not any(read_at(self._fd, at, end - at)):
                    return  # QuickTime ends a list of user data with a zero
                raise Refused("damaged: an atom is longer than what holds it")
            head = read_at(self._fd, at, 8)
            size, kind, data = int.from_bytes(head[:4], "big"), head[4:], at + 8
            if size == 1:
                size, data = int.from_bytes(read_at(self._fd, at + 8, 8), "big"), at + 16
            to_the_end = size == 0 and not path
            if to_the_end:
                size = end - at
            if at + size > end or at + size < data:
                raise Refused("damaged: an atom is longer than what holds it")
            name = f"{path}/{kind.decode('latin-1')}" if path else kind.decode("latin-1")
            if name in _ABOVE:
                if name in self._nodes:
                    raise Refused(f"it has two atoms {name}")
                self._nodes[name] = _Node(at, data, at + size, to_the_end)
            elif path == _META:
                self._beside.append((kind, at, at + size))
                if kind == b"ilst":
                    if self._list is not None:
                        raise Refused("it has two lists of tags")
                    self._list = at, at + size
            elif path == f"{_META}/ilst":
                if size > _MAX_ITEM:
                    raise Refused("damaged: an item of its tags is longer than any")
                self._items.append((kind, read_at(self._fd, at, size)))
            self._atom(kind, data, at + size, name)
            at += size

    def _atom(self, kind: bytes, begin: int, end: int, path: str) -> None:
        if kind in _FREE:
            return
        if kind == b"moof":
            raise Refused("a fragmented MP4 is not written")
        if kind == b"mdat":
            self._media.append((begin, end))
            if self._deep:
                self._rest.append(("audio", digest_of(self._fd, begin, end - begin)))
        elif kind in _PARENTS and path != "meta":
            if path.count("/") > _DEEPEST:
                raise Refused("damaged: its atoms are nested deeper than any")
            # A QuickTime meta atom has no version in front of its first child.
            skip = 4 if kind == b"meta" and read_at(self._fd, begin, 8)[4:] != b"hdlr" else 0
            self._walk(begin + skip, end, path)
        elif kind in (b"stco", b"co64"):
            self._offsets.append((path, begin, read_at(self._fd, begin, end - begin)))
        elif path.startswith(f"{_META}/ilst/"):
            self._item(kind, read_at(self._fd, begin, end - begin))
        else:
            self._rest.append((path, digest_of(self._fd, begin, end - begin)))
            if path in _FOREIGN and end - begin < _MAX_FOREIGN:
                name, read = _FOREIGN[path]
                self._foreign.setdefault(name, []).extend(filter(None, read(read_at(self._fd, begin, end - begin))))

    def _item(self, kind: bytes, content: bytes) -> None:
        name, values = kind.decode("latin-1"), []
        if kind == b"----":
            parts = dict(_children(content))
            name = ":".join([name, *(parts.get(key, b"")[4:].decode("utf-8", "replace") for key in (b"mean", b"name"))])
        if kind in (b"\xa9gen", b"gnre") or name.upper() == _FREEFORM.upper():
            values = [value for child, value in _children(content) if child == b"data"]
        if kind == b"\xa9gen":
            self._genres += [value[8:].decode("utf-8", errors="replace") for value in values if value[8:]]
        elif kind == b"gnre":
            from mutagen.id3 import TCON

            numbers = [int.from_bytes(value[8:10], "big") - 1 for value in values]
            self._genres += [TCON.GENRES[number] for number in numbers if 0 <= number < len(TCON.GENRES)]
        elif values:
            self._original += [value[8:].decode("utf-8", errors="replace") for value in values]
        else:
            self._rest.append((name, digest(content)))

    def _relative(self, table: bytes, width: int) -> bytes:
        """A table of chunk offsets, as places within the media data, which may lie elsewhere in the file now."""
        parts = [table[:8]]
        for at in range(8, len(table) - width + 1, width):
            offset = int.from_bytes(table[at : at + width], "big")
            for i, (begin, end) in enumerate(self._media):
                if begin <= offset <= end:
                    parts.append(b"%d+%d" % (i, offset - begin))
                    break
            else:
                parts.append(b"outside")
        return digest(*parts)


def _quicktime(content: bytes) -> list[str]:
    """Texts in several languages: length, language, text."""
    found, at = [], 0
    while at + 4 <= len(content):
        size, language = (int.from_bytes(content[i : i + 2], "big") for i in (at, at + 2))
        text = content[at + 4 : at + 4 + size]
        found.append(text.decode("utf-8" if language >= 0x400 else "mac-roman", "replace").strip("\0"))
        at += 4 + size
    return found


def _threegpp(content: bytes) -> list[str]:
    """One text, behind a version and a language."""
    text = content[6:]
    codec = "utf-16" if text[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-8"
    return [text.decode(codec, "replace").strip("\0")]


_FOREIGN = {
    "moov/udta/\xa9gen": ("QuickTime user data", _quicktime),
    "moov/udta/gnre": ("3GPP user data", _threegpp),
}
_MAX_FOREIGN = 1 << 20


def _children(content: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if size < 8 or at + size > len(content):
            raise Refused("damaged: an item of its tags is longer than what holds it")
        found.append((content[at + 4 : at + 8], content[at + 8 : at + size]))
        at += size
    return found


def _atom(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def _data(text: str) -> bytes:
    return _atom(b"data", (1).to_bytes(4, "big") + bytes(4) + text.encode())


def _spliced(size: int, edits: Sequence[tuple[int, int, bytes]]) -> list[Piece]:
    """A file of ``size`` bytes with other bytes in some places: (offset, how many are replaced, by what)."""
    pieces: list[Piece] = []
    done = 0
    for at, length, content in edits:
        pieces += [(done, at - done), content]
        done = at + length
    return [*pieces, (done, size - done)]
