"""ID3v2 (2.2, 2.3, 2.4) and ID3v1: the genre, with every other frame left as its bytes are.

Frames that nobody knows, that are compressed or encrypted, and those of DJ programs stay bit for bit, and the version
stays what it is; mutagen would convert or drop some. id3.org: id3v2-00, id3v2.3.0, id3v2.4.0-structure.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from edge_reclass.library.tags.content import ORIGINAL, PADDING, Change, Refused, digest

_NAME: Final = re.compile(rb"[A-Z0-9]{3}[A-Z0-9 \0]")
_SHORT_NAME: Final = re.compile(rb"[A-Z0-9]{3}")
_CODECS: Final = ("latin-1", "utf-16", "utf-16-be", "utf-8")
_NO_GENRE: Final = 255
_MAX_TEXT: Final = 1 << 20
"""Bytes of a compressed frame that is read; a few kilobytes may unpack to gigabytes."""

FIELDS: Final = {
    "title": b"TIT2",
    "artist": b"TPE1",
    "album": b"TALB",
    "year": b"TDRC",
    "comment": b"COMM",
    "track": b"TRCK",
    "copyright": b"TCOP",
}
"""Frames of what other tags say of a track."""


@dataclass(frozen=True)
class _Frame:
    name: bytes
    flags: int
    raw: bytes
    body: bytes


class Id3:
    """An ID3v2 tag; ``size`` is its length in the file, 0 for a new one."""

    def __init__(self, data: bytes) -> None:
        """``data``: the whole tag.

        Raises:
            Refused: it is damaged, or what it needs is not supported.
        """
        self.raw = data
        self.size = len(data)
        self.version, self._revision, self._flags = data[3], data[4], data[5]
        if self.version not in (2, 3, 4):
            raise Refused(f"it has an ID3v2.{self.version} tag; 2.2, 2.3 and 2.4 are written")
        if self.version == 2 and self._flags & 0x40:
            raise Refused("its ID3v2.2 tag is compressed")
        self._footer = self.version == 4 and bool(self._flags & 0x10)
        body = data[10 : len(data) - (10 if self._footer else 0)]
        if self._unsynchronised:
            body = _decoded(body)
        self._extended = b""
        if self.version > 2 and self._flags & 0x40:
            self._extended, body = _split_extended(body, self.version)
        self._frames = _frames(body, self.version)

    @classmethod
    def new(cls, version: int, fields: Mapping[str, str] = MappingProxyType({})) -> Id3:
        """An empty tag, or one with ``fields`` (names of FIELDS): what readers of the new tag would find no more."""
        tag = cls(b"ID3" + bytes([version, 0, 0]) + bytes(4))
        tag.size = 0
        for field, text in fields.items():
            name = FIELDS[field]
            if name == b"TDRC" and version < 4:
                name = b"TYER"
            tag._frames.append(tag._text(name, (text,), "" if name == b"COMM" else None))
        return tag

    @property
    def _unsynchronised(self) -> bool:
        return self.version < 4 and bool(self._flags & 0x80)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"ID3v2.{self.version}"

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres, those by number or in brackets by name."""
        from mutagen.id3 import TCON

        found: list[str] = []
        for frame in self._frames:
            if frame.name == self._genre_name:
                texts = [text for text in self._decode(frame).split("\0") if text]
                for text in texts:
                    # A number that is in no list is a name, such as 2000; so is what mutagen takes for one, such as ².
                    listed = text.isascii() and len(text) < 4 and text.isdigit() and int(text) < len(TCON.GENRES)
                    found += [text] if text.isdigit() and not listed else TCON(encoding=3, text=[text]).genres
        return tuple(found)

    @property
    def original(self) -> tuple[str, ...]:
        """What was kept of an earlier genre."""
        for frame in self._frames:
            if self._is_original(frame):
                return tuple(text for text in self._decode(frame).split("\0")[1:] if text)
        return ()

    def rest(self, where: str) -> list[tuple[str, bytes]]:
        """Everything else, as names and hashes."""
        items = [
            (f"{where} {frame.name.decode().strip()}", digest(frame.raw))
            for frame in self._frames
            if frame.name != self._genre_name and not self._is_original(frame)
        ]
        head = bytes([self.version, self._revision, self._flags])
        return [(f"{where} header", digest(head, self._extended[:6])), *items]

    def changed(self, change: Change, *, keep_original: bool) -> bytes:
        """The tag with other genres; as long as it was if they fit into its padding.

        Args:
            keep_original: add the field for the original, unless there is one.

        Raises:
            Refused: it gets longer than a tag may be.
        """
        frames: list[_Frame] = []
        genre: _Frame | None = self._text(self._genre_name, change.genres)
        for frame in self._frames:
            if frame.name != self._genre_name:
                frames.append(frame)
            elif genre is not None:
                frames.append(genre)
                genre = None
        if genre is not None:
            frames.append(genre)
        if keep_original and change.original and not self.original:
            frames.append(self._text(b"TXX" if self.version == 2 else b"TXXX", change.original, ORIGINAL))
        content = b"".join(frame.raw for frame in frames)
        body = self._body(content, 0)
        room = max(0, self.size - 10)
        if self._footer:
            padding = 0
        elif len(body) <= room:
            padding = room - len(body)
        else:
            padding = PADDING
        body = self._body(content, padding)
        size = len(body)
        if size >= 1 << 28:
            raise Refused("its ID3v2 tag would get longer than 256 MB")
        head = bytes([self.version, self._revision, self._flags]) + bytes(
            (size >> shift) & 0x7F for shift in (21, 14, 7, 0)
        )
        return b"ID3" + head + body + (b"3DI" + head if self._footer else b"")

    def _body(self, content: bytes, padding: int) -> bytes:
        extended = self._extended
        if extended and self.version == 3:
            extended = extended[:6] + padding.to_bytes(4, "big") + extended[10:]
        body = extended + content
        if self._unsynchronised:
            body = _encoded(body)
        return body + bytes(padding)

    @property
    def _genre_name(self) -> bytes:
        return b"TCO" if self.version == 2 else b"TCON"

    def _is_original(self, frame: _Frame) -> bool:
        if frame.name not in (b"TXX", b"TXXX"):
            return False
        try:
            return self._decode(frame).split("\0")[0].upper() == ORIGINAL
        except Refused:
            return False

    def _decode(self, frame: _Frame) -> str:
        """The text of a frame, values with NUL between.

        Raises:
            Refused: it is encrypted, or no text.
        """
        body, flags = frame.body, frame.flags
        encrypted, compressed = (flags & 0x40, flags & 0x80) if self.version == 3 else (flags & 0x04, flags & 0x08)
        if self.version > 2 and encrypted:
            raise Refused(f"its frame {frame.name.decode()} is encrypted")
        if self.version == 3:
            body = body[(4 if compressed else 0) + (1 if flags & 0x20 else 0) :]
        elif self.version == 4:
            if flags & 0x02 or self._flags & 0x80:
                body = _decoded(body)
            body = body[(1 if flags & 0x40 else 0) + (4 if flags & 0x01 else 0) :]
        try:
            if self.version > 2 and compressed:
                unpacker = zlib.decompressobj()
                body = unpacker.decompress(body, _MAX_TEXT)
                if unpacker.unconsumed_tail:
                    raise Refused(f"its frame {frame.name.decode()} is longer than any text")
            if not body:
                return ""
            return body[1:].decode(_CODECS[body[0]]).replace("\ufeff", "").rstrip("\0")
        except (zlib.error, IndexError, ValueError) as error:
            raise Refused(f"its frame {frame.name.decode()} is damaged") from error

    def _text(self, name: bytes, values: tuple[str, ...], description: str | None = None) -> _Frame:
        texts = values if description is None else (description, *values)
        # Unsynchronised 2.4 readers take a 0xFF apart: UTF-8 has none. Before 2.4 there is no UTF-8.
        codec = 3 if self.version == 4 else 0 if all(map(_is_latin, texts)) else 1
        null = b"\0\0" if codec == 1 else b"\0"
        body = (
            bytes([codec])
            + (b"XXX" if name == b"COMM" else b"")
            + null.join(text.encode(_CODECS[codec]) for text in texts)
        )
        size = len(body)
        if self.version == 2:
            raw = name + size.to_bytes(3, "big") + body
        elif self.version == 3:
            raw = name + size.to_bytes(4, "big") + b"\0\0" + body
        else:
            raw = name + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + b"\0\0" + body
        return _Frame(name, 0, raw, body)


def v1_fields(tag: bytes) -> dict[str, str]:
    """What an ID3v1 tag says of a track, without its genre."""
    places = {"title": (3, 33), "artist": (33, 63), "album": (63, 93), "year": (93, 97), "comment": (97, 125)}
    texts = {name: tag[a:b].split(b"\0")[0].decode("latin-1").strip() for name, (a, b) in places.items()}
    if tag[125] == 0 and tag[126]:
        texts["track"] = str(tag[126])
    return {name: text for name, text in texts.items() if text}


def v1_genres(tag: bytes) -> tuple[str, ...]:
    """The genre of an ID3v1 tag."""
    from mutagen.id3 import TCON

    number = tag[127]
    return (TCON.GENRES[number],) if number < len(TCON.GENRES) else ()


def v1_changed(tag: bytes, genre: str) -> bytes:
    """An ID3v1 tag with another genre, or with none where the list of ID3v1 does not have it."""
    from mutagen.id3 import TCON

    names = [name.casefold() for name in TCON.GENRES]
    return tag[:127] + bytes([names.index(genre.casefold()) if genre.casefold() in names else _NO_GENRE])


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _decoded(data: bytes) -> bytes:
    return data.replace(b"\xff\0", b"\xff")


def _encoded(data: bytes) -> bytes:
    """Unsynchronisation: no 0xFF is followed by 0 or by what would make a frame header of it."""
    return re.sub(rb"\xff(?=[\0\xe0-\xff]|\Z)", b"\xff\0", data)


def _split_extended(body: bytes, version: int) -> tuple[bytes, bytes]:
    if version == 3:
        size, has_crc = 4 + int.from_bytes(body[:4], "big"), bool(body[4:5] and body[4] & 0x80)
    else:
        size, has_crc = _safe(body[:4]), bool(body[5:6] and body[5] & 0x20)
    if size > len(body) or size < 6:
        raise Refused("its ID3v2 tag is damaged (extended header)")
    if has_crc:
        raise Refused("its ID3v2 tag has a checksum, which is not written")
    return body[:size], body[size:]


def _safe(data: bytes) -> int:
    return sum((byte & 0x7F) << shift for byte, shift in zip(data, (21, 14, 7, 0), strict=False))


def _frames(body: bytes, version: int) -> list[_Frame]:
    if version == 4:
        try:
            return _parse(body, version, _safe)
        except Refused:
            pass  # iTunes wrote the sizes of 2.4 as those of 2.3
    return _parse(body, version, lambda data: int.from_bytes(data, "big"))


def _parse(body: bytes, version: int, size_of: Callable[[bytes], int]) -> list[_Frame]:
    head, length = (6, 3) if version == 2 else (10, 4)
    frames = []
    at = 0
    while at < len(body):
        if body[at] == 0:
            if body.count(0, at) != len(body) - at:
                raise Refused("its ID3v2 tag is damaged (something stands in its padding)")
            break
        name = body[at : at + length]
        if not (_SHORT_NAME if version == 2 else _NAME).fullmatch(name) or at + head > len(body):
            raise Refused("its ID3v2 tag is damaged (no frame where one should begin)")
        size = size_of(body[at + length : at + 2 * length])
        end = at + head + size
        if end > len(body):
            raise Refused(f"its ID3v2 tag is damaged (frame {name.decode()} is longer than the tag)")
        flags = 0 if version == 2 else body[at + 9]
        frames.append(_Frame(name, flags, body[at:end], body[at + head : end]))
        at = end
    return frames
