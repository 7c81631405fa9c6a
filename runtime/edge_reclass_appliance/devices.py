"""The device nodes of a GPU, for systemd's DeviceAllow, and the groups that may open them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from edge_reclass_appliance import files, users

NODES = (
    "nvmap",
    "nvsciipc",
    "host1x-fence",
    "nvhost-ctrl",
    "nvhost-*gpu",
    "nvgpu/igpu*/*",
)
"""An integrated GPU's nodes, below /dev; patterns, since numbers and PCI addresses differ. The sources, and what is
left out (video, camera, DLA, display), are in docs/jetson.md."""

DRIVER_NODES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-caps/*", "dri/renderD*")
"""Nodes whose driver names itself in /proc/devices: allowed by that name, so that one which is made later counts."""

_DRIVERS = ("nvidia", "nvidiactl", "nvidia-uvm", "nvidia-caps", "nvidia-frontend")
_USUAL_GROUPS = ("video", "render")


def device_lines(root: Path) -> list[str]:
    """Values of DeviceAllow for what this machine has.

    Drivers are allowed by their names in /proc/devices (``char-nvidia-uvm``, ``char-drm``). A driver of NVIDIA brings
    all of its names along: systemd passes over those that are not there when the service starts.
    """
    named = set(
        re.findall(r"^ *\d+ (\S+)$", files.read(root / "proc/devices").split("Block devices:")[0], re.MULTILINE)
    )
    groups = [name for name in _DRIVERS if any(one.startswith("nvidia") for one in named)]
    groups += ["drm"] if "drm" in named else []
    paths = [f"/{node.relative_to(root)}" for node in _found(root, NODES if groups else (*NODES, *DRIVER_NODES))]
    return [*(f"char-{name} rw" for name in groups), *(f"{path} rw" for path in paths)]


def device_groups(root: Path) -> list[str]:
    """The groups that the service needs: those that own the nodes, and ``video`` and ``render``, where they exist."""
    known = users.groups(root)
    names = {number: name for name, number in known.items()}
    owners = set()
    for node in _found(root, (*NODES, *DRIVER_NODES)):
        with contextlib.suppress(OSError):
            owners.add(names.get(node.stat().st_gid, ""))
    return sorted((owners | {name for name in _USUAL_GROUPS if name in known}) - {"", "root"})


def nodes(root: Path) -> list[Path]:
    """The nodes that the service has to open: not those that a driver keeps for root (nvidia-caps)."""
    own = _found(root, NODES)
    return own + [node for node in _found(root, DRIVER_NODES) if node.stat().st_gid != 0]


def why_closed(root: Path, node: Path) -> tuple[str, str]:
    """Why the service may not open a node, and the command that mends it."""
    found = node.stat()
    name = {number: group for group, number in users.groups(root).items()}.get(found.st_gid)
    mode = f"/{node.relative_to(root)} (mode {found.st_mode & 0o7777:04o}, group {name or found.st_gid})"
    again = "sudo apt-get install --reinstall nvidia-l4t-init && sudo reboot   (brings the rules that set its group)"
    if name is None:
        fix = f"sudo groupadd --system --gid {found.st_gid} {'video' if found.st_gid == 44 else 'render'}"
        return f"{mode}: that group has no name on this machine, so no service can be in it", fix
    if name == "root" or not found.st_mode & 0o020:
        return f"{mode}: it is open to root alone", again
    return f"{mode}: it stays closed although the service is in that group", "edge-reclass doctor"


def _found(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [node for pattern in patterns for node in sorted((root / "dev").glob(pattern))]
