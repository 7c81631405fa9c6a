"""How tests measure what a call allocates."""

from __future__ import annotations

from traced import traced

MEBIBYTE = 1 << 20


def test_what_a_call_allocates_shows_in_every_run() -> None:
    peaks, kept = traced(lambda: len(bytes(MEBIBYTE)))
    assert min(peaks) >= MEBIBYTE and max(kept) < MEBIBYTE / 10
    peaks, kept = traced(lambda: bytes(MEBIBYTE))
    assert min(kept) >= MEBIBYTE, "what it returns counts"


def test_what_happens_once_by_the_way_shows_in_one_run() -> None:
    table = [bytes(MEBIBYTE)]
    peaks, _ = traced(lambda: table.pop() * 2 if table else None)
    assert max(peaks) >= 2 * MEBIBYTE and min(peaks) < MEBIBYTE / 10
