"""Manifest, requirements and instructions beside the wheels, in a tar that is the same wherever it is made."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .contents import PROJECT, Wheel
from .lock import requirement_line
from .sbom import sbom_text
from .targets import Target

FORMAT = 1


@dataclass(frozen=True)
class Source:
    """Where the project's own wheel came from."""

    commit: str | None
    modified: bool
    date: int
    """Seconds since 1970: the times of everything in the archive."""


def archive_name(target: Target, wheels: list[Wheel]) -> str:
    """Name of the archive without its suffix, and of the one folder in it."""
    (own,) = (wheel for wheel in wheels if wheel.name == PROJECT)
    return f"{PROJECT}-{own.version}-{target.name}"


def requirements_text(target: Target, wheels: list[Wheel]) -> str:
    """All wheels with their hashes, the project's own with its extras, for ``pip install --require-hashes``."""
    lines = [f"# Install with: {_PIP_INSTALL}"]
    for wheel in wheels:
        name = f"{PROJECT}[{','.join(target.extras)}]" if wheel.name == PROJECT else wheel.name
        lines.append(requirement_line(name, wheel.version, wheel.sha256))
    return "\n".join(lines) + "\n"


def manifest(target: Target, wheels: list[Wheel], source: Source) -> dict[str, object]:
    """What is inside, as jetson/wheelhouse/README.md describes it."""
    (own,) = (wheel for wheel in wheels if wheel.name == PROJECT)
    return {
        "format": FORMAT,
        "project": PROJECT,
        "version": own.version,
        "sequence": source.date,
        "target": {
            "name": target.name,
            "python": target.python_version,
            "implementation": "cp",
            "abi": target.abi,
            "machine": target.machine,
            "glibc": target.glibc_version,
            "extras": list(target.extras),
        },
        "source": {"commit": source.commit, "modified": source.modified, "date": source.date},
        "bytes": sum(wheel.bytes for wheel in wheels),
        "wheels": [
            {
                "name": wheel.name,
                "version": wheel.version,
                "file": wheel.file.name,
                "bytes": wheel.bytes,
                "sha256": wheel.sha256,
                "licence": wheel.licence,
            }
            for wheel in wheels
        ],
    }


def member_texts(target: Target, wheels: list[Wheel], source: Source) -> dict[str, str]:
    """What lies beside the folder of wheels: a text for each name."""
    return {
        "INSTALL.txt": install_text(target, wheels),
        "manifest.json": json.dumps(manifest(target, wheels, source), indent=2, ensure_ascii=False) + "\n",
        "requirements.lock": requirements_text(target, wheels),
        "sbom.cdx.json": sbom_text(target, wheels, source),
    }


def install_text(target: Target, wheels: list[Wheel]) -> str:
    """The commands for the device."""
    # JetPack's TensorRT bindings are seen only through the system's packages.
    system = " --system-site-packages" if "tensorrt" in target.extras else ""
    name = archive_name(target, wheels)
    return f"""\
{name}: everything that edge-reclass needs on {target.system} ({target.machine}, Python {target.python_version}).
For a service that runs by itself, with edge-reclass-appliance, the file that is made beside this archive:

    sudo python3 -IB edge-reclass-appliance provision --wheelhouse {name}.tar

By hand, in this folder, without a network (pip runs out of its own wheel, so python3-venv is not needed):

    python3 -m venv --without-pip{system} ~/edge-reclass
    ~/edge-reclass/bin/python "$(echo wheels/pip-*.whl)"/{_PIP_INSTALL}

Then: ~/edge-reclass/bin/edge-reclass classify FOLDER
"""


_PIP_INSTALL = "pip install --no-index --find-links wheels --require-hashes -r requirements.lock"


def pack(target: Target, wheels: list[Wheel], source: Source, folder: Path) -> Path:
    """Write ``NAME.tar``, ``NAME.tar.sha256`` and ``NAME.cdx.json`` into ``folder``; gives the archive's path.

    The bytes depend on the arguments alone: names in order, owner 0, fixed modes, all times ``source.date``.
    """
    name = archive_name(target, wheels)
    texts = member_texts(target, wheels, source)
    archive = folder / f"{name}.tar"
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(_member(name, source, directory=True))
        for member in sorted(texts):
            data = texts[member].encode("utf-8")
            tar.addfile(_member(f"{name}/{member}", source, size=len(data)), io.BytesIO(data))
        tar.addfile(_member(f"{name}/wheels", source, directory=True))
        for wheel in sorted(wheels, key=lambda wheel: wheel.file.name):
            with wheel.file.open("rb") as stream:
                tar.addfile(_member(f"{name}/wheels/{wheel.file.name}", source, size=wheel.bytes), stream)
    with archive.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    (folder / f"{archive.name}.sha256").write_text(f"{digest.hexdigest()}  {archive.name}\n", encoding="ascii")
    (folder / f"{name}.cdx.json").write_text(texts["sbom.cdx.json"], encoding="utf-8")
    return archive


def _member(name: str, source: Source, *, size: int = 0, directory: bool = False) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mtime = source.date
    member.mode = 0o755 if directory else 0o644
    member.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    return member
