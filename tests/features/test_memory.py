"""The plan owns its memory: nothing that grows with the excerpt is allocated, whatever the length, rate or threads."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import numpy as np
import pytest
import soxr

from edge_reclass.features import Fma518, extractor
from edge_reclass.features.framing import frame_count
from fma518_oracle import synthetic_music
from traced import traced

MEBIBYTE = 1 << 20


@pytest.fixture
def no_one_shot_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("soxr.resample allocates the whole result; use ResampleStream")

    monkeypatch.setattr(soxr, "resample", refuse)


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_grows_with_the_excerpt(no_one_shot_resampling: None, workers: int) -> None:
    rate = 44100
    music = np.tile(synthetic_music(rate, 20.0), 3)
    with Fma518(len(music), rate, workers=workers) as plan:
        # 60 s is past the frames whose spectra are kept, 10 s is not.
        assert frame_count(60 * rate) > extractor._KEPT_FRAMES
        peaks = {}
        plan.compute(music, rate)
        for seconds in (10, 30, 60):
            # Whether the workers' temporary arrays are there at the same time is chance; what grows is always there.
            excerpt = music[: seconds * rate]
            peaks[seconds] = traced(partial(plan.compute, excerpt, rate), runs=2).peaks
    assert max(map(min, peaks.values())) < 4 * MEBIBYTE, peaks
    assert min(peaks[60]) < max(peaks[30]) + MEBIBYTE / 8, peaks


def test_low_rates_stream_too(no_one_shot_resampling: None) -> None:
    music = synthetic_music(8000, 20.0)
    with Fma518(20 * 44100, 44100) as plan:
        plan.compute(music, 8000)
        assert min(traced(lambda: plan.compute(music, 8000)).peaks) < 4 * MEBIBYTE


def test_a_new_tuning_or_rate_allocates_tables_of_fixed_size() -> None:
    with Fma518(10 * 48000, 48000) as plan:
        plan.compute(synthetic_music(44100, 10.0), 44100)
        for rate in (22050, 32000, 48000):
            # New ones in every run.
            music = iter([(synthetic_music(r, 10.0, cents=r % 77), r) for r in (rate, rate - 1)])
            assert min(traced(lambda music=music: plan.compute(*next(music)), runs=2).peaks) < 8 * MEBIBYTE


def test_caches_are_bounded() -> None:
    with Fma518(6100, 48000) as plan:
        for rate in range(20000, 20040):
            plan.compute(synthetic_music(rate, 0.3, seed=rate, cents=rate % 97), rate)
        for cache, most in ((plan._rate_tables, 8), (plan._cqt._kernel, 128), (plan._chroma_filters, 128)):
            info = cache.cache_info()
            assert info.currsize <= most == info.maxsize


def test_the_workspace_of_a_full_track_is_about_a_kilobyte_per_frame() -> None:
    def size(seconds: int) -> int:
        with ExitStack() as plans:
            return min(traced(lambda: plans.enter_context(Fma518(seconds * 44100, 44100)), runs=2).kept)

    frames = (1200 - 600) * 44100 / 512
    # The buffer for rates under 8 500 Hz holds the same time at 16 kHz: 743 of these bytes, touched only by such rates.
    per_frame = (size(1200) - size(600)) / frames
    assert per_frame - 4 * 512 * 16000 / 44100 < 1250
