"""The record of one ``bench run``: versioned JSON that holds raw samples, what was measured, on what, and how.

A record is complete in itself: tables, pages and comparisons are made from it alone, and every summary in it can be
computed again from its samples. The schema is the msgspec structs below. Loading is strict: an unknown key, a wrong
type or a wrong format is an error that names the file and the key.

    Record
    ├── subject       what must be equal for two records to be comparable
    ├── settings      how long, how often, how many threads
    ├── environment   the machine, its libraries, its load, clocks and temperatures before and after
    ├── tracks        names, labels and statuses; samples point into this list
    ├── measures      one per thing timed: raw samples and their summary
    ├── runs          one per scenario and subject: wall time, warm-up, memory, power, other load
    ├── answers       each stage's probabilities for each track: what ``bench order`` replays
    ├── accounting    the cascade's reach, expected and measured cost, beside the baselines
    ├── orders        orders of the stages, their cost at equal agreement
    ├── peers         other programs on the same tracks in the same run
    ├── absent        what was asked for and is not here, each with its reason
    └── warnings      why a sceptic should not trust a figure

Units stand in every measure; times are milliseconds unless a name says otherwise.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from edge_reclass.errors import EdgeReclassError, UsageError

__all__ = [
    "CLOCKS",
    "FORMAT",
    "KIND",
    "PARTS",
    "PERCENTILES",
    "Absent",
    "Accounting",
    "Baseline",
    "Environment",
    "Estimate",
    "Expected",
    "Measure",
    "Order",
    "Peer",
    "PolicyRecord",
    "Proportion",
    "Record",
    "Run",
    "Settings",
    "StageAnswers",
    "StageFlow",
    "StepRecord",
    "Subject",
    "Summary",
    "TrackEntry",
    "load",
    "save",
]

FORMAT: Final = 1
KIND: Final = "edge-reclass-bench"

PERCENTILES = (50, 90, 95, 99)
CLOCKS = ("host", "device")
PARTS = (
    "decode",
    "resample",
    "features",
    "fill",
    "run",
    "copy_in",
    "compute",
    "copy_out",
    "head",
    "policy",
    "other",
    "total",
)
"""Parts of a stage in the order of its way. ``run`` holds copy_in, compute and copy_out, which are timed by the
device's clock where it has one; ``other`` is total minus the sum of the host's parts; ``total`` is the stage, without
``decode``, by the host's clock, after synchronisation."""

Count = Annotated[int, Meta(ge=0)]


class Estimate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A value with its 95 % bootstrap interval. ``low`` and ``high`` are None where there are too few samples."""

    value: float
    low: float | None = None
    high: float | None = None


class Proportion(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``count`` of ``total``, with Wilson's 95 % interval of the share. ``total`` is at least 1."""

    count: Count
    total: Annotated[int, Meta(ge=1)]
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.count / self.total


class Summary(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the samples of one measure say.

    ``n`` samples of ``tracks`` distinct tracks (0 where samples do not belong to tracks). ``percentiles`` has keys
    ``p50``, ``p90``, ``p95``, ``p99`` and lacks those that ``n`` samples cannot support
    (``statistics.smallest_count``); intervals are those of order statistics for a sample without tracks and of a
    bootstrap over tracks otherwise. ``mean`` is the mean over tracks of each track's median: what costs are summed
    from. ``scatter`` is that within a track: the median over tracks of interquartile range / median; None with
    fewer than four samples per track. ``drift`` is the median ratio, over tracks, of the second half of the passes to
    the first; None with fewer than four passes.
    """

    n: Annotated[int, Meta(ge=1)]
    tracks: Count
    min: float
    max: float
    mean: Estimate
    percentiles: dict[str, Estimate]
    scatter: float | None = None
    drift: float | None = None


class Measure(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that was timed, with its raw samples.

    Attributes:
        scenario: ``stage``, ``single-stream``, ``offline``, ``cold-start``, ``build``, ``null``, ``peers``.
        subject: what ran: ``cascade`` (the policy of the record's subject), ``ensemble`` (all its stages, always),
            ``single:NAME`` (stage NAME decides, with what its head needs), or a peer's ``name``.
        stage: a stage of the bundle; None where the measure is of whole tracks.
        part: one of PARTS for a stage; for whole tracks ``track`` (decode to verdict), ``decode``, ``throughput``, and
            ``cpu`` (processor time of all threads, which other programs disturb far less than wall time);
            for cold-start ``start``, ``import``, ``open``, ``first``, ``total``; free for peers.
        phase: ``cold`` is the first pass of a freshly opened cascade, ``warm`` all passes after the warm-up.
        clock: ``host`` or ``device``.
        unit: ``ms``, ``s``, ``tracks/min``.
        better: which direction is better.
        samples: raw, in the order in which they were taken.
        tracks: for each sample the index into ``Record.tracks``; empty where samples do not belong to tracks.
        passes: for each sample the number of its pass over the tracks (0, 1, …), or of its block.
    """

    scenario: str
    subject: str
    part: str
    unit: Literal["ms", "s", "tracks/min"]
    samples: Annotated[list[float], Meta(min_length=1)]
    passes: list[int]
    summary: Summary
    stage: str | None = None
    phase: Literal["cold", "warm"] = "warm"
    clock: Literal["host", "device"] = "host"
    better: Literal["lower", "higher"] = "lower"
    tracks: list[int] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Names the measure within a record, such as ``stage/single:fma/fma/features/warm/host``."""
        return "/".join((self.scenario, self.subject, self.stage or "-", self.part, self.phase, self.clock))


class Run(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scenario with one subject, as it ran.

    Attributes:
        wall_seconds: of the measured passes, without warm-up.
        warm_up: passes (for cold-start: processes) before, whose times are not in warm measures.
        passes: measured passes over the tracks, or processes or builds.
        count: tracks measured, over all passes.
        cpu_seconds: processor time of this process (and, for cold-start and build, its children).
        other_cpu: processors' worth of time that everything else on the machine used meanwhile; None if unknown.
        involuntary_switches: times that the scheduler took the processor away; None if unknown.
        host_peak_bytes: largest resident set while it ran, or of the largest child; None if it cannot be known.
        device_peak_bytes: largest use of device memory that was sampled while it ran; None if unknown.
        power_watts: mean power while it ran, by ``power_source``; None where there is no sensor.
        joules_per_track: power × wall time / tracks; None where there is no sensor.
        clocks_mhz: processor and device clocks that were sampled, lowest and highest, by sensor.
        temperatures: lowest and highest in °C, by sensor.
        throttled: reasons that the device gave for lowering its clocks.
        notes: what else must be known, such as how long a minimum was not met.
    """

    scenario: str
    subject: str
    wall_seconds: float
    warm_up: Count
    passes: Count
    count: Count
    cpu_seconds: float | None = None
    other_cpu: float | None = None
    involuntary_switches: int | None = None
    host_peak_bytes: int | None = None
    device_peak_bytes: int | None = None
    power_watts: Estimate | None = None
    power_source: str | None = None
    joules_per_track: float | None = None
    clocks_mhz: dict[str, tuple[float, float]] = field(default_factory=dict)
    temperatures: dict[str, tuple[float, float]] = field(default_factory=dict)
    throttled: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class TrackEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One track: its name relative to what was named on the command line, its label, and how the cascade answered.

    ``seconds`` is what the stages heard at most; ``status``, ``genre``, ``decided_by`` are the cascade's verdict.
    """

    name: str
    label: str | None = None
    status: str | None = None
    genre: str | None = None
    decided_by: str | None = None
    seconds: float | None = None


class StepRecord(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See policy.Step."""

    after: str
    weights: dict[str, float]
    accept: float | None = None


class PolicyRecord(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See policy.Policy."""

    name: str
    vote: str
    steps: list[StepRecord]


class Subject(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was measured. All of it must be equal for two records to be compared without ``--anyway``.

    ``bundle_sha256`` is the manifest's digest, which holds the hash of every file. ``engines`` maps a stage to the
    sha256 of the engine that ran it (empty on devices without engines). ``precisions`` maps a stage to the file that
    ran it. ``data_sha256`` covers the sorted relative names and, by ``data_digest_of``, each track's content
    (``content``) or size and time of change (``size+mtime``). ``machine`` names processor, cores and GPU.
    """

    bundle: str
    bundle_sha256: str
    genres: list[str]
    policy: PolicyRecord
    device: str
    data_sha256: str
    data_digest_of: Literal["content", "size+mtime"]
    scenarios: list[str]
    machine: str
    precisions: dict[str, str] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    synthetic: bool = False
    """True for a bundle with untrained weights: times mean something, answers nothing."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How it was measured. A run of a scenario ends when both minima are met, after a whole pass."""

    min_seconds: float
    min_count: Count
    warm_up: Count
    jobs: Count
    threads: Count
    batch: Count
    seed: int
    resamples: Count


class Environment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and with what it ran. Absent values are None, never guessed.

    ``machine_before`` and ``machine_after`` are ``edge_reclass_doctor.machine.probe()`` as plain values (see there);
    ``thread_variables`` are OMP_NUM_THREADS and the like where set; ``load_before`` and ``load_after`` are the 1, 5 and
    15 minute load averages; ``notes`` are the cascade's own (``auto`` chose, a stage runs elsewhere).
    """

    created: str
    """UTC, ISO 8601."""
    command: list[str]
    version: str
    python: str
    libraries: dict[str, str]
    thread_variables: dict[str, str]
    machine_before: dict[str, Any]
    machine_after: dict[str, Any]
    load_before: list[float] | None = None
    load_after: list[float] | None = None
    commit: str | None = None
    """git commit of the checkout, with ``+`` where tracked files differ from it; None outside a checkout."""
    notes: list[str] = field(default_factory=list)


class StageAnswers(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one stage said about every track, asked alone.

    ``probabilities[i]`` belongs to ``Record.tracks[i]``, in the order of ``Subject.genres``; None where the track has
    no answer. ``needs`` are the stages whose embeddings its head takes. ``signal`` names excerpt and rate: stages of
    one signal resample it once.
    """

    stage: str
    needs: list[str]
    signal: str
    probabilities: list[list[float] | None]


class StageFlow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stage of the cascade: how many tracks entered, how many left decided, and what it costs.

    ``alone`` is the stage's mean cost per track in milliseconds, over all tracks (without decode); ``inside`` is the
    mean over the tracks that entered it within the cascade; None where none did.
    """

    stage: str
    entered: Count
    exited: Count
    reach: Proportion
    alone: Estimate | None = None
    inside: Estimate | None = None


class Expected(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cascade's cost per track in milliseconds: expected from its parts, and measured.

    ``expected`` = decode + Σ reach(stage) × cost(stage alone), means over all tracks: it takes the tracks that go on to
    be as costly as all others. ``replayed`` adds up, track by track, the stages that the track entered. ``measured`` is
    the cascade end to end. What ``measured`` has over ``replayed`` is what the cascade itself costs (and noise).
    """

    decode: Estimate
    expected: Estimate
    replayed: Estimate
    measured: Estimate


class Baseline(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to classify the same tracks: the cascade, the full ensemble, or a single stage.

    ``milliseconds`` is the mean per track, ``relative`` the ratio to the full ensemble (paired by track).
    ``agreement`` is with the full ensemble's genres. ``accuracy`` and ``macro_f1`` are there where labels are;
    macro-F1 is the mean over the genres that occur among the labels.
    """

    name: str
    stages: list[str]
    milliseconds: Estimate
    relative: Estimate | None = None
    agreement: Proportion | None = None
    accuracy: Proportion | None = None
    macro_f1: Estimate | None = None


class Accounting(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cascade's books. ``replay_agrees`` counts replayed verdicts that equal the measured ones: all must."""

    answered: Count
    statuses: dict[str, int]
    flow: list[StageFlow]
    expected: Expected | None
    baselines: list[Baseline]
    replay_agrees: Proportion | None = None


class Order(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One order of the stages at one operating point, replayed from the recorded answers.

    ``rule`` says where the thresholds come from: ``given`` (the policy itself), ``carried`` (the policy's thresholds by
    position, its last weights), ``tuned`` (the cheapest thresholds whose agreement with the full ensemble is at least
    ``target``). ``relative`` is the cost divided by that of the policy's own order under the same rule; for ``tuned``
    its interval repeats the choice of thresholds in every resample.
    """

    stages: list[str]
    rule: Literal["given", "carried", "tuned"]
    accepts: list[float]
    milliseconds: Estimate
    reach: list[float]
    agreement: Proportion
    target: float | None = None
    relative: Estimate | None = None
    accuracy: Proportion | None = None
    macro_f1: Estimate | None = None


class Peer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Another program that did the same task on the same tracks, in turn with ours.

    Its measures are in ``Record.measures`` with scenario ``peers`` and its ``name`` as subject. ``ours`` is the key of
    the measure of edge-reclass that does the same task, taken in the same turns. ``ratio`` is peer / ours, paired by
    track. ``reason`` says why there are no measures.
    """

    name: str
    task: str
    title: str
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    ours: str | None = None
    ratio: Estimate | None = None
    reason: str | None = None


class Absent(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that was asked for, or that belongs into a record, and is not there."""

    what: str
    reason: str


class Record(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run of the harness. See the module's text for the parts."""

    kind: Literal["edge-reclass-bench"]
    format: Literal[1]
    subject: Subject
    settings: Settings
    environment: Environment
    tracks: list[TrackEntry]
    measures: list[Measure]
    runs: list[Run]
    answers: list[StageAnswers] = field(default_factory=list)
    accounting: Accounting | None = None
    orders: list[Order] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def find(
        self,
        scenario: str | None = None,
        subject: str | None = None,
        stage: str | None = None,
        part: str | None = None,
        phase: str | None = "warm",
        clock: str | None = None,
    ) -> Iterator[Measure]:
        """Measures that have every property given, in the record's order; None takes any."""
        wanted = {
            "scenario": scenario,
            "subject": subject,
            "stage": stage,
            "part": part,
            "phase": phase,
            "clock": clock,
        }
        for measure in self.measures:
            if all(value is None or getattr(measure, name) == value for name, value in wanted.items()):
                yield measure


def save(record: Record, path: Path) -> None:
    """Write ``record`` as JSON; ``path`` appears complete or not at all.

    Raises:
        UsageError: the folder cannot be written, or ``path`` is a folder.
        EdgeReclassError: writing failed midway.
    """
    if wrong := list(faults(record)):
        raise EdgeReclassError(f"{path}: the record would not be valid: " + "; ".join(wrong))
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    target = path.resolve()
    if target.is_dir():
        raise UsageError(f"--output {path}: expected a file, got a folder; name a file in it")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be written ({error.strerror}); name another file") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.write(b"\n")
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        raise EdgeReclassError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        UsageError: the file cannot be read, is no JSON, is no record, is of another format, or its parts do not fit
            together. The message names file and key.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); expected a file that bench run wrote") from error
    try:
        plain = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid JSON: {error}; expected a file that bench run wrote") from error
    if not isinstance(plain, dict) or plain.get("kind") != KIND:
        raise UsageError(f"{path}: expected a record of bench run (kind: {KIND!r}), got another JSON file")
    if plain.get("format") != FORMAT:
        raise UsageError(
            f"{path}: key format: expected {FORMAT}, got {plain.get('format')!r}; "
            "read it with the edge-reclass that wrote it, or measure again"
        )
    try:
        record = msgspec.convert(plain, Record)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from error
    if wrong := list(faults(record)):
        raise UsageError(f"{path}: " + "; ".join(wrong))
    return record


def faults(record: Record) -> Iterator[str]:
    """What does not fit together in a record of the right types: one sentence each."""
    seen: set[str] = set()
    for measure in record.measures:
        if measure.key in seen:
            yield f"measures: {measure.key} is there twice"
        seen.add(measure.key)
        n = len(measure.samples)
        if len(measure.passes) != n:
            yield f"{measure.key}: expected {n} passes for {n} samples, got {len(measure.passes)}"
        if measure.tracks and len(measure.tracks) != n:
            yield f"{measure.key}: expected {n} track numbers for {n} samples, got {len(measure.tracks)}"
        if any(not 0 <= track < len(record.tracks) for track in measure.tracks):
            yield f"{measure.key}: a track number is not below {len(record.tracks)}"
        if measure.summary.n != n:
            yield f"{measure.key}: the summary counts {measure.summary.n} of {n} samples"
        if not _finite(measure.samples):
            yield f"{measure.key}: samples must be finite"
    for answers in record.answers:
        if len(answers.probabilities) != len(record.tracks):
            yield (
                f"answers of {answers.stage}: expected {len(record.tracks)} rows, one per track, "
                f"got {len(answers.probabilities)}"
            )
        width = len(record.subject.genres)
        if any(row is not None and len(row) != width for row in answers.probabilities):
            yield f"answers of {answers.stage}: expected {width} probabilities per row, one per genre"


def _finite(values: Iterable[float]) -> bool:
    return all(abs(value) < float("inf") for value in values)
