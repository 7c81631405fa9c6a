"""Tracks per minute: one track after another, beside lanes on one set of encoders, in one process.

    python benchmarks/pipeline_speed.py FOLDER… [--rounds 10] [--jobs 2 4] [--bundle DIR] [--device cpu] [--batch 16]

Every round classifies all tracks once in each way, in a changing order, so that whatever else the machine does falls
on all alike; one round before is not counted. A ratio is the median of the rounds' ratios, with the smallest and the
largest. Status, genre and deciding stage have to be equal in all ways, and confidences within 1e-6, or the script ends.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import numpy as np

from edge_reclass import Cascade, CascadePool, Verdict, __version__
from edge_reclass.host import usable_cpus
from edge_reclass.run import TrackSearch

Way = Callable[[Iterable[str]], Iterator[Verdict]]


CLOSE = 1e-6
"""ONNX Runtime sums in another order where a track has other threads; verdicts may differ by this much and no more."""


def said(verdict: Verdict) -> tuple[object, ...]:
    """What must not depend on how a track was worked on."""
    stages = tuple((stage.name, stage.genre) for stage in verdict.stages)
    return verdict.path, verdict.status, verdict.genre, verdict.decided_by, stages


def numbers(verdicts: list[Verdict]) -> np.ndarray:
    """Every stage's confidence, float64[stages of all tracks]."""
    return np.array([stage.confidence for verdict in verdicts for stage in verdict.stages])


def main() -> None:
    """Measure, print a table and, as the last line, everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--bundle")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    tracks = [str(path) for path in TrackSearch(options.folders)]
    if not tracks:
        sys.exit(f"no audio in {', '.join(options.folders)}")
    with ExitStack() as opened:
        arguments = {"device": options.device, "batch": options.batch}
        plain = opened.enter_context(Cascade.open(options.bundle, **arguments))
        ways: dict[str, Way] = {"plain loop": plain.classify_many}
        for jobs in options.jobs:
            pool = opened.enter_context(CascadePool.open(jobs, options.bundle, **arguments))
            ways[f"--jobs {jobs}"] = pool.classify_many
        seconds, furthest = measure(ways, tracks, options.rounds)
    report(seconds, furthest, len(tracks), plain.device)


def measure(ways: dict[str, Way], tracks: list[str], rounds: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of every round, by way, and the largest difference of a confidence."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    expected: list[tuple[object, ...]] = []
    confidences = np.empty(0)
    furthest = 0.0
    for round_ in range(rounds + 1):
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            began = time.perf_counter()
            verdicts = list(ways[name](tracks))
            took = time.perf_counter() - began
            got = [said(verdict) for verdict in verdicts]
            if not expected:
                expected, confidences = got, numbers(verdicts)
            if got != expected:
                different = [pair for pair in zip(expected, got, strict=True) if pair[0] != pair[1]]
                sys.exit(f"{name}: {len(different)} verdicts differ, such as {different[0]}")
            furthest = max(furthest, float(np.abs(numbers(verdicts) - confidences).max()))
            if furthest > CLOSE:
                sys.exit(f"{name}: a confidence differs by {furthest:.1e}, more than {CLOSE:.0e}")
            if round_:
                seconds[name].append(took)
        print(f"round {round_}" + (" (not counted)" if not round_ else ""), file=sys.stderr, flush=True)
    return seconds, furthest


def report(seconds: dict[str, list[float]], furthest: float, tracks: int, device: str) -> None:
    """Print the table."""
    plain = seconds["plain loop"]
    print(
        f"{tracks} tracks × {len(plain)} rounds on {device}, {usable_cpus()} CPUs, {platform.machine()},"
        f" Python {platform.python_version()}, edge-reclass {__version__}; all verdicts equal,"
        f" confidences within {furthest:.1e}"
    )
    print(f"{'':12}{'tracks/minute':>15}   ratio to the plain loop (median, smallest, largest of the rounds)")
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(plain, times, strict=True)]
        rate = tracks / statistics.median(times) * 60
        print(f"{name:12}{rate:15.0f}   {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
    print(json.dumps({"tracks": tracks, "device": device, "seconds": seconds}))


if __name__ == "__main__":
    main()
