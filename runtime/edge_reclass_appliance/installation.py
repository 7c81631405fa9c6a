"""What is installed on this machine, for people and for ``edge-reclass doctor``: read from where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_reclass_appliance import files, places
from edge_reclass_appliance.places import Settings

RECORD = f"{places.ETC}/installed"
"""What the machine was when it was last provisioned: KEY=value lines."""


@dataclass(frozen=True)
class Installation:
    """A machine that was provisioned."""

    settings: Settings
    program: str
    """Key of the environment in use; empty where there is none."""
    bundle: str
    previous: str
    """Bundles that ``current`` and ``previous`` name; empty where there is none."""
    record: dict[str, str]
    """TARGET, JETPACK, L4T, TENSORRT and PYTHON as they were."""


def find(root: Path = Path("/")) -> Installation | None:
    """The installation of the machine under ``root``; None where it was never provisioned."""
    if not (root / places.SETTINGS[1:]).is_file():
        return None
    settings, bundles = places.read_settings(root), root / places.BUNDLES[1:]
    return Installation(
        settings=settings,
        program=files.link_target(root / settings.venv[1:]).removeprefix("venvs/"),
        bundle=files.link_target(bundles / "current"),
        previous=files.link_target(bundles / "previous"),
        record=read_record(root),
    )


def read_record(root: Path) -> dict[str, str]:
    """The machine as it was when it was last provisioned; empty where it never was."""
    lines = (line.partition("=") for line in files.read(root / RECORD[1:]).splitlines())
    return {key: value for key, equals, value in lines if equals}
