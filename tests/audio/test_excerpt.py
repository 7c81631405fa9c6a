"""Where an excerpt lies, and the windows' sibling rule that it is moved back to end with the track."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reclass.audio import ExcerptSpec, decode_seconds, locate, segments
from edge_reclass.audio.excerpt import NEAR_SECONDS

RATES = st.integers(4_000, 192_000)
TOTALS = st.integers(1, 10**9)
SPECS = st.builds(
    ExcerptSpec,
    start=st.one_of(st.just("center"), st.floats(0, 1e6)),
    seconds=st.one_of(st.none(), st.floats(1e-6, 1e5)),
)


def test_center_start_end_and_whole() -> None:
    rate = 1000 * 44
    total = 100 * rate
    assert locate(total, rate, ExcerptSpec()) == (35 * rate, 30 * rate)
    assert locate(total, rate, ExcerptSpec(10.0, 30.0)) == (10 * rate, 30 * rate)
    assert locate(total, rate, ExcerptSpec(90.0, 30.0)) == (70 * rate, 30 * rate)
    assert locate(total, rate, ExcerptSpec(1e6, 30.0)) == (70 * rate, 30 * rate)
    assert locate(total, rate, ExcerptSpec(50.0, None)) == (0, total)
    assert locate(20 * rate, rate, ExcerptSpec()) == (0, 20 * rate)
    assert locate(1, rate, ExcerptSpec()) == (0, 1)


@given(TOTALS, RATES, SPECS)
def test_lies_within_the_track(total: int, rate: int, spec: ExcerptSpec) -> None:
    start, count = locate(total, rate, spec)
    assert start >= 0
    assert count >= 1
    assert start + count <= total
    if spec.seconds is not None and total >= spec.seconds * rate + 1:
        assert abs(count - spec.seconds * rate) <= 1
    if spec.start == "center":
        assert abs((total - start - count) - start) <= 1


@given(TOTALS, RATES, st.lists(SPECS, min_size=1, max_size=4))
def test_segments_hold_every_excerpt_and_little_else(total: int, rate: int, specs: list[ExcerptSpec]) -> None:
    found = segments(total, rate, specs)
    assert found == sorted(found)
    for (start, count), (after, _) in pairwise(found):
        assert after - (start + count) >= NEAR_SECONDS * rate
    located = [locate(total, rate, spec) for spec in specs]
    for first, n in located:
        assert any(start <= first and first + n <= start + count for start, count in found)
    # Every segment begins and ends with an excerpt.
    assert {start for start, _ in found} <= {first for first, _ in located}
    assert {start + count for start, count in found} <= {first + n for first, n in located}


@given(st.integers(1, 10**8), RATES, st.lists(SPECS, min_size=1, max_size=4))
def test_seconds_to_decode_are_never_more_than_the_bound(total: int, rate: int, specs: list[ExcerptSpec]) -> None:
    seconds = decode_seconds(specs, max_seconds=total / rate)
    assert sum(count for _, count in segments(total, rate, specs)) <= seconds * rate + len(specs)


def test_seconds_to_decode() -> None:
    """Two excerpts of a long track are two segments, not their hull."""
    assert decode_seconds([ExcerptSpec()], 1200) == 30
    assert decode_seconds([ExcerptSpec(), ExcerptSpec("center", 10.0), ExcerptSpec()], 1200) == 30
    assert decode_seconds([ExcerptSpec(), ExcerptSpec(0.0, 30.0)], 1200) == 60 + NEAR_SECONDS
    assert decode_seconds([ExcerptSpec(), ExcerptSpec(0.0, None)], 1200) == 1200
    assert segments(2700 * 8000, 8000, [ExcerptSpec(), ExcerptSpec(0.0, 30.0)]) == [
        (0, 240_000), (1335 * 8000, 240_000),
    ]  # fmt: skip


@pytest.mark.parametrize("start", [-1.0, math.nan, math.inf, "middle", None])
def test_bad_start(start: object) -> None:
    with pytest.raises(ValueError, match="start has to be"):
        ExcerptSpec(start=start)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.0, -3.0, math.nan, math.inf])
def test_bad_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds has to be positive"):
        ExcerptSpec(seconds=seconds)


def test_no_specs() -> None:
    with pytest.raises(ValueError, match="at least one"):
        segments(100, 8000, [])
    with pytest.raises(ValueError, match="at least one"):
        decode_seconds([], 10)
