"""What the service was started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Policy
from edge_reclass.library import Habits


@dataclass(frozen=True)
class Settings:
    """The command's options, checked: paths are absolute, and the bundle is loaded."""

    bundle: Bundle
    policy: Policy
    workers: int
    """Worker processes, each on one track at a time."""
    queue: int
    """Requests that are worked on or wait at a time."""
    spool: Path
    """A folder for what is received; it exists, and no other process uses it."""
    device: str = "auto"
    min_confidence: float | None = None
    roots: tuple[Path, ...] = ()
    """Folders below which files may be named."""
    state: Path | None = None
    token: bytes | None = None
    """What a request over TCP has to bring."""
    hosts: frozenset[str] = frozenset()
    """Names, besides the usual ones, by which clients reach the service over TCP."""
    max_upload: int = 512 << 20
    """Bytes of one request's body."""
    idle: float = 300.0
    """Seconds without anything to do after which the encoders are closed; they are opened again when needed."""
    watch: Habits | None = None
    """How the roots are watched; None: not at all."""
    write_tags: bool = False
    """Whether tag plans that were approved are carried out by the service; else it opens no track for writing."""
