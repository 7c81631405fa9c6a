# ruff: noqa: E402 (the thread counts must stand before numpy is imported)
"""The 518 features: how far edge-reclass is from librosa 0.11, on every clip of the development data.

    python benchmarks/fma518_parity.py [--processes 2] [--limit N] [--every K] [--rates 11025 16000 … --rate-clips 3]

A number is off when it differs by more than 1e-3 relative to max(|librosa's|, 1e-3). Two decisions inside the
definition turn rounding into visible differences, and are counted apart: the tuning estimate (a vote over a histogram;
near a draw it flips, for librosa against itself in float64 too) and the thresholds of CENS. Clips are taken at their
own rate; with ``--rates`` a few of them are resampled to each rate as well. The clips lie under EDGE_RECLASS_DATA (by
default ``../shared/data``). Output is plain text.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from edge_reclass.features import FEATURE_NAMES, Fma518
from edge_reclass.features.layout import ROWS
from edge_reclass.features.tuning import PeakStore
from edge_reclass_bench.peers.librosa_fma518 import OracleResult, librosa_fma518

DATA = Path(os.environ.get("EDGE_RECLASS_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
SUFFIXES = {".mp3", ".ogg", ".wav", ".flac"}
CENS_FEATURES = ("chroma_cens", "tonnetz")
COLUMN_FEATURE = np.array([name.split("/")[0] for name in FEATURE_NAMES])
COLUMN_ROW = np.array([name.rsplit("/", 1)[0].split("/")[1] for name in FEATURE_NAMES])


@dataclass(frozen=True)
class Comparison:
    """One clip at one rate."""

    clip: str
    rate: int
    off: npt.NDArray[np.bool_]
    tunings: tuple[float, float]
    reference: tuple[float, float]
    cens_flips: int
    cens_values: int
    # librosa in float64 and how many numbers of its float32 result are off from it; only where the tunings differ.
    double: tuple[float, float] | None
    double_off: int


def _off(values: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    error = np.abs(values - reference) / np.maximum(np.abs(reference), 1e-3)
    # librosa gives nan for the skew and kurtosis of a constant row, where ours are defined as 0.
    return ~((error <= 1e-3) | (np.isnan(reference) & (values == 0)))


def _levels(chroma: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    share = chroma / np.maximum(chroma.sum(axis=0), np.finfo(np.float32).tiny)
    return sum((share > np.float32(step)).astype(np.int64) for step in (0.05, 0.1, 0.2, 0.4))


def _ours(
    samples: npt.NDArray[np.float32], rate: int
) -> tuple[npt.NDArray[np.float32], tuple[float, float], np.ndarray]:
    estimates: list[float] = []
    estimate = PeakStore.tuning

    def remembered(store: PeakStore) -> float:
        estimates.append(estimate(store))
        return estimates[-1]

    PeakStore.tuning = remembered  # type: ignore[method-assign]
    try:
        with Fma518(len(samples), rate) as plan:
            values = plan.compute(samples, rate)
            folded = plan._folded.T.copy()
    finally:
        PeakStore.tuning = estimate  # type: ignore[method-assign]
    return values, (estimates[0], estimates[1]), folded


def _folded(result: OracleResult) -> npt.NDArray[np.floating]:
    # Divided by each frame's maximum; the shares that CENS quantises do not see that.
    return result.rows["chroma_cqt"]


def compare(job: tuple[str, int | None]) -> Comparison:
    """Both programs on one clip, at its own rate or resampled to the one given."""
    clip, target = job
    samples, rate = soundfile.read(DATA / clip, dtype="float32", always_2d=True)
    mono = np.ascontiguousarray(samples.mean(axis=1))
    if target is not None and target != rate:
        mono, rate = np.ascontiguousarray(soxr.resample(mono, rate, target, "HQ")), target
    values, tunings, folded = _ours(mono, rate)
    result = librosa_fma518(mono, rate)
    reference = (result.tuning_cqt, result.tuning_stft)
    double, double_off = None, 0
    if not np.allclose(tunings, reference, atol=1e-6):
        exact = librosa_fma518(mono.astype(np.float64), rate)
        double = (exact.tuning_cqt, exact.tuning_stft)
        double_off = int(_off(result.values, exact.values).sum())
    theirs = _levels(_folded(result))
    flips = int((_levels(folded[:, : theirs.shape[1]]) != theirs).sum())
    return Comparison(
        clip, rate, _off(values, result.values), tunings, reference, flips, theirs.size, double, double_off
    )


def _share(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / max(1, total):.3f} %)"


def report(results: list[Comparison]) -> None:
    """Print the summary, the clips whose tuning differs, CENS flips, and the table per feature."""
    equal = [r for r in results if np.allclose(r.tunings, r.reference, atol=1e-6)]
    differing = [r for r in results if not np.allclose(r.tunings, r.reference, atol=1e-6)]
    off = sum(int(r.off.sum()) for r in equal)
    flipped = [r for r in equal if r.cens_flips and r.off.any()]
    of_cens = np.isin(COLUMN_FEATURE, CENS_FEATURES)
    off_by_flip = sum(int(r.off[of_cens].sum()) for r in flipped)
    print(f"clips: {len(results)}, of them {len(equal)} with equal tuning estimates")
    print(f"numbers off on clips with equal tuning: {_share(off, 518 * len(equal))}")
    print(
        f"  of these in CENS or tonnetz of clips with threshold flips: {off_by_flip}; all others: {off - off_by_flip}"
    )
    flips = sum(r.cens_flips for r in equal)
    print(
        f"CENS threshold flips: {flips} of {sum(r.cens_values for r in equal)} quantised values,"
        f" in {sum(r.cens_flips > 0 for r in equal)} clips"
    )
    print(f"clips whose tuning differs: {_share(len(differing), len(results))}")
    for r in differing:
        exact = r.double or (float("nan"), float("nan"))
        print(
            f"  {r.clip} {r.rate} Hz: ours cqt {r.tunings[0]:+.2f} stft {r.tunings[1]:+.2f},"
            f" librosa float32 {r.reference[0]:+.2f} {r.reference[1]:+.2f},"
            f" librosa float64 {exact[0]:+.2f} {exact[1]:+.2f};"
            f" off: ours {int(r.off.sum())}, librosa float32 against float64 {r.double_off}"
        )
    print("per feature, clips with equal tuning:")
    print(f"  {'feature':<20} {'numbers':>9} {'off':>6}  {'%':>7}  by statistic")
    table = np.sum([r.off for r in equal], axis=0) if equal else np.zeros(518, dtype=int)
    for feature in ROWS:
        columns = feature == COLUMN_FEATURE
        total = int(columns.sum()) * len(equal)
        count = int(table[columns].sum())
        statistics = {str(s): int(table[columns & (s == COLUMN_ROW)].sum()) for s in np.unique(COLUMN_ROW)}
        named = ", ".join(f"{name} {number}" for name, number in statistics.items() if number)
        print(f"  {feature:<20} {total:>9} {count:>6}  {100 * count / max(1, total):>7.4f}  {named}")
    worst = sorted((r for r in equal if r.off.any()), key=lambda r: -int(r.off.sum()))[:10]
    print("most numbers off, clips with equal tuning:")
    for r in worst:
        names = [FEATURE_NAMES[c] for c in np.flatnonzero(r.off)[:4]]
        print(f"  {r.clip} {r.rate} Hz: {int(r.off.sum())} off, {r.cens_flips} CENS flips; {', '.join(names)} …")


def run(jobs: list[tuple[str, int | None]], processes: int) -> list[Comparison]:
    """Compare all jobs, on several processes."""
    if processes == 1:
        return [compare(job) for job in jobs]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(compare, jobs, chunksize=4)


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=int, default=None, help="only the first N clips")
    parser.add_argument("--every", type=int, default=1, help="only every K-th clip")
    parser.add_argument("--rates", type=int, nargs="*", default=[], help="also resample to these rates (Hz)")
    parser.add_argument("--rate-clips", type=int, default=3, help="clips of audio/fma that are resampled to each rate")
    options = parser.parse_args()
    clips = sorted(str(path.relative_to(DATA)) for path in DATA.rglob("*") if path.suffix in SUFFIXES)
    if not clips:
        raise SystemExit(f"no clips under {DATA}: set EDGE_RECLASS_DATA to a copy of the development data")
    started = time.perf_counter()
    print(f"native rates, {DATA}")
    report(run([(clip, None) for clip in clips[:: options.every][: options.limit]], options.processes))
    if options.rates:
        few = [clip for clip in clips if clip.startswith("audio/fma/")][: options.rate_clips]
        for rate in options.rates:
            print(f"\nresampled to {rate} Hz: {', '.join(few)}")
            results = run([(clip, rate) for clip in few], min(options.processes, len(few)))
            for r in results:
                same = "equal" if np.allclose(r.tunings, r.reference, atol=1e-6) else f"{r.tunings} {r.reference}"
                names = ", ".join(FEATURE_NAMES[c] for c in np.flatnonzero(r.off)[:4])
                print(f"  {r.clip}: {int(r.off.sum())} of 518 off, tuning {same}, {r.cens_flips} CENS flips {names}")
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
