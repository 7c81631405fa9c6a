"""``offline``: how many tracks per minute the pool sustains.

The pool is fed without end with the tracks in turn, so that it is neither filling nor running dry while it is measured;
a block is as many tracks as there are, and gives one sample. The first blocks are the warm-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Protocol

from edge_reclass.run import CascadePool
from edge_reclass.verdict import Verdict
from edge_reclass_bench.clocks import Goal
from edge_reclass_bench.scenarios.context import Collector, Context, Key, Outcome

__all__ = ["Pool", "measure_offline", "open_pool"]

SUBJECT = "cascade"
_BLOCKS = 5
"""Fewer blocks than this have no scatter to speak of, whatever the minima say."""


class Pool(Protocol):
    """What is measured: a ``CascadePool``, or in tests something that tells its own time."""

    def classify_many(self, paths: Iterable[Path]) -> Iterator[Verdict]:
        """See ``CascadePool.classify_many``."""


def open_pool(context: Context, jobs: int | None) -> CascadePool:
    """The pool of ``context``; ``jobs`` lanes, None as many as the device can make use of."""
    options = context.options
    return CascadePool.open(
        jobs,
        context.bundle,
        context.device,
        context.policy,
        threads=options.threads,
        max_rate=options.max_rate,
        max_seconds=options.max_seconds,
        batch=options.batch,
        allow_random=options.allow_random,
        engines=options.engines,
        min_confidence=options.min_confidence,
    )


def measure_offline(context: Context, pool: Pool, notes: list[str] | None = None) -> Outcome:
    """Measure ``pool`` until both minima are met, and at least five blocks."""
    settings, size = context.settings, len(context.paths)
    goal = Goal(settings.min_count, settings.min_seconds)
    collector, watch, stopped = Collector(), context.watch(), False
    warm_up = max(1, settings.warm_up)

    def endless() -> Iterator[Path]:
        for path in cycle(context.paths):
            if stopped:
                return
            yield path

    verdicts = pool.classify_many(endless())
    failed = 0
    for _ in range(warm_up * size):
        next(verdicts)
    blocks = 0
    with watch:
        began = context.clock()
        while not (goal.met and blocks >= _BLOCKS):
            for _ in range(size):
                failed += next(verdicts).failed
            now = context.clock()
            collector.add(
                Key("offline", SUBJECT, "throughput", unit="tracks/min", better="higher"),
                60 * size / (now - began),
                blocks,
            )
            goal.add(size, now - began)
            began, blocks = now, blocks + 1
    stopped = True
    for _ in verdicts:  # what is still on its way
        pass
    context.say(f"offline: {blocks} blocks of {size} tracks, {goal.seconds:.1f} s")
    run = watch.run("offline", SUBJECT, warm_up=warm_up, passes=blocks, count=goal.count, notes=notes)
    warnings = [f"offline: {failed} of {goal.count} tracks failed and count as done"] if failed else []
    return Outcome(collector.measures(settings), [run], warnings=warnings)
