"""Damaged files: they are refused or written, and what is written is proven; nothing else is raised."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import tagged
from edge_reclass.library.journal import Journal
from edge_reclass.library.tags.content import Change, Refused
from edge_reclass.library.tags.writing import COMMAND, look, take_back, write

pytest.importorskip("mutagen", reason="tags are written with mutagen (extra [tags])")


TRIES = int(os.environ.get("EDGE_RECLASS_FUZZ", "60"))


def spoilt(content: bytes, numbers: random.Random) -> bytes:
    """A few bytes changed, near the ends mostly, or the file cut."""
    data = bytearray(content)
    for _ in range(numbers.randint(1, 4)):
        span = numbers.choice((40, 400, 4000, len(data)))
        at = numbers.randrange(min(span, len(data)))
        at = len(data) - 1 - at if numbers.random() < 0.4 else at
        data[at] = numbers.choice((0, 1, 0x7F, 0x80, 0xFF, numbers.randrange(256)))
    return bytes(data[: numbers.randrange(len(data))]) if numbers.random() < 0.1 else bytes(data)


@pytest.mark.parametrize("kind", tagged.KINDS)
def test_bytes_at_random(kind: str, tmp_path: Path) -> None:
    path = tagged.tag(tagged.write(tmp_path / f"a.{kind}", seconds=0.5), ["Pop"])
    if kind == "mp3":
        path.write_bytes(path.read_bytes() + b"TAG" + bytes(124) + b"\x0d")
    content = path.read_bytes()
    numbers = random.Random(kind)
    refused = 0
    for _ in range(TRIES):
        path.write_bytes(spoilt(content, numbers))
        try:
            found = look(path)
        except Refused:
            refused += 1
    assert refused < TRIES
    with Journal.open(tmp_path / "journal.db", create=True) as journal:
        for _ in range(max(1, TRIES // 50)):
            before = spoilt(content, numbers)
            path.write_bytes(before)
            try:
                found = look(path)
                write(found, Change(("Jazz",), found.inventory.genres), journal, journal.begin(COMMAND))
            except Refused:
                assert path.read_bytes() == before
            else:
                take_back(journal, journal.to_undo(COMMAND)[0])
                assert path.read_bytes() == before
