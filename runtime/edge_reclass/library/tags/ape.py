"""APEv2 tags: the genre, with every other item left as its bytes are."""

from __future__ import annotations

from typing import Final

from edge_reclass.library.tags.content import ORIGINAL, Change, Refused, digest

_HAS_HEADER: Final = 1 << 31
_IS_HEADER: Final = 1 << 29


class Ape:
    """An APE tag, version 1 or 2."""

    name = "APEv2"

    def __init__(self, data: bytes) -> None:
        """``data``: the whole tag, with its header where it has one; empty for a new one.

        Raises:
            Refused: it is damaged.
        """
        self.raw = data
        self._version, self._flags = 2000, _HAS_HEADER
        self._items: list[tuple[bytes, bytes, bytes]] = []  # flags, key, value
        if not data:
            return
        footer = data[-32:]
        self._version, self._flags = (int.from_bytes(footer[at : at + 4], "little") for at in (8, 20))
        count = int.from_bytes(footer[16:20], "little")
        at, end = 32 if self._flags & _HAS_HEADER else 0, len(data) - 32
        while at < end:
            key_end = data.find(b"\0", at + 8, end)
            size = int.from_bytes(data[at : at + 4], "little")
            if key_end < 0 or key_end + 1 + size > end:
                raise Refused("its APE tag is damaged")
            value = data[key_end + 1 : key_end + 1 + size]
            self._items.append((data[at + 4 : at + 8], data[at + 8 : key_end], value))
            at = key_end + 1 + size
        if at != end or count != len(self._items):
            raise Refused("its APE tag is damaged")

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres."""
        return self._texts(b"GENRE")

    @property
    def original(self) -> tuple[str, ...]:
        """What was kept of an earlier genre."""
        return self._texts(ORIGINAL.encode())

    @property
    def names_the_track(self) -> bool:
        """True if it says title or artist: then players read it, and not only programs that measure loudness."""
        return any(key.upper() in (b"TITLE", b"ARTIST") for _, key, _ in self._items)

    def rest(self, where: str) -> list[tuple[str, bytes]]:
        """Everything else, as names and hashes."""
        ours = (b"GENRE", ORIGINAL.encode())
        items = [
            (f"{where} {key.decode('latin-1')}", digest(flags, key, value))
            for flags, key, value in self._items
            if key.upper() not in ours
        ]
        return [(f"{where} header", digest(str(self._version).encode(), str(self._flags).encode())), *items]

    def changed(self, change: Change, *, keep_original: bool) -> bytes:
        """The tag with other genres, and the original if it is to be kept and is not yet."""
        items = []
        value: bytes | None = "\0".join(change.genres).encode()
        for item in self._items:
            if item[1].upper() != b"GENRE":
                items.append(item)
            elif value is not None:
                items.append((bytes(4), item[1], value))
                value = None
        if value is not None:
            items.append((bytes(4), b"Genre", value))
        if keep_original and change.original and not self.original:
            items.append((bytes(4), ORIGINAL.encode(), "\0".join(change.original).encode()))
        body = b"".join(len(v).to_bytes(4, "little") + flags + key + b"\0" + v for flags, key, v in items)
        size, count = (len(body) + 32).to_bytes(4, "little"), len(items).to_bytes(4, "little")
        head = b"APETAGEX" + self._version.to_bytes(4, "little") + size + count
        has_header = self._flags & _HAS_HEADER
        first = head + (self._flags | _IS_HEADER).to_bytes(4, "little") + bytes(8) if has_header else b""
        return first + body + head + (self._flags & ~_IS_HEADER).to_bytes(4, "little") + bytes(8)

    def _texts(self, wanted: bytes) -> tuple[str, ...]:
        return tuple(
            text
            for _, key, value in self._items
            if key.upper() == wanted
            for text in value.decode("utf-8", errors="replace").split("\0")
            if text
        )
