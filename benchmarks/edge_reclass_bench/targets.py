"""The four targets of the project that this one follows, as pass or fail: what its users were promised."""

from __future__ import annotations

from dataclasses import dataclass

from edge_reclass_bench.books import Books
from edge_reclass_bench.scenarios import ONCE


@dataclass(frozen=True)
class Target:
    """One promise. ``met`` is None where it was not measured."""

    name: str
    got: str
    met: bool | None


def targets(books: Books) -> list[Target]:
    """Under a second per track, more than 100 tracks per minute, at least 85 % right, under 8 GB."""
    track = books.mean(scenario="single-stream", subject="cascade", part="track")
    rate = books.mean(scenario="offline", subject="cascade", part="throughput")
    way = books.way("cascade")
    right = None if way is None else way.accuracy
    # What classifies; building engines takes more, once.
    runs = [run for run in books.record.runs if run.subject == "cascade" and run.scenario not in ONCE]
    peaks = [run.host_peak_bytes + (run.device_peak_bytes or 0) for run in runs if run.host_peak_bytes is not None]
    absent = "not measured"
    return [
        Target(
            "less than 1 s per track",
            absent if track is None else f"{track.value / 1e3:.2f} s",
            None if track is None else track.value < 1000,
        ),
        Target(
            "more than 100 tracks per minute",
            absent if rate is None else f"{rate.value:.0f}",
            None if rate is None else rate.value > 100,
        ),
        Target(
            "at least 85 % of the labelled tracks right",
            absent if right is None else f"{right.share:.1%} of {right.total}",
            None if right is None else right.share >= 0.85,
        ),
        Target(
            "less than 8 GB of memory",
            absent if not peaks else f"{max(peaks) / 1e9:.2f} GB",
            None if not peaks else max(peaks) < 8e9,
        ),
    ]
