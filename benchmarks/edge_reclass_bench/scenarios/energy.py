"""``energy`` and ``sustained``: one subject back to back, with the sensors read all along.

A mean of power over a pass of a fraction of a second is the sensor's past, not the pass: what a board's monitor or NVML
says lags and is averaged. So energy has a run of its own, of at least half a minute in one watch, as MLPerf Power has
it; idle power is measured before, apart. ``books.energy`` makes joules per track of the series; nothing is averaged
here.

``sustained`` is the same for minutes: whether the device keeps its speed as it grows warm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Literal

from edge_reclass_bench.record import Absent, Series
from edge_reclass_bench.scenarios.context import Context, Event, Lapped, Missing, Ran
from edge_reclass_bench.scenarios.latency import Classifier
from edge_reclass_bench.watch import Watch
from edge_reclass_doctor.machine import Reading

IDLE_SECONDS = 10.0
INTERVAL = 0.25
"""Seconds between readings."""
LAP = 5.0
"""Seconds after which what was read is handed on: no more is lost where a run is broken off."""
_SOURCES = ("board input rail", "GPU only, NVML power")
"""Sensors of power, the best first."""


class _Phase:
    """What ``watch`` has read, as laps: each has what came since the one before."""

    def __init__(self, scenario: str, phase: Literal["idle", "busy"], watch: Watch) -> None:
        self._scenario, self._phase, self._watch = scenario, phase, watch
        self._read = 0
        self._finished = 0

    def lap(self, began: float | None = None, ended: float | None = None, finished: Sequence[float] = ()) -> Lapped:
        """The next lap; ``finished`` are all moments at which a track was answered."""
        (every,) = self._watch.readings
        first, count = every[0], len(every)  # the thread may add to them meanwhile
        rows, zero = every[self._read : count], first.seconds
        values = [_values(reading) for reading in rows]
        source = next((name for name in _SOURCES if name in _values(first)), None)
        moments = finished[self._finished :]
        self._read, self._finished = count, len(finished)
        return Lapped(
            Series(
                scenario=self._scenario,
                subject="cascade",
                phase=self._phase,
                seconds=[round(reading.seconds - zero, 6) for reading in rows],
                values={
                    "watts" if name == source else name: [row.get(name) for row in values]
                    for name in dict.fromkeys(key for row in values for key in row)
                },
                began=0.0 if began is None else round(began - zero, 6),
                ended=round((every[count - 1].seconds if ended is None else ended) - zero, 6),
                count=len(moments),
                finished=[round(moment - zero, 6) for moment in moments],
                power_source=source,
            )
        )


def measure_energy(
    context: Context,
    classifier: Classifier,
    *,
    scenario: str,
    seconds: float,
    idle_seconds: float = IDLE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Idle, then classify the tracks in turn for ``seconds``; emits the series of both, lap by lap."""
    if context.sensors is None:
        yield Missing(Absent(what=scenario, reason="the sensors are not read in this run"))
        return
    idle = context.watch(INTERVAL)
    with idle:
        sleep(idle_seconds)
    yield _Phase(scenario, "idle", idle).lap()
    for path in context.paths:
        classifier.classify(path)
    watch, failed = context.watch(INTERVAL), 0
    finished: list[float] = []
    busy = _Phase(scenario, "busy", watch)
    with watch:
        began = lapped = context.clock()
        for path in cycle(context.paths):
            verdict = classifier.classify(path)
            now = context.clock()
            if verdict.failed:
                failed += 1
            else:
                finished.append(now)
            if now - began >= seconds:
                break
            if now - lapped >= LAP:
                yield busy.lap(began, now, finished)
                lapped = now
        sleep(INTERVAL)  # so that a reading lies beyond the end, and the last one within can be told from it
    yield busy.lap(began, now, finished)
    yield Ran(watch.run(scenario, "cascade", warm_up=1, passes=1, count=len(finished), failed=failed))


def _values(reading: Reading) -> dict[str, float]:
    found = {f"celsius:{name}": value for name, value in reading.temperatures_celsius.items()}
    found |= {f"mhz:cpu{i}": mhz for i, mhz in enumerate(reading.cpu_mhz)}
    several = {
        "board input rail": reading.total_watts,
        "GPU only, NVML power": reading.gpu_watts,
        "joules:gpu": reading.gpu_energy_joules,
        "mhz:gpu": reading.gpu_mhz,
        "celsius:gpu": reading.gpu_temperature_celsius,
    }
    return found | {name: value for name, value in several.items() if value is not None}
