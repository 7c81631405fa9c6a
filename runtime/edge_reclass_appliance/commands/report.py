"""``report``: what is new, changed and failed since the last report. The service's unit calls it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from edge_reclass_appliance import places, report

HELP = "Write the report on the music library: what is new, changed and failed since the one before."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``report``."""
    parser.add_argument("--failed", action="store_true", help="the service has failed: say what is known")
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Write and print the report; gives the exit code."""
    root = places.require_folder(options.root)
    settings = places.read_settings(root)
    if root == Path("/") and os.geteuid() == 0:
        report.become_the_service(root, settings)
    text = report.write(root, settings, failed=options.failed)
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    return 0
