"""The embedded starter, further encoders and the parts that the project ships → one bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from edge_reclass.bundle import (
    MANIFEST,
    HeadEntry,
    StageEntry,
    content_entry,
    load,
    manifest_text,
    starter_path,
)
from edge_reclass_export.bundle_files import assembled, replaceable, write_together
from edge_reclass_export.bundle_writer import encoder_entry, encoder_files
from edge_reclass_export.cascade_writer import write_cascade_reference
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.plus.parts import CARD, FOLDER, Extra, Parts, combination

NAME = "starter-plus"


def digests(provenance: Mapping[str, object]) -> list[str]:
    """sha256 of the files that an exported encoder says it is from."""
    return str(provenance["source_sha256"]).split(", ")


def foreign(extra: Extra, stage: str, provenance: Mapping[str, object]) -> str | None:
    """A warning where an exported encoder is not from the files that the head of ``stage`` was fitted on; else None."""
    got, known = set(digests(provenance)), set(extra.checkpoints.values())
    if got == known:
        return None
    what = "only a part of what" if got < known else "not what"
    expected = " and ".join(f"{name} (sha256 {digest[:12]}…)" for name, digest in extra.checkpoints.items())
    return (
        f"warning: {provenance['source']}: {what} the head of the stage {stage!r} was fitted on, which is"
        f" {expected} from {extra.source}; its answers may be worse than the card says"
    )


def check_place(output: Path) -> list[str]:
    """Files of the starter plus that ``output`` holds and that may be replaced; none where nothing is there yet.

    Raises:
        UsageError: something else lies there.
    """
    return replaceable(output, lambda there: there.name == NAME, "a starter plus to replace")


def assemble_plus(
    output: Path,
    encoders: Mapping[str, ExportedEncoder],
    parts: Parts,
    *,
    starter: Path | None = None,
    folder: Path = FOLDER,
) -> None:
    """Write the bundle of the starter and ``encoders`` (by stage) into ``output``, all at once at the end.

    Args:
        starter: in place of the embedded one.
        folder: where the heads of ``parts`` lie.

    Raises:
        UsageError: ``output`` cannot be used.
        EngineError, TrackError: the finished bundle cannot answer.
    """
    base = load(starter or starter_path())
    there = check_place(output)
    with assembled(output, there) as root:
        shutil.rmtree(root, ignore_errors=True)
        for file in base.manifest.files:
            if file not in (base.manifest.reference, CARD):
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(base.path(file), root / file)
        contents = {CARD: (folder / CARD).read_bytes()}
        stages, provenance = list(base.manifest.stages), dict(base.manifest.provenance)
        for name, encoder in encoders.items():
            extra = parts.extras[name]
            contents |= encoder_files(encoder, name) | {f"heads/{name}.onnx": (folder / extra.head).read_bytes()}
            entry = encoder_entry(encoder, name)
            head = HeadEntry(file=f"heads/{name}.onnx", inputs=[name])
            stages.append(StageEntry(name=name, encoder=entry, loudness=extra.loudness, head=head))
            provenance[name] = dict(encoder.provenance)
        chosen = parts.combinations[combination(list(encoders))]
        for i, stage in enumerate(stages):
            temperature = chosen.temperatures.get(stage.name, stage.head.temperature)
            stages[i] = replace(stage, head=replace(stage.head, temperature=temperature))
        kept = {file: one for file, one in base.manifest.files.items() if file not in (base.manifest.reference, CARD)}
        manifest = replace(
            base.manifest,
            name=NAME,
            stages=stages,
            policies=chosen.policies,
            default_policy=next(iter(chosen.policies)),
            reference=None,
            files=kept | {file: content_entry(content) for file, content in contents.items()},
            provenance=provenance,
        )
        write_together(root, {**contents, MANIFEST: manifest_text(manifest).encode("utf-8")})
        write_cascade_reference(root)
