"""``offline``: how many tracks per minute the pool sustains, and how long each of them waits.

The pool is fed without end with the tracks in turn, so that it is neither filling nor running dry while it is measured.
It reads some tracks ahead of its answers, so what is counted as the first was begun before the clock was started: a
block has at least as many tracks as lie ahead, and several blocks are measured after one or more to warm up. A process
gives one sample of ``throughput``: the tracks that got an answer, over the seconds. ``track`` is the work of one track
in its lane, decode and stages without waiting for a lane: the latency at which this throughput is had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Protocol

from edge_reclass.run import CascadePool
from edge_reclass.verdict import Verdict
from edge_reclass_bench.clocks import Goal
from edge_reclass_bench.scenarios.context import Context, Event, Key, Passed, Ran, Sample

_BLOCKS = 3
"""Fewer blocks than this say little, whatever the limits are."""
_AHEAD = 4
"""Tracks per lane that the pool reads ahead of its answers."""


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


def measure_offline(
    context: Context,
    pool: Pool,
    *,
    lanes: int,
    scenario: str = "offline",
    subject: str = "cascade",
    notes: Sequence[str] = (),
) -> Iterator[Event]:
    """Measure ``pool``, which has so many ``lanes``, until the context's limits are met, and at least three blocks."""
    limits, size = context.limits, len(context.paths)
    block = -(-_AHEAD * lanes // size)  # in passes over the tracks
    goal, warm_up = Goal(max(_BLOCKS * block, limits.min_passes)), max(block, limits.warm_up)
    watch, stopped = context.watch(), False
    began, answered = context.clock(), 0

    def endless() -> Iterator[Path]:
        for path in cycle(context.paths):
            if stopped:
                return
            yield path

    verdicts = pool.classify_many(endless())
    for _ in range(warm_up * size):
        next(verdicts)
    with watch:
        first = start = context.clock()
        while goal.passes < block or not goal.met(hurry=context.clock() - began > limits.most_seconds):
            samples = []
            for track in range(size):  # verdicts come in the order of the paths
                verdict = next(verdicts)
                answered += not verdict.failed
                if verdict.status == "ok":
                    spent = sum(report.milliseconds for report in verdict.stages) + (verdict.decode_milliseconds or 0.0)
                    samples.append(Sample(Key(scenario, subject, "track"), spent, track))
            now = context.clock()
            yield Passed(subject, goal.passes, now - start, samples)
            goal.add()
            start = now
    stopped = True
    deque(verdicts, maxlen=0)  # what is still on its way
    key = Key(scenario, subject, "throughput", unit="tracks/min", better="higher")
    yield Passed(subject, 0, now - first, [Sample(key, 60 * answered / (now - first))])
    yield Ran(
        watch.run(
            scenario,
            subject,
            warm_up=warm_up,
            passes=goal.passes,
            count=answered,
            failed=goal.passes * size - answered,
            notes=[*notes, *goal.notes()],
        )
    )
