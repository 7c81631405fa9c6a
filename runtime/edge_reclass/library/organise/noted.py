"""The steps of ``organise`` as the journal has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_reclass.host.filesystem import mount_point
from edge_reclass.library.organise.plan import By, Step

if TYPE_CHECKING:
    from edge_reclass.library import journal

COMMAND: Final = "organise"


@dataclass(frozen=True)
class Noted:
    """One step, and what the disk was like before it."""

    entry: journal.Step
    by: By
    target: Path
    above: Path
    """The folder that was there already."""
    track: int | None
    size: int
    mtime_ns: int
    mounts: tuple[str, str]
    """Where the disks of source and target were mounted. Device numbers do not outlive a reboot."""

    @classmethod
    def of(cls, entry: journal.Step) -> Noted:
        """A step that the journal holds."""
        what = entry.what
        numbers = what["track"], what["size"], what["mtime_ns"]
        return cls(
            entry, By(what["kind"]), Path(what["target"]), Path(what["above"]), *numbers, mounts=tuple(what["mounts"])
        )

    @property
    def source(self) -> Path:
        """Where the file was."""
        return self.entry.path

    def unmounted(self) -> str | None:
        """The mount point of a disk that is not there; None where both are."""
        for path, mount in zip((self.source, self.target), self.mounts, strict=True):
            if mount_point(path.parent) != mount:
                return mount
        return None

    @property
    def made(self) -> list[Path]:
        """The folders between ``above`` and the target, which were made."""
        return [folder for folder in self.target.parents if folder != self.above and folder.is_relative_to(self.above)]


def note(log: journal.Journal, run: int, steps: Sequence[Step]) -> list[Noted]:
    """Write down what is about to be done, on the disk when this returns."""
    whats = [
        {
            "kind": step.by,
            "target": str(step.target),
            "above": str(next(folder for folder in step.target.parents if folder.exists())),
            "track": step.track,
            "size": step.status.st_size,
            "mtime_ns": step.status.st_mtime_ns,
            "mounts": [mount_point(step.source.parent), mount_point(step.target.parent)],
        }
        for step in steps
    ]
    entries = log.steps(run, [(step.source, what) for step, what in zip(steps, whats, strict=True)])
    return [Noted.of(entry) for entry in entries]
