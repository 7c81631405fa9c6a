"""``power``: set the Jetson's power mode by its name. A unit calls it at every boot."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_reclass_appliance import places, power

HELP = "Set the Jetson's power mode by its name, such as 25W."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``power``."""
    parser.add_argument("name", metavar="NAME", help="a mode of /etc/nvpmodel.conf")
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Set the mode; gives the exit code."""
    changed = power.apply(places.require_folder(options.root), options.name)
    print(f"power mode {options.name}" if changed else f"power mode {options.name}: was set already")
    return 0
