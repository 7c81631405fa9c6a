"""Where an excerpt lies, and the windows' sibling rule that it is moved back to end with the track."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reclass.audio import ExcerptSpec, locate, locate_union

RATES = st.integers(8_000, 192_000)
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
def test_union_is_the_hull(total: int, rate: int, specs: list[ExcerptSpec]) -> None:
    start, count = locate_union(total, rate, specs)
    located = [locate(total, rate, spec) for spec in specs]
    assert start == min(first for first, _ in located)
    assert start + count == max(first + n for first, n in located)


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
        locate_union(100, 8000, [])
