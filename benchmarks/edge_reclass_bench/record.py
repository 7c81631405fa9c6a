"""The record of one ``bench run``: versioned JSON that holds raw samples, what was measured, on what, and how.

A record holds nothing that can be computed from it: summaries, the cascade's costs and comparisons are made from its
samples whenever it is read (``books.py``). Its ``digest`` covers everything else, so that a record that was edited, cut
or mixed up is refused; it proves nothing about who wrote it. Loading is strict: an unknown key, a wrong type or a wrong
format is an error that names the file and the key.

    Record
    ├── subject       what must be equal for two records to be comparable, and the machine
    ├── settings      how long, how often, how many threads
    ├── environment   libraries, load, and the doctor's view of the machine before and after
    ├── tracks        names, labels and statuses; samples point into this list
    ├── measures      one per thing timed: raw samples
    ├── runs          one per scenario and subject: wall time, warm-up, memory, other load
    ├── series        power, clocks and temperatures over time, of ``energy`` and ``sustained``
    ├── answers       each subject's genre, and each stage's probabilities, for each track
    ├── files         what each stage's precisions weigh, and how often they agree with FP32
    ├── peers         other programs on the same tracks in the same run
    ├── absent        what was asked for and is not here, each with its reason
    └── warnings      why a sceptic should not trust a figure, as far as only the run knew it

Units stand in every measure; times are milliseconds unless a name says otherwise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.host import write_whole
from edge_reclass_bench.values import Count

FORMAT: Final = 2
KIND: Final = "edge-reclass-bench"

PARTS: Final = (
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

Unit = Literal["ms", "s", "tracks/min", "J", "GFLOP/s", "GB/s"]


class Plain(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything in a record."""


class Measure(Plain, frozen=True, kw_only=True):
    """One thing that was timed, with its raw samples.

    Attributes:
        scenario: one of ``scenarios.SCENARIOS``, or ``peers``.
        subject: what ran: ``cascade`` (the policy of the record's subject), ``ensemble`` (all its stages, always),
            ``single:NAME`` (stage NAME decides, with what its head needs), or a peer's ``name``.
        stage: a stage of the bundle; None where the measure is of whole tracks.
        part: one of PARTS for a stage; for whole tracks ``track`` (decode to verdict), ``decode``, ``throughput``, and
            ``cpu`` (processor time of all threads); for ``cold-start`` ``start``, ``import``, ``open``, ``first``,
            ``total``; free for others.
        phase: ``cold`` is the first track of a freshly opened cascade, ``warm`` all passes after the warm-up.
        samples: raw, in the order in which they were taken.
        tracks: for each sample the index into ``Record.tracks``; empty where samples do not belong to tracks.
        passes: for each sample the number of its pass over the tracks (0, 1, …), or of its block.
        processes: for each sample the number of the process that took it.
    """

    scenario: str
    subject: str
    part: str
    unit: Unit
    samples: Annotated[list[float], Meta(min_length=1)]
    passes: list[int]
    processes: list[int]
    stage: str | None = None
    phase: Literal["cold", "warm"] = "warm"
    clock: Literal["host", "device"] = "host"
    better: Literal["lower", "higher"] = "lower"
    tracks: list[int] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Names the measure within a record, such as ``stage/single:fma/fma/features/warm/host``."""
        return "/".join((self.scenario, self.subject, self.stage or "-", self.part, self.phase, self.clock))


class Run(Plain, frozen=True, kw_only=True):
    """One scenario with one subject, as it ran, in all processes together.

    Attributes:
        wall_seconds: of the measured passes, without warm-up.
        warm_up: passes before, per process, whose times are not in warm measures.
        passes: measured passes over the tracks, or processes or builds, of all processes.
        count: tracks that were answered, over all passes.
        failed: tracks that were tried and have no answer, over all passes.
        cpu_seconds: processor time of what was measured.
        other_cpu: processors' worth of time that everything else on the machine used meanwhile; None if unknown.
        involuntary_switches: times that the scheduler took the processor away; None if unknown.
        host_peak_bytes: largest resident set of a process while it ran; None if it cannot be known.
        device_peak_bytes: largest use of device memory that was sampled while it ran; None if unknown.
        throttled: reasons that the device gave for lowering its clocks.
        notes: what else must be known, such as that a limit of time ended it.
    """

    scenario: str
    subject: str
    wall_seconds: float
    warm_up: Count
    passes: Count
    count: Count
    failed: Count = 0
    cpu_seconds: float | None = None
    other_cpu: float | None = None
    involuntary_switches: int | None = None
    host_peak_bytes: int | None = None
    device_peak_bytes: int | None = None
    throttled: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Series(Plain, frozen=True, kw_only=True):
    """Readings over time, taken while one subject ran back to back.

    Attributes:
        phase: ``idle`` before, or ``busy``.
        seconds: when each reading was taken, from the beginning of the phase.
        values: by sensor, as many as ``seconds``; ``watts`` by ``power_source``, ``mhz:…``, ``celsius:…``; None where a
            reading failed.
        began, ended: the span in which the subject ran, on the clock of ``seconds``.
        count: tracks that were answered in it.
        finished: when each of them was, on the clock of ``seconds``.
    """

    scenario: str
    subject: str
    phase: Literal["idle", "busy"]
    seconds: list[float]
    values: dict[str, list[float | None]]
    began: float
    ended: float
    count: Count = 0
    finished: list[float] = field(default_factory=list)
    power_source: str | None = None


class TrackEntry(Plain, frozen=True, kw_only=True):
    """One track: its name relative to what was named on the command line, its label, and how the cascade answered.

    ``seconds`` is what the stages heard at most; ``status``, ``genre``, ``decided_by`` are the cascade's verdict.
    ``entered`` are the stages that it went through; ``windows`` how many windows each of them heard, and of how many.
    """

    name: str
    label: str | None = None
    status: str | None = None
    genre: str | None = None
    decided_by: str | None = None
    seconds: float | None = None
    entered: list[str] = field(default_factory=list)
    windows: list[tuple[Count, Annotated[int, Meta(ge=1)]]] = field(default_factory=list)


class StepRecord(Plain, frozen=True, kw_only=True):
    """See ``cascade.Step``."""

    after: str
    weights: dict[str, float]
    accept: float | None = None
    windows: Annotated[int, Meta(ge=1)] | None = None


class PolicyRecord(Plain, frozen=True, kw_only=True):
    """See ``cascade.Policy``."""

    name: str
    vote: str
    steps: list[StepRecord]

    @property
    def stages(self) -> list[str]:
        """The stages in running order."""
        return list(dict.fromkeys(step.after for step in self.steps))


class Machine(Plain, frozen=True, kw_only=True):
    """What two records must share for their times to be comparable. None where it cannot be known.

    Attributes:
        cpu: maker, family, model and stepping; its name alone, which a virtual machine may hide, says too little.
        instructions: the widest sets of instructions that programs here choose by.
        caches: size of each level, as the first processor sees it.
        cores: that this process may use.
        power_mode: of a Jetson; else the frequency governor.
        clocks: ``locked at N MHz`` or ``N to M MHz`` of the processor, and behind a comma of a board's GPU.
    """

    cpu: str
    instructions: list[str]
    caches: list[str]
    cores: Annotated[int, Meta(ge=1)]
    kernel: str
    board: str | None = None
    gpu: str | None = None
    driver: str | None = None
    cuda: str | None = None
    tensorrt: str | None = None
    power_mode: str | None = None
    clocks: str | None = None


class Subject(Plain, frozen=True, kw_only=True):
    """What was measured, and where. All of it must be equal for two records to be compared without ``--anyway``.

    ``bundle_sha256`` is the manifest's digest, which holds the hash of every file. ``engines`` maps a stage to the
    sha256 of the engine that ran it (empty on devices without engines). ``precisions`` maps a stage to the file that
    ran it. ``data_sha256`` covers the sorted relative names and, by ``data_digest_of``, each track's content
    (``content``) or size and time of change (``size+mtime``).
    """

    bundle: str
    bundle_sha256: str
    genres: list[str]
    policy: PolicyRecord
    device: str
    data_sha256: str
    data_digest_of: Literal["content", "size+mtime"]
    machine: Machine
    precisions: dict[str, str] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    synthetic: bool = False
    """True for a bundle with untrained weights: times mean something, answers nothing."""


class Settings(Plain, frozen=True, kw_only=True):
    """How it was measured.

    Processes are started until there are ``processes`` of them and the measurement error of the headlines is at most
    ``precision``, or until ``max_seconds`` are over. Each gives every subject at least ``min_passes`` passes.
    """

    processes: Annotated[int, Meta(ge=1)]
    precision: float
    max_seconds: float
    min_passes: Annotated[int, Meta(ge=1)]
    warm_up: Count
    jobs: Count
    threads: Count
    batch: Count
    seed: Count


class Environment(Plain, frozen=True, kw_only=True):
    """With what it ran. Absent values are None, never guessed.

    ``code_sha256`` covers the modules of edge-reclass as they were installed, whatever a checkout around them says.
    ``machine_before`` and ``machine_after`` are the doctor's probe as plain values; ``thread_variables`` are
    OMP_NUM_THREADS and the like where set; ``load_before`` and ``load_after`` are the 1, 5 and 15 minute load averages;
    ``notes`` are the cascade's own (``auto`` chose, a stage runs elsewhere).
    """

    created: str
    """UTC, ISO 8601."""
    command: list[str]
    version: str
    code_sha256: str
    python: str
    libraries: dict[str, str]
    thread_variables: dict[str, str]
    machine_before: dict[str, Any]
    machine_after: dict[str, Any]
    load_before: Annotated[list[float], Meta(min_length=1)] | None = None
    load_after: Annotated[list[float], Meta(min_length=1)] | None = None
    notes: list[str] = field(default_factory=list)


class Answers(Plain, frozen=True, kw_only=True):
    """What one subject said about every track; None where a track has no answer.

    ``genres[i]`` belongs to ``Record.tracks[i]``. For a single stage, ``probabilities[i]`` are its own, in the order of
    ``Subject.genres``; ``needs`` are the stages whose embeddings its head takes; ``signal`` names excerpt and rate:
    stages of one signal resample it once.
    """

    subject: str
    genres: list[str | None]
    probabilities: list[list[float] | None] | None = None
    needs: list[str] = field(default_factory=list)
    signal: str | None = None


class StageFile(Plain, frozen=True, kw_only=True):
    """One precision of one stage: what it weighs, and on how many of the tracks it says the same genre as FP32."""

    stage: str
    precision: str
    bytes: Count
    kind: Literal["onnx", "engine"]
    agrees: Count | None = None
    of: Count | None = None


class Peer(Plain, frozen=True, kw_only=True):
    """Another program that did the same task on the same tracks, in turn with ours.

    Its measures are in ``Record.measures`` with scenario ``peers`` and its ``name`` as subject. ``ours`` is the key of
    the measure of edge-reclass that does the same task, taken in the same turns. ``reason`` says why there are no
    measures.
    """

    name: str
    task: str
    title: str
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    ours: str | None = None
    reason: str | None = None


class Absent(Plain, frozen=True, kw_only=True):
    """Something that was asked for, or that belongs into a record, and is not there."""

    what: str
    reason: str


class Record(Plain, frozen=True, kw_only=True):
    """One run of the harness. See the module's text for the parts."""

    kind: Literal["edge-reclass-bench"]
    format: Literal[2]
    subject: Subject
    settings: Settings
    environment: Environment
    tracks: list[TrackEntry]
    measures: list[Measure]
    runs: list[Run]
    series: list[Series] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    files: list[StageFile] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    complete: bool = True
    """False while it is being measured, and where that was broken off."""
    digest: str = ""
    """sha256 over all other keys; see :func:`digest_of`."""

    def find(self, phase: str | None = "warm", **wanted: str | None) -> Iterator[Measure]:
        """Measures that have every property in ``wanted``, in the record's order; a phase of None takes any."""
        for measure in self.measures:
            if (phase is None or measure.phase == phase) and all(
                getattr(measure, name) == value for name, value in wanted.items()
            ):
                yield measure


def digest_of(plain: Mapping[str, Any]) -> str:
    """The sha256 of a record's keys, with an empty digest, as JSON with sorted keys and no spaces.

    Of what is in the file: a key that a later schema adds does not change it.
    """
    return hashlib.sha256(msgspec.json.encode({**plain, "digest": ""}, order="sorted")).hexdigest()


def save(record: Record, path: Path) -> None:
    """Write ``record`` as JSON with its digest; ``path`` appears complete or not at all.

    Raises:
        UsageError: it cannot be written, or ``path`` is a folder.
        EdgeReclassError: the record would not be valid.
    """
    if wrong := list(faults(record)):
        raise EdgeReclassError(f"{path}: the record would not be valid: " + "; ".join(wrong))
    plain = msgspec.to_builtins(record)
    text = msgspec.json.format(msgspec.json.encode({**plain, "digest": digest_of(plain)}), indent=1)
    write_whole(path, text + b"\n")


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        UsageError: the file cannot be read, is no JSON, is no record, is of another format, was changed since it was
            written, or its parts do not fit together. The message names file and key.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); expected a file that bench run wrote") from error
    try:
        plain = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
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
    if record.digest != digest_of(plain):
        raise UsageError(f"{path}: its digest does not match: it was changed after it was written; measure again")
    return record


def faults(record: Record) -> Iterator[str]:
    """What does not fit together in a record of the right types: one sentence each."""
    seen: set[str] = set()
    for measure in record.measures:
        if measure.key in seen:
            yield f"measures: duplicate {measure.key}"
        seen.add(measure.key)
        n = len(measure.samples)
        for name in ("passes", "processes", "tracks"):
            numbers = getattr(measure, name)
            if len(numbers) != n and (numbers or name != "tracks"):
                yield f"{measure.key}: expected {n} {name} for {n} samples, got {len(numbers)}"
        if any(not 0 <= track < len(record.tracks) for track in measure.tracks):
            yield f"{measure.key}: a track number is not below {len(record.tracks)}"
        if not measure.tracks and measure.scenario in {"stage", "single-stream"}:
            yield f"{measure.key}: expected a track for each sample, got none"
        # What no part explains is a difference, and may fall below zero.
        if not all(math.isfinite(value) and (value > 0 or measure.part == "other") for value in measure.samples):
            yield f"{measure.key}: samples must be finite and above 0"
    for track in record.tracks:
        if track.windows and len(track.windows) != len(track.entered):
            yield f"{track.name}: expected windows of {len(track.entered)} stages, got {len(track.windows)}"
    for series in record.series:
        for name, values in series.values.items():
            if len(values) != len(series.seconds):
                yield f"series of {series.scenario}: {name} has {len(values)} values for {len(series.seconds)} seconds"
        if sorted(series.seconds) != series.seconds or not series.began <= series.ended:
            yield f"series of {series.scenario}: its times do not rise"
    for file in record.files:
        if file.agrees is not None and file.of is not None and file.agrees > file.of:
            yield f"files: {file.stage} in {file.precision} agrees on {file.agrees} of {file.of} tracks"
    width = len(record.subject.genres)
    for answers in record.answers:
        for name in ("genres", "probabilities"):
            rows = getattr(answers, name)
            if rows is not None and len(rows) != len(record.tracks):
                wanted = f"expected {len(record.tracks)} {name}, one per track"
                yield f"answers of {answers.subject}: {wanted}, got {len(rows)}"
        if any(row is not None and len(row) != width for row in answers.probabilities or ()):
            yield f"answers of {answers.subject}: expected {width} probabilities per row, one per genre"
