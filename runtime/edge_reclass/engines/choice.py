"""Which engine each waveform stage runs on this device, decided once when a cascade is opened.

In the order in which ``build`` tries them, FP16 → FP32; where ``build`` rejected all of them here, ONNX Runtime on the
CPU, and a note says so. What is missing, stale or damaged is an error with the command that fixes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from edge_reclass.bundle import Bundle, BundleFile
from edge_reclass.bundle.folder import OLD_ENGINES, has_old_engines
from edge_reclass.engines.record import EngineKey, Profile, Target
from edge_reclass.engines.store import Found, engine_command, engines_folder, survey
from edge_reclass.errors import EngineError, UsageError

ENGINE_PRECISIONS = ("fp16", "fp32")
"""The order in which engines are looked for; from the fastest to the safest."""

_INPUT = "waveform"


@dataclass(frozen=True)
class GraphChoice:
    """What one stage's encoder runs.

    ``file`` is an ONNX file or an engine. ``max_batch``: the most windows that it takes at a time; None: any number.
    ``device``: where it runs instead of the device asked for. ``files``: what has to be verified of the bundle; an
    engine has a hash of its own. ``note`` says what a user should know (a fallback, an engine that was not verified).
    """

    precision: str
    file: Path | BundleFile
    max_batch: int | None = None
    device: str | None = None
    files: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class EngineState:
    """What lies there for one precision of one stage."""

    stage: str
    precision: str
    found: Found


def choose_engines(
    bundle: Bundle,
    batches: Mapping[str, int],
    target: Target,
    folder: Path,
    known: Sequence[EngineState] | None = None,
) -> dict[str, GraphChoice]:
    """The choice for every stage of ``batches``, whose encoders are graphs, by stage name; engines are not loaded yet.

    Args:
        bundle: whose engines are looked for.
        batches: for each stage the most windows that it will be given at a time.
        target: what engines have to be built for.
        folder: where engines lie; see :func:`edge_reclass.engines.engines_folder`.
        known: what ``engine_states`` found for these stages; None looks for it, and hashes every engine.

    Raises:
        EngineError: an engine is missing, stale or damaged; the message names each such stage, why, and the command.
            Or the folder cannot be read.
    """
    choices: dict[str, GraphChoice] = {}
    wrong: list[str] = []
    unusable: list[str] = []
    try:
        every = engine_states(bundle, batches, target, folder) if known is None else known
    # As doctor has it, what keeps engines from being used is no wrong usage.
    except (UsageError, EngineError) as error:
        raise EngineError(f"{error}; next: {build_command(bundle, folder)}{_old(bundle)}") from error
    for stage, batch in batches.items():
        states = [state for state in every if state.stage == stage]
        present = next((state for state in states if state.found.status == "present"), None)
        if present is not None:
            choices[stage] = _on_device(bundle, batch, present, states)
        elif states and all(state.found.status == "rejected" for state in states):
            choices[stage] = _on_cpu(bundle, states)
        else:
            unusable.append(stage)
            found = [f"{state.precision} is {state.found.status}: {state.found.reason}" for state in states]
            have = ", ".join(bundle.manifest.stage(stage).encoder.graph_files)
            wrong.append(f"stage {stage}: " + ("; ".join(found) or f"no fp16 or fp32 file, only {have}"))
    if wrong:
        raise EngineError(f"{'; '.join(wrong)}; next: {build_command(bundle, folder, unusable)}{_old(bundle)}")
    return choices


def _old(bundle: Bundle) -> str:
    if not has_old_engines(bundle.root, bundle.manifest.files):
        return ""
    return f" (engines inside of a bundle are not read any more; delete {bundle.root / OLD_ENGINES} afterwards)"


def engine_states(bundle: Bundle, batches: Mapping[str, int], target: Target, folder: Path) -> list[EngineState]:
    """What lies in ``folder`` for every stage of ``batches`` and every precision that it could run, in order.

    ``batches`` has the most windows at a time; among engines of several profiles it decides which one is looked at.

    Raises:
        UsageError: the folder cannot be read.
        EngineError: others may write the store, or its secret cannot be read.
    """
    return [state for stage, batch in batches.items() for state in _states(bundle, stage, batch, target, folder)]


def build_command(bundle: Bundle, folder: Path, stages: Iterable[str] = ()) -> str:
    """The command that builds what is missing: ``edge-reclass build BUNDLE --stage mert``."""
    elsewhere = [] if folder == engines_folder(bundle.digest, None) else ["--engines", str(folder.parent)]
    return engine_command("build", bundle.root, stages, *elsewhere)


def _states(bundle: Bundle, stage: str, batch: int, target: Target, folder: Path) -> list[EngineState]:
    encoder = bundle.manifest.stage(stage).encoder
    if encoder.window_samples is None:
        return []
    files = encoder.graph_files
    profile = Profile(_INPUT, encoder.window_samples, 1, batch, batch)
    states = []
    for precision in ENGINE_PRECISIONS:
        if precision in files:
            key = EngineKey(bundle.manifest.files[files[precision]].sha256, target, profile)
            found = survey(folder, key, bundle=bundle.root, stage=stage, precision=precision)
            states.append(EngineState(stage, precision, found))
    return states


def _on_device(bundle: Bundle, batch: int, chosen: EngineState, states: Iterable[EngineState]) -> GraphChoice:
    engine = chosen.found.engine
    if engine is None:
        raise EngineError(f"stage {chosen.stage}: an engine that is present has no folder")
    notes = [
        f"{chosen.precision} instead of {state.precision}, which is {state.found.status}: {state.found.reason}"
        for state in takewhile(lambda state: state is not chosen, states)
    ]
    if engine.record.verification is None:
        check = engine_command("verify", bundle.root, (), "--device", "tensorrt")
        notes.append(f"its engine is {chosen.found.reason}; {check}  checks it")
    most = min(batch, engine.record.key.profile.max)
    return GraphChoice(chosen.precision, engine.plan, most, note="; ".join(notes))


def _on_cpu(bundle: Bundle, states: list[EngineState]) -> GraphChoice:
    """The safest of the precisions that were tried, as ``verify`` takes it."""
    last = states[-1]
    file = bundle.manifest.stage(last.stage).encoder.graph_files[last.precision]
    reasons = "; ".join(f"{state.precision}: {state.found.reason}" for state in states)
    note = f"runs with ONNX Runtime on the CPU, because build rejected its engines here ({reasons})"
    return GraphChoice(last.precision, bundle.file(file), device="cpu", files=(file,), note=note)
