"""A bundle: manifest, strict loading, hashed files, reference vectors."""

from __future__ import annotations

from edge_reclass.bundle.certificate import Digests, digests, graph_digests, holding, promise, void, where
from edge_reclass.bundle.encoders import EncoderEntry, Fma518Entry, Precision, WaveformEntry
from edge_reclass.bundle.limits import MAX_REFERENCE_SAMPLES
from edge_reclass.bundle.loading import Bundle, BundleFile, content_entry, file_entry, load, starter_path
from edge_reclass.bundle.manifest import (
    FORMAT,
    MANIFEST,
    CertificateEntry,
    CountEntry,
    ExcerptEntry,
    FileEntry,
    HeadEntry,
    Manifest,
    Name,
    PolicyEntry,
    RangeEntry,
    StageEntry,
    StepEntry,
    manifest_text,
    validate,
)
from edge_reclass.bundle.onnx_external import refuse_external_data
from edge_reclass.bundle.reference import (
    CASES,
    Agreement,
    ReferenceVectors,
    agreement,
    checksums,
    load_reference,
    read_arrays,
    require_makeable,
    synthesise,
)

__all__ = [
    "CASES",
    "FORMAT",
    "MANIFEST",
    "MAX_REFERENCE_SAMPLES",
    "Agreement",
    "Bundle",
    "BundleFile",
    "CertificateEntry",
    "CountEntry",
    "Digests",
    "EncoderEntry",
    "ExcerptEntry",
    "FileEntry",
    "Fma518Entry",
    "HeadEntry",
    "Manifest",
    "Name",
    "PolicyEntry",
    "Precision",
    "RangeEntry",
    "ReferenceVectors",
    "StageEntry",
    "StepEntry",
    "WaveformEntry",
    "agreement",
    "checksums",
    "content_entry",
    "digests",
    "file_entry",
    "graph_digests",
    "holding",
    "load",
    "load_reference",
    "manifest_text",
    "promise",
    "read_arrays",
    "refuse_external_data",
    "require_makeable",
    "starter_path",
    "synthesise",
    "validate",
    "void",
    "where",
]
