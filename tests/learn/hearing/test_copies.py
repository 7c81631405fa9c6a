"""Changed copies of a track: always the same, and what they are said to be."""

from __future__ import annotations

import numpy as np

from edge_reclass_learn.hearing.copies import RATES, SHORTEST, SOFTEST, changed_copy, copy_key


def test_copies_are_softer_shorter_and_of_other_rates() -> None:
    rate, seconds = 32_000, 8.0
    samples = np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate).astype(np.float32)
    lengths, levels, rates = [], [], []
    for number in range(60):
        copy, to = changed_copy(samples, rate, copy_key(b"sound", number))
        lengths.append(len(copy) / to)
        levels.append(20 * np.log10(np.abs(copy).max()))
        rates.append(to)
    assert set(rates) == {one for one in RATES if one < rate}
    assert SHORTEST - 0.01 <= min(lengths) < 3.0 and 5.0 < max(lengths) <= seconds
    assert SOFTEST - 0.1 <= min(levels) < -12.0 and -5.0 < max(levels) < 0.1


def test_a_copy_belongs_to_the_sound() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 22_050 * 4).astype(np.float32)
    one, rate = changed_copy(samples, 22_050, copy_key(b"sound", 0))
    again, same = changed_copy(samples, 22_050, copy_key(b"sound", 0))
    assert rate == same and np.array_equal(one, again)
    keys = {copy_key(sound, number) for sound in (b"sound", b"other") for number in range(3)}
    assert len(keys) == 6


def test_short_and_slow_tracks_are_neither_cut_nor_raised() -> None:
    samples = np.ones(8_000, np.float32)
    copy, rate = changed_copy(samples, 8_000, copy_key(b"sound", 1))
    assert rate == 8_000 and len(copy) == 8_000
