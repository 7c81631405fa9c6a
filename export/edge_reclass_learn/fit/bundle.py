"""The new bundle on disk: encoders of the base, and heads, range tests, policies, memory and card of the fit."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from edge_reclass import Bundle, __version__
from edge_reclass.bundle import (
    MANIFEST,
    StageEntry,
    content_entry,
    manifest_text,
)
from edge_reclass.cascade import Policy, policy_entry
from edge_reclass_export.bundle_files import assembled, bundle_name, replaceable, write_together
from edge_reclass_export.cascade_writer import write_cascade_reference
from edge_reclass_export.onnx_writer import model_bytes
from edge_reclass_learn.fit.judging import Fitted
from edge_reclass_learn.hearing.memory import FILE as MEMORY

CARD: Final = "README.md"
PROVENANCE: Final = "fit"
"""The key under which a bundle says how it was fitted."""
_TOOLS: Final = ("numpy", "scipy", "onnx", "onnxruntime", "scikit-learn")


@dataclass(frozen=True)
class New:
    """What is new in a bundle.

    temperatures, limits: of heads and range tests, by stage
    policies: by name; the first is the default
    memory: the file of what the bundle remembers
    provenance: how it was fitted, for the manifest
    """

    genres: Sequence[str]
    fitted: Fitted
    temperatures: Mapping[str, float]
    limits: Mapping[str, float]
    policies: Mapping[str, Policy]
    memory: bytes
    card: str
    provenance: Mapping[str, object]


def check_place(output: Path) -> list[str]:
    """Files of the bundle that an earlier fit wrote into ``output``; none where nothing is there yet.

    Raises:
        UsageError: something else lies there, or its name cannot be a bundle's.
    """
    bundle_name(output)
    return replaceable(output, lambda there: PROVENANCE in there.provenance, "a bundle that edge-reclass fit made")


def write_bundle(output: Path, there: Sequence[str], base: Bundle, new: New) -> None:
    """Write the bundle into ``output``, all at once at the end; ``there`` is what ``check_place`` found.

    Raises:
        UsageError: ``output`` cannot be written.
        EngineError, TrackError: the finished bundle cannot answer.
    """
    manifest = base.manifest
    kept = _encoder_files(base)
    with assembled(output, there) as root:
        shutil.rmtree(root, ignore_errors=True)  # nothing of the earlier fit stays
        contents = {CARD: new.card.encode(), MEMORY: new.memory}
        for file in kept:
            contents[file] = base.file(file).read()
        for stage, head in new.fitted.heads.items():
            contents[f"heads/{stage}.onnx"] = model_bytes(head.graph(), expect=head.interface)
        for stage, test in new.fitted.ranges.items():
            contents[f"heads/{stage}.range.onnx"] = model_bytes(test.graph(), expect=test.interface)
        after = replace(
            manifest,
            name=bundle_name(output),
            genres=list(new.genres),
            stages=[_stage(stage, new) for stage in manifest.stages],
            policies={name: policy_entry(policy) for name, policy in new.policies.items()},
            default_policy=next(iter(new.policies)),
            certificates=[],
            reference=None,
            files={file: content_entry(content) for file, content in contents.items()},
            provenance=_provenance(base, new),
        )
        write_together(root, {**contents, MANIFEST: manifest_text(after).encode("utf-8")})
        write_cascade_reference(root)


def _encoder_files(base: Bundle) -> list[str]:
    """The base's files that belong to its encoders, and the licences."""
    named = {file for stage in base.manifest.stages for file in stage.encoder.graph_files.values()}
    named |= {str(found) for stage in base.manifest.stages if (found := getattr(stage.encoder, "reference", None))}
    licences = [file for file in base.manifest.files if Path(file).name.startswith("LICENSE") and named]
    return [file for file in base.manifest.files if file in named or file in licences]


def _stage(stage: StageEntry, new: New) -> StageEntry:
    """The stage with its new head, whose genres are the bundle's, whatever the base's head had."""
    test = stage.head.range
    if test is not None:
        test = replace(test, file=f"heads/{stage.name}.range.onnx", limit=new.limits[stage.name])
    temperature = round(new.temperatures[stage.name], 4)
    file = f"heads/{stage.name}.onnx"
    head = replace(stage.head, file=file, temperature=temperature, range=test, genres=None, map=None)
    return replace(stage, head=head)


def _provenance(base: Bundle, new: New) -> dict[str, object]:
    """What is known of the encoders, without what the base says of its heads; and how this bundle was fitted."""
    encoders = {}
    for stage in base.manifest.stages:
        known = base.manifest.provenance.get(stage.name)
        if isinstance(known, dict):
            encoders[stage.name] = {key: value for key, value in known.items() if key != "head"}
    return {
        "built_by": f"edge-reclass fit, edge-reclass {__version__}",
        "tools": {"python": platform.python_version(), **{name: version(name) for name in _TOOLS}},
        PROVENANCE: {"base": base.name, "base_digest": base.digest, **new.provenance},
        **encoders,
    }
