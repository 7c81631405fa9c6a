"""Reads systemd's unit files, as far as ours need it: sections, repeated keys, resets, quoting, drop-ins."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

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


def render(name: str, variables: Mapping[str, str]) -> str:
    """jetson/units/``name`` with its placeholders replaced by provision.sh's own function.

    ``variables`` are those of the scripts: PREFIX, STATE, BUNDLES, ENGINES, ETC, SERVICE_USER, MUSIC, RESULTS, …
    """
    given = {
        "HERE": str(JETSON),
        "ROOT": "",
        "PREFIX": "/opt/edge-reclass",
        "SERVICE_USER": "edge-reclass",
        "MUSIC": "/srv/music",
        "RESULTS": "/var/lib/edge-reclass/results",
        "CALENDAR": "*-*-* 02:30:00",
        "DEVICE": "cpu",
        "JOBS": "2",
        "BATCH": "6",
        "MEMORY_MAX": "75%",
        **variables,
    }
    assignments = "\n".join(f"{key}={shlex.quote(value)}" for key, value in given.items())
    script = f"""set -euo pipefail
{assignments}
. "$HERE/lib/common.sh"
{assignments}
. "$HERE/lib/units.sh"
render "$HERE/units/{name}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout
