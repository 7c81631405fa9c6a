"""Stages of one bundle copied into another, whose genres may be others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from edge_reclass.bundle import MANIFEST, Bundle, ExcerptEntry, HeadEntry, StageEntry, WaveformEntry, load
from edge_reclass.errors import UsageError
from edge_reclass_export.bundle_files import assembled
from edge_reclass_export.bundle_writer import put_stage
from edge_reclass_export.own_genres import OwnGenres, by_name, check_own_genres, same_genres

_OF_HEADS = ("fit", "heads_licence")
"""What a bundle's provenance says of its heads, beside what it says of each stage."""


def join_bundles(
    root: Path,
    other: Path,
    *,
    stages: Sequence[str] = (),
    prefix: str = "",
    genres: Sequence[str] = (),
    own: OwnGenres | None = None,
) -> list[str]:
    """Copy ``stages`` of the bundle ``other``, and those that their heads need, into the bundle ``root``.

    Args:
        stages: none are all
        prefix: put before the stages' names
        genres: of a new bundle
        own: what genres of ``other`` are in the bundle, where their names do not say it

    Returns:
        Lines for people.

    Raises:
        UsageError: a name is taken or unknown, a genre has no counterpart, or the folder cannot be written.
        BundleError: a bundle is not valid.
    """
    source = load(other)
    into = load(root).manifest if (root / MANIFEST).exists() or not genres else None
    if into is not None and genres and list(genres) != into.genres:
        raise UsageError(f"{root / MANIFEST} has the genres {', '.join(into.genres)}; leave --genres out")
    names = _with_needs(source, stages)
    there = [] if into is None else [stage.name for stage in into.stages]
    files = [] if into is None else list(into.files)
    excerpt = ExcerptEntry(start="center", seconds=30.0) if into is None else into.excerpt
    if taken := [prefix + name for name in names if prefix + name in there]:
        raise UsageError(f"{root} has stages called {', '.join(taken)} already: give --prefix NAME-")
    reading = _reading(genres if into is None else into.genres, source, names, own)
    notes: list[str] = []
    with assembled(root, [MANIFEST, *files] if files else []) as folder:
        for name in names:
            stage, contents = _renamed(source, source.manifest.stage(name), prefix)
            if reading is not None:
                stage = replace(stage, head=reading.enter(stage.head))
            if stage.excerpt is None and source.manifest.excerpt != excerpt:
                stage = replace(stage, excerpt=source.manifest.excerpt)
            licences = {
                file: source.file(file).read()
                for file in source.manifest.files
                if file.startswith("LICENSE") and file not in files
            }
            told = _provenance(source, name)
            change = put_stage(folder, stage, {**contents, **licences}, provenance=told, genres=genres)
            notes += change.notes
    return list(dict.fromkeys(notes))


def _with_needs(source: Bundle, stages: Sequence[str]) -> list[str]:
    """``stages`` and those that their heads take, in the order of the bundle."""
    all_names = [stage.name for stage in source.manifest.stages]
    if unknown := [name for name in stages if name not in all_names]:
        raise UsageError(f"{source.root} has no stage {', '.join(unknown)}; it has {', '.join(all_names)}")
    wanted = set(stages or all_names)
    while more := {need for name in wanted for need in source.manifest.stage(name).head.inputs} - wanted:
        wanted |= more
    return [name for name in all_names if name in wanted]


def _reading(ours: Sequence[str], source: Bundle, names: Sequence[str], own: OwnGenres | None) -> OwnGenres | None:
    """How the heads of ``source`` are to be read; None where the genres of both are the same, in the same order."""
    theirs = source.manifest.genres
    if theirs == list(ours) and own is None:
        return None
    if read := [name for name in names if source.manifest.stage(name).head.genres is not None]:
        raise UsageError(
            f"{source.root}: the heads of {', '.join(read)} have genres of their own already: join the bundles that"
            " they came from"
        )
    if own is not None and own.genres is not None and own.genres != theirs:
        raise UsageError(f"--map: genres: expected those of {source.root}, {', '.join(theirs)}; or leave them out")
    found = by_name(theirs, same_genres(theirs, ours), {} if own is None else own.map)
    return check_own_genres(OwnGenres(found), theirs, ours, "--map")


def _renamed(source: Bundle, stage: StageEntry, prefix: str) -> tuple[StageEntry, dict[str, bytes]]:
    """The stage under its new name, and its files under theirs."""
    name = prefix + stage.name
    moved: dict[str, str] = {stage.head.file: f"heads/{name}.onnx"}
    test, encoder = stage.head.range, stage.encoder
    if test is not None:
        moved[test.file] = f"heads/{name}.range.onnx"
        test = replace(test, file=moved[test.file], inputs=[prefix + one for one in test.inputs])
    if isinstance(encoder, WaveformEntry):
        files = {precision: f"encoders/{name}.{precision}.onnx" for precision in encoder.files}
        moved |= {encoder.files[precision]: file for precision, file in files.items()}
        if encoder.reference is not None:
            moved[encoder.reference] = f"reference/{name}.npz"
            encoder = replace(encoder, reference=moved[encoder.reference])
        encoder = replace(encoder, files=files)
    inputs = [prefix + one for one in stage.head.inputs]
    head: HeadEntry = replace(stage.head, file=moved[stage.head.file], inputs=inputs, range=test)
    contents = {after: source.file(before).read() for before, after in moved.items()}
    return replace(stage, name=name, encoder=encoder, head=head), contents


def _provenance(source: Bundle, name: str) -> Mapping[str, object]:
    known = source.manifest.provenance
    own = known.get(name)
    joined = {"bundle": source.manifest.name, "digest": source.digest, **{k: known[k] for k in _OF_HEADS if k in known}}
    return {**(own if isinstance(own, dict) else {}), "joined_from": joined}
