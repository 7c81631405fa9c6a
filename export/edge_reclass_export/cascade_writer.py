"""Enters into a finished bundle what its cascade answers to made audio (``engine.cascade_reference``)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_reclass.bundle import MANIFEST, content_entry, load, manifest_text
from edge_reclass_export.bundle_files import write_together
from edge_reclass_export.engine.cascade_reference import FILE, measure_cascade


def write_cascade_reference(root: Path) -> None:
    """Hear the made pieces with every stage of the finished bundle in ``root``, on the CPU, and enter the answers.

    Writes ``reference/cascade.npz`` and the manifest. What was there of earlier answers is replaced.

    Raises:
        BundleError, EngineError, TrackError: the bundle cannot be opened or a stage cannot answer.
        UsageError: the folder cannot be written.
    """
    bundle = load(root)
    content = measure_cascade(bundle).to_bytes()
    kept = {file: entry for file, entry in bundle.manifest.files.items() if file != bundle.manifest.reference}
    after = msgspec.structs.replace(bundle.manifest, reference=FILE, files={**kept, FILE: content_entry(content)})
    write_together(root, {FILE: content, MANIFEST: manifest_text(after).encode("utf-8")})
