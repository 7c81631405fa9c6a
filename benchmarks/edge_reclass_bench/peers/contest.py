"""Several programs do one task in turn: warm, interleaved, and only if their answers agree."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import EdgeReclassError
from edge_reclass_bench.record import Measure, Peer, Settings
from edge_reclass_bench.scenarios.context import Collector, Key
from edge_reclass_bench.statistics import ratio, table

__all__ = ["OURS", "Contender", "Task", "hold"]

OURS = "edge-reclass"
_SCENARIO = "peers"

Answer = NDArray[np.floating]


@dataclass(frozen=True)
class Contender:
    """One program: ``run`` takes a clip's number and gives its answer; ``title`` and ``settings`` say what it is."""

    name: str
    title: str
    run: Callable[[int], Answer]
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    agrees: Callable[[Answer, Answer], str | None] | None = None
    """Takes our answer and its own; says what is wrong, or None. Our own needs none."""


@dataclass(frozen=True)
class Task:
    """What is to be done with each of ``clips`` excerpts, by us (``ours``) and by others."""

    name: str
    part: str
    clips: int
    ours: Contender
    others: Sequence[Contender]


def hold(
    task: Task, settings: Settings, *, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[Measure], list[Peer]]:
    """Measures all contenders of ``task``: ``settings.warm_up`` passes unmeasured, then ``settings.min_count``.

    In every pass each clip is done by all of them, one after another, and another one begins each time, so that what
    else the machine does falls on all. Garbage is collected between passes, never within a run.

    Raises:
        EdgeReclassError: somebody's answer is not ours: then the times would compare different work.
    """
    contenders = [task.ours, *task.others]
    for other in task.others:
        _check(task, other)
    collector = Collector()
    keys = {each.name: Key(_SCENARIO, _subject(task, each), task.part) for each in contenders}
    for number in range(-settings.warm_up, settings.min_count):
        gc.collect()
        for clip in range(task.clips):
            first = (number + clip) % len(contenders)
            for each in contenders[first:] + contenders[:first]:
                with _no_collection():
                    began = clock()
                    each.run(clip)
                    took = clock() - began
                if number >= 0:
                    collector.add(keys[each.name], took * 1e3, number, clip)
    measures = {measure.subject: measure for measure in collector.measures(settings)}
    ours = measures[_subject(task, task.ours)]
    return list(measures.values()), [_peer(task, other, ours, measures[_subject(task, other)]) for other in task.others]


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection inside: it would fall on whoever happens to run."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _subject(task: Task, contender: Contender) -> str:
    return f"{contender.name}:{task.name}"


def _check(task: Task, other: Contender) -> None:
    for clip in range(task.clips):
        # A copy: the next run may use our answer's buffer again.
        ours = np.array(task.ours.run(clip))
        wrong = None if other.agrees is None else other.agrees(ours, other.run(clip))
        if wrong is not None:
            raise EdgeReclassError(
                f"{task.name}: {other.title} does other work than edge-reclass on clip {clip}: {wrong}"
            )


def _peer(task: Task, other: Contender, ours: Measure, theirs: Measure) -> Peer:
    a, _ = table(ours.samples, ours.tracks, ours.passes)
    b, _ = table(theirs.samples, theirs.tracks, theirs.passes)
    return Peer(
        name=theirs.subject,
        task=task.name,
        title=other.title,
        settings=other.settings,
        versions=other.versions,
        ours=ours.key,
        ratio=ratio(a, b),
    )
