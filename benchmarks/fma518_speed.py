# ruff: noqa: E402 (the thread counts must stand before numpy is imported)
"""The 518 features: edge-reclass beside librosa 0.11, in one process, on one thread, warm.

    python benchmarks/fma518_speed.py [--repeats 15] [--seconds 30] [--rates 44100 22050] [--workers 2] [--parts]

Both compute the same excerpt in turn, so that whatever else the machine does falls on both. Times are medians; the
ratio is the median of the ratios of neighbouring runs. The audio is the first clip of ``audio/fma`` under
EDGE_RECLASS_DATA (by default ``../shared/data``), resampled where needed; where that is absent, a synthesised one.
Decoding is not timed.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    # Before numpy is imported: the libraries read this once.
    os.environ[_variable] = "1"

import argparse
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import scipy
import soundfile
import soxr

from edge_reclass.features import Fma518, cqt, extractor, spectral, tuning
from edge_reclass_bench.peers.librosa_fma518 import librosa_fma518

DATA = Path(os.environ.get("EDGE_RECLASS_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")

PARTS: tuple[tuple[Any, str], ...] = (
    (spectral.SpectralBlock, "transform"),
    (spectral.SpectralBlock, "count_crossings"),
    (spectral.SpectralBlock, "weigh_power"),
    (spectral.SpectralBlock, "weigh_magnitude"),
    (spectral.SpectralBlock, "contrast"),
    (tuning.PeakFinder, "find"),
    (tuning.PeakStore, "tuning"),
    (cqt.ConstantQ, "fold"),
    (extractor, "row_statistics"),
    (extractor.Fma518, "compute"),
)


def excerpt(rate: int, seconds: float) -> tuple[np.ndarray, str]:
    """Mono float32 audio at ``rate`` Hz and where it is from."""
    clips = sorted((DATA / "audio" / "fma").glob("*.mp3"))
    if clips:
        samples, native = soundfile.read(clips[0], dtype="float32", always_2d=True)
        mono = soxr.resample(samples.mean(axis=1), native, rate, "HQ")
        return np.ascontiguousarray(mono[: int(rate * seconds)], dtype=np.float32), str(clips[0].relative_to(DATA))
    generator = np.random.default_rng(518)
    clock = np.arange(int(rate * seconds)) / rate
    notes = 220 * 2 ** (generator.integers(0, 24, 64) / 12)
    tone = sum(np.sin(2 * np.pi * k * notes[(clock * 2).astype(int) % 64] * clock) / k for k in range(1, 6))
    return (0.1 * tone + 0.01 * generator.standard_normal(len(clock))).astype(np.float32), "synthesised"


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(rate: int, seconds: float, repeats: int, workers: int) -> None:
    """Print both medians and the ratio for one rate."""
    samples, source = excerpt(rate, seconds)
    with Fma518(len(samples), rate, workers=workers) as plan:

        def ours() -> object:
            return plan.compute(samples, rate)

        def theirs() -> object:
            return librosa_fma518(samples, rate)

        for _ in range(3):
            ours()
            theirs()
        pairs = [(timed(ours), timed(theirs)) for _ in range(repeats)]
    mine, other = (statistics.median(pair[side] for pair in pairs) * 1e3 for side in (0, 1))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    threads = "one thread" if workers == 1 else f"{workers} threads (librosa: one)"
    print(
        f"{rate} Hz, {len(samples) / rate:.1f} s, {threads}: edge-reclass {mine:.1f} ms"
        f" (fastest {min(pair[0] for pair in pairs) * 1e3:.1f}), librosa {other:.1f} ms"
        f" (fastest {min(pair[1] for pair in pairs) * 1e3:.1f}), ratio {ratio:.2f}   [{source}, {repeats} pairs]"
    )


def show_parts(rate: int, seconds: float, repeats: int) -> None:
    """Print what each part of ours takes on one thread, processor time per call; the parts are not disjoint."""
    samples, _ = excerpt(rate, seconds)
    spent: defaultdict[str, float] = defaultdict(float)

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent[name] += time.thread_time() - start

        return wrapper

    originals = [(owner, name, getattr(owner, name)) for owner, name in PARTS]
    try:
        for owner, name, function in originals:
            setattr(owner, name, clocked(name, function))
        with Fma518(len(samples), rate) as plan:
            for _ in range(3):
                plan.compute(samples, rate)
            spent.clear()
            for _ in range(repeats):
                plan.compute(samples, rate)
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)
    for name, total in spent.items():
        print(f"    {name:<16} {total / repeats * 1e3:6.2f} ms")


def main() -> None:
    """Parse the command line and print one line per rate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="pairs of runs per rate")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the excerpt")
    parser.add_argument("--rates", type=int, nargs="+", default=[44100, 22050], help="sampling rates in Hz")
    parser.add_argument("--workers", type=int, default=1, help="threads of edge-reclass for one excerpt")
    parser.add_argument("--parts", action="store_true", help="also print what each part of edge-reclass takes")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__},"
        f" soxr {soxr.__version__}, librosa {librosa.__version__};"
        f" {os.cpu_count()} processors, load {os.getloadavg()[0]:.2f}"
    )
    for rate in options.rates:
        compare(rate, options.seconds, options.repeats, options.workers)
        if options.parts:
            show_parts(rate, options.seconds, options.repeats)


if __name__ == "__main__":
    main()
