"""``provision``: from a flashed board to a running service."""

from __future__ import annotations

import argparse

HELP = "Install or mend everything on this machine: program, bundle, service."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``provision``."""


def run(options: argparse.Namespace) -> int:
    """Provision this machine; gives the exit code."""
    return 0
