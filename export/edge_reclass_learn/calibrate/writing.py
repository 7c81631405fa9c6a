"""The bundle with its certificate on disk: all files of the old one, and a new manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from edge_reclass import Bundle
from edge_reclass.bundle import MANIFEST, Manifest, manifest_text
from edge_reclass_export.bundle_files import assembled, bundle_name, replaceable, write_together


def check_place(output: Path) -> list[str]:
    """Files of the bundle that an earlier calibration wrote into ``output``; none where nothing is there yet.

    Raises:
        UsageError: something else lies there, or its name cannot be a bundle's.
    """
    bundle_name(output)
    return replaceable(output, lambda there: bool(there.certificates), "a bundle that edge-reclass calibrate made")


def write_bundle(output: Path, there: Sequence[str], base: Bundle, manifest: Manifest) -> None:
    """Write the files of ``base`` with another manifest; ``there`` is what ``check_place`` found.

    Raises:
        UsageError: ``output`` cannot be written.
    """
    contents = {file: base.file(file).read() for file in manifest.files}
    with assembled(output, there) as root:
        shutil.rmtree(root, ignore_errors=True)
        write_together(root, {**contents, MANIFEST: manifest_text(manifest).encode("utf-8")})
