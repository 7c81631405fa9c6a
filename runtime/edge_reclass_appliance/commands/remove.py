"""``remove``: takes away what ``provision`` installed. What is known of the music stays, unless ``--purge``."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

from edge_reclass_appliance import files, places, trust, units, users
from edge_reclass_appliance.errors import ApplianceError, usage
from edge_reclass_appliance.places import Settings
from edge_reclass_appliance.saying import Steps, say
from edge_reclass_appliance.services import Services

HELP = "Stop and remove the service and the program; verdicts, bundles and settings stay unless --purge."

_KEPT = (places.ETC, places.STATE, places.CACHE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``remove``."""
    parser.add_argument("--purge", action="store_true", help="delete verdicts, bundles, settings and the user as well")
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Remove; gives the exit code."""
    root = places.require_folder(options.root)
    if root == Path("/") and os.geteuid() != 0:
        raise usage("this changes the machine and needs root", "sudo edge-reclass-appliance remove")
    settings, steps = places.read_settings(root), Steps()
    _remove_units(root, steps)
    _remove_commands(root, settings, steps)
    _remove_program(root, settings, steps)
    kept = [folder for folder in _KEPT if (root / folder[1:]).exists()]
    if options.purge:
        for folder in kept:
            _delete(root / folder[1:])
            steps.step("done", "purge", folder)
        _remove_user(root, settings, steps)
    elif kept:
        how = "edge-reclass-appliance remove --purge" if trust.packaged(root) is None else "dpkg -P edge-reclass"
        say(f"what is known of the music stays, in {', '.join(kept)}; to delete it: sudo {how}")
    if not steps.done:
        say("nothing was removed: nothing is installed")
    return 0


def _remove_units(root: Path, steps: Steps) -> None:
    services, folder = Services(root), root / places.UNITS[1:]
    there = [name for name in units.ALL if (folder / name).exists()]
    for name in there:
        services.ask("disable", "--now", name)
        (folder / name).unlink()
    if there and services.live:
        services.do("daemon-reload")
    if there:
        steps.step("done", "units", f"stopped and removed: {', '.join(there)}")


def _remove_commands(root: Path, settings: Settings, steps: Steps) -> None:
    """Only links that lead to what is removed here."""
    for name in ("edge-reclass", "edge-reclass-appliance"):
        link = root / places.COMMANDS[1:] / name
        if files.link_target(link).startswith(f"{settings.prefix}/"):
            link.unlink()
            steps.step("done", "commands", f"{places.COMMANDS}/{name}")


def _remove_program(root: Path, settings: Settings, steps: Steps) -> None:
    """What provision made in the prefix, by name: nothing else that lies there."""
    prefix = root / settings.prefix[1:]
    tool = root / settings.tool[1:]
    ours = [prefix / "venv", prefix / "venvs", prefix / "share/jetson", tool, *prefix.glob(".unpacked.*")]
    there = [path for path in ours if path.exists() or path.is_symlink()]
    for path in there:
        _delete(path)
    for folder in (tool.parent, prefix / "share", prefix):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    if there:
        steps.step("done", "program", settings.prefix)


def _remove_user(root: Path, settings: Settings, steps: Steps) -> None:
    """The user that provision made, which has our folder as its home; somebody's own account stays."""
    name = settings.service_user
    if not users.is_ours(root, name):
        return
    elsewhere = [] if root == Path("/") else ["--prefix", str(root)]
    command = shutil.which("userdel") or "/usr/sbin/userdel"
    done = subprocess.run([command, *elsewhere, name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ApplianceError(f"the user {name} could not be removed: {done.stderr.strip()}", f"sudo userdel {name}")
    steps.step("done", "user", name)


def _delete(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise ApplianceError(f"{path} cannot be removed: {error}", f"ls -ld {path}") from error
