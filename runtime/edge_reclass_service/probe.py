"""The synthesised track that goes through every stage before the service says that it is ready."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import numpy as np
import soundfile

from edge_reclass import WorkerPool
from edge_reclass.errors import EngineError
from edge_reclass_service.files import linked

_RATE = 22_050
_MOST_SECONDS = 60.0


class StageProbed(msgspec.Struct, frozen=True):
    """One stage: where it ran, in which precision (null: computed with numpy), and what it took."""

    name: str
    device: str
    precision: str | None
    seconds: float


class Probed(msgspec.Struct, frozen=True):
    """What was measured when a synthesised track went through every stage."""

    stages: list[StageProbed]
    decode_seconds: float
    open_seconds: float
    """Until the encoders were open."""


def probe(pool: WorkerPool, folder: Path, open_seconds: float) -> Probed:
    """Let a synthesised track go through a worker and every stage of the policy, without an early exit.

    Args:
        pool: nobody else uses it yet.
        folder: where the track is written for a moment.

    Raises:
        EdgeReclassError: a stage failed or gave no answer.
    """
    plan = pool.plan
    seconds = min(_MOST_SECONDS, max(plan.decode_seconds, plan.min_seconds))
    with tempfile.TemporaryFile(dir=folder) as file:  # and as audio that is received, it goes to a worker by a link
        soundfile.write(file, _sound(seconds), _RATE, format="WAV", subtype="PCM_16")
        file.flush()
        with linked(file.fileno(), ".wav", folder) as link:
            decoding, said = pool.cascades[0].step_answers(link)
    took: dict[str, float] = {}
    for step in said:
        if step.probabilities is not None:
            took[step.stage] = took.get(step.stage, 0.0) + (step.milliseconds + step.resample_milliseconds) / 1e3
    if silent := [stage.name for stage in plan.stages if stage.name not in took]:
        raise EngineError(f"the stage {silent[0]} gave no answer to a synthesised track of {seconds:g} s")
    stages = [
        StageProbed(
            stage.name,
            stage.device or (pool.device if stage.graph is not None else "cpu"),
            stage.precision,
            round(took[stage.name], 6),
        )
        for stage in plan.stages
    ]
    return Probed(stages, round(decoding / 1e3, 6), round(open_seconds, 3))


def _sound(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A chord that swells, and some noise: float32[n], peak below 0.5."""
    time = np.arange(round(seconds * _RATE)) / _RATE
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220.0, 277.2, 329.6))
    noise = np.random.default_rng(0).uniform(-1, 1, len(time))
    sound: np.ndarray[tuple[int], np.dtype[np.float32]] = (
        0.1 * chord * (0.6 + 0.4 * np.sin(np.pi * time)) + 0.05 * noise
    ).astype(np.float32)
    return sound
