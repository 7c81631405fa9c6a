"""Reads systemd's unit files, as far as ours need it: sections, repeated keys, resets, quoting, drop-ins."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from edge_reclass_appliance import places, units
from edge_reclass_appliance.limits import limits
from edge_reclass_appliance.machine import Machine
from edge_reclass_appliance.releases import DEBIAN12, JETPACK6, RELEASES
from edge_reclass_appliance.units import Plan

JETSON = Path(__file__).resolve().parents[2] / "jetson"

Unit = dict[str, dict[str, list[str]]]
"""Section → key → the values that were assigned, in order; an empty assignment forgets what was before it."""


def parse(*texts: str) -> Unit:
    """The unit, and its drop-ins after it. Of a key that takes one value, the last counts: see :func:`last`."""
    unit: Unit = {}
    for text in texts:
        section: dict[str, list[str]] = {}
        for number, line in enumerate(text.replace("\\\n", " ").splitlines(), 1):
            line = line.strip()
            if not line or line[0] in "#;":
                continue
            if line.startswith("[") and line.endswith("]"):
                section = unit.setdefault(line[1:-1], {})
                continue
            key, equals, value = line.partition("=")
            if not equals:
                raise ValueError(f"line {number}: expected KEY=value, got {line!r}")
            if value.strip():
                section.setdefault(key.strip(), []).append(value.strip())
            else:
                section[key.strip()] = []
    return unit


def last(unit: Unit, section: str, key: str, default: str = "") -> str:
    values = unit.get(section, {}).get(key) or [default]
    return values[-1]


def words(unit: Unit, section: str, key: str) -> list[str]:
    """Every word of a key that takes a list; quotes hold blanks together."""
    return [word for value in unit.get(section, {}).get(key, []) for word in shlex.split(value)]


def plan(**changes: Any) -> Plan:
    """A Debian 12 without a GPU; ``changes`` are settings, or ``machine`` or ``root``."""
    machine = changes.pop("machine", Machine(DEBIAN12, None, "aarch64", "", "Debian GNU/Linux 12", 8.0, 4, ""))
    root = changes.pop("root", Path("/nowhere"))
    return Plan(root, places.given_settings(places.Settings(), changes), machine, limits(machine))


def jetson(root: Path) -> Plan:
    """An Orin Nano with the driver's names in /proc/devices, below ``root``."""
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/devices").write_text("Character devices:\n195 nvidia\n226 drm\n\nBlock devices:\n")
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/group").write_text("video:x:44:\nrender:x:104:\n")
    return plan(root=root, machine=Machine(JETPACK6, RELEASES[1], "aarch64", "", "Ubuntu", 7.4, 6, "10.3.0"))


def unit(name: str, of: Plan) -> Unit:
    """A unit of a machine, parsed."""
    return parse(units.render(of)[name])
