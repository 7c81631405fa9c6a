"""What samples say, and how sure that is: percentiles, bootstrap intervals, instability. Arrays and numbers only.

**Design of the samples.** Every pass visits every track once, so that times form a table [tracks, passes]. Tracks
differ (length, format, rate), and passes differ (what else the machine did meanwhile); the samples are *not*
independent draws. Intervals therefore come from the pigeonhole bootstrap: tracks and passes are drawn with replacement,
independently of each other, and the statistic is taken of the table that results (A. B. Owen, "The pigeonhole
bootstrap", Annals of Applied Statistics 1(2), 2007). It errs on the wide side. Intervals are percentile intervals (no
BCa: its acceleration is a jackknife over units that are not exchangeable here); 95 % unless said.

**A percentile only where the sample supports it**: where its distribution-free 95 % interval exists, which is that both
tails can be bounded by order statistics: max(p, 1 − p)ⁿ ≤ 2.5 %. That takes 6 samples for p50, 36 for p90, 72 for p95
and 368 for p99 (H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed., 7.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_reclass_bench.record import PERCENTILES, Estimate, Proportion, Summary

__all__ = [
    "RESAMPLES",
    "SEED",
    "Floats",
    "accuracy",
    "bootstrap_rows",
    "drift",
    "macro_f1",
    "order_interval",
    "outliers",
    "paired_ratio",
    "ratio",
    "scatter",
    "smallest_count",
    "summarise",
    "table",
    "wilson",
]

Floats = NDArray[np.float64]
"""float64 of any shape."""

RESAMPLES = 2000
SEED = 20_070_518
LEVEL = 0.95
_CELLS = 1 << 21
"""Numbers that one step of a bootstrap holds at most: 16 MiB."""
_FEW = 6
"""Fewer tracks than this say nothing about other tracks; then only passes are drawn."""


def smallest_count(percent: float) -> int:
    """Smallest number of samples that supports a percentile (0 < percent < 100): see the module's text."""
    if not 0 < percent < 100:
        raise ValueError(f"expected a percentile between 0 and 100, got {percent}")
    tail = max(percent, 100 - percent) / 100
    return math.ceil(math.log((1 - LEVEL) / 2) / math.log(tail))


def order_interval(ordered: Floats, percent: float) -> tuple[float, float] | None:
    """Distribution-free 95 % interval of a percentile from ``ordered`` independent samples, ascending; None if none.

    The narrowest pair of order statistics around the percentile with at most 2.5 % in either tail of Bin(n, p).
    """
    n = len(ordered)
    if n < smallest_count(percent):
        return None
    p, tail = percent / 100, (1 - LEVEL) / 2
    k = np.arange(n + 1)
    logs = np.cumsum(np.concatenate(([0.0], np.log(np.arange(1, n + 1)))))
    mass = np.exp(logs[n] - logs[k] - logs[n - k] + k * math.log(p) + (n - k) * math.log1p(-p))
    below = np.concatenate(([0.0], np.cumsum(mass)))  # below[i] = P(Bin < i)
    # Rank r (from 1) is a lower bound with probability P(Bin ≥ r), an upper bound with P(Bin < r).
    low = int(np.flatnonzero(below[1 : n + 1] <= tail).max())
    high = int(np.flatnonzero(1 - below[1 : n + 1] <= tail).min())
    return float(ordered[low]), float(ordered[high])


def table(samples: Sequence[float], tracks: Sequence[int], passes: Sequence[int]) -> tuple[Floats, list[int]]:
    """Samples as float64[tracks, passes], and which track each row is.

    Tracks without a sample in every pass (a file that failed once) are left out. Where samples have no tracks they
    form one row, and the list is empty.
    """
    if not tracks:
        return np.asarray(samples, np.float64)[None, :], []
    columns = {number: column for column, number in enumerate(sorted(set(passes)))}
    rows: dict[int, list[float]] = {track: [math.nan] * len(columns) for track in sorted(set(tracks))}
    for value, track, number in zip(samples, tracks, passes, strict=True):
        rows[track][columns[number]] = value
    whole = [track for track, row in rows.items() if not any(math.isnan(value) for value in row)]
    return np.array([rows[track] for track in whole], np.float64).reshape(len(whole), len(columns)), whole


def summarise(
    samples: Sequence[float],
    tracks: Sequence[int],
    passes: Sequence[int],
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Summary:
    """Summary of one measure. ``samples`` must not be empty; its order is that of time.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("expected at least one sample")
    flat = np.sort(np.asarray(samples, np.float64))
    cells, whole = table(samples, tracks, passes)
    supported = [percent for percent in PERCENTILES if len(flat) >= smallest_count(percent)]
    percentiles: dict[str, Estimate] = {}
    if len(whole) >= _FEW:

        def statistics_of(drawn: Floats) -> Floats:
            mean: Floats = np.median(drawn, axis=2).mean(axis=1)[:, None]
            if not supported:
                return mean
            every = drawn.reshape(len(drawn), -1)
            return np.concatenate((mean, np.percentile(every, supported, axis=1).T), axis=1)

        draws = _pigeonhole([cells], lambda drawn: statistics_of(drawn[0]), seed, resamples)
        low, high = _interval(draws)
        mean = Estimate(value=_per_track_mean(cells), low=low[0], high=high[0])
        for i, percent in enumerate(supported, 1):
            percentiles[f"p{percent}"] = Estimate(value=float(np.percentile(flat, percent)), low=low[i], high=high[i])
    else:
        mean = _mean_of_few(cells if whole or not tracks else flat[None, :], bool(tracks), seed, resamples)
        for percent in supported:
            bounds = order_interval(flat, percent)
            percentiles[f"p{percent}"] = Estimate(
                value=float(np.percentile(flat, percent)),
                low=None if bounds is None else bounds[0],
                high=None if bounds is None else bounds[1],
            )
    return Summary(
        n=len(flat),
        tracks=len(set(tracks)),
        min=float(flat[0]),
        max=float(flat[-1]),
        mean=mean,
        percentiles=percentiles,
        scatter=scatter(cells),
        drift=drift(cells),
    )


def _mean_of_few(cells: Floats, by_track: bool, seed: int, resamples: int) -> Estimate:
    """The mean where there are no tracks, or too few to draw from: then the interval is over passes alone."""
    value = _per_track_mean(cells) if by_track else float(cells.mean())
    if cells.shape[1] < _FEW:
        return Estimate(value=value)
    centre: Callable[[Floats], Floats] = (
        (lambda drawn: np.median(drawn, axis=2).mean(axis=1)) if by_track else (lambda drawn: drawn.mean(axis=(1, 2)))
    )
    draws = _pigeonhole([cells], lambda drawn: centre(drawn[0])[:, None], seed, resamples, draw_tracks=False)
    low, high = _interval(draws)
    return Estimate(value=value, low=low[0], high=high[0])


def _per_track_mean(cells: Floats) -> float:
    return float(np.median(cells, axis=1).mean())


def _interval(draws: Floats, level: float = LEVEL) -> tuple[list[float], list[float]]:
    """Percentile interval of every column of float64[resamples, k]."""
    tail = (1 - level) / 2 * 100
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    return low.tolist(), high.tolist()


def _pigeonhole(
    tables: Sequence[Floats],
    statistic: Callable[[list[Floats]], Floats],
    seed: int,
    resamples: int,
    *,
    draw_tracks: bool = True,
) -> Floats:
    """float64[resamples, k] of ``statistic``, which takes one [resamples, tracks, passes] per table.

    The tables have the same tracks, which are drawn once for all of them; passes are drawn for each.
    """
    generator = np.random.default_rng(seed)
    rows = len(tables[0])
    step = max(1, _CELLS // max(each.size for each in tables))
    parts = []
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        if draw_tracks:
            chosen = generator.integers(0, rows, (count, rows))
        else:
            chosen = np.broadcast_to(np.arange(rows), (count, rows))
        drawn = []
        for each in tables:
            columns = generator.integers(0, each.shape[1], (count, each.shape[1]))
            drawn.append(each[chosen[:, :, None], columns[:, None, :]])
        parts.append(statistic(drawn))
    return np.concatenate(parts)


def ratio(
    a: Floats,
    b: Floats,
    *,
    level: float = LEVEL,
    seed: int = SEED,
    resamples: int = RESAMPLES,
    centre: Callable[..., Floats] = np.median,
) -> Estimate:
    """B / a of two tables float64[tracks, passes] of the same tracks, paired by track.

    The median over tracks of (``centre`` over passes of b ÷ the same of a). Pairing takes out what differs between
    tracks, the median over passes what disturbed a few of them, the median over tracks the odd track. Tracks are drawn
    once for both, passes for each. ``centre`` takes an array and ``axis``: median, or min for the fastest.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"expected the same tracks in both, at least one, got {len(a)} and {len(b)}")

    def statistic(drawn: list[Floats]) -> Floats:
        ratios: Floats = np.median(centre(drawn[1], axis=2) / centre(drawn[0], axis=2), axis=1)
        return ratios[:, None]

    value = float(np.median(centre(b, axis=1) / centre(a, axis=1)))
    if min(a.shape[1], b.shape[1]) < 2 and len(a) < _FEW:
        return Estimate(value=value)
    draws = _pigeonhole([a, b], statistic, seed, resamples, draw_tracks=len(a) >= _FEW)
    low, high = _interval(draws, level)
    return Estimate(value=value, low=low[0], high=high[0])


def paired_ratio(a: Floats, b: Floats, *, seed: int = SEED, resamples: int = RESAMPLES) -> Estimate:
    """Σ b / Σ a of one cost per track each, float64[tracks]; the interval draws tracks, the same for both."""
    if a.shape != b.shape or not len(a):
        raise ValueError(f"expected one cost per track in both, got {a.shape} and {b.shape}")
    value = float(b.sum() / a.sum())
    if len(a) < _FEW:
        return Estimate(value=value)
    chosen = np.random.default_rng(seed).integers(0, len(a), (resamples, len(a)))
    low, high = _interval((b[chosen].sum(axis=1) / a[chosen].sum(axis=1))[:, None])
    return Estimate(value=value, low=low[0], high=high[0])


def bootstrap_rows(
    values: Floats, statistic: Callable[[Floats], float], *, seed: int = SEED, resamples: int = RESAMPLES
) -> Estimate:
    """``statistic`` of rows (one per track) with its interval over tracks; without one for fewer than six tracks."""
    value = statistic(values)
    if len(values) < _FEW:
        return Estimate(value=value)
    chosen = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = _interval(np.array([[statistic(values[rows])] for rows in chosen]))
    return Estimate(value=value, low=low[0], high=high[0])


def scatter(cells: Floats) -> float | None:
    """Median over tracks of (interquartile range / median) over passes; None with fewer than four passes."""
    if cells.shape[1] < 4 or not len(cells):
        return None
    lower, middle, upper = np.percentile(cells, [25, 50, 75], axis=1)
    if (middle <= 0).any():
        return None
    return float(np.median((upper - lower) / middle))


def drift(cells: Floats) -> float | None:
    """Median over tracks of (median of the second half of the passes / that of the first); None below four passes."""
    half = cells.shape[1] // 2
    if half < 2 or not len(cells):
        return None
    first, second = np.median(cells[:, :half], axis=1), np.median(cells[:, -half:], axis=1)
    if (first <= 0).any():
        return None
    return float(np.median(second / first))


def outliers(cells: Floats) -> float | None:
    """Share of samples beyond Tukey's outer upper fence of their track, Q3 + 3 × IQR; None with fewer than 8 passes."""
    if cells.shape[1] < 8 or not len(cells):
        return None
    lower, upper = np.percentile(cells, [25, 75], axis=1)
    return float((cells > (upper + 3 * (upper - lower))[:, None]).mean())


def wilson(count: int, total: int) -> Proportion:
    """``count`` of ``total`` with Wilson's 95 % score interval (E. B. Wilson, JASA 22, 1927)."""
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"expected 0 ≤ count ≤ total and total ≥ 1, got {count} of {total}")
    z = 1.959963984540054
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low = 0.0 if count == 0 else max(0.0, middle - half)
    return Proportion(count=count, total=total, low=low, high=1.0 if count == total else min(1.0, middle + half))


def accuracy(said: Sequence[str], labels: Sequence[str]) -> Proportion:
    """How many of ``said`` are their label."""
    return wilson(sum(a == b for a, b in zip(said, labels, strict=True)), len(labels))


def macro_f1(said: Sequence[str], labels: Sequence[str], *, seed: int = SEED, resamples: int = RESAMPLES) -> Estimate:
    """Mean of the F1 over the genres that occur among ``labels``, 2 TP / (2 TP + FP + FN); interval over tracks.

    In a resample, genres that it lacks among its labels do not count.
    """
    names = sorted({*said, *labels})
    codes = {name: i for i, name in enumerate(names)}
    pairs = np.array([[codes[a], codes[b]] for a, b in zip(said, labels, strict=True)], np.float64).reshape(-1, 2)

    def statistic(rows: Floats) -> float:
        guessed = np.bincount(rows[:, 0].astype(np.int64), minlength=len(names))
        true = np.bincount(rows[:, 1].astype(np.int64), minlength=len(names))
        hits = np.bincount(rows[rows[:, 0] == rows[:, 1], 0].astype(np.int64), minlength=len(names))
        present = true > 0
        return float((2 * hits[present] / (guessed + true)[present]).mean())

    return bootstrap_rows(pairs, statistic, seed=seed, resamples=resamples)
