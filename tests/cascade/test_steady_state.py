"""Steady state: after a cascade is opened, no track allocates anything that grows with its excerpt."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

import bundles
import synth
from edge_reclass import Cascade

MIB = 2**20
LARGEST_ARRAY = 4 * MIB
"""The spectrum of one block of frames is the largest scratch; a 30 s excerpt at 44.1 kHz would be 5 MiB."""
PEAK = 12 * MIB
SECONDS = 30.0


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four tracks of about 35 s at several rates, in several containers."""
    root = tmp_path_factory.mktemp("tracks")
    paths = []
    for i, (rate, suffix) in enumerate([(44_100, "wav"), (44_100, "flac"), (48_000, "ogg"), (44_100, "mp3")]):
        path = root / f"{i}.{suffix}"
        noise = 0.1 * np.random.default_rng(i).standard_normal((int((35 + i / 100) * rate), 2))
        paths.append(synth.write(path, noise.astype(np.float32), rate))
    return paths


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cascade]:
    stages = [
        bundles.fma_stage(rate=44_100),
        bundles.fma_stage("windowed", encoder={"window_samples": 66_150, "hop_samples": 66_150}),
        bundles.waveform_stage("mert", rate=24_000, window=120_000),
    ]
    excerpt = {"start": "center", "seconds": SECONDS}
    root = bundles.make_bundle(tmp_path_factory.mktemp("bundle"), stages, accept=1.0, excerpt=excerpt)
    with Cascade.open(root) as opened:
        yield opened


class Watch:
    """Traced memory while tracks are classified.

    ``peak``: bytes above the opened cascade. ``largest``: most bytes by which memory grew between two calls of any
    function, which bounds every single array from above, however short its life. Of both the less of two runs: see
    ``traced``.
    """

    def __init__(self, cascade: Cascade, tracks: list[Path]) -> None:
        for track in tracks:
            assert cascade.classify(track).status == "ok"
        runs = [self._run(cascade, tracks) for _ in range(2)]
        self.peak, self.largest = (min(each) for each in zip(*runs, strict=True))

    def _run(self, cascade: Cascade, tracks: list[Path]) -> tuple[int, int]:
        gc.collect()
        self._peak = self._largest = 0
        tracemalloc.start()
        self._opened = self._current = tracemalloc.get_traced_memory()[0]
        sys.setprofile(self._step)
        try:
            verdicts = [cascade.classify(track) for track in tracks]
        finally:
            sys.setprofile(None)
            tracemalloc.stop()
        assert [verdict.status for verdict in verdicts] == ["ok"] * len(tracks), verdicts
        return self._peak, self._largest

    def _step(self, *_: object) -> None:
        current, peak = tracemalloc.get_traced_memory()
        self._largest = max(self._largest, peak - self._current)
        self._peak = max(self._peak, peak - self._opened)
        tracemalloc.reset_peak()
        self._current = current


@pytest.fixture(autouse=True)
def no_one_shot_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("soxr.resample returns a full-length array; use a ResampleStream")

    monkeypatch.setattr(soxr, "resample", refuse)


def test_no_track_allocates_what_grows_with_it(cascade: Cascade, tracks: list[Path]) -> None:
    watch = Watch(cascade, tracks)
    assert watch.largest < LARGEST_ARRAY, f"{watch.largest / MIB:.2f} MiB in one step"
    assert watch.peak < PEAK, f"{watch.peak / MIB:.2f} MiB above the opened cascade"


def test_the_watch_sees_one_full_length_copy(
    cascade: Cascade, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    resample = cascade._resampler.resample_tile

    def copying(samples: Any, *arguments: Any) -> None:
        resample(samples.copy(), *arguments)

    monkeypatch.setattr(cascade._resampler, "resample_tile", copying)
    watch = Watch(cascade, tracks[:1])
    assert watch.largest > LARGEST_ARRAY
    assert watch.largest == pytest.approx(SECONDS * 44_100 * 4, rel=0.1)


STATUS = Path("/proc/self/status")


def own_memory() -> float:
    """MiB of this process that are no file's, swapped out ones too: where memory is short, files come and go."""
    lines = dict(line.split(":") for line in STATUS.read_text().splitlines())
    return sum(int(lines[name].removesuffix("kB")) for name in ("RssAnon", "VmSwap")) / 1024


@pytest.mark.skipif(
    not STATUS.exists() or "RssAnon" not in STATUS.read_text(), reason="what memory is used, Linux tells in /proc"
)
def test_resident_memory_is_flat_over_many_tracks(cascade: Cascade) -> None:
    """A leak of one track's samples, half a megabyte and more, would be 30 MiB behind the warm-up."""
    random = np.random.default_rng(0)
    samples = (0.1 * random.standard_normal((6 * 44_100, 2))).astype(np.float32)
    resident = []
    for i in range(80):
        length = int(random.integers(3 * 44_100, len(samples)))
        assert cascade.classify_samples(samples[:length], 44_100).status == "ok"
        if i % 10 == 9:
            gc.collect()
            resident.append(own_memory())
    assert resident[-1] - min(resident[1:4]) < 4, resident
