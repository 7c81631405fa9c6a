"""Operating system and its packages."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path

from edge_reclass.host import read_text
from edge_reclass_doctor.machine.records import OperatingSystem


def probe_os(root: Path, environ: Mapping[str, str]) -> OperatingSystem:
    """Name, kernel, architecture, and whether it looks like a container."""
    release = read_text(root / "etc/os-release") or ""
    match = re.search(r"^PRETTY_NAME=(.*)$", release, re.MULTILINE)
    name = match[1].strip().strip("\"'") if match else ""
    return OperatingSystem(
        name=name or None,
        kernel=read_text(root / "proc/sys/kernel/osrelease") or platform.release() or None,
        architecture=read_text(root / "proc/sys/kernel/arch") or platform.machine().lower(),
        container=_container(root, environ),
    )


def _container(root: Path, environ: Mapping[str, str]) -> str | None:
    """A hint, no proof: files and variables that container managers leave."""
    for file, manager in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (root / file).exists():
            return manager
    if kind := environ.get("container"):  # systemd-nspawn and others
        return kind
    groups = read_text(root / "proc/1/cgroup") or ""
    match = re.search(r"\b(docker|kubepods|lxc|containerd)\b", groups)
    return match[1] if match else None


def debian_versions(root: Path) -> dict[str, str]:
    """Installed Debian packages of NVIDIA's, name → version, from dpkg's own database."""
    text = read_text(root / "var/lib/dpkg/status", 1 << 26) or ""
    versions = {}
    for entry in re.split(r"\n\s*\n", text):
        match = re.match(
            r"Package: ((?:nvidia-|libnvinfer|python3-libnvinfer|libcudnn|cuda-)\S*)$", entry, re.MULTILINE
        )
        if match and re.search(r"^Status: \S+ \S+ installed$", entry, re.MULTILINE):
            version = re.search(r"^Version: (\S+)$", entry, re.MULTILINE)
            if version:
                versions[match[1]] = version[1]
    return versions
