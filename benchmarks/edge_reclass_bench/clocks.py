"""When to stop, and whose turn it is. Time comes from outside, so that tests need none.

The host's clock is ``time.perf_counter``. Work on a device is timed by the device's own clock (CUDA events, through
``StageReport.parts``); the host's times of the same work end after a synchronisation, or they would time the launch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Clock", "Goal", "next_turn", "perf_counter", "process_time"]

Clock = Callable[[], float]
"""Seconds since some fixed moment."""

perf_counter: Clock = time.perf_counter
process_time: Clock = time.process_time
"""Processor time of this process, all threads: other programs lengthen it far less than they lengthen wall time."""


@dataclass
class Goal:
    """A run is long enough when both minima are met; it is looked at after whole passes only."""

    min_count: int
    min_seconds: float
    count: int = 0
    seconds: float = 0.0

    def add(self, count: int, seconds: float) -> None:
        """Count one more pass."""
        self.count += count
        self.seconds += seconds

    @property
    def share(self) -> float:
        """How much of the minimum that is further away has been met; 1 and more is done."""
        by_count = self.count / self.min_count if self.min_count else float("inf")
        by_time = self.seconds / self.min_seconds if self.min_seconds else float("inf")
        return min(by_count, by_time)

    @property
    def met(self) -> bool:
        return self.share >= 1


def next_turn(goals: Sequence[Goal]) -> int | None:
    """Whose pass is next: the one that is furthest from its goal, the first of equals; None when all are met.

    Subjects thereby take turns throughout the run and end at about the same time, so that what disturbs the machine for
    a while falls on all of them, however different they are in cost.
    """
    waiting = [i for i, goal in enumerate(goals) if not goal.met]
    return min(waiting, key=lambda i: goals[i].share) if waiting else None
