"""The bundle on disk: the manifest's schema, strict loading, and files that are given out only as they were hashed.

The schema is the msgspec structs below; ``manifest_text`` writes what ``load`` reads. Sizes: ``bundle_limits``.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
from msgspec import Meta, Struct

from edge_reclass.bundle_folder import open_regular, require_listed
from edge_reclass.bundle_limits import (
    MANIFEST_BYTES,
    MAX_DIM,
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
from edge_reclass.errors import BundleError, EngineError
from edge_reclass.onnx_external import refuse_external_data
from edge_reclass.policy import PRESETS
from edge_reclass.strict_yaml import YamlError, dump_yaml, parse_yaml

__all__ = [
    "FORMAT",
    "MANIFEST",
    "Bundle",
    "BundleFile",
    "ExcerptEntry",
    "FileEntry",
    "Fma518Entry",
    "HeadEntry",
    "Manifest",
    "PolicyEntry",
    "RangeEntry",
    "StageEntry",
    "StepEntry",
    "WaveformEntry",
    "content_entry",
    "file_entry",
    "load",
    "manifest_text",
    "starter_path",
    "validate",
]

FORMAT = 1
MANIFEST = "bundle.yaml"
FMA518_DIM = 518
PRECISIONS = ("fp32", "fp16", "int8")

Rate = Annotated[int, Meta(ge=8_000, le=192_000)]
Dim = Annotated[int, Meta(ge=1, le=MAX_DIM)]
Samples = Annotated[int, Meta(ge=1, le=int(MAX_WINDOW_SECONDS) * 192_000)]
Seconds = Annotated[float, Meta(gt=0, le=MAX_EXCERPT_SECONDS)]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}\Z")]
PolicyName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Precision = Literal["fp32", "fp16", "int8"]
Short = Literal["repeat", "repeat_centered", "reject"]


class ExcerptEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What to look at: ``seconds`` from ``start`` (seconds, or ``center``), or the ``full`` track."""

    start: Annotated[float, Meta(ge=0, le=MAX_START_SECONDS)] | Literal["center"] | None = None
    seconds: Seconds | None = None
    full: bool = False


class Fma518Entry(Struct, tag="fma518", tag_field="kind", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """The hand-crafted features at a fixed rate (or ``native``), of the whole excerpt or as the mean over windows."""

    rate: Rate | Literal["native"]
    window_samples: Samples | None = None
    hop_samples: Samples | None = None
    short: Short = "repeat"
    min_seconds: Seconds = 1.0

    @property
    def dim(self) -> int:
        return FMA518_DIM


class WaveformEntry(
    Struct, tag="waveform", tag_field="kind", forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """An ONNX graph waveform[batch, window_samples] → embedding[batch, dim], one file per precision."""

    rate: Rate
    window_samples: Samples
    hop_samples: Samples
    dim: Dim
    files: dict[Precision, str]
    short: Short = "repeat"
    min_seconds: Seconds = 1.0
    reference: str | None = None


class RangeEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """A test of whether an embedding lies within what the head was fitted on.

    An ONNX graph features[1, k] → distance[1, 1] on the concatenated embeddings of ``inputs``, which are among the
    head's; a distance above ``limit`` is outside.
    """

    file: str
    inputs: Annotated[list[str], Meta(min_length=1)]
    limit: Annotated[float, Meta(gt=0)]


class HeadEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """An ONNX graph features[1, k] → logits[1, genres] on the concatenated embeddings of ``inputs``."""

    file: str
    inputs: Annotated[list[str], Meta(min_length=1)]
    temperature: Annotated[float, Meta(ge=1e-3, le=1e3)] = 1.0
    range: RangeEntry | None = None


class StageEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Encoder and head; ``excerpt`` overrides the bundle's.

    ``loudness``: every window is brought to it, in dB of full scale (RMS of its active frames, see loudness.py), and
    its constant offset taken off; None: as the file has it.
    """

    name: Name
    encoder: Fma518Entry | WaveformEntry
    head: HeadEntry
    excerpt: ExcerptEntry | None = None
    loudness: Annotated[float, Meta(ge=-60, le=0)] | None = None


class StepEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """See policy.Step."""

    after: str
    weights: dict[str, Annotated[float, Meta(ge=0, le=MAX_WEIGHT)]]
    accept: float | None = None


class PolicyEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """See policy.Policy."""

    vote: Literal["top1", "soft"]
    steps: Annotated[list[StepEntry], Meta(min_length=1)]


class FileEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """What a file of the bundle must be."""

    sha256: Digest
    bytes: Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]


class Manifest(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """bundle.yaml. ``reference`` is the file with what the whole cascade answers to made audio."""

    format: Literal[1]
    name: Annotated[str, Meta(min_length=1)]
    genres: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=2, max_length=MAX_GENRES)]
    stages: Annotated[list[StageEntry], Meta(min_length=1, max_length=MAX_STAGES)]
    policies: Annotated[dict[PolicyName, PolicyEntry], Meta(min_length=1, max_length=MAX_POLICIES)]
    default_policy: str
    files: Annotated[dict[str, FileEntry], Meta(max_length=MAX_FILES)]
    excerpt: ExcerptEntry = ExcerptEntry(start="center", seconds=30.0)
    min_confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Below it a verdict is ``unsure``; 0 turns ``unsure`` off altogether."""
    reference: str | None = None
    provenance: dict[str, Any] = {}

    def stage(self, name: str) -> StageEntry:
        """The stage called ``name``; KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle: where it lies and what it must be. ``graph``: an ONNX file, which must be complete in itself.

    Equal ones stand for the same content, wherever the manifest names it.
    """

    path: Path
    entry: FileEntry
    graph: bool

    def read(self) -> bytes:
        """The content, read once and compared with the manifest: what was hashed is what is used.

        Raises:
            BundleError: the file is missing, cannot be read, or is not what the manifest says.
        """
        try:
            with open_regular(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                content = file.read() if size == self.entry.bytes else b""
        except OSError as error:
            raise self._unreadable(error) from error
        self._compare(size, hashlib.sha256(content).hexdigest())
        return content

    def check(self) -> None:
        """As :meth:`read`, without holding the content; a graph's tensors must lie in it.

        Raises:
            BundleError: as :meth:`read`; or a graph keeps data in another file, or is no ONNX.
        """
        try:
            with open_regular(self.path) as file:
                size, digest = _size_and_sha256(file)
                self._compare(size, digest)
                if self.graph:
                    refuse_external_data(file, self.path)
        except OSError as error:
            raise self._unreadable(error) from error
        except EngineError as error:
            raise BundleError(str(error)) from error

    def _compare(self, size: int, digest: str) -> None:
        if size != self.entry.bytes:
            raise BundleError(f"{self.path}: expected {self.entry.bytes} bytes, got {size}; {_FIX}")
        if digest != self.entry.sha256:
            raise BundleError(f"{self.path}: expected sha256 {self.entry.sha256}, got {digest}; {_FIX}")

    def _unreadable(self, error: OSError) -> BundleError:
        return BundleError(f"{self.path}: cannot be read ({error.strerror}); {_FIX}")


@dataclass(frozen=True)
class Bundle:
    """A loaded manifest and the directory in which its files lie."""

    root: Path
    manifest: Manifest
    digest: str
    """sha256 of bundle.yaml, which holds the hash of every other file: it names the bundle's exact content."""

    @property
    def name(self) -> str:
        return self.manifest.name

    def path(self, file: str) -> Path:
        """Where a file of the manifest lies."""
        return self.root / file

    def file(self, file: str) -> BundleFile:
        """A file of the manifest, by its path in the bundle."""
        return BundleFile(self.root / file, self.manifest.files[file], file in set(_graphs(self.manifest)))

    def require_exact(self) -> None:
        """Check that nothing lies in the bundle's folder but the manifest and what it lists. Hashes nothing.

        Raises:
            BundleError: a file that is not listed, or a link that leads out of the bundle; all are named.
        """
        require_listed(self.root, self.manifest.files)

    def verify(self, files: Iterable[str] | None = None) -> None:
        """Check ``files`` by size, sha256 and, where they are graphs, completeness.

        By default all files of the manifest, and that there are no others.

        Raises:
            BundleError: a file is missing, cannot be read, is not what the manifest says, or is not listed.
        """
        if files is None:
            self.require_exact()
        for file in self.manifest.files if files is None else files:
            self.file(file).check()


_FIX = "restore the bundle from its source or export it again"


def starter_path() -> Path:
    """Directory of the bundle that is embedded in the package."""
    return Path(__file__).parent / "bundles" / "starter"


def load(path: str | Path) -> Bundle:
    """Read and validate ``path``/bundle.yaml. File hashes are checked by :meth:`Bundle.verify`, not here.

    Raises:
        BundleError: no manifest there, not YAML, unknown, missing or duplicate keys, wrong types or values, or parts
            that do not fit together. The message names the file, the key, what was expected and what was found.
    """
    root = Path(path)
    file = root / MANIFEST
    try:
        with open_regular(file) as stream:
            content = stream.read(MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{file}: cannot be read ({error.strerror}); a bundle is a directory with a {MANIFEST}"
        ) from error
    if len(content) > MANIFEST_BYTES:
        raise BundleError(f"{file}: expected at most {MANIFEST_BYTES} bytes, got more")
    try:
        plain = parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{file}: expected UTF-8 text, got {error}") from error
    except YamlError as error:
        raise BundleError(f"{file}: {error}") from error
    if isinstance(plain, dict) and plain.get("format", FORMAT) != FORMAT:
        raise BundleError(
            f"{file}: key format: expected {FORMAT}, got {plain['format']!r}; update edge-reclass or export again"
        )
    try:
        manifest = msgspec.convert(plain, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{file}: {_found(plain, str(error))}") from error
    if wrong := list(validate(manifest)):
        raise BundleError(f"{file}: " + "; ".join(wrong))
    return Bundle(root, manifest, hashlib.sha256(content).hexdigest())


def validate(manifest: Manifest) -> Iterator[str]:
    """What does not fit together in a manifest of the right types: one sentence each."""
    names = [stage.name for stage in manifest.stages]
    yield from (f"stages: the name {name!r} stands {n} times" for name, n in Counter(names).items() if n > 1)
    for where, text in (("name", manifest.name), *(("genres", genre) for genre in manifest.genres)):
        yield from (f"{where}: expected no {fault}, got {text!r}" for fault in text_faults(text))
    yield from (f"genres: {genre!r} stands {n} times" for genre, n in Counter(manifest.genres).items() if n > 1)
    yield from _excerpt_faults("excerpt", manifest.excerpt)
    for stage in manifest.stages:
        yield from _stage_faults(stage, names)
        yield from _size_faults(stage, stage.excerpt or manifest.excerpt)
    for name in PRESETS.keys() & manifest.policies.keys():
        yield f"policies: {name!r} is the name of a preset, expected another one"
    if manifest.default_policy not in manifest.policies:
        yield f"default_policy: expected one of {', '.join(manifest.policies)}, got {manifest.default_policy!r}"
    used = set(_used_files(manifest))
    yield from (f"files: {file} is used by a stage but not listed" for file in sorted(used - set(manifest.files)))
    for file in sorted(used | set(manifest.files)):
        pure = PurePosixPath(file)
        plain = not pure.is_absolute() and ".." not in pure.parts and "\\" not in file and str(pure) == file != "."
        if not plain or file == MANIFEST or any(text_faults(file)):
            yield f"files: expected a plain relative path inside the bundle, got {file!r}"


def _excerpt_faults(where: str, excerpt: ExcerptEntry) -> Iterator[str]:
    if excerpt.full and (excerpt.start is not None or excerpt.seconds is not None):
        yield f"{where}: full: true goes without start and seconds"
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
    if isinstance(encoder, Fma518Entry) and encoder.rate == "native" and window is not None:
        yield f"{where}.encoder: windows are counted in samples of a fixed rate; rate: native takes the whole excerpt"
    if isinstance(encoder, WaveformEntry) and not encoder.files:
        yield f"{where}.encoder.files: expected at least one of {', '.join(PRECISIONS)}, got none"
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


def _graphs(manifest: Manifest) -> Iterator[str]:
    """The ONNX files."""
    for stage in manifest.stages:
        yield stage.head.file
        if stage.head.range is not None:
            yield stage.head.range.file
        if isinstance(stage.encoder, WaveformEntry):
            yield from stage.encoder.files.values()


def _used_files(manifest: Manifest) -> Iterator[str]:
    yield from _graphs(manifest)
    for stage in manifest.stages:
        if isinstance(stage.encoder, WaveformEntry) and stage.encoder.reference is not None:
            yield stage.encoder.reference
    if manifest.reference is not None:
        yield manifest.reference


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file, as the manifest keeps them."""
    with path.open("rb") as file:
        size, digest = _size_and_sha256(file)
    return FileEntry(sha256=digest, bytes=size)


def content_entry(content: bytes) -> FileEntry:
    """As :func:`file_entry`, of a file with this content."""
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def manifest_text(manifest: Manifest) -> str:
    """The manifest as YAML that :func:`load` reads back to an equal manifest; strings such as ``No`` are quoted.

    Raises:
        BundleError: the manifest's parts do not fit together (see :func:`validate`).
    """
    if wrong := list(validate(manifest)):
        raise BundleError(f"{MANIFEST} would not be valid: " + "; ".join(wrong))
    plain = msgspec.to_builtins(manifest)
    order = (
        "format",
        "name",
        "genres",
        "excerpt",
        "min_confidence",
        "stages",
        "policies",
        "default_policy",
        "reference",
        "provenance",
        "files",
    )
    ordered = {key: plain[key] for key in order if key in plain}
    return dump_yaml(ordered)


def _size_and_sha256(file: BinaryIO) -> tuple[int, str]:
    """Of a file opened at its start, read once and not held."""
    digest, size = hashlib.sha256(), 0
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


def _found(plain: object, message: str) -> str:
    """Add the value that was found to msgspec's message, which ends with its path such as ``$.stages[0].name``."""
    match = re.search(r" - at `\$(\S*)`$", message)
    if match is None:
        return message
    value: Any = plain
    for key, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", match[1]):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):
            return message
    if isinstance(value, dict | list):
        return message
    return f"{message}, got {value!r}"
