"""What may go in, and what comes out of audio that is hardly any."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reclass.features import FEATURE_NAMES, Fma518
from fma518_oracle import faults, librosa_fma518, synthetic_music, traced_fma518
from reachable import reachable

COLUMN = {name: position for position, name in enumerate(FEATURE_NAMES)}


@pytest.fixture(scope="module")
def plan() -> Iterator[Fma518]:
    with Fma518(3 * 44100, 44100) as opened:
        yield opened


@pytest.mark.parametrize("rate", [8000, 8500, 11025, 44100])
@pytest.mark.parametrize("count", [1, 2, 7, 100, 511, 512, 1023, 2205])
def test_the_shortest_excerpts_are_finite(plan: Fma518, rate: int, count: int) -> None:
    samples = synthetic_music(rate, 1.0, seed=count)[:count]
    assert np.isfinite(plan.compute(samples, rate)).all()


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_silence_is_finite_and_has_no_shape(plan: Fma518, rate: int) -> None:
    values = plan.compute(np.zeros(rate, dtype=np.float32), rate)
    assert np.isfinite(values).all()
    for name, column in COLUMN.items():
        if "/skew/" in name or "/kurtosis/" in name or "/std/" in name:
            assert values[column] == 0, name
    # power_to_db's floor: -100 dB in every band, so sqrt(128) times that in the first coefficient alone.
    assert values[COLUMN["mfcc/mean/01"]] == pytest.approx(-100 * np.sqrt(128), rel=1e-6)
    assert values[COLUMN["mfcc/mean/02"]] == 0


def test_silence_equals_librosa_where_librosa_is_defined() -> None:
    silence = np.zeros(22050, dtype=np.float32)
    result = traced_fma518(silence, 22050)
    assert np.isfinite(result.values).all()
    # On the rows and not on librosa's numbers: on some CPUs its std of a constant row is 1e-4, not 0.
    assert faults(result, librosa_fma518(silence, 22050), silence) == []


def test_a_click_and_a_constant_are_finite(plan: Fma518) -> None:
    click = np.zeros(22050, dtype=np.float32)
    click[10000] = 1
    assert np.isfinite(plan.compute(click, 44100)).all()
    assert np.isfinite(plan.compute(np.full(22050, 0.25, dtype=np.float32), 44100)).all()


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 6000),
    rate=st.sampled_from([4000, 8000, 8500, 11025, 16000, 22050, 44100]),
    seed=st.integers(0, 9),
    scale=st.sampled_from([1e-12, 1e-6, 1e-2, 1.0, 100.0]),
)
def test_any_length_is_finite_and_repeats_to_the_bit(count: int, rate: int, seed: int, scale: float) -> None:
    samples = (scale * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)
    with Fma518(80000, 44100) as plan:
        first = plan.compute(samples, rate)
        plan.compute(samples[: 1 + count // 2], rate)
        assert np.isfinite(first).all()
        np.testing.assert_array_equal(plan.compute(samples, rate), first)


def test_the_result_goes_where_the_caller_wants_it(plan: Fma518) -> None:
    samples = synthetic_music(22050, 1.0)
    out = np.empty(518, dtype=np.float32)
    assert plan.compute(samples, 22050, out) is out
    np.testing.assert_array_equal(out, plan.compute(samples, 22050))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(100), "expected a float32"),
        (np.zeros((100, 2), dtype=np.float32), "expected a float32"),
        ([0.0, 1.0], "expected a float32"),
        (np.zeros(100, dtype=np.float32)[::2], "not contiguous"),
        (np.zeros(0, dtype=np.float32), "0 samples"),
        (np.full(100, np.nan, dtype=np.float32), "not finite"),
        (np.array([1.0, np.inf], dtype=np.float32), "not finite"),
    ],
)
def test_samples_that_break_the_contract(plan: Fma518, samples: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan.compute(samples, 44100)


def test_too_long_and_too_fast_say_both_numbers(plan: Fma518) -> None:
    with pytest.raises(ValueError, match=r"132301 samples.*132300"):
        plan.compute(np.zeros(132301, dtype=np.float32), 44100)
    with pytest.raises(ValueError, match=r"48000.*44100"):
        plan.compute(np.zeros(1000, dtype=np.float32), 48000)
    with pytest.raises(ValueError, match=r"32000 samples at 8000 Hz become 64000.*48000"):
        plan.compute(np.zeros(32000, dtype=np.float32), 8000)


def test_more_excerpts_than_there_is_room_for() -> None:
    with Fma518(1000, 44100, most=2) as plan:
        with pytest.raises(ValueError, match=r"3 excerpts.*most = 2"):
            plan.compute(np.zeros((3, 1000), dtype=np.float32), 44100)
        with pytest.raises(ValueError, match=r"or float32\[excerpts, n\]"):
            plan.compute(np.zeros((1, 1, 1000), dtype=np.float32), 44100)


@pytest.mark.parametrize("shape", ["wrong size", "wrong type"])
def test_an_out_that_does_not_fit(plan: Fma518, shape: str) -> None:
    out = np.empty(517, dtype=np.float32) if shape == "wrong size" else np.empty(518)
    with pytest.raises(ValueError, match="out is"):
        plan.compute(synthetic_music(22050, 0.2), 22050, out)


@pytest.mark.parametrize(
    ("arguments", "message"), [((0, 44100), "at least 1"), ((100, 0), "at least 1"), ((100, 800000), "at most 768000")]
)
def test_a_plan_needs_room(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fma518(*arguments)


def test_a_closed_plan_refuses_and_holds_no_streams() -> None:
    plan = Fma518(44100, 44100)
    plan.compute(synthetic_music(8000, 0.5), 8000)
    plan.close()
    plan.close()
    assert not any(isinstance(held, soxr.ResampleStream) for held in reachable(plan))
    with pytest.raises(ValueError, match="closed"):
        plan.compute(synthetic_music(22050, 0.5), 22050)
