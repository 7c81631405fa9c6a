"""A clock that moves only when told, and what tells it: classifiers and pools that take the time that a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from edge_reclass.verdict import ExcerptSeen, Part, Score, StageReport, Verdict

GENRES = ("Alpha", "Beta", "Gamma")


class FakeClock:
    """Seconds that pass only through :meth:`sleep`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


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

    def __init__(self, clock: FakeClock, seconds: float, statuses: Mapping[str, str] | None = None) -> None:
        self._clock, self._seconds, self._statuses = clock, seconds, statuses or {}
        self.finished = False
        self.taken = 0

    def classify_many(self, paths: Iterable[Path]) -> Iterator[Verdict]:
        for path in paths:
            self._clock.sleep(self._seconds)
            self.taken += 1
            yield verdict_of(path, {"one": 1.0}, status=self._statuses.get(path.name, "ok"))
        self.finished = True


def paths(count: int) -> Sequence[Path]:
    return [Path(f"track{i}.wav") for i in range(count)]
