"""Ogg files (vorbis, opus, flac, speex): written by mutagen, proven by what is read here page by page."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

from edge_reclass.library.tags.content import ORIGINAL, Change, Inventory, Place, Refused, digest, read_at
from edge_reclass.library.tags.vorbis import Comments

_HEADERS = {b"\x01vorbis": 3, b"OpusHead": 2, b"\x7fFLAC": 2, b"Speex   ": 2}
"""How each codec's first packet begins, and how many header packets it has, the comments being the second."""


class Ogg:
    """An ogg file with one stream of audio."""

    def __init__(self, fd: int, container: str, deep: bool) -> None:  # noqa: ARG002
        """Read all pages of an open file.

        Raises:
            Refused: it is damaged, holds several tracks, or a codec that is not written.
        """
        self._streams: dict[bytes, _Stream] = {}
        at, length, begun = 0, os.fstat(fd).st_size, False
        while at < length:
            head = read_at(fd, at, 27)
            if not head.startswith(b"OggS\0"):
                raise Refused(f"damaged: no ogg page at byte {at}")
            lacing = read_at(fd, at + 27, head[26])
            body = read_at(fd, at + 27 + head[26], sum(lacing))
            first = bool(head[5] & 2)
            if first and begun:
                raise Refused("it holds several tracks one behind the other")
            begun = begun or not first
            stream = self._streams.setdefault(head[14:18], _Stream())
            stream.add(lacing, body, head[6:14])
            at += 27 + head[26] + sum(lacing)
            if not deep and not first and all(one.is_read for one in self._streams.values()):
                break
        audio = [stream for stream in self._streams.values() if stream.count is not None]
        if len(audio) != 1 or len(audio[0].packets) < 2:
            raise Refused(f"it holds {len(audio)} streams of vorbis, opus, flac or speex; one is written")
        self._audio = audio[0]
        packet = self._audio.packets[1]
        self._lead = {1: b"\x03vorbis", 0x4F: b"OpusTags", 0x7F: packet[:4], 0x53: b""}[self._audio.packets[0][0]]
        if not packet.startswith(self._lead):
            raise Refused("damaged: no comments where they should be")
        self._comments = Comments(packet[len(self._lead) :])

    def inventory(self) -> Inventory:
        """See :class:`Container`."""
        # Padding behind the comments is mutagen's to change; what is not zero is data (RFC 7845 §5.2).
        lead = b"" if self._lead.startswith(b"\x84") or self._lead.startswith(b"\x04") else self._lead
        rest = [("comments", digest(lead, self._comments.tail.rstrip(b"\0").removeprefix(b"\x01")))]
        rest += self._comments.rest(self._comments.name)
        for stream in self._streams.values():
            headers = stream.packets if stream is not self._audio else [stream.packets[0], *stream.packets[2:]]
            rest.append(("audio", digest(*headers, stream.laced.digest(), stream.data.digest(), stream.last)))
        return Inventory((Place(self._comments.name, self._comments.genres),), self._comments.original, tuple(rest))

    def save(self, copy: Path, change: Change) -> None:
        """See :class:`Saved`."""
        from mutagen import oggflac, oggopus, oggspeex, oggvorbis

        kinds = {
            1: oggvorbis.OggVorbis, 0x4F: oggopus.OggOpus, 0x7F: oggflac.OggFLAC, 0x53: oggspeex.OggSpeex
        }  # fmt: skip
        opened = kinds[self._audio.packets[0][0]](copy)
        opened["GENRE"] = list(change.genres)
        if change.original and not self._comments.original:
            opened[ORIGINAL] = list(change.original)
        opened.save()


class _Stream:
    """One logical stream: its header packets, and hashes of all others, whatever pages they are divided into."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.count: int | None = None
        self.laced, self.data = blake2b(digest_size=16), blake2b(digest_size=16)
        self.last = b""
        self._open = bytearray()  # covers come in pieces of 255 bytes

    @property
    def is_read(self) -> bool:
        """True if all header packets are there."""
        return len(self.packets) >= (self.count or 1)

    def add(self, lacing: bytes, body: bytes, position: bytes) -> None:
        at = 0
        for i, size in enumerate(lacing):
            if self.is_read:
                self.laced.update(lacing[i:])
                self.data.update(body[at:])
                break
            self._open += body[at : at + size]
            at += size
            if size < 255:
                self.packets.append(bytes(self._open))
                self._open.clear()
                if len(self.packets) == 1:
                    first = self.packets[0]
                    self.count = next((n for magic, n in _HEADERS.items() if first.startswith(magic)), None)
                    if self.count and first.startswith(b"\x7fFLAC"):
                        self.count = 1 + (int.from_bytes(first[7:9], "big") or 1)
        self.last = position
