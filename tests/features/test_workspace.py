"""A plan that is used again: no excerpt, rate, thread or failure leaves a trace in what comes after it."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from edge_reclass.features import Fma518
from edge_reclass.features.cqt import cqt_frame_count, early_halvings
from edge_reclass.features.spectral import SpectralBlock
from fma518_oracle import synthetic_music


def test_one_plan_takes_lengths_that_vary_by_a_few_samples() -> None:
    rate = 44100
    music = synthetic_music(rate, 3.0)
    with Fma518(len(music), rate) as plan:
        for count in (len(music), len(music) - 1, len(music) - 3, len(music) - 700, len(music)):
            with Fma518(count, rate) as fresh:
                np.testing.assert_array_equal(plan.compute(music[:count], rate), fresh.compute(music[:count], rate))


def test_rates_and_lengths_leave_no_trace_in_the_next_result() -> None:
    with Fma518(4 * 48000, 48000) as plan:
        music = synthetic_music(44100, 3.0)
        first = plan.compute(music, 44100)
        for rate in (8000, 11025, 48000, 22050):
            plan.compute(synthetic_music(rate, 2.0, seed=3, cents=40), rate)
        np.testing.assert_array_equal(plan.compute(music, 44100), first)


@pytest.mark.parametrize("seconds", [3.0, 60.0])
def test_workers_give_the_same_bits(seconds: float) -> None:
    music = np.tile(synthetic_music(44100, 3.0, seed=4), int(seconds // 3))
    with Fma518(len(music), 44100) as one, Fma518(len(music), 44100, workers=2) as two:
        expected = one.compute(music, 44100)
        for _ in range(3):
            np.testing.assert_array_equal(two.compute(music, 44100), expected)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("rate", "seconds"), [(20_000, 3.0), (8_000, 3.0), (44_100, 0.05), (44_100, 4.0), (35_000, 2.0)]
)
def test_several_excerpts_have_what_each_alone_has(rate: int, seconds: float, workers: int) -> None:
    """To the bit, silent ones and ones of other tunings among them."""
    cents = (0, 45, -45, 20, 0)
    music = [synthetic_music(rate, seconds, seed=i, cents=each) for i, each in enumerate(cents)]
    music[3][:] = 0
    excerpts = np.stack(music)
    with Fma518(len(music[0]), rate) as alone, Fma518(len(music[0]), rate, workers=workers, most=5) as plan:
        expected = np.stack([alone.compute(each, rate) for each in music])
        np.testing.assert_array_equal(plan.compute(excerpts, rate), expected)
        np.testing.assert_array_equal(plan.compute(excerpts[1:3], rate), expected[1:3])
        np.testing.assert_array_equal(plan.compute(music[4], rate), expected[4])


def test_excerpts_whose_transforms_differ_in_their_frames_can_stand_together() -> None:
    """At some rates the tuning decides how often the constant-Q transform halves the rate."""
    rate = next(r for r in range(9_000, 60_000) if early_halvings(r, -0.45) != early_halvings(r, 0.45))
    lengths = range(rate, rate + 512)
    counts = [{cqt_frame_count(n, early_halvings(rate, t)) for t in (-0.45, 0.45)} for n in lengths]
    length = next(n for n, found in zip(lengths, counts, strict=True) if len(found) == 2)
    music = [synthetic_music(rate, 1.1, seed=i, cents=cents)[:length] for i, cents in enumerate((-45, 45, -45))]
    with Fma518(length, rate) as alone, Fma518(length, rate, most=3) as plan:
        expected = np.stack([alone.compute(np.ascontiguousarray(each), rate) for each in music])
        np.testing.assert_array_equal(plan.compute(np.stack(music), rate), expected)


def test_input_is_left_alone() -> None:
    music = synthetic_music(44100, 2.0)
    music.flags.writeable = False
    copy = music.copy()
    with Fma518(len(music), 44100) as plan:
        plan.compute(music, 44100)
    np.testing.assert_array_equal(music, copy)


def test_importing_the_features_imports_nothing_heavy() -> None:
    code = (
        "import sys, edge_reclass.features;"
        "heavy = {'librosa', 'numba', 'torch', 'sklearn', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("method", ["_chroma_stft", "_mfcc"])
def test_after_a_failure_the_next_excerpt_is_computed_from_scratch(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The helper thread works on the failed excerpt until it is done, never into the next one."""
    first, second = synthetic_music(44100, 6.0, seed=1), synthetic_music(44100, 6.0, seed=2)
    with Fma518(len(first), 44100) as plain:
        expected = plain.compute(second, 44100)
    with Fma518(len(first), 44100, workers=2) as plan:
        constant_q = plan._constant_q

        def slow(*arguments: object) -> None:
            time.sleep(0.2)
            constant_q(*arguments)  # type: ignore[arg-type]

        def fails(*_: object) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(plan, "_constant_q", slow)
            patch.setattr(plan, method, fails)
            with pytest.raises(MemoryError):
                plan.compute(first, 44100)
        np.testing.assert_array_equal(plan.compute(second, 44100), expected)


def test_a_failure_in_a_block_waits_for_the_other_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = synthetic_music(44100, 8.0, seed=1), synthetic_music(44100, 8.0, seed=2)
    with Fma518(len(first), 44100) as plain:
        expected = plain.compute(second, 44100)
    with Fma518(len(first), 44100, workers=2) as plan:
        analyse = SpectralBlock.analyse

        def fails(block: SpectralBlock, *arguments: object) -> None:
            if block is plan._blocks[0]:
                raise MemoryError
            time.sleep(0.05)
            analyse(block, *arguments)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(SpectralBlock, "analyse", fails)
            with pytest.raises(MemoryError):
                plan.compute(first, 44100)
        np.testing.assert_array_equal(plan.compute(second, 44100), expected)
