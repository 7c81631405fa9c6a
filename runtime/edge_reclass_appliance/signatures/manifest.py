"""``release.json``: which files a release has, by size and digest, and which release is the newer one.

    {
      "format": 1,
      "project": "edge-reclass",
      "name": "edge-reclass",        what this is a release of: the program, or a bundle by its name
      "version": "0.2.0",            for people
      "sequence": 1764442800,        grows with every release of that name; what is smaller is older
      "files": [{"name": "edge-reclass-0.2.0-jetpack6.tar", "bytes": 131072000, "sha256": "…"}, …]
    }

The files lie beside it, in one folder, and ``release.json.minisig`` is its signature.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from .minisign import SignatureError

MANIFEST = "release.json"
SIGNATURE = f"{MANIFEST}.minisig"
MOST_BYTES = 1024 * 1024
"""No manifest is longer: it names some dozens of files."""

PROJECT = "edge-reclass"
FORMAT = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"format", "project", "name", "version", "sequence", "files"}


@dataclass(frozen=True)
class Entry:
    """One file of a release."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """What a ``release.json`` says."""

    name: str
    version: str
    sequence: int
    files: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """For people, such as ``edge-reclass 0.2.0 (sequence 1764442800)``."""
        return f"{self.name} {self.version} (sequence {self.sequence})"

    def entry(self, name: str) -> Entry:
        """The file ``name``.

        Raises:
            SignatureError: the release has no such file.
        """
        for entry in self.files:
            if entry.name == name:
                return entry
        listed = ", ".join(entry.name for entry in self.files)
        raise SignatureError(f"{name} is no file of the release {self.title}, which lists: {listed}")

    def to_bytes(self) -> bytes:
        """The text of its ``release.json``, the same for the same release."""
        said = {"format": FORMAT, "project": PROJECT, **asdict(self)}
        return (json.dumps(said, indent=2) + "\n").encode("ascii")


def is_plain_name(name: object) -> bool:
    """Whether this names one file in a folder, in letters that are safe everywhere, other than the manifest's own."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and name not in (MANIFEST, SIGNATURE)


def read(data: bytes, where: str) -> Release:
    """The release that ``release.json`` describes; ``where`` stands in the errors.

    Raises:
        SignatureError: it is not as this module's head describes it.
    """
    try:
        said = json.loads(data.decode("ascii"), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise SignatureError(f"{where}: not a release's manifest: {error}") from None
    if not isinstance(said, dict) or said.get("project") != PROJECT:
        raise SignatureError(f"{where}: not the manifest of a release of {PROJECT}")
    if said.get("format") != FORMAT:
        raise SignatureError(
            f"{where}: expected format {FORMAT}, got {said.get('format')!r}: this release is for a newer program"
        )
    if set(said) != _FIELDS:
        raise SignatureError(f"{where}: expected the fields {sorted(_FIELDS)}, got {sorted(said)}")
    name, version, sequence, files = (said[field] for field in ("name", "version", "sequence", "files"))
    for field, value in (("name", name), ("version", version)):
        if not isinstance(value, str) or _NAME.fullmatch(value) is None:
            raise SignatureError(f"{where}: {field}: expected letters, digits and . _ + -, got {value!r}")
    if not _is_count(sequence):
        raise SignatureError(f"{where}: sequence: expected a number from 0 on, got {sequence!r}")
    if not isinstance(files, list) or not files:
        raise SignatureError(f"{where}: files: expected a list of files, got {files!r}")
    entries = tuple(_entry(file, where) for file in files)
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise SignatureError(f"{where}: files: a name is listed twice")
    return Release(name, version, sequence, entries)


def _entry(said: Any, where: str) -> Entry:
    if not isinstance(said, dict) or set(said) != {"name", "bytes", "sha256"}:
        raise SignatureError(f"{where}: files: expected name, bytes and sha256, got {said!r}")
    if not is_plain_name(said["name"]):
        raise SignatureError(f"{where}: files: expected the name of a file beside the manifest, got {said['name']!r}")
    if not _is_count(said["bytes"]):
        raise SignatureError(f"{where}: {said['name']}: expected its number of bytes, got {said['bytes']!r}")
    if not isinstance(said["sha256"], str) or _SHA256.fullmatch(said["sha256"]) is None:
        raise SignatureError(f"{where}: {said['name']}: expected a sha256 of 64 digits, got {said['sha256']!r}")
    return Entry(said["name"], said["bytes"], said["sha256"])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands there twice")
    return found
