"""``provision``: from a flashed board to a running service, offline.

Every step looks first and changes only what differs; a step that fails leaves what was there before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edge_reclass_appliance import files, places, program, steps, trust
from edge_reclass_appliance.bundles import CURRENT, PREVIOUS, Bundles
from edge_reclass_appliance.commands.verify_release import add_trust, trust_of
from edge_reclass_appliance.errors import TO_DO, ApplianceError, usage
from edge_reclass_appliance.limits import limits
from edge_reclass_appliance.machine import detect, require_tensorrt
from edge_reclass_appliance.places import Settings
from edge_reclass_appliance.releases import LARGE_ALLOCATION_CURE, LARGE_ALLOCATION_FAILED
from edge_reclass_appliance.saying import Steps, say
from edge_reclass_appliance.trial import Trial
from edge_reclass_appliance.units import Plan

HELP = "Install or mend everything on this machine: program, bundle, service. Options are remembered."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``provision``."""
    add = parser.add_argument
    add("--check", action="store_true", help="only look: what would be done, what is missing; writes nothing")
    add("--yes", action="store_true", help="go on without asking")
    add("--wheelhouse", type=Path, metavar="TAR|DIR", help="the wheels for this machine; the first time needed")
    add("--bundle", type=Path, metavar="DIR|TAR", help="the bundle to use [default: the one in use, else the starter]")
    add("--music", action="append", metavar="DIR", help="the library; may be repeated [default: /srv/music]")
    when = parser.add_mutually_exclusive_group()
    when.add_argument(
        "--when",
        choices=(places.ALWAYS, places.BOOT, places.IDLE),
        help="always: a resident service with a socket; boot: one run after each start; idle: run after run, when"
        " nothing else is at work [default: always]",
    )
    when.add_argument("--calendar", metavar="WHEN", help="one run at these times, such as '*-*-* 02:30:00'")
    add("--tags", action=argparse.BooleanOptionalAction, help="write approved genres into tracks, every hour")
    add("--power-mode", metavar="NAME", help="set this power mode at every boot; none: leave it alone")
    add("--user", dest="service_user", metavar="NAME", help="whom the service runs as [default: edge-reclass]")
    add("--prefix", metavar="DIR", help="where the program goes [default: /opt/edge-reclass]")
    add_trust(parser)
    add("--no-units", action="store_true", help="no systemd units (containers, chroots)")
    add("--root", type=Path, default=Path("/"), help="work on this folder as if it were / (tests)")


def run(options: argparse.Namespace) -> int:
    """Provision this machine; gives the exit code."""
    root = places.require_folder(options.root)
    before = places.read_settings(root)
    plan = _plan(root, _settings(options, before), options)
    note = require_tensorrt(plan.machine)
    found = program.for_plan(plan)
    _agree(options, plan)
    ours = Steps(check=options.check)
    if options.check:
        return _all(ours, options, plan, found, note)
    with files.one_at_a_time(root / places.BUNDLES[1:]):
        return _all(ours, options, plan, found, note)


def _settings(options: argparse.Namespace, before: Settings) -> Settings:
    given = {
        "music": None if options.music is None else tuple(options.music),
        "when": options.when or options.calendar,
        "tags": options.tags,
        "power_mode": "" if options.power_mode == "none" else options.power_mode,
        "service_user": options.service_user,
        "prefix": None if options.prefix is None else options.prefix.rstrip("/") or "/",
    }
    settings = places.given_settings(before, given)
    known = (places.ALWAYS, places.BOOT, places.IDLE)
    if settings.when not in known and not options.no_units and shutil.which("systemd-analyze"):
        asked = ["systemd-analyze", "calendar", "--", settings.when]
        if subprocess.run(asked, capture_output=True, check=False).returncode != 0:
            raise usage(
                f"--calendar: systemd does not understand {settings.when!r}",
                "systemd-analyze calendar '*-*-* 02:30:00'",
            )
    return settings


def _plan(root: Path, settings: Settings, options: argparse.Namespace) -> Plan:
    machine = detect(root)
    plan = Plan(root, settings, machine, limits(machine))
    _require_ours(root / settings.prefix[1:], settings.prefix)
    steps.check_power_mode(plan)
    for name in ("wheelhouse", "bundle"):
        path = getattr(options, name)
        if path is not None and not path.exists():
            raise usage(f"--{name} {path}: there is no such file or folder", _fix_of(name, plan))
    return plan


def _fix_of(name: str, plan: Plan) -> str:
    if name == "wheelhouse":
        return f"make one on a machine with a network: jetson/make_wheelhouse.sh {plan.machine.target.name}"
    return "ls -l"


def _require_ours(folder: Path, shown: str) -> None:
    """Owner and mode of a folder are changed only where it is empty, or it is ours by what is in it."""
    try:
        inside = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise usage(f"--prefix: {shown} cannot be read ({error.strerror})") from error
    if inside and not inside & {"venvs", "venv", "bin"}:
        raise usage(
            f"--prefix: {shown} holds something else, and would get another owner and mode",
            f"name a folder that is not there yet, such as {shown.rstrip('/')}/edge-reclass",
        )


def _agree(options: argparse.Namespace, plan: Plan) -> None:
    if options.check:
        return
    if plan.root == Path("/") and os.geteuid() != 0:
        raise usage("this changes the machine and needs root", "sudo … --yes   (or --check, which only looks)")
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise usage("there is no terminal to ask on", "provision.sh --yes …")
    answer = input(f"Go on, and install edge-reclass into {plan.settings.prefix}? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise usage("nothing was changed")


def _all(ours: Steps, options: argparse.Namespace, plan: Plan, found: program.Program, note: str) -> int:
    trial = Trial(plan)
    _say_machine(ours, plan, note, trial)
    whom = trust_of(options)
    given = options.wheelhouse or trust.packaged(plan.root)
    with contextlib.ExitStack() as stack:
        wheelhouse, bundle = (
            None if source is None else stack.enter_context(trust.checked(source, whom, ours))
            for source in (given, options.bundle)
        )
        steps.tell_upgrade(ours, plan)
        steps.user_step(ours, plan)
        steps.folders_step(ours, plan)
        steps.devices_step(ours, plan, trial, found.python)
        before = _in_use(plan)
        tried = found.step(ours, wheelhouse, trial)
        # Nothing is switched before the bundle answered with the new program; what arrived is remembered right after.
        _bundle_step(ours, Bundles(tried, trial), bundle)
    program.tools_step(ours, plan)
    program.commands_step(ours, plan, places.COMMANDS)
    steps.settings_step(ours, plan)
    steps.music_step(ours, plan, trial, found.python)
    if options.no_units:
        ours.step("note", "units", "left out (--no-units)")
    else:
        steps.units_step(ours, plan)
        _start(ours, plan, before)
    steps.record_step(ours, plan)
    return _finish(ours, plan)


def _say_machine(ours: Steps, plan: Plan, note: str, trial: Trial) -> None:
    say(f"machine: {plan.machine}")
    say(f"limits: {plan.limits}; reckoned from memory and cores, not measured")
    release = plan.machine.release
    if note:
        ours.step("note", "tensorrt", note)
    if plan.limits.note:
        ours.step("note", "memory", plan.limits.note)
    if release is not None and release.taken_as:
        ours.step(
            "note", "jetpack", f"L4T {release.l4t} is newer than this version knows, and taken as {release.taken_as}"
        )
    if release is not None and release.large_allocations_fail:
        ours.step(
            "note",
            "jetpack",
            f"L4T {release.l4t} may fail at large pieces of memory ({LARGE_ALLOCATION_FAILED} … error 12) although"
            " enough is free: engines are built with half of the usual scratch memory; should it happen:"
            f" {LARGE_ALLOCATION_CURE}",
        )
    if trial.explain():
        ours.step("note", "trials", trial.explain())


def _bundle_step(ours: Steps, bundles: Bundles, source: Path | None) -> None:
    current = bundles.named(CURRENT)
    if ours.check:
        _check_bundle(ours, bundles, source)
        return
    if source is None and current:
        try:
            if bundles.ready(current):
                bundles.program.use(ours)
                ours.step("same", "bundle", current)
                return
            bundles.again(current)
        except ApplianceError as error:
            raise ApplianceError(
                f"the bundle in use, {current}: {error}",
                "provision.sh --yes --bundle DIR_OR_TAR   or  edge-reclass-appliance bundle rollback",
                error.code,
            ) from error
        bundles.program.use(ours)
        ours.step("done", "bundle", f"{current} was built and verified again for this machine")
        return
    name = bundles.install(bundles.starter() if source is None else source)
    bundles.program.use(ours)
    if name == current:
        ours.step("same", "bundle", current)
        return
    bundles.switch(name)
    device = bundles.program.plan.machine.device
    back = f"; was {current} (edge-reclass-appliance bundle rollback)" if current else ""
    ours.step("done", "bundle", f"{name}, verified on {device}{back}")


def _links(plan: Plan) -> tuple[Path, ...]:
    folder = plan.root / places.BUNDLES[1:]
    return plan.root / plan.settings.venv[1:], folder / CURRENT, folder / PREVIOUS


def _in_use(plan: Plan) -> dict[Path, str]:
    """The links to the program and the bundles, with what they name."""
    return {link: files.link_target(link) for link in _links(plan)}


def _start(ours: Steps, plan: Plan, before: dict[Path, str]) -> None:
    """Start the service; where it does not become ready, use the program and the bundle from before again.

    Raises:
        ApplianceError: it does not start.
    """
    try:
        steps.start_step(ours, plan)
    except ApplianceError as error:
        program_before, bundle_before, _ = before.values()
        if _in_use(plan) == before or not (program_before and bundle_before):
            raise
        for link, target in before.items():
            if target:
                files.switch(link, target)
        try:
            steps.start(plan)
            again = "the program and the bundle from before are in use again"
        except ApplianceError as second:
            again = f"the program and the bundle from before are in use again, and do not start either ({second})"
        raise ApplianceError(f"{error}; {again}", error.fix, error.code) from error


def _check_bundle(ours: Steps, bundles: Bundles, source: Path | None) -> None:
    current = bundles.named(CURRENT)
    if not current:
        ours.step("todo", "bundle", f"install {source or 'the starter bundle'}, build its engines and verify them")
    elif not bundles.is_verified(current):
        ours.step("todo", "bundle", f"build and verify {current} again: program, JetPack or TensorRT changed")
    elif os.geteuid() != 0 and bundles.trial.how != "caller":
        ours.step("note", "bundle", f"{current}; its files are looked at when this is run as root")
    elif not bundles.is_intact(current):
        text = f"replace {current}, which was altered or is damaged: --bundle DIR_OR_TAR, or bundle rollback"
        ours.step("todo", "bundle", text)
    elif not bundles.engines_in_place(bundles.folder / current):
        text = f"build engines of {current}, which are missing or damaged, and verify it again"
        ours.step("todo", "bundle", text)
    elif source is not None:
        ours.step("todo", "bundle", f"look at {source}; verify it and switch to it, if it is not {current}")
    else:
        ours.step("same", "bundle", current)


def _finish(ours: Steps, plan: Plan) -> int:
    if ours.check:
        if ours.todo:
            say(f"{ours.todo} to do: run this again without --check (as root, with --yes)")
            return TO_DO
        say("nothing to do: everything is in place")
        return 0
    say(
        "nothing was changed: everything is in place" if not ours.done else f"done: {ours.done} steps changed something"
    )
    if ours.warnings:
        say(f"warnings: {ours.warnings}, see above; run this again afterwards")
    current = files.link_target(plan.root / places.BUNDLES[1:] / CURRENT)
    say(f"bundle {current} on {plan.machine.device}; music {', '.join(plan.settings.music)}; verdicts {places.LIBRARY}")
    say(f"look at it: sudo edge-reclass library status {places.LIBRARY};  journalctl -u edge-reclass")
    return 0
