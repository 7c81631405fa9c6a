"""Puts a stage into a bundle directory: files first, the manifest last, each in one step.

What a manifest needs beyond the encoder, a head and its genres, comes from the bundle that is there or from
the caller; a stage without a head is never written into a manifest.

Policies: a new bundle has ``single``, a soft vote of its one stage, so that every genre has its score. With the second
stage comes ``soft``, a soft vote that asks the stages in the order in which they were added; it follows further stages
until somebody edits it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from edge_reclass.bundle import (
    MANIFEST,
    EncoderEntry,
    ExcerptEntry,
    FileEntry,
    HeadEntry,
    Manifest,
    Name,
    PolicyEntry,
    Precision,
    StageEntry,
    StepEntry,
    WaveformEntry,
    content_entry,
    file_entry,
    load,
    manifest_text,
)
from edge_reclass.errors import BundleError, EngineError, TrackError, UsageError
from edge_reclass_export.bundle_files import delete_files, write_together
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.head_files import HeadOptions, head_file
from edge_reclass_export.heads import head_shape, read_head
from edge_reclass_export.own_genres import OwnGenres, check_own_genres
from edge_reclass_export.parity import reference_vectors

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


@dataclass(frozen=True)
class StageHead:
    """A head that fits: its ONNX bytes, its provenance, and the bundle's genres.

    These are its classes in order, unless it has its ``own``. ``said`` are lines for people; ``mix`` are tensors of a
    learned mix of hidden states that lay beside the head.
    """

    content: bytes
    source: dict[str, object]
    genres: list[str]
    said: tuple[str, ...] = ()
    mix: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    own: OwnGenres | None = None


def check_bundle(
    root: Path, stage: str, *, genres: Sequence[str] = (), dim: int | None = None, new_head: bool = False
) -> None:
    """What is cheap to know before minutes of export: whether ``stage`` could be put into the bundle ``root``.

    ``dim`` is the width of the stage's embedding, where it is known; then the heads that take it have to fit, the
    stage's own only where no ``new_head`` replaces it. ``genres`` are those that the caller was given, perhaps none.

    Raises:
        UsageError: the stage's name is none, ``root`` is no directory that can be written, genres contradict it, or a
            bundle that is there would get an encoder without a head.
        CheckpointError: a head that is kept does not fit.
        BundleError: the manifest that is there is not valid.
    """
    _stage_name(stage)
    there = next(folder for folder in (root, *root.resolve().parents) if folder.exists())
    if not there.is_dir():
        raise UsageError(f"the bundle cannot be {root}: {there} is no directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"the bundle cannot be {root}: {there} cannot be written")
    before = _read(root, genres, new_stage=False)
    if before is None or dim is None:
        return
    old_stage = _stage(before, stage)
    if old_stage is None and not new_head:
        raise UsageError(_no_head(stage))
    if old_stage is not None and not new_head:
        _kept_head(root, dim, stage, old_stage, before.genres)
    others = [entry for entry in before.stages if entry.name != stage or not new_head]
    _check_widths(root, others, stage, {**_dims(before.stages), stage: dim}, {})


def put_encoder(
    root: Path,
    encoder: ExportedEncoder,
    *,
    stage: str | None = None,
    head: Path | bytes | None = None,
    genres: Sequence[str] = (),
    head_source: Mapping[str, object] | None = None,
    excerpt: ExcerptEntry | None = None,
    own: OwnGenres | None = None,
) -> BundleChange:
    """Writes an encoder in all its precisions, reference vectors and licence, and enters them in the manifest.

    ``stage`` is the stage's name, by default the encoder's. A ``head`` (a file, or the bytes of an ONNX head that was
    checked already) makes or replaces the stage; without one, an existing stage keeps its head, and where there is no
    bundle yet only the files are written. ``head_source`` is the provenance of a head given as bytes; a file's name
    and sha256 are its own, and a head that is kept keeps what is known of it. ``genres`` name the head's classes and
    are needed for a new bundle only, unless the head's file names them. ``excerpt`` is the stage's own; None keeps
    what the stage has. ``own`` are the head's own genres, where they are not the bundle's. Nothing is written before
    everything fits.

    Raises:
        UsageError: genres are missing or contradict the bundle; the stage's name is none; the directory cannot be
            written.
        CheckpointError: the head cannot be used, or does not fit the encoder and the genres; or another stage's head,
            which takes this encoder's embedding too, would no longer fit.
        BundleError: the manifest that is there is not valid, or the new one would not be.
    """
    name = _stage_name(stage or encoder.name)
    before = _read(root, genres, new_stage=isinstance(head, bytes))
    if isinstance(head, Path):
        read = stage_head(root, head, encoder.dim, genres, own=own)
        head, head_source, genres, own = read.content, read.source, read.genres, read.own
    classes = before.genres if before else genres
    contents = encoder_files(encoder, name)
    entry = encoder_entry(encoder, name)
    known = dict(before.provenance.get(name) or {}).get("head") if before else None
    if head is not None:
        known = head_source
        contents[f"heads/{name}.onnx"] = head
        new_head = HeadEntry(file=f"heads/{name}.onnx", inputs=[name])
        head_entry: HeadEntry | None = new_head if own is None else own.enter(new_head)
    else:
        old_stage = _stage(before, name)
        head_entry = _kept_head(root, encoder.dim, name, old_stage, classes) if old_stage is not None else None
    if head_entry is not None:
        complete = StageEntry(name=name, encoder=entry, head=head_entry, excerpt=excerpt)
        provenance = {**encoder.provenance, **({"head": dict(known)} if known else {})}
        return put_stage(root, complete, contents, provenance=provenance, genres=genres)
    if before is not None:
        raise UsageError(_no_head(name))
    write_together(root, contents)
    note = f"no head for the stage {name!r}: there is no manifest yet; give --head, or write one that enters the stage"
    return BundleChange(_fragment(name, entry, None, encoder.provenance, _file_entries(contents)), False, (note,))


def stage_head(
    root: Path,
    head: Path,
    dim: int,
    genres: Sequence[str] = (),
    options: HeadOptions | None = None,
    own: OwnGenres | None = None,
) -> StageHead:
    """A head file as ``put_encoder`` would read it, and its provenance: to refuse a misfit before a long export.

    For a new bundle, ``genres`` may be left out where the head's file names its classes, which then are the bundle's.
    ``own`` says that they are not, and what they are there. Raises ``UsageError``,
    ``CheckpointError`` and ``BundleError`` as ``put_encoder`` does.
    """
    before = _read(root, genres, new_stage=False)
    source = _head_source(head)
    names = classes = list(before.genres if before else genres)
    if own is not None:
        _require_genres(root, names)
        classes = list(own.genres or ())
    if head.suffix.lower() == ".onnx":
        if options is not None and options != HeadOptions():
            raise UsageError(f"{head}: an ONNX file has its activations: leave --activation and --head-layers out")
        if before is None:
            _require_genres(root, names)
        if own is not None:
            if not classes:
                raise UsageError(f"{head}: an ONNX file does not name its classes: add genres to the file of --map")
            own = check_own_genres(own, classes, names, f"--map for {head}")
        return StageHead(read_head(head, dim, len(classes)), source, names, own=own)
    found, content, classes = head_file(head, dim, classes, options)
    if own is not None:
        own = check_own_genres(own, classes, names, f"--map for {head}")
    elif before is None and len(classes) < 2:
        _require_genres(root, classes)
    return StageHead(content, source, classes if own is None else names, found.said, found.mix, own)


def put_stage(
    root: Path,
    stage: StageEntry,
    contents: Mapping[str, bytes],
    *,
    provenance: Mapping[str, object],
    genres: Sequence[str] = (),
    keep_excerpt: bool = True,
) -> BundleChange:
    """Writes the files ``contents`` (by their names in the bundle) and enters ``stage`` in the manifest, the last.

    A stage of that name is replaced; where ``stage`` has no excerpt, it keeps that of the old one, unless
    ``keep_excerpt`` says that the bundle's is meant. Files of the old stage that nothing uses any more are deleted.
    ``genres`` are needed for a new bundle only. Raises ``UsageError``, ``CheckpointError`` and ``BundleError`` as
    ``put_encoder`` does.
    """
    _stage_name(stage.name)
    before = _read(root, genres, new_stage=True)
    old = _stage(before, stage.name)
    if old is not None and stage.excerpt is None and keep_excerpt:
        stage = msgspec.structs.replace(stage, excerpt=old.excerpt)
    files = _file_entries(contents)
    notes: list[str] = []
    if before is None:
        after = Manifest(
            format=1,
            name=root.resolve().name,
            genres=list(genres),
            stages=[stage],
            policies={_SINGLE: _soft([stage.name])},
            default_policy=_SINGLE,
            files=files,
            provenance={stage.name: dict(provenance)},
        )
    else:
        after = _extended(before, old, stage, files, provenance)
        if old is None:
            after, note = _with_policy(before, after)
            notes.append(note)
        elif old.head.temperature != stage.head.temperature:
            notes.append(
                f"the temperature {old.head.temperature:g} of the stage {stage.name!r} belonged to the replaced head:"
                f" it is {stage.head.temperature:g} now; set it again in {MANIFEST} after measuring"
            )
    if after.reference is not None:  # it belongs to the stages that were there
        kept = {file: entry for file, entry in after.files.items() if file != after.reference}
        after = msgspec.structs.replace(after, reference=None, files=kept)
    text = manifest_text(after)
    _check_widths(root, after.stages, stage.name, _dims(after.stages), contents, after.genres)
    write_together(root, {**contents, MANIFEST: text.encode("utf-8")})
    if before is not None:
        notes += delete_files(root, [file for file in before.files if file not in after.files])
    notes += _reference_notes(root)
    return BundleChange(_fragment(stage.name, stage.encoder, stage, provenance, files), True, tuple(notes))


def _reference_notes(root: Path) -> list[str]:
    """Enter what the finished cascade answers; a note where it cannot answer, and verify will refuse the bundle."""
    from edge_reclass_export.cascade_writer import write_cascade_reference  # opens the bundle: not before it is there

    try:
        write_cascade_reference(root)
    except (BundleError, EngineError, TrackError) as error:
        return [f"warning: without references for verify, because the bundle cannot answer: {error}"]
    return []


def _read(root: Path, genres: Sequence[str], *, new_stage: bool) -> Manifest | None:
    """The manifest that is there, which ``genres`` must not contradict; None for a new bundle."""
    before = load(root).manifest if (root / MANIFEST).exists() else None
    if before and genres and list(genres) != before.genres:
        raise UsageError(
            f"{root / MANIFEST} has the genres {before.genres}, given are {list(genres)}; leave it out:"
            " --genres, or genres: in the file of export all"
        )
    if before is None and new_stage:
        _require_genres(root, genres)
    return before


def _no_head(stage: str) -> str:
    return (
        f"no head for the stage {stage!r}: a bundle holds no files that its manifest does not list; give --head, or"
        " another --bundle directory for the files alone"
    )


def _require_genres(root: Path, genres: Sequence[str]) -> None:
    if len(genres) < 2:
        raise UsageError(
            f"{root} is a new bundle: name the classes of the head with --genres A,B,..., or genres: [A, B, ...] in the"
            " file of export all"
        )


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


def encoder_entry(encoder: ExportedEncoder, name: str) -> WaveformEntry:
    """How the encoder of the stage ``name`` stands in a manifest, with the files of ``encoder_files``."""
    files: dict[Precision, str] = {"fp32": f"encoders/{name}.fp32.onnx"}
    files |= {precision: f"encoders/{name}.{precision}.onnx" for precision in encoder.others}
    return WaveformEntry(
        rate=encoder.rate,
        window_samples=encoder.window_samples,
        hop_samples=encoder.hop_samples,
        dim=encoder.dim,
        files=files,
        short=encoder.short,
        reference=f"reference/{name}.npz",
    )


def encoder_files(encoder: ExportedEncoder, name: str) -> dict[str, bytes]:
    """Graphs in all precisions, reference vectors and licence of the stage ``name``, by their names in a bundle."""
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
        digest = file_entry(path).sha256
    except OSError as error:
        raise UsageError(f"cannot read the head {path}: {error.strerror or error}") from error
    return {"source": path.name, "source_sha256": digest}


def _kept_head(root: Path, dim: int, name: str, old_stage: StageEntry, genres: Sequence[str]) -> HeadEntry:
    """The head of the stage that is there, if it fits an encoder that gives ``dim`` values.

    A head that takes other embeddings too is looked at with all the others, by ``_check_widths``.
    """
    if old_stage.head.inputs == [name]:
        read_head(root / old_stage.head.file, dim, old_stage.head.classes(genres))
    return old_stage.head


def _dims(stages: Sequence[StageEntry]) -> dict[str, int]:
    return {entry.name: entry.encoder.dim for entry in stages}


def _check_widths(
    root: Path,
    stages: Sequence[StageEntry],
    changed: str,
    dims: Mapping[str, int],
    contents: Mapping[str, bytes],
    genres: Sequence[str] | None = None,
) -> None:
    """Refuses heads that take the embedding of the stage ``changed`` and no longer fit, or answer other classes."""
    for entry in stages:
        if changed not in {entry.name, *entry.head.inputs}:
            continue
        file = entry.head.file
        features, answers = head_shape(contents.get(file, root / file))
        width = sum(dims[name] for name in entry.head.inputs)
        if features != width:
            fix = "give a head with --head" if entry.name == changed else "take that stage out of the bundle first"
            raise CheckpointError(
                f"the head of the stage {entry.name!r} ({file}) takes {features} values,"
                f" {' and '.join(entry.head.inputs)} would give {width}; {fix}, or choose another name with --stage"
            )
        if genres is not None and answers != (classes := entry.head.classes(genres)):
            whose = "the bundle" if entry.head.genres is None else "its list"
            raise CheckpointError(
                f"the head of the stage {entry.name!r} ({file}) has {answers} classes, {whose} {classes} genres"
            )


def _extended(
    before: Manifest,
    old_stage: StageEntry | None,
    new_stage: StageEntry,
    files: Mapping[str, FileEntry],
    provenance: Mapping[str, object],
) -> Manifest:
    name = new_stage.name
    stages = [new_stage if entry.name == name else entry for entry in before.stages]
    if old_stage is None:
        stages.append(new_stage)
    known = {**before.provenance, name: dict(provenance)}
    dropped: set[str] = set()
    if old_stage is not None:
        dropped = _own_files(old_stage, before.provenance) - {
            file for entry in stages for file in _own_files(entry, known)
        }
    kept = {file: entry for file, entry in before.files.items() if file not in dropped}
    # No certificate holds for other heads or encoders than it was counted with.
    return msgspec.structs.replace(before, stages=stages, files={**kept, **files}, provenance=known, certificates=[])


def _own_files(stage: StageEntry, provenance: Mapping[str, Any]) -> set[str]:
    """The files that a stage names, and its recipe's licence text, which stages of one recipe share."""
    files = {stage.head.file}
    if isinstance(stage.encoder, WaveformEntry):
        files |= {*stage.encoder.files.values(), *filter(None, [stage.encoder.reference])}
    known = provenance.get(stage.name)
    if isinstance(known, Mapping) and "recipe" in known:
        files.add(f"LICENSE.{known['recipe']}")
    return files


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
    return {file: content_entry(content) for file, content in contents.items()}


def _fragment(
    name: str,
    entry: EncoderEntry,
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
