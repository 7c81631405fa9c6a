"""What a folder of wheels holds, and whether a target can be installed from it alone."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

from .lock import Locked
from .targets import Target

PROJECT = "edge-reclass"

# A licence field may hold the licence's whole text; what is longer than a name is not shown.
_LONGEST_LICENCE = 120


@dataclass(frozen=True)
class Wheel:
    """One wheel file and what its metadata says."""

    name: str
    version: str
    file: Path
    bytes: int
    sha256: str
    requires: tuple[Requirement, ...]
    requires_python: str
    licence: str | None

    @property
    def locked(self) -> Locked:
        """Its entry in a lock file."""
        return Locked(self.name, self.version, self.file.name, self.sha256)


def read_wheel(file: Path) -> Wheel:
    """Name, version, hash and metadata of a wheel.

    Raises:
        ValueError: it is no wheel; the message names it.
    """
    name, version, _, _ = parse_wheel_filename(file.name)
    try:
        with zipfile.ZipFile(file) as archive:
            (member,) = (
                entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA") and entry.count("/") == 1
            )
            metadata = Parser().parsestr(archive.read(member).decode("utf-8"), headersonly=True)
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{file}: not a wheel: {error}") from error
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return Wheel(
        name=name,
        version=str(version),
        file=file,
        bytes=file.stat().st_size,
        sha256=digest.hexdigest(),
        requires=tuple(Requirement(line) for line in metadata.get_all("Requires-Dist", [])),
        requires_python=metadata.get("Requires-Python", ""),
        licence=_licence(metadata),
    )


def read_wheels(folder: Path) -> list[Wheel]:
    """Every wheel of a folder, by name."""
    return sorted((read_wheel(file) for file in folder.iterdir()), key=lambda wheel: wheel.name)


def faults(target: Target, wheels: list[Wheel], locked: list[Locked]) -> Iterator[str]:
    """Everything that keeps ``target`` from being installed from ``wheels``, one line each; nothing if all is well.

    ``wheels`` holds what ``locked`` names, and the project's own wheel.
    """
    by_name: dict[str, Wheel] = {}
    for wheel in wheels:
        if wheel.name in by_name:
            yield f"{wheel.name} is there twice: {by_name[wheel.name].file.name} and {wheel.file.name}"
        by_name[wheel.name] = wheel
        yield from _unfit(target, wheel)
    for lock in locked:
        found = by_name.get(lock.name)
        if found is None:
            yield f"{lock.name} {lock.version} is locked but was not downloaded"
        elif found.locked != lock:
            yield f"{lock.name}: expected {lock.file} {lock.sha256}, got {found.file.name} {found.sha256}"
    if PROJECT not in by_name:
        yield f"the wheel of {PROJECT} itself is missing"
        return
    reached, unmet = needed(target, by_name)
    yield from unmet
    for name in sorted(set(by_name) - reached):
        yield f"{name} is locked but nothing needs it"


def needed(target: Target, wheels: Mapping[str, Wheel]) -> tuple[set[str], list[str]]:
    """What ``edge-reclass[extras]`` and pip reach through the wheels' own requirements, and what of it is not met."""
    roots = [(PROJECT, extra) for extra in ("", *target.extras)]
    waiting = [*roots, ("pip", "")]
    reached: set[tuple[str, str]] = set()
    unmet: list[str] = []
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in reached:
            continue
        reached.add((name, extra))
        if name not in wheels:
            unmet.append(f"{name} is missing")
            continue
        for requirement in wheels[name].requires:
            if requirement.marker and not requirement.marker.evaluate({**target.markers(), "extra": extra}):
                continue
            dependency = canonicalize_name(requirement.name)
            found = wheels.get(dependency)
            if found is not None and not requirement.specifier.contains(found.version, prereleases=True):
                unmet.append(f"{name} needs {requirement.name}{requirement.specifier}, got {found.version}")
            if found is None:
                unmet.append(f"{name} needs {requirement.name}{requirement.specifier}, which is missing")
                continue
            waiting += [(dependency, wanted) for wanted in ("", *requirement.extras)]
    return {name for name, _ in reached}, unmet


def _unfit(target: Target, wheel: Wheel) -> Iterator[str]:
    _, _, _, tags = parse_wheel_filename(wheel.file.name)
    if not tags & target.tags():
        yield f"{wheel.file.name} does not install on {target.name} ({target.abi}, glibc {target.glibc_version})"
    if not SpecifierSet(wheel.requires_python).contains(f"{target.python_version}.0"):
        yield f"{wheel.file.name} needs Python {wheel.requires_python}, {target.name} has {target.python_version}"


def _licence(metadata: Message) -> str | None:
    """The SPDX expression, else the licence field where it is a name, else the trove classifiers."""
    for field in ("License-Expression", "License"):
        text = str(metadata.get(field, "")).strip()
        if text and "\n" not in text and len(text) <= _LONGEST_LICENCE:
            return text
    classifiers = [str(line) for line in metadata.get_all("Classifier", [])]
    names = [line.split(" :: ")[-1] for line in classifiers if line.startswith("License :: ")]
    return ", ".join(names) or None
