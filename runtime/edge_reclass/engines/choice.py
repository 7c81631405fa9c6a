"""Which engine each waveform stage runs on this device, decided once when a cascade is opened.

In the order in which ``build`` tries them, FP16 → FP32; where ``build`` rejected all of them here, ONNX Runtime on the
CPU, and a note says so. What is missing, stale or damaged is an error with the command that mends it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_reclass import host
from edge_reclass.backends.tensorrt import api as tensorrt_api
from edge_reclass.bundle.folder import OLD_ENGINES, has_old_engines
from edge_reclass.bundle.loading import Bundle, BundleFile
from edge_reclass.bundle.manifest import WaveformEntry
from edge_reclass.cascade.plan import DEFAULT_BATCH, StagePlan, compile_plan
from edge_reclass.cascade.policy import Policy, Step
from edge_reclass.engines.record import EngineKey, Profile, Target, target_for
from edge_reclass.engines.store import Found, engines_folder, survey
from edge_reclass.errors import EngineError, UsageError

__all__ = [
    "ENGINE_PRECISIONS",
    "EngineChoice",
    "EngineState",
    "choose_engines",
    "engine_states",
    "installed_target",
]

ENGINE_PRECISIONS = ("fp16", "fp32")
"""The order in which engines are looked for; int8 files are made for ONNX Runtime on the CPU."""

_INPUT = "waveform"


@dataclass(frozen=True)
class EngineChoice:
    """What one stage's encoder runs: an engine on ``tensorrt``, or an ONNX file on ``cpu``.

    ``max_batch`` is the most windows at a time, at most the plan's and the engine's. ``note`` says what a user should
    know (a fallback, an engine that was not verified); it is empty where all is as intended.
    """

    stage: str
    device: Literal["tensorrt", "cpu"]
    precision: str
    plan: Path | BundleFile
    max_batch: int
    note: str = ""


@dataclass(frozen=True)
class EngineState:
    """What lies there for one precision of one stage."""

    stage: str
    precision: str
    found: Found


def installed_target() -> Target:
    """The target of engines for this machine: its TensorRT (else TensorRT-RTX) and its first GPU.

    Raises:
        DeviceError: no TensorRT can be imported, or there is no GPU.
    """
    library = tensorrt_api.open_library()
    return target_for(library.flavour, library.version, gpu=host.probe_gpu())


def choose_engines(
    bundle: Bundle, stages: Iterable[StagePlan], target: Target, folder: Path
) -> dict[str, EngineChoice]:
    """The choice for every stage of ``stages`` whose encoder is a graph, by stage name; engines are not loaded yet.

    Args:
        stages: of a plan compiled with ``precisions=ENGINE_PRECISIONS``.
        target: see :func:`installed_target`.
        folder: where engines lie; see :func:`edge_reclass.engines.engines_folder`.

    Raises:
        EngineError: an engine is missing, stale or damaged; the message names each such stage, why, and the command.
            Or the folder cannot be read.
    """
    choices: dict[str, EngineChoice] = {}
    wrong: list[str] = []
    unusable: list[str] = []
    for stage in stages:
        if not isinstance(stage.encoder, WaveformEntry):
            continue
        try:
            states = _states(bundle, stage, target, folder)
        # As doctor has it, what keeps engines from being used is no wrong usage.
        except (UsageError, EngineError) as error:
            raise EngineError(f"{error}; next: {build_command(bundle, folder)}{_old(bundle)}") from error
        present = next((state for state in states if state.found.status == "present"), None)
        if present is not None:
            choices[stage.name] = _on_device(bundle, stage, present, states)
        elif states and all(state.found.status == "rejected" for state in states):
            choices[stage.name] = _on_cpu(bundle, stage, states)
        else:
            unusable.append(stage.name)
            found = [f"{state.precision} is {state.found.status}: {state.found.reason}" for state in states]
            have = ", ".join(stage.encoder.files)
            wrong.append(f"stage {stage.name}: " + ("; ".join(found) or f"no fp16 or fp32 file, only {have}"))
    if wrong:
        raise EngineError(f"{'; '.join(wrong)}; next: {build_command(bundle, folder, unusable)}{_old(bundle)}")
    return choices


def _old(bundle: Bundle) -> str:
    if not has_old_engines(bundle.root, bundle.manifest.files):
        return ""
    return f" (engines inside of a bundle are not read any more; delete {bundle.root / OLD_ENGINES} afterwards)"


def engine_states(bundle: Bundle, target: Target, folder: Path, batch: int = DEFAULT_BATCH) -> list[EngineState]:
    """What lies in ``folder`` for every waveform stage of the bundle and every precision that it could run, in order.

    ``batch`` is the most windows at a time; among engines of several profiles it decides which one is looked at.

    Raises:
        UsageError: the folder cannot be read.
        EngineError: others may write the store, or its secret cannot be read.
    """
    names = [stage.name for stage in bundle.manifest.stages]
    everything = Policy("all", "soft", tuple(Step(name, {name: 1.0}) for name in names))
    any_precision = (*ENGINE_PRECISIONS, "int8")
    plan = compile_plan(bundle, everything, precisions=any_precision, batch=batch)
    graphs = [stage for stage in plan.stages if isinstance(stage.encoder, WaveformEntry)]
    return [state for stage in graphs for state in _states(bundle, stage, target, folder)]


def build_command(
    bundle: Bundle, folder: Path, stages: Iterable[str] = (), environ: Mapping[str, str] = os.environ
) -> str:
    """The command that builds what is missing: ``edge-reclass build BUNDLE --stage mert``."""
    command = ["edge-reclass", "build", str(bundle.root)]
    for stage in stages:
        command += ["--stage", stage]
    if folder != engines_folder(bundle.digest, None, environ):
        command += ["--engines", str(folder.parent)]
    return shlex.join(command)


def _states(bundle: Bundle, stage: StagePlan, target: Target, folder: Path) -> list[EngineState]:
    encoder, files = stage.encoder, _files(stage)
    if not isinstance(encoder, WaveformEntry):
        return []
    profile = Profile(_INPUT, encoder.window_samples, 1, stage.max_batch, stage.max_batch)
    states = []
    for precision in ENGINE_PRECISIONS:
        if precision in files:
            key = EngineKey(bundle.manifest.files[files[precision]].sha256, target, profile)
            found = survey(folder, key, bundle=bundle.root, stage=stage.name, precision=precision)
            states.append(EngineState(stage.name, precision, found))
    return states


def _on_device(bundle: Bundle, stage: StagePlan, chosen: EngineState, states: Iterable[EngineState]) -> EngineChoice:
    engine = chosen.found.engine
    if engine is None:
        raise EngineError(f"stage {stage.name}: an engine that is present has no folder")
    notes = []
    for state in states:
        if state is chosen:
            break
        notes.append(f"{chosen.precision} instead of {state.precision}, which is {state.found.status}:")
        notes[-1] += f" {state.found.reason}"
    if engine.record.verification is None:
        check = shlex.join(["edge-reclass", "verify", str(bundle.root), "--device", "tensorrt"])
        notes.append(f"its engine is {chosen.found.reason}; {check}  checks it")
    most = min(stage.max_batch, engine.record.key.profile.max)
    return EngineChoice(stage.name, "tensorrt", chosen.precision, engine.plan, most, "; ".join(notes))


def _on_cpu(bundle: Bundle, stage: StagePlan, states: list[EngineState]) -> EngineChoice:
    """The safest of the precisions that were tried, as ``verify`` takes it."""
    precision = states[-1].precision
    reasons = "; ".join(f"{state.precision}: {state.found.reason}" for state in states)
    note = f"runs with ONNX Runtime on the CPU, because build rejected its engines here ({reasons})"
    return EngineChoice(stage.name, "cpu", precision, bundle.file(_files(stage)[precision]), stage.max_batch, note)


def _files(stage: StagePlan) -> dict[str, str]:
    encoder = stage.encoder
    return {str(key): file for key, file in encoder.files.items()} if isinstance(encoder, WaveformEntry) else {}
