"""The cascade: owns workspace and stages; one track in, one verdict out.

The embedding API of edge-reclass::

    from edge_reclass import Cascade

    with Cascade.open() as cascade:                 # the starter bundle, on the CPU
        verdict = cascade.classify("song.mp3")
        print(verdict.genre, verdict.confidence, verdict.decided_by)

A cascade is opened once and used for many tracks. It is not safe for several threads at a time: give each thread its
own (``parallel.CascadePool`` does).
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
from edge_reclass.backends import open_backend
from edge_reclass.buffers import Workspace
from edge_reclass.bundle import Bundle, load, starter_path
from edge_reclass.device import usable_cpus
from edge_reclass.errors import EdgeReclassError, EngineError, TrackError, UsageError
from edge_reclass.plan import (
    DEFAULT_BATCH,
    DEFAULT_MAX_RATE,
    DEFAULT_MAX_SECONDS,
    Plan,
    Signal,
    choose_policy,
    compile_plan,
    untrained,
)
from edge_reclass.policy import Answer, Decision, decide
from edge_reclass.stages import Stage, open_stage
from edge_reclass.verdict import ExcerptSeen, Score, StageReport, Verdict

__all__ = ["SILENCE", "Cascade"]

SILENCE = 2.0**-14
"""Peak (full scale 1) up to which an excerpt counts as silent: two steps of 16-bit audio, −84 dBFS, dithered zeros."""


class Cascade:
    """A bundle opened on one device under one policy. Made by :meth:`open`; a context manager."""

    def __init__(self, plan: Plan, stages: list[Stage], device: str, resources: ExitStack) -> None:
        self.plan = plan
        self.device = device
        self._stages = stages
        self._resources = resources
        self._workspace = Workspace(plan)
        self._limits = Limits(plan.max_rate, plan.decode_seconds)
        self._decoder = Decoder(self._limits)
        self._resampler = Resampler()
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle | None = None,
        device: str = "cpu",
        policy: str | None = None,
        *,
        threads: int | None = None,
        max_rate: int = DEFAULT_MAX_RATE,
        max_seconds: float = DEFAULT_MAX_SECONDS,
        batch: int = DEFAULT_BATCH,
        allow_random: bool = False,
    ) -> Cascade:
        """Load and verify a bundle, size the workspace, and open its stages.

        Args:
            bundle: a bundle's directory; None is the starter bundle of the package.
            device: ``cpu``.
            policy: a policy of the bundle, or a preset that fits its stages; None is the bundle's default.
            threads: threads for one track; None is the number of usable CPUs.
            max_rate: highest sampling rate of a file, in Hz.
            max_seconds: longest track that a stage on full tracks takes.
            batch: most windows that an encoder takes at once.
            allow_random: take stages with untrained weights too, to measure them; their answers mean nothing.

        Raises:
            UsageError: an argument is out of range, or names a device or policy that does not exist; or a stage has
                untrained weights.
            BundleError: the bundle is missing, malformed or altered.
            EngineError: a graph cannot be opened or does not fit the manifest.
            DeviceError: the device cannot be used.
        """
        threads = usable_cpus() if threads is None else threads
        if threads < 1:
            raise UsageError(f"threads: expected at least 1, got {threads}")
        loaded = bundle if isinstance(bundle, Bundle) else load(starter_path() if bundle is None else bundle)
        chosen = choose_policy(loaded, policy)
        if not allow_random and (random := untrained(loaded, chosen)):
            raise UsageError(
                f"{loaded.root}: {', '.join(random)} has untrained weights (export --random-init): its answers mean"
                " nothing; --allow-random (allow_random=True) runs it all the same, for measurements"
            )
        resources = ExitStack()
        try:
            backend = resources.enter_context(open_backend(device, threads=threads))
            # Heads are a few small products: on any device the CPU has done them before a copy would have begun.
            heads = resources.enter_context(open_backend("cpu", threads=1))
            plan = compile_plan(
                loaded,
                chosen,
                precisions=backend.precisions,
                max_rate=max_rate,
                max_seconds=max_seconds,
                batch=batch,
            )
            loaded.verify(dict.fromkeys(file for stage in plan.stages for file in stage.files))
            stages = []
            for stage_plan in plan.stages:
                stage = open_stage(plan, stage_plan, backend, heads, threads=threads)
                resources.callback(stage.close)
                stages.append(stage)
            return cls(plan, stages, device, resources)
        except MemoryError as error:
            resources.close()
            raise EngineError(
                f"{loaded.root}: not enough memory for its buffers ({error}); lower max_rate, max_seconds or batch"
            ) from error
        except BaseException:
            resources.close()
            raise

    def classify(self, path: str | os.PathLike[str]) -> Verdict:
        """Classify one audio file. A bad file gives a verdict with a status; it never raises for the file's sake.

        Raises:
            EngineError: the cascade is closed.
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
            signal = stage.plan.signal
            samples, start = self._slice(decoded, signal)
            seen = ExcerptSeen((decoded.start + start) / decoded.rate, len(samples) / decoded.rate)
            if signal.rate is not None:
                buffer = self._workspace.signals[signal]
                if signal not in filled:
                    filled[signal] = self._resampler.resample(samples, decoded.rate, signal.rate, buffer)
                samples = buffer[: filled[signal]]
            probabilities = stage.answer(samples, signal.rate or decoded.rate, self._workspace.embeddings)
            answers.append(Answer(stage.name, probabilities))
            milliseconds = (time.perf_counter() - began) * 1e3
            decision = decide(self.plan.policy, answers)
            run.answered(self.plan.genres, answers[-1], milliseconds, seen)
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

    def answered(self, genres: tuple[str, ...], answer: Answer, milliseconds: float, seen: ExcerptSeen) -> None:
        report = StageReport(answer.stage, genres[answer.top], answer.confidence, milliseconds, seen)
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
