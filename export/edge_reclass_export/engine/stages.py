"""Which engines a bundle needs: per waveform stage its profile and, in order, the precisions to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reclass.bundle import Bundle, WaveformEntry
from edge_reclass.cascade import DEFAULT_BATCH, Options, count_windows, largest_batches
from edge_reclass.engines import ENGINE_PRECISIONS, EngineKey, Found, Profile, Target, survey
from edge_reclass.errors import UsageError

INPUT = "waveform"


@dataclass(frozen=True)
class Candidate:
    """One precision of a stage's encoder, as an engine."""

    precision: str
    file: str
    key: EngineKey


@dataclass(frozen=True)
class EngineStage:
    """A stage of the bundle in folder ``bundle``; ``candidates`` stand in the order in which they are tried."""

    bundle: Path
    name: str
    encoder: WaveformEntry
    profile: Profile
    candidates: tuple[Candidate, ...]


def graph_stages(
    bundle: Bundle, names: Sequence[str] = (), max_batch: int | None = None, *, shared: bool = False
) -> dict[str, Profile]:
    """Batch sizes of every waveform stage (or of ``names``): smallest, usual, largest.

    The largest is what the runtime's plan asks for: ``max_batch``, and no more than the windows of one track unless
    tracks share batches (``shared``). The usual one are the windows of an excerpt of full length.

    Raises:
        UsageError: a stage of ``names`` does not exist or has no graph.
    """
    manifest = bundle.manifest
    entries = {stage.name: stage for stage in manifest.stages}
    graphs = [stage.name for stage in manifest.stages if stage.encoder.graph_files]
    for name in names:
        if name not in entries:
            raise UsageError(f"--stage: no stage {name!r}: the bundle {bundle.name} has {', '.join(entries)}")
        if name not in graphs:
            raise UsageError(f"--stage {name}: its encoder ({entries[name].encoder.describe()}) has no graph")
    most = max_batch or DEFAULT_BATCH
    # With as many lanes as windows fit, even tracks of one window each fill a batch.
    lanes = most if shared else 1
    profiles = {}
    for name, largest in largest_batches(bundle, names or graphs, Options(batch=most), lanes).items():
        encoder = entries[name].encoder
        excerpt = entries[name].excerpt or manifest.excerpt
        if encoder.window_samples is None or encoder.hop_samples is None or encoder.rate == "native":
            continue
        usual = largest
        if excerpt.seconds is not None:
            usual = count_windows(round(excerpt.seconds * encoder.rate), encoder.window_samples, encoder.hop_samples)
        profiles[name] = Profile(INPUT, encoder.window_samples, 1, min(usual, largest), largest)
    return profiles


def engine_stages(
    bundle: Bundle,
    target: Target,
    *,
    names: Sequence[str] = (),
    precision: str | None = None,
    max_batch: int | None = None,
) -> list[EngineStage]:
    """The engines that ``bundle`` needs on ``target``; with ``precision``, only that one and no fallback.

    Raises:
        UsageError: no such stage, or a stage has no file that can become an engine.
    """
    stages = []
    for name, profile in graph_stages(bundle, names, max_batch, shared=True).items():
        encoder = bundle.manifest.stage(name).encoder
        files = encoder.graph_files
        order = ENGINE_PRECISIONS if precision is None else (precision,)
        candidates = tuple(
            Candidate(each, files[each], EngineKey(bundle.manifest.files[files[each]].sha256, target, profile))
            for each in order
            if each in files
        )
        if not candidates:
            raise UsageError(
                f"stage {name}: expected a file of precision {' or '.join(order)}, the bundle has {', '.join(files)};"
                " export it again, or choose another --precision"
            )
        if isinstance(encoder, WaveformEntry):
            stages.append(EngineStage(bundle.root, name, encoder, profile, candidates))
    return stages


def survey_candidate(folder: Path, stage: EngineStage, candidate: Candidate, *, exact: bool = False) -> Found:
    """What lies in ``folder`` for one candidate of ``stage``; see :func:`edge_reclass.engines.survey`."""
    return survey(
        folder, candidate.key, bundle=stage.bundle, stage=stage.name, precision=candidate.precision, exact=exact
    )


def survey_stage(folder: Path, stage: EngineStage, *, exact: bool = False) -> list[tuple[Candidate, Found]]:
    """What lies in ``folder`` for each candidate, up to and with the first that is present."""
    found = []
    for candidate in stage.candidates:
        state = survey_candidate(folder, stage, candidate, exact=exact)
        found.append((candidate, state))
        if state.status == "present":
            break
    return found
