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

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass._version import __version__
from edge_reclass.audio import Decoded, Decoder, Limits, Resampler, mix_excerpt
from edge_reclass.audio.loudness import SILENCE_DB
from edge_reclass.backends import Backend
from edge_reclass.bundle import Bundle
from edge_reclass.cascade.encoders import Parts
from edge_reclass.cascade.opening import Lane, SharedModel, load_bundle, open_model
from edge_reclass.cascade.plan import (
    DEFAULT_BATCH,
    DEFAULT_MAX_RATE,
    DEFAULT_MAX_SECONDS,
    Options,
    Plan,
    Signal,
    choose_policy,
)
from edge_reclass.cascade.policy import Answer, Decision, Policy, decide
from edge_reclass.cascade.stages import Heard, Stage
from edge_reclass.errors import DeviceError, EdgeReclassError, EngineError, Status, TrackError, UsageError
from edge_reclass.verdict import DamageSeen, ExcerptSeen, Score, StageReport, Verdict


@dataclass(frozen=True)
class StageAnswer:
    """What one stage says of an excerpt, whatever the policy decides.

    embedding: float32[dim], a copy
    probabilities: over the genres, calibrated
    outside: the embedding is unlike anything that the head was fitted on
    """

    name: str
    embedding: NDArray[np.float32]
    probabilities: tuple[float, ...]
    outside: bool


class Cascade:
    """A bundle opened on one device under one policy. Made by :meth:`open`; a context manager."""

    def __init__(self, model: SharedModel, lane: Lane, *, plan: Plan | None = None, owns_model: bool = False) -> None:
        """``plan``: what is done with the lane's stages; by default what the model was opened for."""
        self._model, self._lane = model, lane
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
        return self._classify(
            os.fsdecode(path), lambda out: self._decoder.decode(path, self.plan.excerpts, out), file=_stat(path)
        )

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

    def answers(self, samples: NDArray[Any], rate: int) -> list[StageAnswer]:
        """What every stage of the policy says of audio in memory, without a vote or an early exit.

        Args and errors as :meth:`classify_samples`; and

        Raises:
            TrackError: no stage can say anything of these samples (too short, silent, not finite, …).
        """
        with self._working():
            said = []
            for stage, heard, _, _ in self._hear(self._from_memory(samples, rate)(self._lane.workspace.decoded)):
                if heard is not None:
                    embedding = self._lane.workspace.embeddings[stage.name].copy()
                    said.append(StageAnswer(stage.name, embedding, heard.probabilities, heard.outside))
            if not said:
                raise _silent()
            return said

    def embed(self, path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
        """What every stage's encoder makes of one audio file, by the stage's name: float32[dim] each, copies.

        Stages that heard only silence are left out.

        Raises:
            TrackError: the file cannot be decoded, or is too short.
            UsageError: a call of another thread is running.
            EngineError: the cascade is closed, or an encoder failed.
            DeviceError: the device is lost; no further track can be worked on.
        """
        return self._embed(lambda out: self._decoder.decode(path, self.plan.excerpts, out))

    def embed_samples(self, samples: NDArray[Any], rate: int) -> dict[str, NDArray[np.float32]]:
        """As :meth:`embed`, of audio in memory; args as :meth:`classify_samples`, and its ValueError."""
        return self._embed(self._from_memory(samples, rate))

    def _embed(self, decode: Callable[[NDArray[np.float32]], Decoded]) -> dict[str, NDArray[np.float32]]:
        with self._working():
            workspace = self._lane.workspace
            encoded = self._encode(decode(workspace.decoded))
            return {stage.name: workspace.embeddings[stage.name].copy() for stage, heard, _, _ in encoded if heard}

    def _from_memory(self, samples: NDArray[Any], rate: int) -> Callable[[NDArray[np.float32]], Decoded]:
        if not isinstance(samples, np.ndarray):
            raise ValueError(f"samples: expected a numpy array, got {type(samples).__name__}")
        if int(rate) != rate:
            raise ValueError(f"rate: expected whole samples per second, got {rate}")
        hertz = int(rate)
        return lambda out: mix_excerpt(samples, hertz, self.plan.excerpts, out, self._limits)

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
        decode: Callable[[NDArray[np.float32]], Decoded],
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
                self._run(run, decode)
            except TrackError as error:
                return run.failed(error.status, str(error))
            except MemoryError as error:
                return run.failed(Status.OUT_OF_MEMORY, str(error) or "not enough memory for this track")
            except DeviceError:
                raise  # not this track's fault, and no other track would fare better
            except Exception as error:
                if in_memory and isinstance(error, ValueError) and run.verdict.decode_milliseconds is None:
                    raise  # the caller's samples have a wrong shape or dtype
                # Nothing that happens to one track may end a run of a hundred thousand.
                return run.failed(Status.ERROR, str(error) if isinstance(error, EdgeReclassError) else _named(error))
            return run.verdict

    def _run(self, run: _Run, decode: Callable[[NDArray[np.float32]], Decoded]) -> None:
        began = time.perf_counter()
        decoded = decode(self._lane.workspace.decoded)
        run.verdict = replace(
            run.verdict,
            decode_milliseconds=(time.perf_counter() - began) * 1e3,
            damage=None if decoded.damage is None else DamageSeen(**asdict(decoded.damage)),
            channel=decoded.channel,
        )
        answers: list[Answer] = []
        began = time.perf_counter()
        for stage, heard, seen, parts in self._hear(decoded):
            answered = time.perf_counter()
            decision = None
            if heard is not None:
                answers.append(Answer(stage.name, heard.probabilities, heard.outside))
            if answers:
                decision = decide(self.plan.policy, answers, after=stage.name, min_confidence=self.plan.min_confidence)
                parts.add("policy", time.perf_counter() - answered)
            run.answered(stage.name, heard, (answered - began) * 1e3, seen, parts)
            if decision is not None and decision.stop:
                run.decided(answers[-1].stage, decision)
                return
            began = time.perf_counter()
        raise _silent()

    def _hear(self, decoded: Decoded) -> Iterator[tuple[Stage, Heard | None, ExcerptSeen, Parts]]:
        """Each stage in turn, when it is asked for, with what it says: None where it heard only silence."""
        silent: set[str] = set()
        for stage, windows, seen, parts in self._encode(decoded):
            if not windows:
                silent.add(stage.name)
            yield stage, stage.judge(self._lane.workspace.embeddings, parts, silent) if windows else None, seen, parts

    def _encode(self, decoded: Decoded) -> Iterator[tuple[Stage, int, ExcerptSeen, Parts]]:
        """Each stage in turn, when it is asked for, whose embedding is then there, with how many windows it heard."""
        seconds = decoded.total / decoded.rate
        if seconds < self.plan.min_seconds:
            raise TrackError(Status.TOO_SHORT, f"expected at least {self.plan.min_seconds:g} s, got {seconds:.3f} s")
        filled: dict[Signal, int] = {}
        workspace = self._lane.workspace
        for stage in self._lane.stages:
            began = time.perf_counter()
            parts = Parts()
            signal = stage.plan.signal
            samples, start = decoded.excerpt(signal.excerpt)
            seen = ExcerptSeen(start / decoded.rate, len(samples) / decoded.rate)
            if signal.rate is not None:
                buffer = workspace.signals[signal]
                if signal not in filled:
                    filled[signal] = self._resampler.resample(samples, decoded.rate, signal.rate, buffer)
                    parts.add("resample", time.perf_counter() - began)
                samples = buffer[: filled[signal]]
            heard = 0
            for heard in stage.encode(samples, signal.rate or decoded.rate, workspace.embeddings, parts):  # noqa: B007
                pass  # the policy asks after all windows
            yield stage, heard, seen, parts


def _stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None  # its verdict says so


def _silent() -> TrackError:
    return TrackError(Status.SILENT, f"no stage heard any sound above {SILENCE_DB:g} dBFS in its excerpt")


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@dataclass
class _Run:
    """The verdict of one track while it is being made."""

    verdict: Verdict
    genres: tuple[str, ...]

    def failed(self, status: Status, message: str) -> Verdict:
        return replace(self.verdict, status=status, error=message)

    def answered(self, stage: str, heard: Heard | None, milliseconds: float, seen: ExcerptSeen, parts: Parts) -> None:
        report = StageReport(stage, None, None, milliseconds, seen, parts.taken())
        if heard is not None:
            answer = Answer(stage, heard.probabilities)
            report = replace(
                report,
                genre=self.genres[answer.top],
                confidence=answer.confidence,
                outside=heard.outside,
                distance=heard.distance,
            )
        self.verdict = replace(self.verdict, stages=(*self.verdict.stages, report))

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
