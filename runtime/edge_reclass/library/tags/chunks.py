"""Files of chunks: wav (an ``id3 `` chunk, and ``IGNR`` in its INFO list), aiff, and dsf with its tag at the end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from edge_reclass.audio.pieces import Piece
from edge_reclass.library.tags.content import Change, Inventory, Place, Refused, digest, digest_of, read_at
from edge_reclass.library.tags.id3 import Id3

_INFO: Final = {
    b"INAM": "title",
    b"IART": "artist",
    b"IPRD": "album",
    b"ICRD": "year",
    b"ICMT": "comment",
    b"IPRT": "track",
    b"ITRK": "track",
    b"ICOP": "copyright",
}


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    offset: int  # of its data
    size: int
    room: int  # with its padding byte


class Chunks:
    """A wav or aiff file."""

    def __init__(self, fd: int, container: str, deep: bool) -> None:
        """Read the chunks of an open file.

        Raises:
            Refused: they do not fit into it, or it is of a kind that is not written.
        """
        self._fd, self._deep = fd, deep
        self._is_wav = container == "riff"
        head = read_at(fd, 0, 12)
        if head[:4] != (b"RIFF" if self._is_wav else b"FORM"):
            kind = head[:4].decode("latin-1")
            raise Refused(f"a file that begins with {kind} is not written; RIFF and FORM are")
        self._head = head
        length = os.fstat(fd).st_size
        self._end = 8 + self._number(head[4:8])
        if self._end > length + 1:
            raise Refused("damaged: it is shorter than its header says")
        self._end = min(self._end, length)
        self._chunks: list[_Chunk] = []
        at = 12
        while at + 8 <= self._end:
            name, size = (part := read_at(fd, at, 8))[:4], self._number(part[4:])
            if not all(32 <= byte < 127 for byte in name) or at + 8 + size > self._end:
                raise Refused(f"damaged: no chunk where one should begin, at byte {at}, or it is longer than the file")
            room = min(size + size % 2, self._end - at - 8)
            self._chunks.append(_Chunk(name, at + 8, size, room))
            at += 8 + room
        self._tail = (at, length - at)
        self._tags = [Id3Chunk(read_at(fd, c.offset, c.size)) if _is_id3(c) else None for c in self._chunks]

    def _number(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self._is_wav else "big")

    def inventory(self) -> Inventory:
        """See :class:`Container`."""
        places: list[Place] = []
        if not any(self._tags):
            places.append(Place("ID3v2", (), new=True))
        original: tuple[str, ...] = ()
        rest = [("end of the file", digest_of(self._fd, *self._tail))] if self._deep else []
        infos = []
        for chunk, tag in zip(self._chunks, self._tags, strict=True):
            if tag is not None:
                name = f"{tag.id3.name} ({len(places) + 1})" if places else tag.id3.name
                places.append(Place(name, tag.id3.genres))
                original = original or tag.id3.original
                rest += tag.rest(name)
            elif self._is_info(chunk):
                for item, value in self._info(chunk):
                    if item == b"IGNR":
                        text = _decoded(value)
                        infos.append(Place("INFO IGNR", (text,) if text else (), one=True))
                    else:
                        rest.append((f"INFO {item.decode('latin-1')}", digest(value)))
            elif self._deep:
                name = chunk.name.decode("latin-1").strip()
                rest.append(
                    ("audio" if name in ("data", "SSND") else name, digest_of(self._fd, chunk.offset, chunk.size))
                )
        return Inventory((*places, *infos), original, tuple(rest))

    def pieces(self, change: Change) -> list[Piece]:
        """See :class:`Container`."""
        keep = not any(tag.id3.original for tag in self._tags if tag is not None)
        written = False
        body: list[Piece] = []
        for chunk, tag in zip(self._chunks, self._tags, strict=True):
            content: bytes | None = None
            if tag is not None:
                if not written or tag.id3.genres:
                    content = tag.id3.changed(change, keep_original=keep and not written) + tag.tail
                written = True
            elif self._is_info(chunk):
                content = self._info_changed(chunk, change)
            if content is None:
                body.append((chunk.offset - 8, 8 + chunk.room))
            else:
                body.append(chunk.name + self._size(len(content)) + content)
            if (chunk.room if content is None else len(content)) % 2:
                body.append(b"\0")  # the last chunk of a file often lacks it
        if not written:
            content = Id3.new(3 if len(change.genres) == 1 else 4, self._fields()).changed(change, keep_original=keep)
            name = b"id3 " if self._is_wav else b"ID3 "
            body.append(name + self._size(len(content)) + content + bytes(len(content) % 2))
        size = 4 + sum(len(piece) if isinstance(piece, bytes) else piece[1] for piece in body)
        return [self._head[:4] + self._size(size) + self._head[8:12], *body, self._tail]

    def _size(self, size: int) -> bytes:
        if size >= 1 << 32:
            raise Refused("it would get longer than 4 GB, which its format cannot hold")
        return size.to_bytes(4, "little" if self._is_wav else "big")

    def _is_info(self, chunk: _Chunk) -> bool:
        return self._is_wav and chunk.name == b"LIST" and read_at(self._fd, chunk.offset, min(4, chunk.size)) == b"INFO"

    def _info(self, chunk: _Chunk) -> list[tuple[bytes, bytes]]:
        data = read_at(self._fd, chunk.offset, chunk.size)
        items, at = [], 4
        while at + 8 <= len(data):
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            if at + 8 + size > len(data):
                raise Refused("damaged: its INFO list is longer than it says")
            items.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
            at += 8 + size + size % 2
        return items

    def _fields(self) -> dict[str, str]:
        """What the INFO lists say of the track: who finds an ID3 tag no longer looks there."""
        items = [item for chunk in self._chunks if self._is_info(chunk) for item in self._info(chunk)]
        return {_INFO[name]: text for name, value in items if name in _INFO and (text := _decoded(value))}

    def _info_changed(self, chunk: _Chunk, change: Change) -> bytes | None:
        """The list with the first genre, of which it can hold one; None where it has none."""
        items = self._info(chunk)
        if all(name != b"IGNR" for name, _ in items):
            return None
        content = b"INFO"
        for name, value in items:
            text = _encoded(change.genres[0]) + b"\0" if name == b"IGNR" else value
            content += name + len(text).to_bytes(4, "little") + text + bytes(len(text) % 2)
        return content


class Id3Chunk:
    """An ID3v2 tag that is all of a chunk but its ``tail``."""

    def __init__(self, data: bytes) -> None:
        size = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))
        size += 10 if data[3:4] == b"\x04" and data[5] & 0x10 else 0
        if not data.startswith(b"ID3") or len(data) < 10 or size > len(data):
            raise Refused("its ID3v2 tag is damaged (longer than its chunk)")
        self.id3, self.tail = Id3(data[:size]), data[size:]

    def rest(self, where: str) -> list[tuple[str, bytes]]:
        """Everything but the genre, as names and hashes."""
        return [*self.id3.rest(where), *([(f"{where} tail", digest(self.tail))] if self.tail else [])]


class Dsf:
    """A dsf file: an ID3v2 tag at its end, to which its header points."""

    def __init__(self, fd: int, container: str, deep: bool) -> None:  # noqa: ARG002
        self._fd, self._deep = fd, deep
        head = read_at(fd, 0, 28)
        length = os.fstat(fd).st_size
        total, pointer = int.from_bytes(head[12:20], "little"), int.from_bytes(head[20:28], "little")
        if total != length or pointer > length:
            raise Refused("damaged: it is not as long as its header says")
        self._begin = pointer or length
        data = read_at(fd, pointer, length - pointer) if pointer else b""
        self._tag = Id3Chunk(data) if data else None

    def inventory(self) -> Inventory:
        """See :class:`Container`."""
        rest = [("audio", digest_of(self._fd, 28, self._begin - 28))] if self._deep else []
        if self._tag is None:
            return Inventory((Place("ID3v2", (), new=True),), (), tuple(rest))
        id3 = self._tag.id3
        rest += self._tag.rest(id3.name)
        return Inventory((Place(id3.name, id3.genres),), id3.original, tuple(rest))

    def pieces(self, change: Change) -> list[Piece]:
        """See :class:`Container`."""
        tag = self._tag
        id3 = Id3.new(3 if len(change.genres) == 1 else 4) if tag is None else tag.id3
        content = id3.changed(change, keep_original=not id3.original) + (b"" if tag is None else tag.tail)
        numbers = (28, self._begin + len(content), self._begin)
        head = b"DSD " + b"".join(number.to_bytes(8, "little") for number in numbers)
        return [head, (28, self._begin - 28), content]


def _decoded(value: bytes) -> str:
    """The text of an INFO item, for which there is no rule; Windows writes its code page."""
    value = value.split(b"\0")[0]
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("cp1252", errors="replace").strip()


def _encoded(text: str) -> bytes:
    try:
        return text.encode("cp1252")
    except UnicodeEncodeError:
        return text.encode("utf-8")


def _is_id3(chunk: _Chunk) -> bool:
    return chunk.name.lower() == b"id3 "
