"""The cascade: owns workspace and stages; one track in, one verdict out.

The embedding API of edge-reclass::

    from edge_reclass import Cascade

    with Cascade.open() as cascade:                 # the starter bundle, on the CPU
        verdict = cascade.classify("song.mp3")
        print(verdict.genre, verdict.confidence, verdict.decided_by)

A cascade is opened once and used for many tracks. It is not safe for several threads at a time: give each thread its
own (``parallel.CascadePool`` does, and lets them share the encoders).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio import Decoded, Decoder, Limits, Resampler, locate, mix_excerpt
from edge_reclass.backends import Backend
from edge_reclass.buffers import Workspace
from edge_reclass.bundle import Bundle
from edge_reclass.errors import DeviceError, EdgeReclassError, EngineError, TrackError
from edge_reclass.opening import Options, Shared, load_bundle, open_with
from edge_reclass.plan import DEFAULT_BATCH, DEFAULT_MAX_RATE, DEFAULT_MAX_SECONDS, Signal, choose_policy
from edge_reclass.policy import Answer, Decision, Policy, decide
from edge_reclass.stages import Parts
from edge_reclass.verdict import ExcerptSeen, Score, StageReport, Verdict

__all__ = ["SILENCE", "Cascade"]

SILENCE = 2.0**-14
"""Peak (full scale 1) up to which an excerpt counts as silent: two steps of 16-bit audio, −84 dBFS, dithered zeros."""


class Cascade:
    """A bundle opened on one device under one policy. Made by :meth:`open`; a context manager."""

    def __init__(self, shared: Shared, *, owns_shared: bool = False) -> None:
        self._shared = shared
        self.plan = shared.plan
        self._closed = False
        with ExitStack() as opened:
            if owns_shared:
                opened.callback(shared.close)  # after the stages
            self._stages = shared.open_stages(opened)
            self._workspace = Workspace(self.plan)
            self._limits = Limits(self.plan.max_rate, self.plan.decode_seconds)
            self._decoder = Decoder(self._limits)
            self._resampler = Resampler()
            self._resources = opened.pop_all()

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
    ) -> Cascade:
        """Load and verify a bundle, size the workspace, and open its stages.

        Args:
            bundle: a bundle's directory; None is the starter bundle of the package.
            device: ``cpu``, ``cuda``, ``tensorrt``, or ``auto`` (``notes`` says why it took no other); or an opened
                backend, which from then on belongs to the cascade.
            policy: a policy of the bundle, or a preset that fits its stages; None is the bundle's default.
            threads: CPU threads for one track; None is the number of usable CPUs.
            max_rate: highest sampling rate of a file, in Hz.
            max_seconds: longest track that a stage on full tracks takes.
            batch: most windows that an encoder takes at once.
            allow_random: take stages with untrained weights too, to measure them; their answers mean nothing.
            engines: where TensorRT's engines lie; None is ``EDGE_RECLASS_ENGINES`` or the bundle's ``engines``.
            timed: let the device's clock time every run (``StageReport.parts``).

        Raises:
            UsageError: an argument is out of range, or names a device or policy that does not exist; or a stage has
                untrained weights.
            BundleError: the bundle is missing, malformed or altered.
            EngineError: a graph cannot be opened or does not fit the manifest, or an engine has to be built first.
            DeviceError: the device cannot be used, or a package that it needs is not installed.
        """
        folder = None if engines is None else Path(engines)
        options = Options(threads, max_rate, max_seconds, batch, allow_random, folder, timed)
        loaded = load_bundle(bundle)
        return open_with(
            loaded, device, choose_policy(loaded, policy), options, lambda shared: cls(shared, owns_shared=True)
        )

    @property
    def device(self) -> str:
        """The device that the encoders run on."""
        return self._shared.device

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know: why ``auto`` took no other device, and which stages run elsewhere."""
        return self._shared.notes

    def classify(self, path: str | os.PathLike[str]) -> Verdict:
        """Classify one audio file. A bad file gives a verdict with a status; it never raises for the file's sake.

        Raises:
            EngineError: the cascade is closed.
            DeviceError: the device is lost; no further track can be classified.
        """
        return self._classify(os.fsdecode(path), lambda out: self._decoder.decode(path, self.plan.excerpts, out))

    def classify_samples(self, samples: NDArray[Any], rate: int, name: str = "<samples>") -> Verdict:
        """Classify audio in memory.

        Args:
            samples: [n] or [n, channels], floating point with full scale 1, or int16 or int32.
            rate: samples per second.
            name: stands as ``path`` in the verdict.

        Raises:
            ValueError: ``samples`` is no array or has another shape or dtype; ``rate`` is not whole.
            EngineError: the cascade is closed.
            DeviceError: the device is lost; no further track can be classified.
        """
        if not isinstance(samples, np.ndarray):
            raise ValueError(f"samples: expected a numpy array, got {type(samples).__name__}")
        if int(rate) != rate:
            raise ValueError(f"rate: expected whole samples per second, got {rate}")
        hertz = int(rate)
        return self._classify(
            name,
            lambda out: mix_excerpt(samples, hertz, self.plan.excerpts, out, self._limits),
            in_memory=True,
        )

    def classify_many(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Verdict]:
        """Classify tracks one after another; one verdict per path, in order."""
        return map(self.classify, paths)

    def close(self) -> None:
        """Release the stages; the workspace goes with the object. Closing twice is allowed."""
        self._closed = True
        self._resources.close()

    def __enter__(self) -> Cascade:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _classify(
        self, name: str, decode: Callable[[NDArray[np.float32]], Decoded], *, in_memory: bool = False
    ) -> Verdict:
        if self._closed:
            raise EngineError("this cascade is closed; open a new one")
        run = _Run(Verdict(name, "ok", self.plan.bundle, self.plan.policy.name))
        try:
            self._run(run, decode)
        except TrackError as error:
            return run.failed(error.status, str(error))
        except MemoryError as error:
            return run.failed("out_of_memory", str(error) or "not enough memory for this track")
        except DeviceError:
            raise  # not this track's fault, and no other track would fare better
        except Exception as error:
            if in_memory and isinstance(error, ValueError) and run.verdict.decode_milliseconds is None:
                raise  # the caller's samples have a wrong shape or dtype
            # Nothing that happens to one track may end a run of a hundred thousand.
            return run.failed("error", str(error) if isinstance(error, EdgeReclassError) else _named(error))
        return run.verdict

    def _run(self, run: _Run, decode: Callable[[NDArray[np.float32]], Decoded]) -> None:
        began = time.perf_counter()
        decoded = decode(self._workspace.decoded)
        run.verdict = replace(run.verdict, decode_milliseconds=(time.perf_counter() - began) * 1e3)
        self._refuse(decoded)
        filled: dict[Signal, int] = {}
        answers: list[Answer] = []
        for stage in self._stages:
            began = time.perf_counter()
            parts = Parts()
            signal = stage.plan.signal
            samples, start = self._slice(decoded, signal)
            seen = ExcerptSeen((decoded.start + start) / decoded.rate, len(samples) / decoded.rate)
            if signal.rate is not None:
                buffer = self._workspace.signals[signal]
                if signal not in filled:
                    filled[signal] = self._resampler.resample(samples, decoded.rate, signal.rate, buffer)
                    parts.add("resample", time.perf_counter() - began)
                samples = buffer[: filled[signal]]
            probabilities = stage.answer(samples, signal.rate or decoded.rate, self._workspace.embeddings, parts)
            answers.append(Answer(stage.name, probabilities))
            answered = time.perf_counter()
            decision = decide(self.plan.policy, answers)
            parts.add("policy", time.perf_counter() - answered)
            run.answered(self.plan.genres, answers[-1], (answered - began) * 1e3, seen, parts)
            if decision.stop:
                run.decided(self.plan.genres, stage.name, decision)
                return

    def _refuse(self, decoded: Decoded) -> None:
        """Raise for a track that is silent or too short for any of the policy's stages."""
        seconds = decoded.total / decoded.rate
        if seconds < self.plan.min_seconds:
            raise TrackError("too_short", f"expected at least {self.plan.min_seconds:g} s, got {seconds:.3f} s")
        if decoded.peak <= SILENCE:
            cancels = decoded.channel_peak > SILENCE
            raise TrackError(
                "silent",
                "the channels cancel when mixed to mono"
                if cancels
                else f"the excerpt's peak is {abs(decoded.peak):.1e}, at most {SILENCE:.1e} counts as silence",
            )

    def _slice(self, decoded: Decoded, signal: Signal) -> tuple[NDArray[np.float32], int]:
        """The signal's excerpt within the decoded union, and where it starts there."""
        start, count = locate(decoded.total, decoded.rate, signal.excerpt)
        start -= decoded.start
        return decoded.samples[start : start + count], start


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@dataclass
class _Run:
    """The verdict of one track while it is being made."""

    verdict: Verdict

    def failed(self, status: str, message: str) -> Verdict:
        return replace(self.verdict, status=status, error=message)

    def answered(
        self, genres: tuple[str, ...], answer: Answer, milliseconds: float, seen: ExcerptSeen, parts: Parts
    ) -> None:
        report = StageReport(answer.stage, genres[answer.top], answer.confidence, milliseconds, seen, parts.taken())
        self.verdict = replace(self.verdict, stages=(*self.verdict.stages, report))

    def decided(self, genres: tuple[str, ...], stage: str, decision: Decision) -> None:
        order = sorted(range(len(genres)), key=lambda g: (g != decision.genre, -decision.scores[g], g))
        self.verdict = replace(
            self.verdict,
            genre=genres[decision.genre],
            confidence=decision.confidence,
            decided_by=stage,
            reason=decision.reason,
            top=tuple(Score(genres[g], decision.scores[g]) for g in order),
        )
