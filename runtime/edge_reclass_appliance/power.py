"""A Jetson's power mode, by its name: numbers change with the JetPack, so that they are looked up at every boot."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from edge_reclass_appliance import files
from edge_reclass_appliance.errors import ApplianceError, usage

CONFIGURATION = "etc/nvpmodel.conf"


def modes(root: Path) -> dict[str, int]:
    """Name → number of the modes in /etc/nvpmodel.conf; empty where there is none."""
    found = re.findall(
        r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", files.read(root / CONFIGURATION), re.MULTILINE
    )
    return {name: int(number) for number, name in found}


def number_of(root: Path, name: str) -> int:
    """The number of the mode ``name`` on this machine.

    Raises:
        ApplianceError: it has no such mode (``USAGE``).
    """
    known = modes(root)
    if not known:
        raise usage(f"--power-mode {name}: this machine has no power modes: there are none in /{CONFIGURATION}")
    if name not in known:
        raise usage(f"--power-mode: this machine has no mode {name}; it has {', '.join(known)}")
    return known[name]


def current(root: Path) -> str:
    """The name of the mode that is set; empty where nvpmodel does not say."""
    del root
    try:
        done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    found = re.search(r"^NV Power Mode: *(\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else ""


def apply(root: Path, name: str) -> bool:
    """Set the mode ``name``; False: it was set already.

    Raises:
        ApplianceError: there is no such mode, or nvpmodel did not set it (some changes need a reboot, which it asks
            for; it gets no answer here).
    """
    number = number_of(root, name)
    if current(root) == name:
        return False
    command = ["nvpmodel", "-m", str(number)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).strip()
    except OSError as error:
        said = str(error)
    if current(root) != name:
        raise ApplianceError(
            f"the power mode {name} was not set: {said or 'nvpmodel said nothing'}",
            f"sudo nvpmodel -m {number}   (may ask for a reboot)",
        )
    return True
