"""A bundle on the disk: strict loading, and files that are given out only as they were hashed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edge_reclass.bundle.encoders import decode_encoder
from edge_reclass.bundle.folder import open_regular, require_listed
from edge_reclass.bundle.limits import MANIFEST_BYTES
from edge_reclass.bundle.manifest import FORMAT, MANIFEST, FileEntry, Manifest, graphs, validate
from edge_reclass.bundle.onnx_external import refuse_external_data
from edge_reclass.bundle.strict_yaml import YamlError, parse_yaml
from edge_reclass.errors import BundleError, EngineError


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle: where it lies and what it must be. ``graph``: an ONNX file, which must be complete in itself.

    Equal ones stand for the same content, wherever the manifest names it.
    """

    path: Path
    entry: FileEntry
    graph: bool

    def read(self) -> bytes:
        """The content, read once and compared with the manifest: what was hashed is what is used.

        Raises:
            BundleError: the file is missing, cannot be read, or is not what the manifest says.
        """
        try:
            with open_regular(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                content = file.read() if size == self.entry.bytes else b""
        except OSError as error:
            raise self._unreadable(error) from error
        self._compare(FileEntry(sha256=content_entry(content).sha256, bytes=size))
        return content

    def check(self) -> None:
        """As :meth:`read`, without holding the content; a graph's tensors must lie in it.

        Raises:
            BundleError: as :meth:`read`; or a graph keeps data in another file, or is no ONNX.
        """
        try:
            with open_regular(self.path) as file:
                self._compare(_entry_of(file))
                if self.graph:
                    refuse_external_data(file, self.path)
        except OSError as error:
            raise self._unreadable(error) from error
        except EngineError as error:
            raise BundleError(str(error)) from error

    def _compare(self, found: FileEntry) -> None:
        if found.bytes != self.entry.bytes:
            raise BundleError(f"{self.path}: expected {self.entry.bytes} bytes, got {found.bytes}; {_FIX}")
        if found.sha256 != self.entry.sha256:
            raise BundleError(f"{self.path}: expected sha256 {self.entry.sha256}, got {found.sha256}; {_FIX}")

    def _unreadable(self, error: OSError) -> BundleError:
        return BundleError(f"{self.path}: cannot be read ({error.strerror}); {_FIX}")


@dataclass(frozen=True)
class Bundle:
    """A loaded manifest and the directory in which its files lie."""

    root: Path
    manifest: Manifest
    digest: str
    """sha256 of bundle.yaml, which holds the hash of every other file: it names the bundle's exact content."""

    @property
    def name(self) -> str:
        """The bundle's name in its manifest."""
        return self.manifest.name

    def path(self, file: str) -> Path:
        """Where a file of the manifest lies."""
        return self.root / file

    def file(self, file: str) -> BundleFile:
        """A file of the manifest, by its path in the bundle."""
        return BundleFile(self.root / file, self.manifest.files[file], file in set(graphs(self.manifest)))

    def require_exact(self) -> None:
        """Check that nothing lies in the bundle's folder but the manifest and what it lists. Hashes nothing.

        Raises:
            BundleError: a file that is not listed, or a link that leads out of the bundle; all are named.
        """
        require_listed(self.root, self.manifest.files)

    def verify(self, files: Iterable[str] | None = None) -> None:
        """Check ``files`` by size, sha256 and, where they are graphs, completeness.

        By default all files of the manifest, and that there are no others.

        Raises:
            BundleError: a file is missing, cannot be read, is not what the manifest says, or is not listed.
        """
        if files is None:
            self.require_exact()
        for file in self.manifest.files if files is None else files:
            self.file(file).check()


_FIX = "restore the bundle from its source or export it again"


def starter_path() -> Path:
    """Directory of the bundle that is embedded in the package."""
    return Path(__file__).parent.parent / "bundles" / "starter"


def load(path: str | Path) -> Bundle:
    """Read and validate ``path``/bundle.yaml. File hashes are checked by :meth:`Bundle.verify`, not here.

    Raises:
        BundleError: no manifest there, not YAML, unknown, missing or duplicate keys, wrong types or values, or parts
            that do not fit together. The message names the file, the key, what was expected and what was found.
    """
    root = Path(path)
    file = root / MANIFEST
    try:
        with open_regular(file) as stream:
            content = stream.read(MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{file}: cannot be read ({error.strerror}); a bundle is a directory with a {MANIFEST}"
        ) from error
    if len(content) > MANIFEST_BYTES:
        raise BundleError(f"{file}: expected at most {MANIFEST_BYTES} bytes, got more")
    try:
        plain = parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{file}: expected UTF-8 text, got {error}") from error
    except YamlError as error:
        raise BundleError(f"{file}: {error}") from error
    if isinstance(plain, dict) and plain.get("format", FORMAT) != FORMAT:
        raise BundleError(
            f"{file}: key format: expected {FORMAT}, got {plain['format']!r}; update edge-reclass or export again"
        )
    try:
        manifest = msgspec.convert(plain, Manifest, dec_hook=decode_encoder)
    except msgspec.ValidationError as error:
        raise BundleError(f"{file}: {_found(plain, str(error))}") from error
    if wrong := list(validate(manifest)):
        raise BundleError(f"{file}: " + "; ".join(wrong))
    return Bundle(root, manifest, content_entry(content).sha256)


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file, as the manifest keeps them."""
    with path.open("rb") as file:
        return _entry_of(file)


def content_entry(content: bytes) -> FileEntry:
    """As :func:`file_entry`, of a file with this content."""
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _entry_of(file: BinaryIO) -> FileEntry:
    """As :func:`file_entry`, of a file opened at its start; it is read once and not held."""
    digest, size = hashlib.sha256(), 0
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
    return FileEntry(sha256=digest.hexdigest(), bytes=size)


def _found(plain: object, message: str) -> str:
    """Add the value that was found to msgspec's message, which ends with its path such as ``$.stages[0].name``."""
    # The path below an encoder stands in front of the encoder's own.
    message = re.sub(r" - at `\$(\S*)` - at `\$(\S*)`$", r" - at `$\2\1`", message)
    match = re.search(r" - at `\$(\S*)`$", message)
    if match is None:
        return message
    value: Any = plain
    for key, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", match[1]):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):
            return message
    if isinstance(value, dict | list):
        return message
    return f"{message}, got {value!r}"
