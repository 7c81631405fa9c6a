"""When to stop, and whose turn it is. Time comes from outside, so that tests need none.

The host's clock is ``time.perf_counter``. Work on a device is timed by the device's own clock (CUDA events, through
``StageReport.parts``); the host's times of the same work end after a synchronisation, or they would time the launch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Clock = Callable[[], float]
"""Seconds since some fixed moment."""

perf_counter: Clock = time.perf_counter
process_time: Clock = time.process_time
"""Processor time of this process, all threads."""


@dataclass
class Goal:
    """A subject has been measured for long enough after ``min_passes`` passes."""

    min_passes: int
    passes: int = 0

    def add(self) -> None:
        """Count one more pass."""
        self.passes += 1

    @property
    def share(self) -> float:
        """How much of it has been met; 1 and more is done."""
        return self.passes / self.min_passes

    def met(self, hurry: bool = False) -> bool:
        """Whether no further pass is wanted; in a hurry one is enough."""
        return self.share >= 1 or (hurry and self.passes > 0)

    def notes(self) -> list[str]:
        """What must be known of a measure that was cut short."""
        if self.share >= 1:
            return []
        return [f"the time was over after {self.passes} of {self.min_passes} passes in a process"]


def next_turn(goals: Sequence[Goal], hurry: bool = False) -> int | None:
    """Whose pass is next: the one that is furthest from its goal, the first of equals; None when all are met.

    Subjects thereby take turns throughout the run and end at about the same time, so that what disturbs the machine for
    a while falls on all of them, however different they are in cost.
    """
    waiting = [i for i, goal in enumerate(goals) if not goal.met(hurry)]
    return min(waiting, key=lambda i: goals[i].share) if waiting else None
