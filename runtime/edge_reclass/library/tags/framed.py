"""Files with tags in front of and behind their audio: mp3, tta, wv, ape, mpc, tak; and flac, with blocks between."""

from __future__ import annotations

import os

from edge_reclass.audio.pieces import Piece
from edge_reclass.audio.tags import leading_tags, trailing_tags
from edge_reclass.library.tags.ape import Ape
from edge_reclass.library.tags.content import PADDING, Change, Inventory, Place, Refused, digest, digest_of, read_at
from edge_reclass.library.tags.id3 import Id3, v1_changed, v1_fields, v1_genres
from edge_reclass.library.tags.vorbis import Comments

_APE_FILES = ("wv", "ape", "mpc", "mpc8", "tak")


class Framed:
    """Tags around the audio. The first place is where a file of its kind has its genre."""

    def __init__(self, fd: int, container: str, deep: bool) -> None:
        """Read the tags of an open file.

        Raises:
            Refused: one of them is damaged, or of a kind that is not written.
        """
        self._fd, self._deep = fd, deep
        size = os.fstat(fd).st_size
        self._front: list[Id3 | Ape] = []
        self._begin = 0
        for at, length in leading_tags(fd):
            data = read_at(fd, at, length)
            if data.startswith(b"ID3"):
                self._front.append(Id3(data))
            else:
                raise Refused("it has a tag in front that belongs at the end")
            self._begin = at + length
        self._back: list[Ape | bytes] = []  # as they follow each other
        self._end = size
        for at, length in trailing_tags(fd, size):
            if at < self._begin:
                break
            data = read_at(fd, at, length)
            if data[-10:-7] == b"3DI":
                raise Refused("it has an ID3v2 tag at its end, which is not written")
            self._back.insert(0, Ape(data) if data[-32:-24] == b"APETAGEX" else data)
            self._end = at
        self._v1 = next((tag for tag in self._back if isinstance(tag, bytes) and _is_v1(tag)), None)
        self._ape = next((tag for tag in self._back if isinstance(tag, Ape)), None)
        self._container = container

    def _where(self) -> Id3 | Ape | None:
        """The tag that a file of this kind has its genre in; None where it has none yet."""
        if self._container in _APE_FILES:
            return self._ape
        if self._container == "tta" and self._ape is not None:  # where there is one, FFmpeg reads it alone
            return self._ape
        if self._front:
            return self._front[0]
        # A new ID3 tag would hide what only the APE tag says.
        return self._ape if self._ape is not None and self._ape.names_the_track else None

    def inventory(self) -> Inventory:
        """See :class:`Container`."""
        first = self._where()
        tags: list[Id3 | Ape | bytes] = [*self._front, *self._back]
        tags.sort(key=lambda tag: tag is not first)
        places: list[Place] = []
        rest = self._audio()
        original: tuple[str, ...] = ()
        if first is None:
            places.append(Place("APEv2" if self._container in _APE_FILES else "ID3v2", (), new=True))
        numbers: dict[str, int] = {}
        for tag in tags:
            if isinstance(tag, bytes):
                if _is_v1(tag):
                    places.append(Place("ID3v1", v1_genres(tag), one=True))
                    rest.append(("ID3v1", digest(tag[:127])))
                else:
                    rest.append(("Lyrics3", digest(tag)))
                continue
            numbers[tag.name] = numbers.get(tag.name, 0) + 1
            name = tag.name if numbers[tag.name] == 1 else f"{tag.name} ({numbers[tag.name]})"
            places.append(Place(name, tag.genres))
            rest += tag.rest(name)
            original = original or tag.original
        return Inventory(tuple(places), original, tuple(rest))

    def _audio(self) -> list[tuple[str, bytes]]:
        return self._from(self._begin)

    def _from(self, begin: int) -> list[tuple[str, bytes]]:
        return [("audio", digest_of(self._fd, begin, self._end - begin))] if self._deep else []

    def pieces(self, change: Change) -> list[Piece]:
        """See :class:`Container`."""
        first = self._where()
        keep = not self._has_original()

        def changed(tag: Id3 | Ape | bytes) -> bytes:
            if isinstance(tag, bytes):
                return v1_changed(tag, change.genres[0]) if _is_v1(tag) else tag
            if tag is not first and not tag.genres:
                return tag.raw
            return tag.changed(change, keep_original=keep and tag is first)

        front, back = map(changed, self._front), map(changed, self._back)
        in_front, behind = self._added(change, keep) if first is None else (b"", b"")
        return [in_front, *front, *self._middle(change, keep), behind, *back]

    def _has_original(self) -> bool:
        return any(tag.original for tag in (*self._front, *self._back) if not isinstance(tag, bytes))

    def _added(self, change: Change, keep: bool) -> tuple[bytes, bytes]:
        """A new tag for the genre: in front of the audio, or behind it."""
        if self._container in _APE_FILES:
            return b"", Ape(b"").changed(change, keep_original=keep)
        fields = {} if self._v1 is None else v1_fields(self._v1)
        return Id3.new(3 if len(change.genres) == 1 else 4, fields).changed(change, keep_original=keep), b""

    def _middle(self, change: Change, keep: bool) -> list[Piece]:  # noqa: ARG002
        return [(self._begin, self._end - self._begin)]


class Flac(Framed):
    """A flac file: its genre is in the Vorbis comments; an ID3 tag in front is brought into step."""

    def __init__(self, fd: int, container: str, deep: bool) -> None:
        super().__init__(fd, container, deep)
        self._blocks: list[tuple[int, int, int]] = []  # type, offset, length
        at, last = self._begin + 4, False
        while not last:
            head = read_at(fd, at, 4)
            last, kind, length = bool(head[0] & 0x80), head[0] & 0x7F, int.from_bytes(head[1:], "big")
            if at + 4 + length > self._end or kind == 127:
                raise Refused("damaged: its metadata blocks are longer than the file")
            self._blocks.append((kind, at + 4, length))
            at += 4 + length
        self._frames = at
        found = [read_at(fd, offset, length) for kind, offset, length in self._blocks if kind == 4]
        if len(found) > 1:
            raise Refused("it has two blocks of Vorbis comments")
        self._comments = Comments(found[0] if found else b"")

    def _where(self) -> None:
        """None of the tags around the blocks."""

    def _added(self, change: Change, keep: bool) -> tuple[bytes, bytes]:  # noqa: ARG002
        return b"", b""

    def _has_original(self) -> bool:
        return bool(self._comments.original) or super()._has_original()

    def inventory(self) -> Inventory:
        """See :class:`Container`."""
        around = super().inventory()
        new = all(kind != 4 for kind, _, _ in self._blocks)
        places = (Place(self._comments.name, self._comments.genres, new=new), *around.places[1:])
        rest = [*around.rest, *([] if new else self._comments.rest(self._comments.name))]
        rest += [
            (_BLOCKS.get(k, f"block {k}"), digest_of(self._fd, at, n)) for k, at, n in self._blocks if k not in (1, 4)
        ]
        return Inventory(places, self._comments.original or around.original, tuple(rest))

    def _audio(self) -> list[tuple[str, bytes]]:
        return self._from(self._frames)

    def _middle(self, change: Change, keep: bool) -> list[Piece]:
        content = self._comments.changed(change, keep_original=keep)
        grown = len(content)
        blocks: list[tuple[int, Piece, int]] = []
        for kind, at, length in self._blocks:
            if kind == 4:
                blocks.append((4, content, len(content)))
                grown = len(content) - length
            else:
                blocks.append((kind, (at, length), length))
        if all(kind != 4 for kind, _, _ in blocks):
            blocks.insert(1, (4, content, len(content)))
            grown += 4
        pads = [i for i, (kind, _, _) in enumerate(blocks) if kind == 1]
        if grown and pads:
            room = blocks[pads[-1]][2] - grown
            room = room if 0 <= room < 1 << 24 else PADDING
            blocks[pads[-1]] = (1, bytes(room), room)
        elif grown:
            blocks.append((1, bytes(PADDING), PADDING))
        result: list[Piece] = [b"fLaC"]
        for i, (kind, piece, length) in enumerate(blocks):
            if length >= 1 << 24:
                raise Refused("a metadata block would get longer than 16 MB")
            result += [bytes([kind | (0x80 if i == len(blocks) - 1 else 0)]) + length.to_bytes(3, "big"), piece]
        return [*result, (self._frames, self._end - self._frames)]


_BLOCKS = {0: "stream info", 2: "application block", 3: "seek table", 5: "cue sheet", 6: "picture"}


def _is_v1(tag: object) -> bool:
    return isinstance(tag, bytes) and len(tag) == 128 and tag.startswith(b"TAG")
