"""A Debian package per target: the wheelhouse and the appliance's commands, for ``dpkg -i`` without a network.

It only lays files down. ``edge-reclass-appliance provision`` makes the environment, the service and their settings out
of them, and ``edge-reclass-appliance remove`` takes those away again, which the package does when it is removed.

Written here and not by dpkg-deb, so that it can be made on any machine, and the same input gives the same bytes.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .archive import Source, member_texts
from .contents import PROJECT, Wheel
from .targets import Target

PACKAGE = "edge_reclass_appliance"
LIBRARY = f"usr/lib/{PROJECT}"
WHEELHOUSE = f"usr/share/{PROJECT}/wheelhouse"
DOCUMENTS = f"usr/share/doc/{PROJECT}"

_ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64"}
_MAINTAINER = "edge-reclass developers <edge-reclass@invalid>"
_HOMEPAGE = "https://github.com/edge-reclass/edge-reclass"

_COMMAND = f"""\
#!/usr/bin/python3 -IB
\"\"\"Installs and tends edge-reclass on this machine.\"\"\"

import sys

sys.path.insert(0, "/{LIBRARY}")

from {PACKAGE}.__main__ import main

sys.exit(main(program="edge-reclass-appliance"))
"""

_AFTER_UNPACKING = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
  if [ -e /etc/edge-reclass/provision.conf ] || [ -e /opt/edge-reclass/venv ]; then
    echo "edge-reclass: the version before is in use until you run: sudo edge-reclass-appliance provision --yes"
  else
    echo "edge-reclass: nothing runs yet. Next: sudo edge-reclass-appliance provision --music FOLDER"
  fi
fi
"""

_BEFORE_REMOVING = """\
#!/bin/sh
set -e
if [ "$1" = remove ]; then edge-reclass-appliance remove; fi
"""

_AFTER_REMOVING = """\
#!/bin/sh
set -e
if [ "$1" = purge ]; then
  rm -rf /etc/edge-reclass /var/lib/edge-reclass /var/cache/edge-reclass
  home=$(getent passwd edge-reclass | cut -d: -f6)
  if [ "$home" = /var/lib/edge-reclass ]; then userdel edge-reclass || true; fi  # another's account of this name stays
fi
"""


@dataclass(frozen=True)
class _File:
    """One file of the package: its path without a leading slash, and its bytes or where they are."""

    path: str
    data: bytes | Path
    executable: bool = False

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data) if isinstance(self.data, bytes) else self.data.open("rb")

    @property
    def bytes(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size


def deb_version(target: Target, version: str) -> str:
    """The package's version: a pre-release sorts before its release, and each system has its own."""
    system = target.name.partition("-")[0]
    return re.sub(r"\.?(dev|a|b|rc)(?=\d)", r"~\1", version) + f"+{system}"


def pack_deb(target: Target, wheels: list[Wheel], source: Source, folder: Path) -> Path:
    """Write ``edge-reclass_VERSION+SYSTEM_ARCHITECTURE.deb`` into ``folder``; gives its path.

    Raises:
        ValueError: the project's own wheel holds no appliance.
    """
    (own,) = (wheel for wheel in wheels if wheel.name == PROJECT)
    version, architecture = deb_version(target, own.version), _ARCHITECTURES[target.machine]
    files = sorted(_files(target, wheels, source, own, version), key=lambda file: file.path)
    control = {
        "control": _control(target, version, architecture, files),
        "md5sums": "".join(f"{_md5(file)}  {file.path}\n" for file in files),
        "postinst": _AFTER_UNPACKING,
        "postrm": _AFTER_REMOVING,
        "prerm": _BEFORE_REMOVING,
    }
    scripts = ("postinst", "postrm", "prerm")
    controls = [_File(name, text.encode(), name in scripts) for name, text in sorted(control.items())]
    package = folder / f"{PROJECT}_{version}_{architecture}.deb"
    with package.open("w+b") as stream:
        stream.write(b"!<arch>\n")
        _member(stream, "debian-binary", source.date, io.BytesIO(b"2.0\n"))
        _member(stream, "control.tar", source.date, io.BytesIO(_tar(controls, source.date).getvalue()))
        # The wheels are not held in memory: the archive goes straight into the package, its size is filled in after it.
        begin = stream.tell()
        stream.write(_header("data.tar", source.date, 0))
        _tar(files, source.date, stream)
        size = stream.tell() - begin - _HEADER_BYTES
        stream.seek(begin)
        stream.write(_header("data.tar", source.date, size))
    return package


def _files(target: Target, wheels: list[Wheel], source: Source, own: Wheel, version: str) -> Iterator[_File]:
    with zipfile.ZipFile(own.file) as archive:
        programs = [name for name in archive.namelist() if name.startswith(f"{PACKAGE}/") and not name.endswith("/")]
        if f"{PACKAGE}/__main__.py" not in programs:
            raise ValueError(f"{own.file}: expected {PACKAGE}/__main__.py in it: the wheel has no appliance")
        for name in programs:
            yield _File(f"{LIBRARY}/{name}", archive.read(name))
    yield _File("usr/bin/edge-reclass-appliance", _COMMAND.encode(), executable=True)
    for name, text in member_texts(target, wheels, source).items():
        if name != "INSTALL.txt":  # the way without this package
            yield _File(f"{WHEELHOUSE}/{name}", text.encode())
    for wheel in wheels:
        yield _File(f"{WHEELHOUSE}/wheels/{wheel.file.name}", wheel.file)
    date = datetime.datetime.fromtimestamp(source.date, datetime.timezone.utc)
    yield _File(f"{DOCUMENTS}/copyright", _copyright(wheels, date.year).encode())
    signed = f" -- {_MAINTAINER}  {date:%a, %d %b %Y %H:%M:%S} +0000"
    change = f"{PROJECT} ({version}) stable; urgency=medium\n\n  * See {_HOMEPAGE}.\n\n{signed}\n"
    yield _File(f"{DOCUMENTS}/changelog.gz", gzip.compress(change.encode(), 9, mtime=0))


def _control(target: Target, version: str, architecture: str, files: list[_File]) -> str:
    major, minor = target.python
    fields = {
        "Package": PROJECT,
        "Version": version,
        "Architecture": architecture,
        "Maintainer": _MAINTAINER,
        "Installed-Size": str(sum(-(-file.bytes // 1024) for file in files)),
        "Depends": f"python3 (>= {target.python_version}~), python3 (<< {major}.{minor + 1}~), "
        f"libc6 (>= {target.glibc_version}), libstdc++6, passwd",
        "Recommends": "systemd" + (", python3-libnvinfer" if "tensorrt" in target.extras else ""),
        "Section": "sound",
        "Priority": "optional",
        "Homepage": _HOMEPAGE,
        "Description": "genres for a music library, without a network\n"
        " Listens to a music library and gives every track a genre.\n"
        f" For {target.system}.\n"
        " It holds everything that is needed, and lays it down; the command\n"
        " edge-reclass-appliance provision sets the service up.",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _copyright(wheels: list[Wheel], year: int) -> str:
    listed = "".join(f"  {wheel.name} {wheel.version}: {wheel.licence or 'not stated'}\n" for wheel in wheels)
    return (
        f"edge-reclass, from {_HOMEPAGE}\n\n"
        f"Copyright (C) {year} the edge-reclass developers, and the authors of each wheel.\n\n"
        f"Licence of each wheel, as it says itself; its text is in the wheel:\n\n{listed}\n"
        "The text of Apache-2.0: /usr/share/common-licenses/Apache-2.0\n"
    )


def _tar(files: list[_File], date: int, stream: BinaryIO | None = None) -> io.BytesIO:
    """All files with their folders, owner root, written into ``stream`` where one is given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=stream or buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders: set[str] = set()
        for file in files:
            parts = ["."] + [f"./{parent}" for parent in reversed(Path(file.path).parents) if str(parent) != "."]
            for parent in parts:
                if parent not in folders:
                    folders.add(parent)
                    tar.addfile(_info(f"{parent}/", date, 0o755, tarfile.DIRTYPE))
            info = _info(f"./{file.path}", date, 0o755 if file.executable else 0o644, tarfile.REGTYPE)
            info.size = file.bytes
            with file.open() as content:
                tar.addfile(info, content)
    return buffer


def _info(name: str, date: int, mode: int, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mtime, info.mode, info.type = date, mode, kind
    info.uname = info.gname = "root"
    return info


def _member(stream: BinaryIO, name: str, date: int, content: io.BytesIO) -> None:
    data = content.getvalue()
    stream.write(_header(name, date, len(data)) + data + b"\n" * (len(data) % 2))


_HEADER_BYTES = 60


def _header(name: str, date: int, size: int) -> bytes:
    """An entry's head in an ar archive."""
    return f"{name:<16}{date:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode("ascii")


def _md5(file: _File) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open() as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
