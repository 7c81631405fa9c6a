"""``bundle``: which bundle is in use, a new one, and the way back."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from edge_reclass_appliance import files, places, program, trust, units
from edge_reclass_appliance.bundles import CURRENT, PREVIOUS, Bundles
from edge_reclass_appliance.commands.verify_release import add_trust, trust_of
from edge_reclass_appliance.errors import BAD_BUNDLE, ApplianceError, usage
from edge_reclass_appliance.limits import limits
from edge_reclass_appliance.machine import detect, require_tensorrt
from edge_reclass_appliance.saying import Steps
from edge_reclass_appliance.services import Services
from edge_reclass_appliance.steps import start
from edge_reclass_appliance.trial import Trial
from edge_reclass_appliance.units import Plan

HELP = "List bundles, try and install a new one, or go back to the one before."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``bundle``."""
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="what is installed, and what is in use")
    install = actions.add_parser(
        "install", help="check, build and try it, then switch; the one in use stays until then"
    )
    install.add_argument("source", type=Path, metavar="DIR|TAR")
    add_trust(install)
    actions.add_parser("rollback", help="switch back to the one before, which is tried again if the machine changed")
    for name, what in (("use", "switch to an installed one, likewise"), ("remove", "delete one that is not in use")):
        actions.add_parser(name, help=what).add_argument("id", metavar="ID")


def run(options: argparse.Namespace) -> int:
    """Do what was asked of bundles; gives the exit code."""
    root = places.require_folder(options.root)
    if options.action == "list":
        return _list(root)
    if root == Path("/") and os.geteuid() != 0:
        raise usage("this changes the machine and needs root", f"sudo edge-reclass-appliance bundle {options.action} …")
    if not (root / places.SETTINGS[1:]).is_file():
        raise usage("edge-reclass is not installed on this machine", "provision.sh --wheelhouse TAR")
    machine = detect(root)
    require_tensorrt(machine)
    plan = Plan(root, places.read_settings(root), machine, limits(machine))
    bundles = Bundles(program.for_plan(plan), Trial(plan))
    with files.one_at_a_time(root / places.BUNDLES[1:]):
        return _change(options, bundles)


def _list(root: Path) -> int:
    folder = root / places.BUNDLES[1:]
    marks = {files.link_target(folder / PREVIOUS): "before", files.link_target(folder / CURRENT): "in use"}
    for path in sorted(folder.glob("*/bundle.yaml")):
        if not path.parent.is_symlink():
            print(f"{path.parent.name:40} {marks.get(path.parent.name, '')}".rstrip())
    return 0


def _change(options: argparse.Namespace, bundles: Bundles) -> int:
    steps, before = Steps(), bundles.named(CURRENT)
    if bundles.trial.explain():
        steps.step("note", "trials", bundles.trial.explain())
    if options.action == "remove":
        bundles.remove(options.id)
        steps.step("done", "bundle", f"{options.id} was removed")
        return 0
    if options.action == "install":
        with trust.checked(options.source, trust_of(options), steps) as source:
            name = bundles.install(source)
    else:
        name = options.id if options.action == "use" else bundles.named(PREVIOUS)
        if not name or (options.action == "rollback" and name == before):
            raise usage("there is no bundle to go back to", "edge-reclass-appliance bundle list")
        bundles.require_installed(name)
        if name != before:
            bundles.require_usable(name)
    if name == before:
        steps.step("same", "bundle", name)
        return 0
    _switch(bundles, name, before)
    back = f"; edge-reclass-appliance bundle rollback goes back to {before}" if before else ""
    steps.step("done", "bundle", f"{name} is in use{back}")
    return 0


def _switch(bundles: Bundles, name: str, before: str) -> None:
    """Switch, and start the resident service again; where it does not become ready, go back.

    Raises:
        ApplianceError: the service does not start with the new bundle; the one before is in use again.
    """
    plan, previous = bundles.program.plan, bundles.named(PREVIOUS)
    services = Services(plan.root)
    bundles.switch(name)
    if not (plan.settings.resident and services.live and services.enabled(units.SERVICE)):
        return
    try:
        start(plan)
    except ApplianceError as error:
        if not before:
            raise
        files.switch(bundles.folder / CURRENT, before)
        if previous:
            files.switch(bundles.folder / PREVIOUS, previous)
        start(plan)
        raise ApplianceError(
            f"the service did not start with {name} ({error}); {before} is in use again", error.fix, BAD_BUNDLE
        ) from error
