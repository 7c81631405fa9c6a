"""Puts a stage into a bundle directory: files first, the manifest last, each in one step.

What a manifest needs beyond the encoder, a head and its genres, comes from the bundle that is there or from
the caller; a stage without a head is never written into a manifest.

Policies: a new bundle has ``single`` (its one stage decides). With the second stage comes ``soft``, a soft vote
that asks the stages in the order in which they were added; it follows further stages until somebody edits it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from edge_reclass.bundle import (
    MANIFEST,
    ExcerptEntry,
    FileEntry,
    Fma518Entry,
    HeadEntry,
    Manifest,
    Name,
    PolicyEntry,
    Precision,
    StageEntry,
    StepEntry,
    WaveformEntry,
    load,
    manifest_text,
)
from edge_reclass.errors import UsageError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.heads import read_head
from edge_reclass_export.onnx_writer import write_bytes
from edge_reclass_export.parity import reference_vectors

__all__ = ["ACCEPT", "BundleChange", "put_encoder", "put_stage", "stage_head"]

ACCEPT = 0.9
"""Confidence above which the made policy ``soft`` stops before its last stage."""

_SINGLE, _SOFT = "single", "soft"


@dataclass(frozen=True)
class BundleChange:
    """What was written.

    ``fragment`` is YAML: the stage, its files and provenance, as they stand in a manifest. ``complete`` says
    whether the manifest has the stage; without a head it cannot.
    """

    fragment: str
    complete: bool
    notes: tuple[str, ...]


def put_encoder(
    root: Path,
    encoder: ExportedEncoder,
    *,
    stage: str | None = None,
    head: Path | bytes | None = None,
    genres: Sequence[str] = (),
    head_source: Mapping[str, object] | None = None,
    excerpt: ExcerptEntry | None = None,
) -> BundleChange:
    """Writes an encoder in all its precisions, reference vectors and licence, and enters them in the manifest.

    ``stage`` is the stage's name, by default the encoder's. A ``head`` (a file, or the bytes of an ONNX head that
    was checked already) makes or replaces the stage; without one, an existing stage keeps its head, and where there
    is none only the files are written. ``head_source`` is the provenance of a head given as bytes; a file's name and
    sha256 are its own, and a head that is kept keeps what is known of it. ``genres`` name the head's classes and are
    needed for a new bundle only. ``excerpt`` is the stage's own; None keeps what the stage has. Nothing is written
    before everything fits.

    Raises:
        UsageError: genres are missing or contradict the bundle; the stage's name is none; the directory cannot be
            written.
        CheckpointError: the head cannot be used, or does not fit the encoder and the genres.
        BundleError: the manifest that is there is not valid, or the new one would not be.
    """
    name = _stage_name(stage or encoder.name)
    before = _read(root, genres, new_stage=head is not None)
    classes = before.genres if before else genres
    contents = _encoder_files(encoder, name)
    files: dict[Precision, str] = {"fp32": f"encoders/{name}.fp32.onnx"}
    files |= {precision: f"encoders/{name}.{precision}.onnx" for precision in encoder.others}
    entry = WaveformEntry(
        rate=encoder.rate,
        window_samples=encoder.window_samples,
        hop_samples=encoder.hop_samples,
        dim=encoder.dim,
        files=files,
        short=encoder.short,
        reference=f"reference/{name}.npz",
    )
    known = dict(before.provenance.get(name) or {}).get("head") if before else None
    if head is not None:
        known = _head_source(head) if isinstance(head, Path) else head_source
        contents[f"heads/{name}.onnx"] = head if isinstance(head, bytes) else _read_head(head, encoder.dim, classes)
        head_entry: HeadEntry | None = HeadEntry(file=f"heads/{name}.onnx", inputs=[name])
    else:
        head_entry = _kept_head(root, encoder, name, _stage(before, name), classes)
    if head_entry is not None:
        complete = StageEntry(name=name, encoder=entry, head=head_entry, excerpt=excerpt)
        provenance = {**encoder.provenance, **({"head": dict(known)} if known else {})}
        return put_stage(root, complete, contents, provenance=provenance, genres=genres)
    _write(root, contents)
    note = f"no head for the stage {name!r}: the manifest is left as it is; give --head, or enter the stage"
    return BundleChange(_fragment(name, entry, None, encoder.provenance, _file_entries(contents)), False, (note,))


def stage_head(root: Path, head: Path, dim: int, genres: Sequence[str] = ()) -> tuple[bytes, dict[str, object]]:
    """A head file as ``put_encoder`` would read it, and its provenance: to refuse a misfit before a long export.

    Raises ``UsageError``, ``CheckpointError`` and ``BundleError`` as ``put_encoder`` does.
    """
    before = _read(root, genres, new_stage=True)
    return _read_head(head, dim, before.genres if before else genres), _head_source(head)


def put_stage(
    root: Path,
    stage: StageEntry,
    contents: Mapping[str, bytes],
    *,
    provenance: Mapping[str, object],
    genres: Sequence[str] = (),
) -> BundleChange:
    """Writes the files ``contents`` (by their names in the bundle) and enters ``stage`` in the manifest, the last.

    A stage of that name is replaced, but keeps its excerpt where ``stage`` has none. ``genres`` are needed for a new
    bundle only. Raises ``UsageError`` and ``BundleError`` as ``put_encoder`` does.
    """
    _stage_name(stage.name)
    before = _read(root, genres, new_stage=True)
    old = _stage(before, stage.name)
    if old is not None and stage.excerpt is None:
        stage = msgspec.structs.replace(stage, excerpt=old.excerpt)
    files = _file_entries(contents)
    notes: list[str] = []
    if before is None:
        after = Manifest(
            format=1,
            name=root.resolve().name,
            genres=list(genres),
            stages=[stage],
            policies={_SINGLE: PolicyEntry("top1", [StepEntry(after=stage.name, weights={stage.name: 1.0})])},
            default_policy=_SINGLE,
            files=files,
            provenance={stage.name: dict(provenance)},
        )
    else:
        after = _extended(before, old, stage, files, provenance)
        if old is None:
            after, note = _with_policy(before, after)
            notes.append(note)
    _write(root, {**contents, MANIFEST: manifest_text(after).encode("utf-8")})
    return BundleChange(_fragment(stage.name, stage.encoder, stage, provenance, files), True, tuple(notes))


def _read(root: Path, genres: Sequence[str], *, new_stage: bool) -> Manifest | None:
    """The manifest that is there, which ``genres`` must not contradict; None for a new bundle."""
    before = load(root).manifest if (root / MANIFEST).exists() else None
    if before and genres and list(genres) != before.genres:
        raise UsageError(
            f"{root / MANIFEST} has the genres {before.genres}, --genres says {list(genres)}; leave it out"
        )
    if before is None and new_stage and len(genres) < 2:
        raise UsageError(f"{root} is a new bundle: name the classes of the head with --genres A,B,...")
    return before


def _stage(manifest: Manifest | None, name: str) -> StageEntry | None:
    return next((entry for entry in manifest.stages if entry.name == name), None) if manifest else None


def _stage_name(name: str) -> str:
    """A name that the manifest takes; it becomes a part of file names too."""
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"a stage cannot be called {name!r}: small letters, digits, _ and -, a letter first"
        ) from error


def _encoder_files(encoder: ExportedEncoder, name: str) -> dict[str, bytes]:
    vectors = encoder.reference or reference_vectors(encoder.model, rate=encoder.rate, samples=encoder.window_samples)
    contents = {
        f"encoders/{name}.fp32.onnx": encoder.model,
        **{f"encoders/{name}.{precision}.onnx": model for precision, model in encoder.others.items()},
        f"reference/{name}.npz": vectors.to_bytes(),
    }
    if encoder.licence_file:
        contents[encoder.licence_file] = encoder.licence.encode("utf-8")
    return contents


def _head_source(path: Path) -> dict[str, object]:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read the head {path}: {error.strerror or error}") from error
    return {"source": path.name, "source_sha256": digest}


def _read_head(path: Path, features: int, genres: Sequence[str]) -> bytes:
    if path.suffix in {".onnx", ".npz"}:
        return read_head(path, features, len(genres))
    from edge_reclass_export.mlp_checkpoint import head_file  # needs torch

    return head_file(path, features, genres)


def _kept_head(
    root: Path, encoder: ExportedEncoder, name: str, old_stage: StageEntry | None, genres: Sequence[str]
) -> HeadEntry | None:
    """The head of the stage that is there, if it fits the new encoder."""
    if old_stage is None:
        return None
    if old_stage.head.inputs == [name]:
        read_head(root / old_stage.head.file, encoder.dim, len(genres))
    elif isinstance(old_stage.encoder, WaveformEntry) and old_stage.encoder.dim != encoder.dim:
        raise UsageError(
            f"the head of stage {name!r} takes {', '.join(old_stage.head.inputs)} with"
            f" {old_stage.encoder.dim} values of {name}, the new encoder gives {encoder.dim};"
            " give a head with --head"
        )
    return old_stage.head


def _extended(
    before: Manifest,
    old_stage: StageEntry | None,
    new_stage: StageEntry,
    files: Mapping[str, FileEntry],
    provenance: Mapping[str, object],
) -> Manifest:
    name = new_stage.name
    kept = dict(before.files)
    if old_stage is not None and isinstance(old_stage.encoder, WaveformEntry):
        # Other precisions of the replaced encoder were made from other weights.
        for file in old_stage.encoder.files.values():
            kept.pop(file, None)
    stages = [new_stage if entry.name == name else entry for entry in before.stages]
    if old_stage is None:
        stages.append(new_stage)
    return msgspec.structs.replace(
        before,
        stages=stages,
        files={**kept, **files},
        provenance={**before.provenance, name: dict(provenance)},
    )


def _with_policy(before: Manifest, after: Manifest) -> tuple[Manifest, str]:
    """The policy ``soft`` over all stages, if it is not there yet or is as this function left it; and a note."""
    names = [stage.name for stage in after.stages]
    if _SOFT in before.policies and before.policies[_SOFT] != _soft(names[:-1]):
        return after, f"no policy uses the stage {names[-1]!r} yet: add it to a policy's steps in {MANIFEST}"
    default = _SOFT if before.default_policy == _SINGLE else before.default_policy
    after = msgspec.structs.replace(after, policies={**after.policies, _SOFT: _soft(names)}, default_policy=default)
    return after, (
        f"the policy {_SOFT!r} now asks {', '.join(names)} in this order, with equal weights, and stops above {ACCEPT};"
        f" set your own numbers in {MANIFEST}. Default policy: {default}"
    )


def _soft(names: Sequence[str]) -> PolicyEntry:
    steps = [
        StepEntry(after=name, weights=dict.fromkeys(names[: i + 1], 1.0), accept=ACCEPT if i + 1 < len(names) else None)
        for i, name in enumerate(names)
    ]
    return PolicyEntry("soft", steps)


def _file_entries(contents: Mapping[str, bytes]) -> dict[str, FileEntry]:
    return {
        file: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for file, content in contents.items()
    }


def _write(root: Path, contents: Mapping[str, bytes]) -> None:
    for file, content in contents.items():
        write_bytes(content, root / file)


def _fragment(
    name: str,
    entry: WaveformEntry | Fma518Entry,
    complete: StageEntry | None,
    provenance: Mapping[str, object],
    files: Mapping[str, FileEntry],
) -> str:
    stage: dict[str, Any] = {"name": name, "encoder": msgspec.to_builtins(entry)}
    if complete is not None:
        stage = msgspec.to_builtins(complete)
    plain = {
        "stages": [stage],
        "provenance": {name: dict(provenance)},
        "files": {file: msgspec.to_builtins(described) for file, described in files.items()},
    }
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
