"""The bundle with its certificate on disk: all files of the old one, and a new manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from edge_reclass import Bundle
from edge_reclass.bundle import MANIFEST, Manifest, PolicyEntry, StepEntry, load, manifest_text
from edge_reclass.cascade import Policy
from edge_reclass.errors import UsageError
from edge_reclass_export.bundle_files import assembled, bundle_name, write_together


def check_place(output: Path) -> list[str]:
    """Files of the bundle that an earlier calibration wrote into ``output``; none where nothing is there yet.

    Raises:
        UsageError: something else lies there, or its name cannot be a bundle's.
    """
    bundle_name(output)
    if (output / MANIFEST).is_file() and (there := load(output).manifest).certificates:
        return [MANIFEST, *there.files]
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(
            f"{output}: expected no folder, an empty one or a bundle that edge-reclass calibrate made; got something"
            " else; name a new folder with -o"
        )
    return []


def write_bundle(output: Path, there: Sequence[str], base: Bundle, manifest: Manifest) -> None:
    """Write the files of ``base`` with another manifest; ``there`` is what ``check_place`` found.

    Raises:
        UsageError: ``output`` cannot be written.
    """
    contents = {file: base.file(file).read() for file in manifest.files}
    with assembled(output, there) as root:
        shutil.rmtree(root, ignore_errors=True)
        write_together(root, {**contents, MANIFEST: manifest_text(manifest).encode("utf-8")})


def policy_entry(policy: Policy) -> PolicyEntry:
    """A policy as the manifest has it."""
    return PolicyEntry(
        policy.vote, [StepEntry(step.after, dict(step.weights), step.accept, step.windows) for step in policy.steps]
    )
