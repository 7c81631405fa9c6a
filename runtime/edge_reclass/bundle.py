"""The bundle on disk: the manifest's schema, strict loading, and verification of every file's hash.

The schema is the msgspec structs below; ``manifest_text`` writes what ``load`` reads.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from edge_reclass.errors import BundleError

__all__ = [
    "FORMAT",
    "MANIFEST",
    "Bundle",
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
Positive = Annotated[int, Meta(ge=1)]
Samples = Annotated[int, Meta(ge=1, le=3600 * 192_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]*$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Precision = Literal["fp32", "fp16", "int8"]
Short = Literal["repeat", "repeat_centered", "reject"]


class ExcerptEntry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What to look at: ``seconds`` from ``start`` (seconds, or ``center``), or the ``full`` track."""

    start: Annotated[float, Meta(ge=0, le=86_400)] | Literal["center"] | None = None
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
    dim: Positive
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
    weights: dict[str, float]
    accept: float | None = None


class PolicyEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """See policy.Policy."""

    vote: Literal["top1", "soft"]
    steps: Annotated[list[StepEntry], Meta(min_length=1)]


class FileEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """What a file of the bundle must be."""

    sha256: Digest
    bytes: Annotated[int, Meta(ge=0)]


class Manifest(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """bundle.yaml."""

    format: Literal[1]
    name: Annotated[str, Meta(min_length=1)]
    genres: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=2)]
    stages: Annotated[list[StageEntry], Meta(min_length=1)]
    policies: Annotated[dict[str, PolicyEntry], Meta(min_length=1)]
    default_policy: str
    files: dict[str, FileEntry]
    excerpt: ExcerptEntry = ExcerptEntry(start="center", seconds=30.0)
    min_confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Below it a verdict is ``unsure``; 0 turns ``unsure`` off altogether."""
    provenance: dict[str, Any] = {}

    def stage(self, name: str) -> StageEntry:
        """The stage called ``name``; KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


@dataclass(frozen=True)
class Bundle:
    """A loaded manifest and the directory in which its files lie."""

    root: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    def path(self, file: str) -> Path:
        """Where a file of the manifest lies."""
        return self.root / file

    @cached_property
    def digest(self) -> str:
        """sha256 of bundle.yaml, which holds the hash of every other file: it names the bundle's exact content."""
        return _sha256(self.root / MANIFEST)

    def verify(self, files: Iterable[str] | None = None) -> None:
        """Check size and sha256 of ``files`` (default: all files of the manifest).

        Raises:
            BundleError: a file is missing, cannot be read, or is not what the manifest says.
        """
        for file in self.manifest.files if files is None else files:
            path, expected = self.path(file), self.manifest.files[file]
            try:
                size = path.stat().st_size
                digest = _sha256(path) if size == expected.bytes else None
            except OSError as error:
                raise BundleError(f"{path}: cannot be read ({error.strerror}); {_MEND}") from error
            if digest is None:
                raise BundleError(f"{path}: expected {expected.bytes} bytes, got {size}; {_MEND}")
            if digest != expected.sha256:
                raise BundleError(f"{path}: expected sha256 {expected.sha256}, got {digest}; {_MEND}")


_MEND = "restore the bundle from its source or export it again"


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
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BundleError(
            f"{file}: cannot be read ({error.strerror}); a bundle is a directory with a {MANIFEST}"
        ) from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{file}: expected UTF-8 text, got {error}") from error
    try:
        plain = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise BundleError(f"{file}: not valid YAML: {error}") from error
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
    return Bundle(root, manifest)


def validate(manifest: Manifest) -> Iterator[str]:
    """What does not fit together in a manifest of the right types: one sentence each."""
    names = [stage.name for stage in manifest.stages]
    yield from (f"stages: the name {name!r} stands {n} times" for name, n in Counter(names).items() if n > 1)
    for text in (manifest.name, *manifest.genres):
        if any(unicodedata.category(character) == "Cc" for character in text):
            yield f"name and genres: expected no control characters, got {text!r}"
    yield from (f"genres: {genre!r} stands {n} times" for genre, n in Counter(manifest.genres).items() if n > 1)
    yield from _excerpt_faults("excerpt", manifest.excerpt)
    for stage in manifest.stages:
        yield from _stage_faults(stage, names)
    if manifest.default_policy not in manifest.policies:
        yield f"default_policy: expected one of {', '.join(manifest.policies)}, got {manifest.default_policy!r}"
    used = set(_used_files(manifest))
    yield from (f"files: {file} is used by a stage but not listed" for file in sorted(used - set(manifest.files)))
    for file in sorted(used | set(manifest.files)):
        pure = PurePosixPath(file)
        if pure.is_absolute() or ".." in pure.parts or "\\" in file or str(pure) != file:
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


def _used_files(manifest: Manifest) -> Iterator[str]:
    for stage in manifest.stages:
        yield stage.head.file
        if stage.head.range is not None:
            yield stage.head.range.file
        if isinstance(stage.encoder, WaveformEntry):
            yield from stage.encoder.files.values()
            if stage.encoder.reference is not None:
                yield stage.encoder.reference


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file, as the manifest keeps them."""
    return FileEntry(sha256=_sha256(path), bytes=path.stat().st_size)


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
        "provenance",
        "files",
    )
    ordered = {key: plain[key] for key in order if key in plain}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice, instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "merge keys are not supported", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"expected a text key, got {key!r}; quote it", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


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
