"""The window rule: every sample is seen, no window leaves the excerpt, and short excerpts are repeated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reclass.cascade.windowing import count_windows, fill_window, windows


@given(n=st.integers(1, 5_000), window=st.integers(1, 600), share=st.floats(0.01, 1.0))
def test_windows_cover_the_excerpt_and_end_with_it(n: int, window: int, share: float) -> None:
    hop = max(1, int(window * share))
    starts = windows(n, window, hop)
    assert len(starts) == count_windows(n, window, hop)
    assert starts[0] == 0
    assert all(b - a <= hop for a, b in itertools.pairwise(starts))
    assert len(set(starts)) == len(starts), "no window may be computed twice"
    if n >= window:
        assert starts[-1] + window == n
        assert all(0 <= start <= n - window for start in starts)
    else:
        assert starts == (0,)


def test_last_window_is_moved_back() -> None:
    assert windows(100, 40, 40) == (0, 40, 60)
    assert windows(80, 40, 40) == (0, 40)
    assert windows(81, 40, 20) == (0, 20, 40, 41)


def test_short_excerpts() -> None:
    assert windows(39, 40, 40, "reject") == ()
    assert windows(40, 40, 40, "reject") == (0,)
    assert windows(1, 40, 40, "repeat") == (0,)


@pytest.mark.parametrize(("n", "window", "hop"), [(0, 4, 4), (4, 0, 1), (4, 4, 0), (9, 4, 5)])
def test_impossible_geometry_is_refused(n: int, window: int, hop: int) -> None:
    with pytest.raises(ValueError, match=f"n={n}, window={window}, hop={hop}"):
        windows(n, window, hop)


@given(n=st.integers(1, 60), window=st.integers(1, 200))
def test_fill_window_repeats(n: int, window: int) -> None:
    samples = np.arange(n, dtype=np.float32)
    out = np.full(window, -1, np.float32)
    fill_window(samples, 0, "repeat", out)
    assert out.tolist() == [i % n for i in range(window)]


@given(n=st.integers(1, 60), window=st.integers(1, 200))
def test_fill_window_centres_one_whole_copy(n: int, window: int) -> None:
    samples = np.arange(n, dtype=np.float32)
    out = np.full(window, -1, np.float32)
    fill_window(samples, 0, "repeat_centered", out)
    offset = (window - n) // 2 if window > n else 0
    assert out.tolist() == [(i - offset) % n for i in range(window)]


def test_fill_window_takes_a_slice_of_a_long_excerpt() -> None:
    samples = np.arange(10, dtype=np.float32)
    out = np.empty(4, np.float32)
    fill_window(samples, 6, "repeat", out)
    assert out.tolist() == [6, 7, 8, 9]
