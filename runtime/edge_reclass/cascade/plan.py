"""Manifest → plan: what to decode, at which rates, in which order, and how large every buffer must be.

Compiled once when a cascade is opened. Afterwards nothing that grows with the excerpt is allocated, because every
capacity stands here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_reclass.audio import MAX_RATE, MIN_RATE, ExcerptSpec, decode_seconds
from edge_reclass.bundle import Bundle, BundleFile, EncoderEntry, ExcerptEntry, PolicyEntry, StageEntry, StepEntry
from edge_reclass.cascade.own_genres import GenreMap, genre_map
from edge_reclass.cascade.policy import PRESETS, Policy, Step, check, preset
from edge_reclass.cascade.windowing import count_windows
from edge_reclass.engines import GraphChoice
from edge_reclass.errors import BundleError, UsageError

DEFAULT_MAX_RATE = MAX_RATE
DEFAULT_MAX_SECONDS = 1200.0
DEFAULT_BATCH = 16


@dataclass(frozen=True)
class Options:
    """How a bundle is opened; see :meth:`edge_reclass.cascade.Cascade.open`."""

    threads: int | None = None
    max_rate: int = DEFAULT_MAX_RATE
    max_seconds: float = DEFAULT_MAX_SECONDS
    batch: int = DEFAULT_BATCH
    allow_random: bool = False
    engines: Path | None = None
    timed: bool = False
    min_confidence: float | None = None
    keep_embeddings: bool = False


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
    encoder: EncoderEntry
    signal: Signal
    max_batch: int
    """Most windows that the encoder takes at once: the limit, or all windows of the longest excerpt of every lane."""
    graph: Path | BundleFile | None
    """The encoder's ONNX file or engine in the chosen precision; None where it has none."""
    precision: str | None
    """None where there is no graph."""
    device: str | None
    """Where a graph must run that the device asked for cannot take; None: on that device."""
    head: BundleFile
    head_inputs: tuple[str, ...]
    head_width: int
    head_classes: int
    """Logits that the head gives."""
    map: GenreMap | None
    """From the head's own genres to the bundle's; None where they are the bundle's."""
    temperature: float
    range: RangePlan | None
    loudness: float | None
    """What every window is brought to, in dB of full scale; None: as it is."""
    needed_later: bool
    """True if the head of a later stage takes this stage's embedding."""
    steps: tuple[int, ...]
    """After how many windows the policy asks before the stage has heard all."""
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
    bundle_digest: str
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
    keep_embeddings: bool = False
    """Verdicts hold what the encoders made of a track."""

    def ran(self, device: str) -> dict[str, str]:
        """Where each stage's graph runs and in which precision, as ``cpu fp32``, on this ``device``."""
        return {one.name: f"{one.device or device} {one.precision}" for one in self.stages if one.precision is not None}


def choose_policy(bundle: Bundle, name: str | Policy | None = None) -> Policy:
    """The policy called ``name`` (default: the bundle's default), from the bundle or else from the presets.

    A policy instead of a name is checked against the bundle's stages, and taken.

    Raises:
        BundleError: a policy of the bundle does not fit its stages.
        UsageError: there is no such policy, or the preset or policy does not fit the bundle's stages.
    """
    manifest = bundle.manifest
    own = {key: Policy(key, entry.vote, tuple(map(_step, entry.steps))) for key, entry in manifest.policies.items()}
    names = [stage.name for stage in manifest.stages]
    for key, policy in own.items():
        if key in PRESETS:
            raise BundleError(f"{bundle.root}: policies: {key!r} is the name of a preset, expected another one")
        if wrong := check(policy, names) or _unfit(bundle, policy):
            raise BundleError(f"{bundle.root}: policies.{key}: " + "; ".join(wrong))
    if isinstance(name, Policy):
        if wrong := check(name, names) or _unfit(bundle, name):
            raise UsageError(f"the policy {name.name!r} does not fit this bundle: " + "; ".join(wrong))
        return name
    wanted = manifest.default_policy if name is None else name
    if wanted in own:
        return own[wanted]
    if wanted in PRESETS:
        policy = preset(wanted, names)
        if wrong := _unfit(bundle, policy):
            raise UsageError(f"the policy {wanted!r} does not fit this bundle: " + "; ".join(wrong))
        return policy
    raise UsageError(
        f"no policy {wanted!r}: the bundle {manifest.name} has {', '.join(own)}; "
        f"presets for bundles with the stages fma, mert, jmla: {', '.join(PRESETS)}"
    )


def policy_entry(policy: Policy) -> PolicyEntry:
    """A policy as a manifest has it."""
    steps = [StepEntry(step.after, dict(step.weights), step.accept, step.windows) for step in policy.steps]
    return PolicyEntry(policy.vote, steps)


def untrained(bundle: Bundle, policy: Policy) -> list[str]:
    """The policy's stages whose encoder or head has ``random_init: true`` in its provenance: made for measurements."""

    def marked(entry: object) -> bool:
        return isinstance(entry, dict) and bool(entry.get("random_init") or marked(entry.get("head")))

    return [name for name in policy.stages if marked(bundle.manifest.provenance.get(name))]


def _step(entry: StepEntry) -> Step:
    return Step(entry.after, entry.weights, entry.accept, None if entry.windows == "all" else entry.windows)


def _unfit(bundle: Bundle, policy: Policy) -> list[str]:
    """Heads that take the embedding of a stage that has not run by then; steps after windows that a stage lacks."""
    wrong = []
    for i, name in enumerate(policy.stages):
        entry = bundle.manifest.stage(name)
        unmet = [need for need in entry.head.inputs if need not in policy.stages[: i + 1]]
        if unmet:
            wrong.append(f"the head of {name} takes {', '.join(unmet)}, which has not run by then")
        signal = _signal(bundle, entry)
        if not (asked := policy.windows(name)) or (entry.encoder.window_samples and signal.excerpt.seconds is None):
            continue
        most = 1 if signal.rate is None else _windows_in(entry, math.ceil((signal.excerpt.seconds or 0) * signal.rate))
        if asked[-1] >= most:
            all_of_it = "its excerpt at once" if most == 1 else f"{most} windows at most, and after all of them anyway"
            wrong.append(
                f"step after {asked[-1]} of {name}'s windows: the stage hears {all_of_it}; "
                + ("remove windows" if most == 1 else f"expected windows from 1 to {most - 1}")
            )
    return wrong


def largest_batches(
    bundle: Bundle, stages: Iterable[str], options: Options = Options(), lanes: int = 1
) -> dict[str, int]:
    """For each of ``stages`` whose encoder is a graph: the most windows that it will be given at a time.

    That is ``options.batch``, or all windows of the longest excerpts of ``lanes`` tracks.
    """
    batches = {}
    for name in stages:
        entry = bundle.manifest.stage(name)
        if entry.encoder.graph_files:
            batches[name] = min(options.batch, lanes * _most_windows(entry, _signal(bundle, entry), options))
    return batches


def compile_plan(
    bundle: Bundle, policy: Policy, graphs: Mapping[str, GraphChoice], options: Options = Options(), lanes: int = 1
) -> Plan:
    """Compile the plan of a bundle under one policy.

    Args:
        graphs: what each encoder with a graph runs, as the device chose it (``Backend.choose_graphs``).
        lanes: tracks that share a batch.

    Raises:
        UsageError: a limit is out of range.
    """
    check_options(options)
    manifest = bundle.manifest
    dims = {stage.name: stage.encoder.dim for stage in manifest.stages}
    stages: list[StagePlan] = []
    signals: dict[Signal, int] = {}
    for name in policy.stages:
        entry = manifest.stage(name)
        signal = _signal(bundle, entry)
        if signal.rate is not None:
            signals[signal] = _length(signal, options)
        batch = min(options.batch, lanes * _most_windows(entry, signal, options))
        choice = graphs.get(name)
        stages.append(
            StagePlan(
                name=name,
                encoder=entry.encoder,
                signal=signal,
                max_batch=batch if choice is None or choice.max_batch is None else min(batch, choice.max_batch),
                graph=None if choice is None else choice.file,
                precision=None if choice is None else choice.precision,
                device=None if choice is None else choice.device,
                head=bundle.file(entry.head.file),
                head_inputs=tuple(entry.head.inputs),
                head_width=sum(dims[need] for need in entry.head.inputs),
                head_classes=entry.head.classes(manifest.genres),
                map=genre_map(entry.head, manifest.genres),
                temperature=entry.head.temperature,
                range=_range(bundle, entry, dims),
                loudness=entry.loudness,
                needed_later=any(name in manifest.stage(other).head.inputs for other in policy.stages if other != name),
                steps=policy.windows(name),
                encoder_files=() if choice is None else choice.files,
                head_files=_head_files(entry),
            )
        )
    excerpts = tuple(dict.fromkeys(stage.signal.excerpt for stage in stages))
    seconds = decode_seconds(excerpts, options.max_seconds)
    return Plan(
        bundle=manifest.name,
        bundle_digest=bundle.digest,
        genres=tuple(manifest.genres),
        policy=policy,
        stages=tuple(stages),
        excerpts=excerpts,
        signals=signals,
        max_rate=options.max_rate,
        decode_seconds=seconds,
        decode_samples=_capacity(seconds, options.max_rate),
        keep_embeddings=options.keep_embeddings,
        min_confidence=manifest.min_confidence if options.min_confidence is None else options.min_confidence,
        min_seconds=max(stage.encoder.min_seconds for stage in stages),
    )


def check_options(options: Options) -> None:
    """Refuse what no bundle can be opened with.

    Raises:
        UsageError: a limit is out of range.
    """
    if not MIN_RATE <= options.max_rate <= MAX_RATE:
        raise UsageError(f"max_rate: expected {MIN_RATE} to {MAX_RATE} Hz, got {options.max_rate}")
    if not (math.isfinite(options.max_seconds) and options.max_seconds > 0):
        raise UsageError(f"max_seconds: expected a number above 0, got {options.max_seconds}")
    if options.batch < 1:
        raise UsageError(f"batch: expected at least 1, got {options.batch}")
    if options.min_confidence is not None and not 0 <= options.min_confidence <= 1:
        raise UsageError(f"min_confidence: expected 0 to 1, got {options.min_confidence}")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"threads: expected at least 1, got {options.threads}")


def _signal(bundle: Bundle, entry: StageEntry) -> Signal:
    rate = entry.encoder.rate
    return Signal(_spec(entry.excerpt or bundle.manifest.excerpt), None if rate == "native" else rate)


def _length(signal: Signal, options: Options) -> int:
    """Most samples of a signal."""
    seconds = options.max_seconds if signal.excerpt.seconds is None else signal.excerpt.seconds
    return _capacity(seconds, options.max_rate if signal.rate is None else signal.rate)


def _most_windows(entry: StageEntry, signal: Signal, options: Options) -> int:
    """Windows of the longest excerpt."""
    return _windows_in(entry, _length(signal, options))


def _windows_in(entry: StageEntry, samples: int) -> int:
    window, hop = entry.encoder.window_samples, entry.encoder.hop_samples
    return 1 if window is None or hop is None else count_windows(samples, window, hop)


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
