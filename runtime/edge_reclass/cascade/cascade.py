"""The cascade: owns workspace and stages; one track in, one verdict out.

The embedding API of edge-reclass::

    from edge_reclass import Cascade

    with Cascade.open() as cascade:                 # the starter bundle, on the CPU
        verdict = cascade.classify("song.mp3")
        print(verdict.genre, verdict.confidence, verdict.decided_by)

A cascade is opened once and used for many tracks. It works on one track at a time: a call while another thread's call
runs raises. ``edge_reclass.CascadePool`` serves several threads, on one set of encoders.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reclass._version import __version__
from edge_reclass.audio import Choose, Decoder, Limits, OpenTrack, Resampler, open_samples
from edge_reclass.backends import Backend
from edge_reclass.bundle import Bundle
from edge_reclass.cascade.answers import StageAnswer, StepAnswer
from edge_reclass.cascade.encoders import Parts, Progress
from edge_reclass.cascade.opening import Lane, SharedModel, load_bundle, open_model
from edge_reclass.cascade.plan import (
    DEFAULT_BATCH,
    DEFAULT_MAX_RATE,
    DEFAULT_MAX_SECONDS,
    Options,
    Plan,
    choose_policy,
)
from edge_reclass.cascade.policy import Answer, Decision, Policy, decide
from edge_reclass.cascade.sound import Excerpts, Hearing, Known, heard_first
from edge_reclass.cascade.stages import Heard, Stage
from edge_reclass.errors import DeviceError, EdgeReclassError, EngineError, Status, TrackError, UsageError, WorkerError
from edge_reclass.verdict import ExcerptSeen, Score, StageReport, Verdict, WindowsSeen

_Open = Callable[[bool], AbstractContextManager[Hearing]]
"""Opens a track and reads of it what the policy's first steps can hear, or all."""


class Files(Protocol):
    """Where a cascade's tracks are decoded, if that is not where it runs itself."""

    def open(self, path: str | os.PathLike[str], *, whole: bool) -> AbstractContextManager[Hearing]:
        """Open a track and read of it what the policy's first steps can hear, or all.

        Raises:
            TrackError: as :meth:`edge_reclass.audio.Decoder.open`.
        """


class Cascade:
    """A bundle opened on one device under one policy. Made by :meth:`open`; a context manager."""

    def __init__(
        self,
        model: SharedModel,
        lane: Lane,
        *,
        plan: Plan | None = None,
        owns_model: bool = False,
        files: Files | None = None,
    ) -> None:
        """``plan``: what is done with the lane's stages; by default what the model was opened for.

        ``files``: where tracks are decoded; None: here.
        """
        self._model, self._lane, self._files = model, lane, files
        self.plan = plan or model.plan
        self._owns_model = owns_model
        self._closed = False
        self._busy = threading.Lock()
        self._limits = Limits(self.plan.max_rate, self.plan.decode_seconds)
        self._decoder = Decoder(self._limits)
        self._resampler = Resampler()

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle | None = None,
        device: str | Backend = "cpu",
        policy: str | Policy | None = None,
        *,
        threads: int | None = None,
        max_rate: int = DEFAULT_MAX_RATE,
        max_seconds: float = DEFAULT_MAX_SECONDS,
        batch: int = DEFAULT_BATCH,
        allow_random: bool = False,
        engines: str | Path | None = None,
        timed: bool = False,
        min_confidence: float | None = None,
    ) -> Cascade:
        """Load and verify a bundle, size the workspace, and open its stages.

        Args:
            bundle: a bundle's directory; None is the starter bundle of the package.
            device: ``cpu``, ``cuda``, ``tensorrt``, or ``auto`` (``notes`` says why it took no other); or an opened
                backend, which from then on belongs to the cascade.
            policy: a policy of the bundle, or a preset that fits its stages; None is the bundle's default.
            threads: CPU threads for one track; None is the number of usable CPUs.
            max_rate: highest sampling rate that is worked at, in Hz; files above it are resampled while they are read.
            max_seconds: longest track that a stage on full tracks takes.
            batch: most windows that an encoder takes at once.
            allow_random: take stages with untrained weights too, to measure them; their answers mean nothing.
            engines: where TensorRT's engines lie; None is ``EDGE_RECLASS_ENGINES`` or a state folder (docs/build.md).
            timed: let the device's clock time every run (``StageReport.parts``).
            min_confidence: below it a verdict is ``unsure``, 0 to 1; 0 gives every audible track a genre; None is the
                bundle's.

        Raises:
            UsageError: an argument is out of range, or names a device or policy that does not exist; or a stage has
                untrained weights.
            BundleError: the bundle is missing, malformed or altered.
            EngineError: a graph cannot be opened or does not fit the manifest, or an engine has to be built first.
            DeviceError: the device cannot be used, or a package that it needs is not installed.
        """
        folder = None if engines is None else Path(engines)
        options = Options(threads, max_rate, max_seconds, batch, allow_random, folder, timed, min_confidence)
        loaded = load_bundle(bundle)
        model = open_model(loaded, device, choose_policy(loaded, policy), options)
        return cls(model, model.lanes[0], owns_model=True)

    @property
    def device(self) -> str:
        """The device that the encoders run on."""
        return self._model.device

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know: why ``auto`` took no other device, and which stages run elsewhere."""
        return self._model.notes

    def classify(self, path: str | os.PathLike[str]) -> Verdict:
        """Classify one audio file. A bad file gives a verdict with a status; it never raises for the file's sake.

        Raises:
            UsageError: a call of another thread is running.
            EngineError: the cascade is closed.
            DeviceError: the device is lost; no further track can be classified.
        """
        return self._classify(os.fsdecode(path), self._from_file(path), file=_stat(path))

    def classify_samples(self, samples: NDArray[Any], rate: int, name: str = "<samples>") -> Verdict:
        """Classify audio in memory.

        Args:
            samples: [n] or [n, channels], floating point with full scale 1, or int16 or int32.
            rate: samples per second.
            name: stands as ``path`` in the verdict.

        Raises:
            ValueError: ``samples`` is no array or has another shape or dtype; ``rate`` is not whole.
            UsageError: a call of another thread is running.
            EngineError: the cascade is closed.
            DeviceError: the device is lost; no further track can be classified.
        """
        return self._classify(name, self._from_memory(samples, rate), in_memory=True)

    def answers(self, samples: NDArray[Any], rate: int, *, stepwise: bool = False) -> list[StageAnswer]:
        """What every stage of the policy says of audio in memory, without a vote or an early exit.

        Args and errors as :meth:`classify_samples`; and

        Args:
            stepwise: also what it says after each of the policy's steps on fewer windows.

        Raises:
            TrackError: no stage can say anything of these samples (too short, silent, not finite, …).
        """
        with self._working():
            said = []
            with self._from_memory(samples, rate)(True) as track:
                for work, heard in self._hear(track, stepwise=stepwise):
                    if heard is not None:
                        embedding = self._lane.workspace.embeddings[work.stage.name].copy()
                        seen = WindowsSeen(work.progress.heard, work.progress.of)
                        name, abstains = work.stage.name, heard.abstains
                        said.append(StageAnswer(name, embedding, heard.probabilities, heard.outside, seen, abstains))
                if not said:
                    raise track.nothing_heard()
            return said

    def step_answers(
        self, path: str | os.PathLike[str], clock: Callable[[], float] = time.perf_counter
    ) -> tuple[float, list[StepAnswer]]:
        """What the stages say of one audio file at every step of the policy, without a vote or an early exit.

        Nothing is computed twice: after each step a stage goes on from where it was.

        Args:
            clock: in seconds, of the times that are given.

        Returns:
            Milliseconds of decoding, and the answers in running order.

        Raises:
            TrackError: the file cannot be decoded, or is too short.
            UsageError: a call of another thread is running.
            EngineError: the cascade is closed, or an encoder or head failed.
            DeviceError: the device is lost; no further track can be worked on.
        """
        with self._working():
            began = clock()
            with self._from_file(path, clock)(True) as track:
                decoding = (clock() - began) * 1e3
                said: list[StepAnswer] = []
                resampled: dict[str, float] = {}
                began = clock()
                for work, heard in self._hear(track, stepwise=True):
                    milliseconds, name = (clock() - began) * 1e3, work.stage.name
                    before = resampled.get(name, 0.0)
                    resampled[name] = math.fsum(p.milliseconds for p in work.parts.taken() if p.name == "resample")
                    said.append(
                        StepAnswer(
                            name,
                            work.excerpt,
                            WindowsSeen(work.progress.heard, work.progress.of),
                            work.progress.complete,
                            None if heard is None else heard.probabilities,
                            heard is not None and heard.outside,
                            milliseconds - (resampled[name] - before),
                            resampled[name] - before,
                            None if heard is None else self._lane.workspace.embeddings[name].copy(),
                            heard is not None and heard.abstains,
                        )
                    )
                    began = clock()
            return decoding, said

    def embed(self, path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
        """What every stage's encoder makes of one audio file, by the stage's name: float32[dim] each, copies.

        Stages that heard only silence are left out.

        Raises:
            TrackError: the file cannot be decoded, or is too short.
            UsageError: a call of another thread is running.
            EngineError: the cascade is closed, or an encoder failed.
            DeviceError: the device is lost; no further track can be worked on.
        """
        return self._embed(self._from_file(path))

    def embed_samples(self, samples: NDArray[Any], rate: int) -> dict[str, NDArray[np.float32]]:
        """As :meth:`embed`, of audio in memory; args as :meth:`classify_samples`, and its ValueError."""
        return self._embed(self._from_memory(samples, rate))

    def _embed(self, opened: _Open) -> dict[str, NDArray[np.float32]]:
        with self._working(), opened(True) as track:
            names = [work.stage.name for work in self._encode(track) if work.progress.heard]
            if not names:
                track.check()
            return {name: self._lane.workspace.embeddings[name].copy() for name in names}

    def _from_file(self, path: str | os.PathLike[str], clock: Callable[[], float] = time.perf_counter) -> _Open:
        if (files := self._files) is not None:
            return lambda whole: files.open(path, whole=whole)

        @contextmanager
        def opened(whole: bool) -> Iterator[Hearing]:
            buffer = self._lane.workspace.decoded
            with self._decoder.open(path, self.plan.excerpts, buffer, self._choose(whole)) as track:
                yield self._hearing(track, clock)

        return opened

    def _from_memory(self, samples: NDArray[Any], rate: int) -> _Open:
        if not isinstance(samples, np.ndarray):
            raise ValueError(f"samples: expected a numpy array, got {type(samples).__name__}")
        if int(rate) != rate:
            raise ValueError(f"rate: expected whole samples per second, got {rate}")
        hertz = int(rate)

        def opened(whole: bool) -> AbstractContextManager[Hearing]:
            buffer, choose = self._lane.workspace.decoded, self._choose(whole)
            return nullcontext(
                self._hearing(open_samples(samples, hertz, self.plan.excerpts, buffer, self._limits, choose))
            )

        return opened

    def _choose(self, whole: bool) -> Choose | None:
        return None if whole else partial(heard_first, self.plan)

    def _hearing(self, track: OpenTrack, clock: Callable[[], float] = time.perf_counter) -> Hearing:
        return Excerpts(track, self.plan.excerpts, self._lane.workspace.signals, self._resampler, clock)

    def classify_many(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Verdict]:
        """Classify tracks one after another; one verdict per path, in order."""
        return map(self.classify, paths)

    def close(self) -> None:
        """Release the stages, the workspace and the resampler's streams. Closing twice is allowed."""
        self._closed = True
        if self._owns_model:
            self._model.close()
        for held in ("_lane", "_decoder", "_resampler"):
            vars(self).pop(held, None)

    def __enter__(self) -> Cascade:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Holds the workspace for one call."""
        if not self._busy.acquire(blocking=False):
            raise UsageError(
                "this cascade is at work for another thread; a Cascade takes one call at a time: "
                "open a CascadePool (edge_reclass.CascadePool.open(jobs)), whose classify and submit may be called "
                "from any thread"
            )
        try:
            if self._closed:
                raise EngineError("this cascade is closed; open a new one")
            yield
        finally:
            self._busy.release()

    def _classify(
        self,
        name: str,
        opened: _Open,
        *,
        in_memory: bool = False,
        file: os.stat_result | None = None,
    ) -> Verdict:
        plan = self.plan
        with self._working():
            begun = Verdict(
                name,
                Status.OK,
                plan.bundle,
                plan.policy.name,
                bundle_digest=plan.bundle_digest,
                program=f"edge-reclass {__version__}",
                at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                size=None if file is None else file.st_size,
                mtime_ns=None if file is None else file.st_mtime_ns,
            )
            run = _Run(begun, plan.genres)
            try:
                self._run(run, opened)
            except TrackError as error:
                return run.failed(error.status, str(error))
            except MemoryError as error:
                return run.failed(Status.OUT_OF_MEMORY, str(error) or "not enough memory for this track")
            except (DeviceError, WorkerError):
                raise  # not this track's fault, and no other track would fare better
            except Exception as error:
                if in_memory and isinstance(error, ValueError) and run.verdict.decode_milliseconds is None:
                    raise  # the caller's samples have a wrong shape or dtype
                # Nothing that happens to one track may end a run of a hundred thousand.
                return run.failed(Status.ERROR, str(error) if isinstance(error, EdgeReclassError) else _named(error))
            return run.verdict

    def _run(self, run: _Run, opened: _Open) -> None:
        began = time.perf_counter()
        with opened(False) as track:
            run.opened(track.known, (time.perf_counter() - began) * 1e3)
            self._ask(run, track)

    def _ask(self, run: _Run, track: Hearing) -> None:
        answers: dict[str, Answer] = {}  # the last of each stage
        began = time.perf_counter()
        for work, heard in self._hear(track, stepwise=True):
            answered = time.perf_counter()
            name, progress, decision = work.stage.name, work.progress, None
            if heard is not None:
                answers[name] = heard.answer(name)
            if answers:
                decision = decide(
                    self.plan.policy,
                    tuple(answers.values()),
                    after=name,
                    windows=None if progress.complete else progress.heard,
                    min_confidence=self.plan.min_confidence,
                )
                work.parts.add("policy", time.perf_counter() - answered)
            kept = self._lane.workspace.embeddings[name] if self.plan.keep_embeddings and heard is not None else None
            run.answered(work, heard, (answered - began) * 1e3, kept)
            run.read(track.known)
            if decision is not None and decision.stop:
                run.decided(list(answers)[-1], decision)
                return
            began = time.perf_counter()
        raise track.nothing_heard()

    def _hear(self, track: Hearing, *, stepwise: bool = False) -> Iterator[tuple[_Work, Heard | None]]:
        """As :meth:`_encode`, each time with what the stage says: None where it heard nothing."""
        silent: set[str] = set()
        for work in self._encode(track, stepwise=stepwise):
            heard = None
            if work.progress.heard:
                heard = work.stage.judge(self._lane.workspace.embeddings, work.parts, silent)
            else:
                silent.add(work.stage.name)
            yield work, heard

    def _encode(self, track: Hearing, *, stepwise: bool = False) -> Iterator[_Work]:
        """Each stage in turn, when it is asked for, whose embedding is then there: after all of its windows.

        ``stepwise``: before that, or instead, after each of the policy's steps on fewer windows.
        """
        known = track.known
        seconds = known.total / known.rate
        if seconds < self.plan.min_seconds:
            track.check()
            raise TrackError(Status.TOO_SHORT, f"expected at least {self.plan.min_seconds:g} s, got {seconds:.3f} s")
        policy = self.plan.policy
        for stage in self._lane.stages:
            parts = Parts()
            start, count = track.known.excerpts[self.plan.excerpts.index(stage.plan.signal.excerpt)]
            seen = ExcerptSeen(start, count / known.rate)
            upto = policy.windows(stage.name) if stepwise else ()
            for progress in track.encode(stage, self._lane.workspace.embeddings, parts, upto):
                yield _Work(stage, progress, seen, parts)
                if not progress.complete and progress.heard == upto[-1] and not policy.hears_all(stage.name):
                    break


def _stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None  # its verdict says so


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class _Work:
    """What a stage has done on a track when it is asked: how far it came in its excerpt, and what that took so far."""

    stage: Stage
    progress: Progress
    excerpt: ExcerptSeen
    parts: Parts


@dataclass
class _Run:
    """The verdict of one track while it is being made."""

    verdict: Verdict
    genres: tuple[str, ...]

    def failed(self, status: Status, message: str) -> Verdict:
        return replace(self.verdict, status=status, error=message)

    def opened(self, known: Known, milliseconds: float) -> None:
        self.verdict = replace(self.verdict, decode_milliseconds=milliseconds)
        self.read(known)

    def read(self, known: Known) -> None:
        """Note what is known of the file by now."""
        self.verdict = replace(self.verdict, damage=known.damage, channel=known.channel)

    def answered(
        self, work: _Work, heard: Heard | None, milliseconds: float, embedding: NDArray[np.float32] | None
    ) -> None:
        """Note what a stage says, in place of what it said after fewer windows."""
        name, before = work.stage.name, self.verdict.stages
        if before and before[-1].name == name:
            milliseconds += before[-1].milliseconds
            before = before[:-1]
        windows = WindowsSeen(work.progress.heard, work.progress.of)
        report = StageReport(name, None, None, milliseconds, work.excerpt, work.parts.taken(), windows=windows)
        if heard is not None:
            answer = heard.answer(name)
            report = replace(
                report,
                genre=self.genres[answer.top],
                confidence=answer.confidence,
                outside=heard.outside,
                abstains=heard.abstains,
                distance=heard.distance,
                embedding=None if embedding is None else embedding.astype("<f2").tobytes(),
            )
        self.verdict = replace(self.verdict, stages=(*before, report))

    def decided(self, stage: str, decision: Decision) -> None:
        order = sorted(range(len(self.genres)), key=lambda g: (g != decision.genre, -decision.scores[g], g))
        self.verdict = replace(
            self.verdict,
            status=Status.UNSURE if decision.unsure else Status.OK,
            genre=None if decision.unsure else self.genres[decision.genre],
            confidence=decision.confidence,
            decided_by=stage,
            reason=decision.reason,
            reason_code=decision.code,
            top=tuple(Score(self.genres[g], decision.scores[g]) for g in order),
        )
