"""What samples say, and how sure that is. Arrays and numbers only.

**Design of the samples.** A run has several processes. In each, every pass visits every track once, so that its times
form a table [tracks, passes]. Three things vary, and each has its own figure:

- *Measurement error* is what differs between processes (memory layout, clocks, what else the machine did). It is a
  Student interval over the processes' own values; passes within one process say nothing about it. Fewer than
  :data:`FEW_PROCESSES` processes give none.
- *Spread over tracks* is that tracks differ (length, format, rate). It is a bootstrap over tracks, and says how far the
  figure would move with other tracks of the same kind.
- *Tail* is how much slower a pass over one track can be than that track's median.

**A percentile over tracks only where the tracks support it**: where its distribution-free 95 % interval exists, which
is that both tails can be bounded by order statistics: max(p, 1 − p)ⁿ ≤ 2.5 % for n distinct tracks. That takes 6 for
p50, 36 for p90, 72 for p95 and 368 for p99 (H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed., 7.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edge_reclass_bench.values import PERCENTILES, Estimate, Proportion, Summary

Floats = NDArray[np.float64]
"""float64 of any shape."""

Tables = list[Floats]
"""One float64[tracks, passes] per process; the tracks are the same in all."""

RESAMPLES = 2000
_AT_ONCE = 4_000_000
"""Numbers that resamples may hold at a time: 32 MB."""
SEED = 20_070_518
LEVEL = 0.95
MEASURING_LEVEL = 0.99
"""Of the measurement error and of comparisons: a record has dozens of measures."""
FEW_PROCESSES = 5
"""Fewer say nothing about other processes."""
FEW_TRACKS = 6
"""Fewer say nothing about other tracks."""


def smallest_count(percent: float) -> int:
    """Smallest number of draws that supports a percentile (0 < percent < 100): see the module's text."""
    if not 0 < percent < 100:
        raise ValueError(f"expected a percentile between 0 and 100, got {percent}")
    tail = max(percent, 100 - percent) / 100
    return math.ceil(math.log((1 - LEVEL) / 2) / math.log(tail))


def order_interval(ordered: Floats, percent: float) -> tuple[float, float] | None:
    """Distribution-free 95 % interval of a percentile from ``ordered`` independent draws, ascending; None if none.

    The narrowest pair of order statistics around the percentile with at most 2.5 % in either tail of Bin(n, p).
    """
    n, tail = len(ordered), (1 - LEVEL) / 2
    if n < smallest_count(percent):
        return None
    below = stats.binom.cdf(np.arange(n), n, percent / 100)  # below[i]: at most i draws lie below the percentile
    low = int(np.flatnonzero(below <= tail).max())
    high = int(np.flatnonzero(below >= 1 - tail).min())
    return float(ordered[low]), float(ordered[high])


def tables(
    samples: Sequence[float], tracks: Sequence[int], passes: Sequence[int], processes: Sequence[int]
) -> tuple[Tables, list[int]]:
    """Samples as one table per process, and which track each row is.

    Tracks without a sample in every pass of every process (a file that failed once) are left out. Where samples have no
    tracks, each table has one row, and the list is empty.
    """
    cells: dict[int, dict[tuple[int, int], float]] = {}
    rows = tracks or [0] * len(samples)
    for value, track, number, process in zip(samples, rows, passes, processes, strict=True):
        cells.setdefault(process, {})[track, number] = value
    columns = {process: sorted({number for _, number in values}) for process, values in cells.items()}
    whole = [
        track
        for track in sorted(set(rows))
        if all((track, number) in cells[process] for process, numbers in columns.items() for number in numbers)
    ]
    found = [
        np.array([[cells[process][track, number] for number in columns[process]] for track in whole], np.float64)
        for process in sorted(cells)
    ]
    shapes = ((len(whole), len(columns[process])) for process in sorted(cells))
    return [table.reshape(shape) for table, shape in zip(found, shapes, strict=True)], whole if tracks else []


def centres(of: Tables) -> Floats:
    """float64[processes, tracks]: each track's median over the passes of each process."""
    return np.array([np.median(table, axis=1) for table in of])


def summarise(
    samples: Sequence[float],
    tracks: Sequence[int],
    passes: Sequence[int],
    processes: Sequence[int],
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Summary:
    """Summary of one measure.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("expected at least one sample")
    flat = np.asarray(samples, np.float64)
    cells, whole = tables(samples, tracks, passes, processes)
    if tracks and whole:
        middle = centres(cells)
        draws = np.sort(middle.mean(axis=0))
        mean = bootstrap_rows(middle.mean(axis=0)[:, None], lambda rows: rows.mean(axis=(-2, -1)), seed, resamples)
        own = middle.mean(axis=1)
    else:
        draws = np.sort(flat)
        mean = Estimate(value=float(flat.mean()))
        own = np.array([table.mean() for table in cells]) if not tracks else flat[:1]
    return Summary(
        n=len(flat),
        tracks=len(set(tracks)),
        processes=len(set(processes)),
        min=float(flat.min()),
        max=float(flat.max()),
        mean=mean,
        error=error_of(own),
        percentiles={
            f"p{percent}": _percentile(draws, percent)
            for percent in PERCENTILES
            if len(draws) >= smallest_count(percent)
        },
        tail=_tail(cells) if tracks and whole else {},
        scatter=_over_processes(scatter, cells),
        drift=_over_processes(drift, cells),
    )


def error_of(values: Floats, level: float = MEASURING_LEVEL) -> float | None:
    """Half-width of the Student interval of the mean of one value per process, relative to it; None for too few."""
    if len(values) < FEW_PROCESSES or values.mean() <= 0:
        return None
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(half / values.mean())


def _percentile(draws: Floats, percent: float) -> Estimate:
    bounds = order_interval(draws, percent)
    low, high = (None, None) if bounds is None else bounds
    return Estimate(value=float(np.percentile(draws, percent)), low=low, high=high)


def _tail(cells: Tables) -> dict[str, float]:
    """How many times a track's median its slow passes take, over all tracks: the percentiles that can be told."""
    ratios = np.concatenate([(table / np.median(table, axis=1)[:, None]).ravel() for table in cells])
    return {f"p{p}": float(np.percentile(ratios, p)) for p in (95, 99) if len(ratios) >= smallest_count(p)}


def _over_processes(statistic: Callable[[Floats], float | None], cells: Tables) -> float | None:
    found = [value for table in cells if (value := statistic(table)) is not None]
    return float(np.median(found)) if found else None


def ratio(a: Tables, b: Tables, level: float = MEASURING_LEVEL) -> Estimate:
    """B / A of the same tracks: of processes, paired by track.

    Each process has one value: the median over the tracks of how far its own median over passes lies from the track's
    median over all processes of both, in logarithms. Pairing takes out that tracks differ, the medians the odd track
    and the disturbed pass. The interval is Welch's of the difference of the two means; None with fewer than five
    processes on either side.

    Raises:
        ValueError: there is no track, or the two have not the same number.
    """
    before, after = np.log(centres(a)), np.log(centres(b))
    if before.shape[1] != after.shape[1] or not before.shape[1]:
        raise ValueError(f"expected the same tracks in both, at least one, got {before.shape[1]} and {after.shape[1]}")
    usual = np.median(np.concatenate((before, after)), axis=0)
    x, y = np.median(before - usual, axis=1), np.median(after - usual, axis=1)
    value = float(y.mean() - x.mean())
    if min(len(x), len(y)) < FEW_PROCESSES:
        return Estimate(value=math.exp(value))
    errors = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    total = float(errors.sum())
    if total == 0:
        return Estimate(value=math.exp(value), low=math.exp(value), high=math.exp(value))
    freedom = total**2 / float((errors**2 / np.array([len(x) - 1, len(y) - 1])).sum())
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(total)
    return Estimate(value=math.exp(value), low=math.exp(value - half), high=math.exp(value + half))


def bootstrap_rows(
    values: Floats, statistic: Callable[[Floats], Floats], seed: int = SEED, resamples: int = RESAMPLES
) -> Estimate:
    """``statistic`` of rows (one per track) with its interval over tracks; without one for fewer than six tracks.

    Args:
        values: float64[tracks, columns].
        statistic: takes float64[…, tracks, columns], gives float64[…].
    """
    value = float(statistic(values))
    if len(values) < FEW_TRACKS:
        return Estimate(value=value)
    random = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _AT_ONCE // max(1, values.size)))
    drawn = [
        statistic(values[random.integers(0, len(values), (min(at_once, resamples - first), len(values)))])
        for first in range(0, resamples, at_once)
    ]
    tail = (1 - LEVEL) / 2 * 100
    low, high = np.percentile(np.concatenate(drawn), [tail, 100 - tail])
    return Estimate(value=value, low=float(low), high=float(high))


def paired_ratio(a: Floats, b: Floats, seed: int = SEED, resamples: int = RESAMPLES) -> Estimate:
    """Σ b / Σ a of one cost per track each, float64[tracks]; the interval draws tracks, the same for both.

    Raises:
        ValueError: there is no track, or the two have not the same number.
    """
    if a.shape != b.shape or not len(a):
        raise ValueError(f"expected one cost per track in both, got {a.shape} and {b.shape}")
    both = np.stack((a, b), axis=1)
    return bootstrap_rows(both, lambda rows: rows[..., 1].sum(axis=-1) / rows[..., 0].sum(axis=-1), seed, resamples)


def scatter(cells: Floats) -> float | None:
    """Median over tracks of (interquartile range / median) over passes; None with fewer than four passes."""
    if cells.shape[1] < 4 or not len(cells):
        return None
    lower, middle, upper = np.percentile(cells, [25, 50, 75], axis=1)
    return None if (middle <= 0).any() else float(np.median((upper - lower) / middle))


def drift(cells: Floats) -> float | None:
    """Median over tracks of (median of the second half of the passes / that of the first); None below four passes."""
    half = cells.shape[1] // 2
    if half < 2 or not len(cells):
        return None
    first, second = np.median(cells[:, :half], axis=1), np.median(cells[:, -half:], axis=1)
    return None if (first <= 0).any() else float(np.median(second / first))


def wilson(count: int, total: int) -> Proportion:
    """``count`` of ``total`` with Wilson's 95 % score interval (E. B. Wilson, JASA 22, 1927)."""
    bounds = stats.binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return Proportion(count=count, total=total, low=float(bounds.low), high=float(bounds.high))


def accuracy(said: Sequence[str], labels: Sequence[str]) -> Proportion:
    """How many of ``said`` are their label."""
    return wilson(sum(a == b for a, b in zip(said, labels, strict=True)), len(labels))


def macro_f1(said: Sequence[str], labels: Sequence[str], seed: int = SEED, resamples: int = RESAMPLES) -> Estimate:
    """Mean of the F1 over the genres that occur among ``labels``, 2 TP / (2 TP + FP + FN); interval over tracks.

    In a resample, genres that it lacks among its labels do not count.
    """
    names = sorted({*said, *labels})
    codes = {name: i for i, name in enumerate(names)}
    pairs = np.array([[codes[a], codes[b]] for a, b in zip(said, labels, strict=True)], np.float64).reshape(-1, 2)

    def statistic(rows: Floats) -> Floats:
        guessed, true = (rows[..., i, None] == np.arange(len(names)) for i in (0, 1))  # [… tracks, genres]
        hits, guesses, truths = (each.sum(axis=-2) for each in (guessed & true, guessed, true))
        scores = np.divide(2 * hits, guesses + truths, out=np.zeros(hits.shape), where=truths > 0)
        means: Floats = scores.sum(axis=-1) / (truths > 0).sum(axis=-1)
        return means

    return bootstrap_rows(pairs, statistic, seed, resamples)
