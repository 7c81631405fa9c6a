"""The manifest: its schema, and what has to fit together in it.

The schema is the msgspec structs below; ``manifest_text`` writes what ``load`` reads. Sizes: ``limits.py``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from edge_reclass.bundle.encoders import EncoderEntry, Seconds
from edge_reclass.bundle.limits import (
    MAX_EXCERPT_SECONDS,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_GENRES,
    MAX_POLICIES,
    MAX_STAGES,
    MAX_START_SECONDS,
    MAX_WEIGHT,
    MAX_WINDOW_SECONDS,
    MAX_WINDOWS,
    text_faults,
)
from edge_reclass.bundle.strict_yaml import dump_yaml
from edge_reclass.errors import BundleError

FORMAT = 1
MANIFEST = "bundle.yaml"

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}\Z")]
PolicyName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
GenreName = Annotated[str, Meta(min_length=1)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class ExcerptEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What to look at: ``seconds`` from ``start`` (seconds, or ``center``), or the ``full`` track."""

    start: Annotated[float, Meta(ge=0, le=MAX_START_SECONDS)] | Literal["center"] | None = None
    seconds: Seconds | None = None
    full: bool = False


class RangeEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """A test of whether an embedding lies within what the head was fitted on.

    An ONNX graph features[1, k] → distance[1, 1] on the concatenated embeddings of ``inputs``, which are among the
    head's; a distance above ``limit`` is outside.
    """

    file: str
    inputs: Annotated[list[str], Meta(min_length=1)]
    limit: Annotated[float, Meta(gt=0)]


Share = Annotated[float, Meta(gt=0, le=1)]


class HeadEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """An ONNX graph features[1, k] → logits[1, genres] on the concatenated embeddings of ``inputs``.

    ``genres``: the head's own, in the order of its logits; None: they are the bundle's. ``map`` then says of each of
    them which genre of the bundle it is, or which genres with which shares, or null where it is none.
    """

    file: str
    inputs: Annotated[list[str], Meta(min_length=1)]
    temperature: Annotated[float, Meta(ge=1e-3, le=1e3)] = 1.0
    range: RangeEntry | None = None
    genres: Annotated[list[GenreName], Meta(min_length=2, max_length=MAX_GENRES)] | None = None
    map: dict[str, str | dict[str, Share] | None] | None = None

    def classes(self, genres: Sequence[str]) -> int:
        """How many logits the head gives, in a bundle with ``genres``."""
        return len(genres if self.genres is None else self.genres)

    def shares(self, genre: str) -> dict[str, float]:
        """Which genres of the bundle one of the head's own ``genres`` counts for; the shares sum to 1, or none do."""
        to = (self.map or {})[genre]
        if to is None:
            return {}
        if isinstance(to, str):
            return {to: 1.0}
        total = math.fsum(to.values())
        return {name: share / total for name, share in to.items()}


class StageEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Encoder and head; ``excerpt`` overrides the bundle's.

    ``loudness``: every window is brought to it, in dB of full scale (RMS of its active frames, see loudness.py), and
    its constant offset taken off; None: as the file has it.
    """

    name: Name
    encoder: EncoderEntry
    head: HeadEntry
    excerpt: ExcerptEntry | None = None
    loudness: Annotated[float, Meta(ge=-60, le=0)] | None = None


class StepEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """See policy.Step."""

    after: str
    weights: dict[str, Annotated[float, Meta(ge=0, le=MAX_WEIGHT)]]
    accept: float | None = None
    windows: Annotated[int, Meta(ge=1, le=MAX_WINDOWS)] | Literal["all"] | None = None


class PolicyEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """See policy.Policy."""

    vote: Name
    steps: Annotated[list[StepEntry], Meta(min_length=1)]


class CountEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True, kw_only=True):
    """What was counted for a certificate: on one device, of so many ``tracks``, one of each artist.

    ``ran`` is the device and precision of each stage with a graph, as ``cpu fp32``; ``graphs`` the sha256 of its file.
    ``p_value``: probability of so few ``mistakes`` or fewer, if the risk were the certificate's ``epsilon``; it is the
    last of ``tested`` policies that were tested in a fixed order. ``unsure`` verdicts are among the tracks. ``known``:
    tracks that the heads seem to have been fitted on. ``program`` decoded and listened.
    """

    ran: dict[str, str]
    graphs: dict[str, Digest]
    tracks: Annotated[int, Meta(ge=1)]
    mistakes: Annotated[int, Meta(ge=0)]
    p_value: Annotated[float, Meta(ge=0, le=1)]
    tested: Annotated[int, Meta(ge=1)]
    data_sha256: Digest
    seed: Annotated[int, Meta(ge=0)]
    program: str
    unsure: Annotated[int, Meta(ge=0)] = 0
    known: Annotated[int, Meta(ge=0)] = 0


class CertificateEntry(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """With probability 1 − ``delta``, the ``risk`` of ``policy`` on tracks like the counted ones is ≤ ``epsilon``.

    ``disagreement``: another answer than all stages would have given. ``error``: a wrong genre. ``error_if_sure``: a
    wrong genre among the tracks that get one. The three digests say what it holds for (``certificate.py``).
    ``chosen_on``: 10 digits of a digest of the sound of each track of the artists that the thresholds were chosen on.
    """

    policy: PolicyName
    risk: Literal["disagreement", "error", "error_if_sure"]
    epsilon: Annotated[float, Meta(gt=0, lt=1)]
    delta: Annotated[float, Meta(gt=0, lt=1)]
    policy_sha256: Digest
    heads_sha256: Digest
    encoders_sha256: Digest
    assumes: list[str]
    chosen_on: Annotated[str, Meta(pattern=r"^([0-9a-f]{10})+\Z")]
    counts: Annotated[list[CountEntry], Meta(min_length=1)]


class FileEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """What a file of the bundle must be."""

    sha256: Digest
    bytes: Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]


class Manifest(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True, kw_only=True):
    """bundle.yaml, whose keys are written in this order.

    ``reference`` is the file with what the whole cascade answers to made audio.
    """

    format: Literal[1]
    name: Annotated[str, Meta(min_length=1)]
    genres: Annotated[list[GenreName], Meta(min_length=2, max_length=MAX_GENRES)]
    excerpt: ExcerptEntry = ExcerptEntry(start="center", seconds=30.0)
    min_confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Below it a verdict is ``unsure``; 0 turns ``unsure`` off altogether."""
    stages: Annotated[list[StageEntry], Meta(min_length=1, max_length=MAX_STAGES)]
    policies: Annotated[dict[PolicyName, PolicyEntry], Meta(min_length=1, max_length=MAX_POLICIES)]
    default_policy: str
    certificates: list[CertificateEntry] = []
    reference: str | None = None
    provenance: dict[str, Any] = {}
    files: Annotated[dict[str, FileEntry], Meta(max_length=MAX_FILES)]

    def stage(self, name: str) -> StageEntry:
        """The stage called ``name``; KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


def validate(manifest: Manifest) -> Iterator[str]:
    """What does not fit together in a manifest of the right types: one sentence each."""
    names = [stage.name for stage in manifest.stages]
    yield from (f"stages: duplicate name {name!r}" for name, n in Counter(names).items() if n > 1)
    for where, text in (("name", manifest.name), *(("genres", genre) for genre in manifest.genres)):
        yield from (f"{where}: expected no {fault}, got {text!r}" for fault in text_faults(text))
    yield from (f"genres: duplicate {genre!r}" for genre, n in Counter(manifest.genres).items() if n > 1)
    yield from _excerpt_faults("excerpt", manifest.excerpt)
    for stage in manifest.stages:
        yield from _stage_faults(stage, names)
        yield from genre_faults(f"stages.{stage.name}.head", stage.head, manifest.genres)
        yield from _size_faults(stage, stage.excerpt or manifest.excerpt)
    if manifest.default_policy not in manifest.policies:
        yield f"default_policy: expected one of {', '.join(manifest.policies)}, got {manifest.default_policy!r}"
    yield from _certificate_faults(manifest)
    used = set(_used_files(manifest))
    yield from (f"files: {file} is used by a stage but not listed" for file in sorted(used - set(manifest.files)))
    for file in sorted(used | set(manifest.files)):
        pure = PurePosixPath(file)
        plain = not pure.is_absolute() and ".." not in pure.parts and "\\" not in file and str(pure) == file != "."
        if not plain or file == MANIFEST or any(text_faults(file)):
            yield f"files: expected a plain relative path inside the bundle, got {file!r}"


def _certificate_faults(manifest: Manifest) -> Iterator[str]:
    for i, one in enumerate(manifest.certificates):
        if one.policy not in manifest.policies:
            yield f"certificates[{i}].policy: expected one of {', '.join(manifest.policies)}, got {one.policy!r}"
        for count in one.counts:
            if count.mistakes > count.tracks:
                yield f"certificates[{i}].counts: {count.mistakes} mistakes in {count.tracks} tracks"
    pairs = Counter((one.policy, one.risk) for one in manifest.certificates)
    yield from (f"certificates: {n} of {risk} for the policy {name}" for (name, risk), n in pairs.items() if n > 1)


def _excerpt_faults(where: str, excerpt: ExcerptEntry) -> Iterator[str]:
    if excerpt.full and (excerpt.start is not None or excerpt.seconds is not None):
        yield f"{where}: full: true cannot be combined with start or seconds"
    if not excerpt.full and excerpt.seconds is None:
        yield f"{where}: expected seconds, or full: true"


def _stage_faults(stage: StageEntry, names: list[str]) -> Iterator[str]:
    where, encoder = f"stages.{stage.name}", stage.encoder
    if stage.excerpt is not None:
        yield from _excerpt_faults(f"{where}.excerpt", stage.excerpt)
    window, hop = encoder.window_samples, encoder.hop_samples
    if (window is None) != (hop is None):
        yield f"{where}.encoder: window_samples and hop_samples go together"
    if window is not None and hop is not None and hop > window:
        yield f"{where}.encoder: expected hop_samples ≤ window_samples ({window}), got {hop}"
    if encoder.rate == "native" and window is not None:
        yield f"{where}.encoder: windows are counted in samples of a fixed rate; rate: native takes the whole excerpt"
    yield from (f"{where}.encoder.{fault}" for fault in encoder.faults())
    unknown = [name for name in stage.head.inputs if name not in names]
    if unknown:
        yield f"{where}.head.inputs: expected names of {', '.join(names)}, got {', '.join(unknown)}"
    if len(set(stage.head.inputs)) != len(stage.head.inputs):
        yield f"{where}.head.inputs: duplicate stage in {', '.join(stage.head.inputs)}"
    if (test := stage.head.range) is not None:
        if not set(test.inputs) <= set(stage.head.inputs):
            yield (
                f"{where}.head.range.inputs: expected names of the head's inputs {', '.join(stage.head.inputs)}, "
                f"got {', '.join(test.inputs)}"
            )
        if len(set(test.inputs)) != len(test.inputs):
            yield f"{where}.head.range.inputs: duplicate stage in {', '.join(test.inputs)}"
        if not math.isfinite(test.limit):
            yield f"{where}.head.range.limit: expected a finite number, got {test.limit}"


_SHARES_ROUNDED = 1e-3
"""How far a sum of shares may be from 1, as 0.333 three times is."""


def genre_faults(where: str, head: HeadEntry, genres: Sequence[str]) -> Iterator[str]:
    """What is wrong with a head's own genres and their map to the bundle's ``genres``."""
    if head.genres is None or head.map is None:
        if (head.genres is None) != (head.map is None):
            yield f"{where}: genres and map go together"
        return
    for genre in head.genres:
        yield from (f"{where}.genres: expected no {fault}, got {genre!r}" for fault in text_faults(genre))
    yield from (f"{where}.genres: duplicate {genre!r}" for genre, n in Counter(head.genres).items() if n > 1)
    if missing := [genre for genre in head.genres if genre not in head.map]:
        yield f"{where}.map: says nothing of {', '.join(missing)}; expected a genre of the bundle, or null for none"
    if unknown := [genre for genre in head.map if genre not in head.genres]:
        yield f"{where}.map: expected the head's own genres {', '.join(head.genres)}, got {', '.join(unknown)}"
    for genre, to in head.map.items():
        targets = {} if to is None else {to: 1.0} if isinstance(to, str) else to
        if unknown := [target for target in targets if target not in genres]:
            yield f"{where}.map.{genre}: expected genres of the bundle, {', '.join(genres)}, got {', '.join(unknown)}"
        if to is not None and not abs((total := math.fsum(targets.values())) - 1.0) <= _SHARES_ROUNDED:
            yield f"{where}.map.{genre}: expected shares that sum to 1, got a sum of {total:g}"
    if not any(to is not None for to in head.map.values()):
        yield f"{where}.map: expected a genre of the bundle for at least one of the head's, got null for all"


def _size_faults(stage: StageEntry, excerpt: ExcerptEntry) -> Iterator[str]:
    """Windows of more seconds, or more of them in an excerpt, than anybody means."""
    where, encoder = f"stages.{stage.name}.encoder", stage.encoder
    window, hop = encoder.window_samples, encoder.hop_samples
    if window is None or hop is None or encoder.rate == "native":
        return
    if window > MAX_WINDOW_SECONDS * encoder.rate:
        yield f"{where}.window_samples: expected at most {MAX_WINDOW_SECONDS:g} s, got {window / encoder.rate:g} s"
    samples = (excerpt.seconds or MAX_EXCERPT_SECONDS) * encoder.rate
    if (count := 1 + math.ceil(max(0.0, samples - window) / hop)) > MAX_WINDOWS:
        yield f"{where}.hop_samples: expected at most {MAX_WINDOWS} windows in an excerpt, got {count}"


def graphs(manifest: Manifest) -> Iterator[str]:
    """The ONNX files."""
    for stage in manifest.stages:
        yield stage.head.file
        if stage.head.range is not None:
            yield stage.head.range.file
        yield from stage.encoder.graph_files.values()


def _used_files(manifest: Manifest) -> Iterator[str]:
    yield from graphs(manifest)
    for stage in manifest.stages:
        if stage.encoder.reference is not None:
            yield stage.encoder.reference
    if manifest.reference is not None:
        yield manifest.reference


def manifest_text(manifest: Manifest) -> str:
    """The manifest as YAML that :func:`load` reads back to an equal manifest; strings such as ``No`` are quoted.

    Raises:
        BundleError: the manifest's parts do not fit together (see :func:`validate`).
    """
    if wrong := list(validate(manifest)):
        raise BundleError(f"{MANIFEST} would not be valid: " + "; ".join(wrong))
    return dump_yaml(msgspec.to_builtins(manifest))
