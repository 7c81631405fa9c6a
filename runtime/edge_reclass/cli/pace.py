"""How fast a run goes, and how long it still takes."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge_reclass.verdict import Verdict

WINDOW_SECONDS: Final = 60.0
_RECENT: Final = 100
"""So many tracks of each deciding stage tell what one costs."""
_ENOUGH: Final = 3
"""Answers before there is an estimate."""


class Pace:
    """Takes verdicts as they come; what was passed over without work has no place here.

    The time left is not elapsed / done: a run that begins with a folder of silent files would seem to end at once. It
    is the cost of a track by the stage that decides it, weighted by how often each stage has decided, and divided by
    the work that is done per second (several tracks may be worked on at a time). Tracks that no stage decided (silent,
    too short, failed) cost next to nothing and often lie together. So none are expected among the rest: the estimate
    is too long rather than too short.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._last = clock()
        self._times: deque[float] = deque()
        self._costs: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RECENT))
        self._decided: defaultdict[str, int] = defaultdict(int)
        self._work = self._seconds = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._began

    def add(self, verdict: Verdict) -> None:
        """One more track is done."""
        now = self._clock()
        self._times.append(now)
        self._forget(now)
        if verdict.decided_by is not None:
            spent = [stage.milliseconds for stage in verdict.stages]
            cost = (sum(spent) + (verdict.decode_milliseconds or 0.0)) / 1000
            self._costs[verdict.decided_by].append(cost)
            self._decided[verdict.decided_by] += 1
            self._work += cost
            self._seconds += now - self._last
        self._last = now

    @property
    def per_minute(self) -> float | None:
        """Tracks per minute over the last minute; None in the first second."""
        now = self._clock()
        self._forget(now)
        seconds = min(WINDOW_SECONDS, now - self._began)
        return None if seconds < 1 else len(self._times) * 60 / seconds

    def seconds_left(self, tracks: int) -> float | None:
        """Seconds that so many further tracks will take; None as long as too little is known."""
        answers = sum(self._decided.values())
        if tracks == 0:
            return 0.0
        if answers < _ENOUGH or self._work <= 0:
            return None
        cost = sum(self._decided[stage] * sum(costs) / len(costs) for stage, costs in self._costs.items()) / answers
        return tracks * cost * self._seconds / self._work

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] <= now - WINDOW_SECONDS:
            self._times.popleft()
