"""Several programs do one task in turn: warm, interleaved, and only if their answers agree."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import EdgeReclassError
from edge_reclass_bench.record import Peer
from edge_reclass_bench.scenarios.context import Joined, Key, Passed, Ran, Sample
from edge_reclass_bench.watch import Watch

OURS = "edge-reclass"
SCENARIO = "peers"

Answer = NDArray[np.floating]


@dataclass(frozen=True)
class Contender:
    """One program: ``run`` takes a clip's number and gives its answer; ``title`` and ``settings`` say what it is.

    ``device_seconds`` are those of the last run by the device's own clock, None where it has none.
    """

    name: str
    title: str
    run: Callable[[int], Answer]
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    agrees: Callable[[Answer, Answer], str | None] | None = None
    """Takes our answer and its own; says what is wrong, or None. Our own needs none."""
    device_seconds: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class Task:
    """What is to be done with each excerpt, by us (``ours``) and by others; ``clips`` are their tracks' numbers."""

    name: str
    part: str
    clips: Sequence[int]
    ours: Contender
    others: Sequence[Contender]


def hold(
    task: Task, *, warm_up: int, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Joined | Passed | Ran]:
    """Measure all contenders of ``task``: ``warm_up`` passes unmeasured, then ``repeats``, each one event.

    The last event says what else the machine did meanwhile.

    In every pass each clip is done by all of them, one after another, and another one begins each time, so that what
    else the machine does falls on all. Garbage is collected between passes, never within a run.

    Raises:
        EdgeReclassError: somebody's answer is not ours: then the times would compare different work.
    """
    contenders = [task.ours, *task.others]
    keys = {each.name: Key(SCENARIO, f"{each.name}:{task.name}", task.part) for each in contenders}
    for other in task.others:
        _check(task, other)
        yield Joined(
            Peer(
                name=keys[other.name].subject,
                task=task.name,
                title=other.title,
                settings=other.settings,
                versions=other.versions,
                ours=keys[task.ours.name].name,
            )
        )
    watch = Watch(clock=clock)
    for number in range(-warm_up, repeats):
        gc.collect()
        samples, seconds = [], 0.0
        with watch if number >= 0 else nullcontext():
            for i, clip in enumerate(task.clips):
                first = (number + i) % len(contenders)
                for each in contenders[first:] + contenders[:first]:
                    with _no_collection():
                        began = clock()
                        each.run(i)
                        took = clock() - began
                    samples.append(Sample(keys[each.name], took * 1e3, clip))
                    if (device := each.device_seconds()) is not None:
                        samples.append(Sample(keys[each.name]._replace(clock="device"), device * 1e3, clip))
                    seconds += took
        if number >= 0:
            yield Passed(task.name, number, seconds, samples)
    count = repeats * len(task.clips)
    yield Ran(watch.run(SCENARIO, task.name, warm_up=warm_up, passes=repeats, count=count, memory=False))


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection inside: it would fall on whoever happens to run."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _check(task: Task, other: Contender) -> None:
    for clip in range(len(task.clips)):
        # A copy: the next run may use our answer's buffer again.
        ours = np.array(task.ours.run(clip))
        wrong = None if other.agrees is None else other.agrees(ours, other.run(clip))
        if wrong is not None:
            raise EdgeReclassError(
                f"{task.name}: {other.title} does other work than edge-reclass on clip {clip}: {wrong}"
            )
