"""Lock files: every third-party wheel of a target, one per package, by name, version, file and sha256."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .targets import Target

_FILE = re.compile(r"# (?P<file>[^\s/]+\.whl)")
_LINE = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[0-9][0-9a-z.+!]*) --hash=sha256:(?P<sha256>[0-9a-f]{64})"
)


class LockError(ValueError):
    """A lock file is not what make_wheelhouse.sh writes."""


@dataclass(frozen=True)
class Locked:
    """One wheel, exactly."""

    name: str
    version: str
    file: str
    sha256: str


def requirement_line(name: str, version: str, sha256: str) -> str:
    """One line that pip takes with --require-hashes; ``name`` may carry extras."""
    return f"{name}=={version} --hash=sha256:{sha256}"


def lock_text(target: Target, wheels: list[Locked]) -> str:
    """The lock file of ``target``."""
    lines = [
        f"# Wheels for {target.system}: CPython {target.python_version}, {target.machine}, "
        f"glibc {target.glibc_version}.",
        f"# Written by: jetson/make_wheelhouse.sh {target.name} --update",
    ]
    for wheel in sorted(wheels, key=lambda wheel: wheel.name):
        lines += [f"# {wheel.file}", requirement_line(wheel.name, wheel.version, wheel.sha256)]
    return "\n".join(lines) + "\n"


def read_lock(path: Path) -> list[Locked]:
    """The wheels of a lock file, in its order.

    Raises:
        LockError: it is absent, or a line is none that :func:`lock_text` writes; the message names file and line.
    """
    update = f"jetson/make_wheelhouse.sh {path.stem} --update"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise LockError(f"{path}: no such lock file; make it with: {update}") from None
    wheels: list[Locked] = []
    file = ""
    for number, line in enumerate(lines, start=1):
        if comment := _FILE.fullmatch(line):
            file = comment["file"]
        elif entry := _LINE.fullmatch(line):
            if not file:
                raise LockError(f"{path}:{number}: {entry['name']} has no line with its file above it; run: {update}")
            if entry["name"] in {wheel.name for wheel in wheels}:
                raise LockError(f"{path}:{number}: {entry['name']} is locked twice; run: {update}")
            wheels.append(Locked(entry["name"], entry["version"], file, entry["sha256"]))
            file = ""
        elif line.strip() and not line.startswith("#"):
            raise LockError(f"{path}:{number}: expected NAME==VERSION --hash=sha256:…, got {line!r}; run: {update}")
    if not wheels:
        raise LockError(f"{path}: no wheel is locked; run: {update}")
    return wheels
