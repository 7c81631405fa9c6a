"""What a verdict rests on beside the file, and what makes one stale."""

from __future__ import annotations

from dataclasses import dataclass

from edge_reclass._version import __version__
from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Policy
from edge_reclass.errors import FAILURE_STATUSES, Status

RETRIED = (
    Status.MISSING,
    Status.UNREADABLE,
    Status.OUT_OF_MEMORY,
    Status.TIMEOUT,
    Status.CRASHED,
)
"""Failures that may be over next time; a track is tried again with every run."""

_OF_THE_FILE = tuple(status for status in FAILURE_STATUSES if status not in (*RETRIED, Status.ERROR))
"""Failures that no other bundle changes."""


@dataclass(frozen=True)
class Basis:
    """Bundle, policy and options of a run: where one of them changes, so may every verdict."""

    bundle_digest: str
    policy: str
    options: str

    @classmethod
    def of(cls, bundle: Bundle, policy: Policy, min_confidence: float | None) -> Basis:
        """Of a run with these; ``min_confidence``: None is the bundle's."""
        limit = bundle.manifest.min_confidence if min_confidence is None else min_confidence
        return cls(bundle.digest, policy.name, f"min_confidence={limit}")


@dataclass(frozen=True)
class Again:
    """What is done again although the file has not changed and its verdict is not stale."""

    everything: bool = False
    failed: bool = False
    """What failed, in whatever way."""
    embeddings: bool = False
    """What was classified without its embeddings being kept."""


def stale(basis: Basis, again: Again) -> tuple[str, list[object]]:
    """An SQL condition on a row of ``track``, and its values: its verdict is to be made again."""
    if again.everything:
        return "1", []
    clauses = [
        f"verdict IS NULL OR status NOT IN ({_listed(_OF_THE_FILE)})"
        " AND (bundle_digest IS NOT ? OR policy IS NOT ? OR options IS NOT ?)",
        f"status IN ({_listed(RETRIED)})",
        f"status IN ({_listed(FAILURE_STATUSES)}) AND (? OR program IS NOT ?)",
    ]
    values = [basis.bundle_digest, basis.policy, basis.options, again.failed, program()]
    if again.embeddings:
        clauses.append(
            f"status IN ({_listed((Status.OK, Status.UNSURE))}) AND NOT EXISTS"
            " (SELECT 1 FROM embedding WHERE embedding.track = track.id AND embedding.bundle_digest = ?)"
        )
        values.append(basis.bundle_digest)
    return " OR ".join(f"({clause})" for clause in clauses), values


def program() -> str:
    """This program and its decoders: a new one may decode what the old one could not."""
    from importlib import metadata

    versions = []
    for name in ("soundfile", "av"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    return f"edge-reclass {__version__}, {', '.join(versions)}"


def _listed(statuses: tuple[Status, ...]) -> str:
    return ", ".join(f"'{status}'" for status in statuses)
