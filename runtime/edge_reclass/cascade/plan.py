"""Manifest → plan: what to decode, at which rates, in which order, and how large every buffer must be.

Compiled once when a cascade is opened. Afterwards nothing that grows with the excerpt is allocated, because every
capacity stands here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reclass.audio import MAX_RATE, MIN_RATE, ExcerptSpec, decode_seconds
from edge_reclass.bundle.loading import Bundle, BundleFile
from edge_reclass.bundle.manifest import ExcerptEntry, Fma518Entry, StageEntry, WaveformEntry
from edge_reclass.cascade.policy import PRESETS, Policy, Step, check, preset
from edge_reclass.cascade.windowing import count_windows
from edge_reclass.errors import BundleError, EngineError, UsageError

__all__ = [
    "DEFAULT_BATCH",
    "DEFAULT_MAX_RATE",
    "DEFAULT_MAX_SECONDS",
    "Plan",
    "RangePlan",
    "Signal",
    "StagePlan",
    "choose_policy",
    "compile_plan",
    "untrained",
]

DEFAULT_MAX_RATE = MAX_RATE
DEFAULT_MAX_SECONDS = 1200.0
DEFAULT_BATCH = 16


@dataclass(frozen=True)
class Signal:
    """One excerpt at one rate. Stages that share a signal share its buffer, and it is resampled once."""

    excerpt: ExcerptSpec
    rate: int | None
    """Samples per second; None is the file's own rate."""


@dataclass(frozen=True)
class RangePlan:
    """The test of whether what a head gets lies within what it was fitted on."""

    graph: BundleFile
    inputs: tuple[str, ...]
    width: int
    limit: float


@dataclass(frozen=True)
class StagePlan:
    """One stage, ready to be opened."""

    name: str
    encoder: Fma518Entry | WaveformEntry
    signal: Signal
    max_batch: int
    """Most windows that the encoder takes at once: the limit, or all windows of the longest excerpt of every lane."""
    graph: Path | BundleFile | None
    """The encoder's ONNX file or engine in the chosen precision; None for fma518."""
    precision: str | None
    """None for fma518."""
    device: str | None
    """Where a graph must run that the device asked for cannot take; None: on that device."""
    head: BundleFile
    head_inputs: tuple[str, ...]
    head_width: int
    temperature: float
    range: RangePlan | None
    loudness: float | None
    """What every window is brought to, in dB of full scale; None: as it is."""
    needed_later: bool
    """True if the head of a later stage takes this stage's embedding."""
    encoder_files: tuple[str, ...]
    head_files: tuple[str, ...]
    """The stage's files as the manifest names them."""

    @property
    def files(self) -> tuple[str, ...]:
        """All of the stage's files."""
        return (*self.encoder_files, *self.head_files)


@dataclass(frozen=True)
class Plan:
    """Everything that is fixed when a cascade is opened."""

    bundle: str
    genres: tuple[str, ...]
    policy: Policy
    stages: tuple[StagePlan, ...]
    """In running order."""
    excerpts: tuple[ExcerptSpec, ...]
    signals: dict[Signal, int]
    """Capacity of each signal's buffer in samples; native signals are views of the decoded samples and not listed."""
    max_rate: int
    decode_seconds: float
    """Most that is decoded of one track: the stages' excerpts together."""
    decode_samples: int
    """Capacity for it at ``max_rate``."""
    min_confidence: float | None
    """Below it a verdict is ``unsure``; 0 turns ``unsure`` off; None: no such limit."""
    min_seconds: float
    """The largest ``min_seconds`` of the stages: a shorter track is ``too_short``, whatever stage would decide."""


def choose_policy(bundle: Bundle, name: str | Policy | None = None) -> Policy:
    """The policy called ``name`` (default: the bundle's default), from the bundle or else from the presets.

    A policy instead of a name is checked against the bundle's stages, and taken.

    Raises:
        BundleError: a policy of the bundle does not fit its stages.
        UsageError: there is no such policy, or the preset or policy does not fit the bundle's stages.
    """
    manifest = bundle.manifest
    own = {
        key: Policy(key, entry.vote, tuple(Step(s.after, s.weights, s.accept) for s in entry.steps))
        for key, entry in manifest.policies.items()
    }
    names = [stage.name for stage in manifest.stages]
    for key, policy in own.items():
        if key in PRESETS:
            raise BundleError(f"{bundle.root}: policies: {key!r} is the name of a preset, expected another one")
        if wrong := check(policy, names) or _unmet_inputs(policy, manifest.stages):
            raise BundleError(f"{bundle.root}: policies.{key}: " + "; ".join(wrong))
    if isinstance(name, Policy):
        if wrong := check(name, names) or _unmet_inputs(name, manifest.stages):
            raise UsageError(f"the policy {name.name!r} does not fit this bundle: " + "; ".join(wrong))
        return name
    wanted = manifest.default_policy if name is None else name
    if wanted in own:
        return own[wanted]
    if wanted in PRESETS:
        policy = preset(wanted, names)
        if wrong := _unmet_inputs(policy, manifest.stages):
            raise UsageError(f"the policy {wanted!r} does not fit this bundle: " + "; ".join(wrong))
        return policy
    raise UsageError(
        f"no policy {wanted!r}: the bundle {manifest.name} has {', '.join(own)}; "
        f"presets for bundles with the stages fma, mert, jmla: {', '.join(PRESETS)}"
    )


def untrained(bundle: Bundle, policy: Policy) -> list[str]:
    """The policy's stages whose encoder or head has ``random_init: true`` in its provenance: made for measurements."""

    def marked(entry: object) -> bool:
        return isinstance(entry, dict) and bool(entry.get("random_init") or marked(entry.get("head")))

    return [name for name in policy.stages if marked(bundle.manifest.provenance.get(name))]


def _unmet_inputs(policy: Policy, stages: Sequence[StageEntry]) -> list[str]:
    """Heads that take the embedding of a stage that has not run by then."""
    entries = {stage.name: stage for stage in stages}
    wrong = []
    for i, name in enumerate(policy.stages):
        unmet = [need for need in entries[name].head.inputs if need not in policy.stages[: i + 1]]
        if unmet:
            wrong.append(f"the head of {name} takes {', '.join(unmet)}, which has not run by then")
    return wrong


def compile_plan(
    bundle: Bundle,
    policy: Policy,
    *,
    precisions: Sequence[str],
    max_rate: int = DEFAULT_MAX_RATE,
    max_seconds: float = DEFAULT_MAX_SECONDS,
    batch: int = DEFAULT_BATCH,
    lanes: int = 1,
    min_confidence: float | None = None,
) -> Plan:
    """Compile the plan of a bundle under one policy.

    Args:
        precisions: the device's precisions, the preferred first; each encoder takes its first available.
        max_rate: highest sampling rate that is worked at, in Hz, 4 000 to 192 000; files above it are resampled.
        max_seconds: longest full track that is decoded.
        batch: most windows that a device takes at once.
        lanes: tracks that share a batch.
        min_confidence: in place of the manifest's; None: the manifest's.

    Raises:
        UsageError: a limit is out of range.
        EngineError: an encoder has none of the precisions, which another device may take.
    """
    if not MIN_RATE <= max_rate <= MAX_RATE:
        raise UsageError(f"max_rate: expected {MIN_RATE} to {MAX_RATE} Hz, got {max_rate}")
    if not (math.isfinite(max_seconds) and max_seconds > 0):
        raise UsageError(f"max_seconds: expected a number above 0, got {max_seconds}")
    if batch < 1:
        raise UsageError(f"batch: expected at least 1, got {batch}")
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise UsageError(f"min_confidence: expected 0 to 1, got {min_confidence}")
    manifest = bundle.manifest
    dims = {stage.name: stage.encoder.dim for stage in manifest.stages}
    stages: list[StagePlan] = []
    signals: dict[Signal, int] = {}
    for name in policy.stages:
        entry = manifest.stage(name)
        encoder = entry.encoder
        excerpt = _spec(entry.excerpt or manifest.excerpt)
        rate = None if encoder.rate == "native" else encoder.rate
        signal = Signal(excerpt, rate)
        seconds = max_seconds if excerpt.seconds is None else excerpt.seconds
        length = _capacity(seconds, max_rate if rate is None else rate)
        if rate is not None:
            signals[signal] = length
        window, hop = encoder.window_samples, encoder.hop_samples
        windows = 1 if window is None or hop is None else count_windows(length, window, hop)
        precision = _precision(bundle, name, encoder, precisions) if isinstance(encoder, WaveformEntry) else None
        files = [file for key, file in _files(encoder).items() if key == precision]
        stages.append(
            StagePlan(
                name=name,
                encoder=encoder,
                signal=signal,
                max_batch=min(batch, windows * lanes),
                graph=bundle.file(files[0]) if files else None,
                precision=precision,
                device=None,
                head=bundle.file(entry.head.file),
                head_inputs=tuple(entry.head.inputs),
                head_width=sum(dims[need] for need in entry.head.inputs),
                temperature=entry.head.temperature,
                range=_range(bundle, entry, dims),
                loudness=entry.loudness,
                needed_later=any(name in manifest.stage(other).head.inputs for other in policy.stages if other != name),
                encoder_files=tuple(files),
                head_files=_head_files(entry),
            )
        )
    excerpts = tuple(dict.fromkeys(stage.signal.excerpt for stage in stages))
    seconds = decode_seconds(excerpts, max_seconds)
    return Plan(
        bundle=manifest.name,
        genres=tuple(manifest.genres),
        policy=policy,
        stages=tuple(stages),
        excerpts=excerpts,
        signals=signals,
        max_rate=max_rate,
        decode_seconds=seconds,
        decode_samples=_capacity(seconds, max_rate),
        min_confidence=manifest.min_confidence if min_confidence is None else min_confidence,
        min_seconds=max(stage.encoder.min_seconds for stage in stages),
    )


def _range(bundle: Bundle, entry: StageEntry, dims: Mapping[str, int]) -> RangePlan | None:
    test = entry.head.range
    if test is None:
        return None
    return RangePlan(bundle.file(test.file), tuple(test.inputs), sum(dims[need] for need in test.inputs), test.limit)


def _head_files(entry: StageEntry) -> tuple[str, ...]:
    return (entry.head.file, *(() if entry.head.range is None else (entry.head.range.file,)))


def _spec(entry: ExcerptEntry) -> ExcerptSpec:
    if entry.full:
        return ExcerptSpec(start=0.0, seconds=None)
    return ExcerptSpec(start="center" if entry.start is None else entry.start, seconds=entry.seconds)


def _capacity(seconds: float, rate: int) -> int:
    """Samples at ``rate`` Hz that an excerpt of ``seconds`` can become, whatever its file's rate.

    At its own rate an excerpt is rounded up by less than two samples; at the lowest rate these are the longest.
    """
    return math.ceil(seconds * rate) + 2 * -(-rate // MIN_RATE) + 1


def _files(encoder: Fma518Entry | WaveformEntry) -> dict[str, str]:
    return {str(key): file for key, file in encoder.files.items()} if isinstance(encoder, WaveformEntry) else {}


def _precision(bundle: Bundle, name: str, encoder: WaveformEntry, precisions: Sequence[str]) -> str:
    for precision in precisions:
        if precision in encoder.files:
            return precision
    raise EngineError(
        f"{bundle.root}: stages.{name}.encoder.files: expected one of {', '.join(precisions)} for this device, "
        f"got {', '.join(encoder.files)}; export the encoder in one of them"
    )
