"""Puts an exported encoder into a bundle directory: files first, the manifest last, each in one step.

What a manifest needs beyond the encoder, a head and its genres, comes from the bundle that is there or from
the caller; a stage without a head is never written into a manifest.
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
    FileEntry,
    HeadEntry,
    Manifest,
    Name,
    PolicyEntry,
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

__all__ = ["BundleChange", "put_encoder"]


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
    head: Path | None = None,
    genres: Sequence[str] = (),
) -> BundleChange:
    """Writes encoder, reference vectors and licence below ``root`` and enters them in the manifest.

    ``stage`` is the stage's name, by default the encoder's. A ``head`` file makes or replaces the stage;
    without one, an existing stage keeps its head, and where there is none only the files are written.
    ``genres`` name the head's classes and are needed for a new bundle only. Nothing is written before
    everything fits.

    Raises:
        UsageError: genres are missing or contradict the bundle; the stage's name is none; the directory cannot be
            written.
        CheckpointError: the head cannot be used, or does not fit the encoder and the genres.
        BundleError: the manifest that is there is not valid, or the new one would not be.
    """
    name = _stage_name(stage or encoder.name)
    before = load(root).manifest if (root / MANIFEST).exists() else None
    old_stage = next((entry for entry in before.stages if entry.name == name), None) if before else None
    if before and genres and list(genres) != before.genres:
        raise UsageError(
            f"{root / MANIFEST} has the genres {before.genres}, --genres says {list(genres)}; leave it out"
        )
    if before is None and head is not None and len(genres) < 2:
        raise UsageError(f"{root} is a new bundle: name the classes of the head with --genres A,B,...")

    contents = _encoder_files(encoder, name)
    entry = WaveformEntry(
        rate=encoder.rate,
        window_samples=encoder.window_samples,
        hop_samples=encoder.hop_samples,
        dim=encoder.dim,
        files={"fp32": f"encoders/{name}.fp32.onnx"},
        short=encoder.short,
        reference=f"reference/{name}.npz",
    )
    head_entry = _head_entry(root, encoder, name, head, old_stage, before.genres if before else genres, contents)
    files = {
        file: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for file, content in contents.items()
    }
    notes: list[str] = []
    if head_entry is not None:
        excerpt = old_stage.excerpt if old_stage else None
        new_stage = StageEntry(name=name, encoder=entry, head=head_entry, excerpt=excerpt)
        after = _manifest(root, before, old_stage, new_stage, files, encoder.provenance, genres)
        if old_stage is None and before is not None:
            notes.append(f"no policy uses the stage {name!r} yet: add it to a policy's steps in {root / MANIFEST}")
        contents[MANIFEST] = manifest_text(after).encode("utf-8")
    else:
        notes.append(f"no head for the stage {name!r}: the manifest is left as it is; give --head, or enter the stage")
    for file, content in contents.items():  # the manifest is the last
        write_bytes(content, root / file)
    return BundleChange(_fragment(name, entry, head_entry, encoder, files), head_entry is not None, tuple(notes))


def _stage_name(name: str) -> str:
    """A name that the manifest takes; it becomes a part of file names too."""
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"a stage cannot be called {name!r}: small letters, digits, _ and -, a letter first"
        ) from error


def _encoder_files(encoder: ExportedEncoder, name: str) -> dict[str, bytes]:
    vectors = reference_vectors(encoder.model, rate=encoder.rate, samples=encoder.window_samples)
    return {
        f"encoders/{name}.fp32.onnx": encoder.model,
        f"reference/{name}.npz": vectors.to_bytes(),
        encoder.licence_file: encoder.licence.encode("utf-8"),
    }


def _head_entry(
    root: Path,
    encoder: ExportedEncoder,
    name: str,
    head: Path | None,
    old_stage: StageEntry | None,
    genres: Sequence[str],
    contents: dict[str, bytes],
) -> HeadEntry | None:
    """The stage's head: a new one (added to ``contents``), or the old one if it fits, or none."""
    if head is not None:
        contents[f"heads/{name}.onnx"] = read_head(head, encoder.dim, len(genres))
        return HeadEntry(file=f"heads/{name}.onnx", inputs=[name])
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


def _manifest(
    root: Path,
    before: Manifest | None,
    old_stage: StageEntry | None,
    new_stage: StageEntry,
    files: Mapping[str, FileEntry],
    provenance: Mapping[str, object],
    genres: Sequence[str],
) -> Manifest:
    name = new_stage.name
    if before is None:
        return Manifest(
            format=1,
            name=root.resolve().name,
            genres=list(genres),
            stages=[new_stage],
            policies={"single": PolicyEntry(vote="top1", steps=[StepEntry(after=name, weights={name: 1.0})])},
            default_policy="single",
            files=dict(files),
            provenance={name: dict(provenance)},
        )
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


def _fragment(
    name: str,
    entry: WaveformEntry,
    head: HeadEntry | None,
    encoder: ExportedEncoder,
    files: Mapping[str, FileEntry],
) -> str:
    stage: dict[str, Any] = {"name": name, "encoder": msgspec.to_builtins(entry)}
    if head is not None:
        stage["head"] = msgspec.to_builtins(head)
    plain = {
        "stages": [stage],
        "provenance": {name: dict(encoder.provenance)},
        "files": {file: msgspec.to_builtins(described) for file, described in files.items()},
    }
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
