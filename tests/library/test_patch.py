"""The difference of two files: it makes the old one again, byte for byte, and it is small."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reclass.library.tags.patch import make_patch, read_patch


def patched(old: bytes, new: bytes, folder: Path) -> int:
    """Size of the patch; the old file has to come out of it."""
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    with (folder / "old").open("rb") as a, (folder / "new").open("rb") as b:
        patch = make_patch(a.fileno(), b.fileno())
    pieces = [one if isinstance(one, bytes) else new[one[0] : one[0] + one[1]] for one in read_patch(patch)]
    assert b"".join(pieces) == old
    return len(patch)


NOISE = random.Random(0).randbytes(3_000_000)


@pytest.mark.parametrize("cut", [0, 17, 100_001, 2_999_000])
def test_what_is_inserted_or_removed_costs_little(cut: int, tmp_path: Path) -> None:
    longer = NOISE[:cut] + b"g" * 1500 + NOISE[cut:]
    assert patched(NOISE, longer, tmp_path) < 200
    assert patched(longer, NOISE, tmp_path) < 300


def test_tags_that_move_by_different_steps_cost_little(tmp_path: Path) -> None:
    cover, audio = NOISE[:400_000], NOISE[400_000:]
    old = b"TITLE" + b"Rock" + cover + audio
    assert patched(old, b"title" + cover + b"Hip-Hop" + bytes(1024) + audio, tmp_path) < 400


def test_numbers_along_the_way_cost_little(tmp_path: Path) -> None:
    pages = [NOISE[at : at + 4000] for at in range(0, len(NOISE), 4000)]
    numbers = random.Random(1)
    old = b"".join(numbers.randbytes(8) + page for page in pages)
    new = b"x" * 4008 + b"".join(numbers.randbytes(8) + page for page in pages)
    assert patched(old, new, tmp_path) < 40 * len(pages)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60), st.binary(max_size=60)), max_size=6))
def test_anything(tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int, bytes]]) -> None:
    old = NOISE[:400]
    new = old
    for at, gone, put in edits:
        new = new[:at] + put + new[at + gone :]
    patched(old, new, tmp_path_factory.getbasetemp())
    patched(new, old, tmp_path_factory.getbasetemp())


def test_empty_files(tmp_path: Path) -> None:
    patched(b"", b"abc", tmp_path)
    patched(b"abc", b"", tmp_path)


def test_renumbered_pages_are_compared_in_linear_time(tmp_path: Path) -> None:
    """Searching anew at each of them takes minutes for a file of 30 MB."""
    numbers = random.Random(1)
    pages = [numbers.randbytes(4300) for _ in range(2500)]
    old = b"".join(numbers.randbytes(8) + page for page in pages)
    new = b"x" * 1500 + b"".join(numbers.randbytes(8) + page for page in pages)
    begun = time.process_time()
    patched(old, new, tmp_path)
    assert time.process_time() - begun < 1
