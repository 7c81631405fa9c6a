"""Runs of samples, (start, stop) from the beginning of a track: union, difference, overlap. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Run = tuple[int, int]
"""Samples from ``start`` up to ``stop``."""


def union(runs: Iterable[Run]) -> list[Run]:
    """What the runs hold together: ascending, disjoint, none empty."""
    merged: list[Run] = []
    for start, stop in sorted(run for run in runs if run[0] < run[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], stop)
        else:
            merged.append((start, stop))
    return merged


def without(runs: Iterable[Run], taken: Iterable[Run]) -> list[Run]:
    """What the runs hold and ``taken`` do not: ascending, disjoint, none empty."""
    left = union(runs)
    for start, stop in union(taken):
        left = [part for low, high in left for part in ((low, min(high, start)), (max(low, stop), high))]
        left = [part for part in left if part[0] < part[1]]
    return left


def within(runs: Iterable[Run], bounds: Iterable[Run]) -> list[Run]:
    """What the runs and ``bounds`` both hold: ascending, disjoint, none empty."""
    kept = list(bounds)
    return union((max(low, start), min(high, stop)) for low, high in union(runs) for start, stop in kept)


def length(runs: Iterable[Run]) -> int:
    """How many samples the runs hold together."""
    return sum(stop - start for start, stop in union(runs))
