"""Numbers for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reclass_bench.record import Estimate
from edge_reclass_bench.report.text import duration, fit, interval, number, percent, plain, readable, width_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (4.5678, "4.57"),
        (9.996, "10.0"),
        (99.96, "100"),
        (158.4, "158"),
        (12_345.6, "12\u202f346"),
        (-3.14159, "-3.14"),
        (1.5e20, "1.50e+20"),
        (2e-12, "2.00e-12"),
    ],
)
def test_three_digits_that_count(value, text):
    assert number(value) == text


@given(st.floats(1e-8, 1e14))
def test_a_number_is_right_to_half_of_its_last_digit(value):
    assert float(number(value).replace("\u202f", "")) == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0"), (1.0, "100"), (0.494, "49.4"), (1e-5, "<\u202f0.1"), (0.99999, ">\u202f99.9")],
)
def test_nothing_and_all_are_said_only_where_it_is_so(share, text):
    assert percent(share) == f"{text}\u00a0%"


def test_intervals_and_units():
    assert interval(Estimate(value=12.34, low=11.9, high=12.8), "ms") == "12.3 [11.9, 12.8]\u00a0ms"
    assert interval(Estimate(value=12.34)) == "12.3"
    assert duration(Estimate(value=0.0197)) == "19.7\u00a0µs"
    assert duration(Estimate(value=0.0)) == "0\u00a0ms"
    assert duration(Estimate(value=13_800.0, low=13_700.0, high=14_200.0)) == "13.8 [13.7, 14.2]\u00a0s"
    assert (plain(10.0), plain(0.9), plain(12_000.0)) == ("10", "0.9", "12\u202f000")


@given(st.text(min_size=1, max_size=80), st.floats(10, 400))
def test_a_text_that_was_fitted_takes_the_room_at_most(text, room):
    shown = fit(text, 13.0, room)
    assert shown
    assert shown == text or shown == "…" or width_of(shown, 13.0) <= room


def test_a_fitted_text_keeps_both_ends():
    shown = fit("a-long-name-with-a-number-7", 13.0, 120.0)
    assert shown.startswith("a-l") and shown.endswith("-7") and "…" in shown


def test_unreadable_characters_are_made_visible():
    assert readable("a\x07b\udc80c\n") == "a\\x07b\\xdc80c\n"
