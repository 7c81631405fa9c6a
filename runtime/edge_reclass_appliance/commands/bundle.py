"""``bundle``: which bundle is in use, a new one, and the way back."""

from __future__ import annotations

import argparse

HELP = "List bundles, install a new one, or go back to the one before."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``bundle``."""


def run(options: argparse.Namespace) -> int:
    """Do what was asked of bundles; gives the exit code."""
    return 0
