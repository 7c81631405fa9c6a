"""A clock that moves only when told, and what tells it: classifiers and pools that take the time that a test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends import Backend, DeviceTimes, Graph
from edge_reclass.verdict import ExcerptSeen, Part, Score, StageReport, Verdict
from edge_reclass_bench.record import Settings

GENRES = ("Alpha", "Beta", "Gamma")


class FakeClock:
    """Seconds that pass only through :meth:`sleep`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def settings(**changes: object) -> Settings:
    plain = {
        "min_seconds": 0.0,
        "min_count": 1,
        "warm_up": 1,
        "jobs": 1,
        "threads": 1,
        "batch": 16,
        "seed": 7,
        "resamples": 200,
    }
    return Settings(**(plain | changes))  # type: ignore[arg-type]


def verdict_of(
    path: Path, stages: Mapping[str, float], *, status: str = "ok", genre: str = "Alpha", decode: float = 5.0
) -> Verdict:
    """A verdict whose stages took so many milliseconds: 20 % resampling, 70 % run, 5 % head, the rest unexplained."""
    reports = tuple(
        StageReport(
            name,
            genre,
            0.6,
            milliseconds,
            ExcerptSeen(0.0, 30.0),
            (
                Part("resample", milliseconds * 0.2),
                Part("run", milliseconds * 0.7),
                Part("compute", milliseconds * 0.6, "device"),
                Part("head", milliseconds * 0.05),
                Part("policy", 1.0),
            ),
        )
        for name, milliseconds in stages.items()
    )
    return Verdict(
        str(path),
        status,
        "fake",
        "fake",
        genre=genre if status == "ok" else None,
        confidence=0.6,
        decided_by=list(stages)[-1] if status == "ok" and stages else None,
        top=tuple(Score(name, 0.6 if name == genre else 0.2) for name in GENRES),
        stages=reports,
        decode_milliseconds=decode,
    )


class FakeClassifier:
    """Takes, of a fake clock, decode + its stages + 1 ms; ``stretch(call)`` multiplies all of it."""

    def __init__(
        self,
        clock: FakeClock,
        stages: Mapping[str, float],
        *,
        statuses: Mapping[str, str] | None = None,
        stretch: Callable[[int], float] = lambda _: 1.0,
    ) -> None:
        self._clock, self._stages, self._stretch = clock, stages, stretch
        self._statuses = statuses or {}
        self.seen: list[str] = []

    def classify(self, path: Path) -> Verdict:
        factor = self._stretch(len(self.seen))
        self.seen.append(path.name)
        stages = {name: milliseconds * factor for name, milliseconds in self._stages.items()}
        # The last millisecond is what no part explains; each stage's policy takes 1 ms outside of its milliseconds.
        self._clock.sleep((5.0 * factor + sum(stages.values()) + len(stages) + 1.0) / 1e3)
        return verdict_of(path, stages, status=self._statuses.get(path.name, "ok"), decode=5.0 * factor)


class FakePool:
    """Takes ``seconds`` of a fake clock per track."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.finished = False
        self.taken = 0

    def classify_many(self, paths: Iterable[Path]) -> Iterator[Verdict]:
        for path in paths:
            self._clock.sleep(self._seconds)
            self.taken += 1
            yield verdict_of(path, {"one": 1.0})
        self.finished = True


class SlowBackend(Backend):
    """A real backend whose graphs take ``factor`` times as long, the difference spent computing."""

    def __init__(self, inner: Backend, factor: float) -> None:
        self._inner, self._factor = inner, factor
        self.name = inner.name
        self.precisions: tuple[str, ...] = inner.precisions
        self.shares_batches = inner.shares_batches

    def choose_graphs(self, *arguments: Any) -> Any:
        return self._inner.choose_graphs(*arguments)

    def open_graph(
        self, file: Path, *, input_name: str, output_name: str, width: int, output_width: int, max_batch: int
    ) -> SlowGraph:
        graph = self._inner.open_graph(
            file,
            input_name=input_name,
            output_name=output_name,
            width=width,
            output_width=output_width,
            max_batch=max_batch,
        )
        return SlowGraph(graph, self._factor)

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> SlowBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SlowGraph:
    """See :class:`SlowBackend`."""

    def __init__(self, inner: Graph, factor: float) -> None:
        self._inner, self._factor = inner, factor
        self.slowed = 0

    @property
    def input(self) -> NDArray[np.float32]:
        return self._inner.input

    def run(self, batch: int) -> NDArray[np.float32]:
        began = time.perf_counter()
        result = self._inner.run(batch)
        until = began + (time.perf_counter() - began) * self._factor
        while time.perf_counter() < until:
            pass
        self.slowed += 1
        return result

    def device_times(self) -> DeviceTimes | None:
        return self._inner.device_times()

    def close(self) -> None:
        self._inner.close()


def paths(count: int) -> Sequence[Path]:
    return [Path(f"track{i}.wav") for i in range(count)]
