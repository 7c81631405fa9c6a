"""Vorbis comments, as they stand in flac, ogg and opus files."""

from __future__ import annotations

from edge_reclass.library.tags.content import ORIGINAL, Change, Refused, digest


class Comments:
    """A block of Vorbis comments; ``tail`` is what follows them."""

    name = "Vorbis comment"

    def __init__(self, data: bytes) -> None:
        """``data``: from the vendor's length on; empty for a new one.

        Raises:
            Refused: it is damaged.
        """
        self._vendor, self._comments, self.tail = b"edge-reclass", [], b""
        if data:
            self._vendor, at = _text(data, 0)
            count, at = int.from_bytes(data[at : at + 4], "little"), at + 4
            for _ in range(count):
                comment, at = _text(data, at)
                self._comments.append(comment)
            self.tail = data[at:]

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres."""
        return self._texts("GENRE")

    @property
    def original(self) -> tuple[str, ...]:
        """What was kept of an earlier genre."""
        return self._texts(ORIGINAL)

    def rest(self, where: str) -> list[tuple[str, bytes]]:
        """Everything else, as names and hashes."""
        ours = ("GENRE", ORIGINAL)
        items = [
            (f"{where} {_key(comment)}", digest(comment)) for comment in self._comments if _key(comment) not in ours
        ]
        return [(f"{where} vendor", digest(self._vendor)), *items]

    def changed(self, change: Change, *, keep_original: bool) -> bytes:
        """The block with other genres, and the original if it is to be kept and is not yet."""
        comments = []
        fresh = [f"GENRE={genre}".encode() for genre in change.genres]
        for comment in self._comments:
            if _key(comment) == "GENRE":
                comments += fresh
                fresh = []
            else:
                comments.append(comment)
        comments += fresh
        if keep_original and change.original and not self.original:
            comments += [f"{ORIGINAL}={genre}".encode() for genre in change.original]
        parts = [self._vendor, *comments]
        lengths = [len(part).to_bytes(4, "little") for part in parts]
        return (
            lengths[0]
            + parts[0]
            + len(comments).to_bytes(4, "little")
            + b"".join(length + part for length, part in zip(lengths[1:], parts[1:], strict=True))
            + self.tail
        )

    def _texts(self, wanted: str) -> tuple[str, ...]:
        values = (c.partition(b"=")[2].decode("utf-8", errors="replace") for c in self._comments if _key(c) == wanted)
        return tuple(value for value in values if value)


def _key(comment: bytes) -> str:
    return comment.partition(b"=")[0].decode("ascii", errors="replace").upper()


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    size = int.from_bytes(data[at : at + 4], "little")
    if at + 4 > len(data) or at + 4 + size > len(data):
        raise Refused("its Vorbis comments are damaged")
    return data[at + 4 : at + 4 + size], at + 4 + size
