"""What a bundle is like on the disk, for ``edge-reclass doctor``."""

from __future__ import annotations

import shlex
from pathlib import Path

from edge_reclass.bundle import Bundle, load
from edge_reclass.cascade import choose_policy, untrained
from edge_reclass.errors import BundleError
from edge_reclass_doctor.report import ALL_DEVICES, BundleState, Problem

_RESTORE = "restore the bundle from its source, or export it again: edge-reclass export --help"


def survey_bundle(path: Path, fix: str = _RESTORE) -> tuple[Bundle | None, BundleState, list[Problem]]:
    """Load a bundle and check every file; the first is None where its manifest cannot be used.

    Args:
        path: its directory.
        fix: what mends it where it is damaged.
    """
    try:
        bundle = load(path)
        policy = choose_policy(bundle)
    except BundleError as error:
        state = BundleState(str(path), None, None, 0, 0, None, (), (), (str(error),))
        return None, state, [_invalid(str(error), fix)]
    faults = []
    for check in (bundle.require_exact, *(bundle.file(file).check for file in bundle.manifest.files)):
        try:
            check()
        except BundleError as error:
            faults.append(str(error))
    files = bundle.manifest.files
    state = BundleState(
        path=str(path),
        name=bundle.name,
        digest=bundle.digest,
        files=len(files),
        bytes=sum(entry.bytes for entry in files.values()),
        policy=policy.name,
        stages=policy.stages,
        untrained=tuple(untrained(bundle, policy)),
        faults=tuple(faults),
    )
    problems = [_invalid(fault, fix) for fault in faults]
    if state.untrained:
        message = (
            f"{', '.join(state.untrained)}: untrained weights, whose answers mean nothing;"
            " classify refuses this bundle by default"
        )
        fix = f"edge-reclass classify --bundle {shlex.quote(str(path))} --allow-random PATH   (to measure)"
        problems.append(Problem("bundle-untrained", message, fix))
    return bundle, state, problems


def _invalid(fault: str, fix: str) -> Problem:
    return Problem("bundle-invalid", fault, fix, ALL_DEVICES)
