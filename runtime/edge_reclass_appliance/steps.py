"""The steps of an installation that are about users, folders, settings, units and the music."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from edge_reclass_appliance import devices, files, installation, music, places, power, units, users
from edge_reclass_appliance.errors import UNSUPPORTED, ApplianceError
from edge_reclass_appliance.saying import Steps, say
from edge_reclass_appliance.services import Services
from edge_reclass_appliance.trial import Trial, look
from edge_reclass_appliance.units import Plan


def user_step(steps: Steps, plan: Plan) -> None:
    """The service's user. Raises ApplianceError where it cannot be added."""
    name = plan.settings.service_user
    there = users.find(plan.root, name) is not None
    if steps.settle("user", same=there, now=name, todo=f"add the system user {name}, without a home or a shell"):
        users.add(plan.root, name)
        steps.step("done", "user", name)


def folders_step(steps: Steps, plan: Plan) -> None:
    """The folders with their owners and modes. Somebody's music keeps its own. Raises ApplianceError."""
    user = users.find(plan.root, plan.settings.service_user)
    uid, gid = (user.uid, user.gid) if user is not None else (0, 0)
    wanted = [
        (plan.settings.prefix, 0o755, 0, 0),
        (places.ETC, 0o755, 0, 0),
        (places.STATE, 0o755, 0, 0),
        # Not sticky, and with no file of root's: SQLite opens its files with O_CREAT, which the kernel refuses for
        # another one's file in a sticky folder that a group may write (fs.protected_regular=2).
        (str(Path(places.LIBRARY).parent), 0o2770, uid, gid),
        (places.BUNDLES, 0o755, 0, 0),
        # An engine is native code: only root writes engines; the service's group may read the secret they are known by.
        (places.ENGINES, 0o755, 0, gid),
        (places.REPORTS, 0o2750, uid, gid),
    ]
    wanted += [(folder, 0o755, 0, 0) for folder in plan.settings.music if not _there(plan.root / folder[1:])]
    differ = [one for one in wanted if not _is_so(plan.root / one[0][1:], *one[1:])]
    names = ", ".join(path for path, *_ in differ)
    if not steps.settle("folders", same=not differ, now=places.STATE, todo=f"make, or set owner and mode of: {names}"):
        return
    for path, mode, owner, group in differ:
        folder = plan.root / path[1:]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files.own_folder(folder, mode, owner, group)
        except OSError as error:
            raise ApplianceError(
                f"the folder {path} cannot be made ({error.strerror})", f"ls -ld {folder}; df -h"
            ) from error
    steps.step("done", "folders", names)


def _there(path: Path) -> bool:
    """Whether something is there, also where this caller may not look."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _is_so(folder: Path, mode: int, owner: int, group: int) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    owners = os.geteuid() != 0 or (found.st_uid, found.st_gid) == (owner, group)
    return stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == mode and owners


def music_step(steps: Steps, plan: Plan, trial: Trial, python: str) -> None:
    """Whether the service sees the music, tried as the service; what is closed to it, and what mends that."""
    shown = ", ".join(plan.settings.music)
    if steps.check and (os.geteuid() != 0 or users.find(plan.root, plan.settings.service_user) is None):
        steps.step("note", "music", f"{shown}: looked at as the service when this is run as root, without --check")
        return
    sight = look(trial, python)
    for folder in sight.absent:
        steps.step(
            "warning", "music", f"{folder} is not there: mount it; what is known of its tracks is kept meanwhile"
        )
    user = users.find(plan.root, plan.settings.service_user)
    for path in sight.closed[:3]:
        if user is None:
            break
        top = next(plan.root / one[1:] for one in plan.settings.music if Path(path).is_relative_to(plan.root / one[1:]))
        steps.step("warning", "music", music.remedy(Path(path), top, user, users.groups(plan.root)))
    if len(sight.closed) > 3:
        steps.step("warning", "music", f"and {len(sight.closed) - 3} or more others are closed to the service")
    if plan.settings.tags and not sight.writable:
        name = plan.settings.service_user
        rights = ["-m", f"u:{name}:rwX", "-m", f"d:u:{name}:rwX"]
        fix = shlex.join(["sudo", "setfacl", "-R", *rights, *plan.settings.music])
        steps.step("warning", "music", f"--tags: {name} may not write into {shown}; to fix it: {fix}   (package acl)")
    if not sight.files and not sight.closed and not sight.absent:
        folders = shlex.join(plan.settings.music)
        steps.step("warning", "music", f"no file is in {shown}, as the service sees it; to look: ls -la {folders}")
    elif not sight.closed and not sight.absent:
        steps.step("same", "music", f"{sight.files} files can be read in {shown}")


_OPEN = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except PermissionError:
        print(path)
    except OSError:
        pass
"""


def devices_step(steps: Steps, plan: Plan, trial: Trial, python: str) -> None:
    """Whether the service may open the GPU's device nodes, tried as the service.

    Raises:
        ApplianceError: it may not: the GPU's driver would not start (``UNSUPPORTED``).
    """
    if plan.machine.device == "cpu" or steps.check:
        return
    nodes = devices.nodes(plan.root)
    done = trial.run([python, "-I", "-c", _OPEN, *map(str, nodes)])
    closed = done.stdout.splitlines()
    if done.returncode != 0:
        raise ApplianceError(f"the GPU's device nodes cannot be tried as the service: {done.stderr.strip()}")
    if closed:
        why, fix = devices.why_closed(plan.root, Path(closed[0]))
        raise ApplianceError(f"the service may not open {why}: the GPU's driver would not start", fix, UNSUPPORTED)
    groups = ", ".join(devices.device_groups(plan.root)) or "none"
    steps.step("same", "devices", f"the service opens {len(nodes)} nodes of the GPU; groups {groups}")


def settings_step(steps: Steps, plan: Plan) -> None:
    """/etc/edge-reclass/provision.conf. Raises ApplianceError where it cannot be written."""
    path, text = plan.root / places.SETTINGS[1:], plan.settings.text()
    if steps.settle(
        "settings", same=files.holds(path, text, 0o644), now=places.SETTINGS, todo=f"write {places.SETTINGS}"
    ):
        files.write(path, text)
        steps.step("done", "settings", places.SETTINGS)


def units_step(steps: Steps, plan: Plan) -> None:
    """Write the units, remove those of other settings, enable what starts by itself. Raises ApplianceError."""
    services = Services(plan.root)
    services.require()
    folder, wanted = plan.root / places.UNITS[1:], units.render(plan)
    changed = [name for name, text in wanted.items() if not files.holds(folder / name, text, 0o644)]
    # Of other settings, another machine (a card that moved), or an earlier version.
    gone = [name for name in units.ALL if name not in wanted and (folder / name).exists()]
    old = folder / "edge-reclass.service.d/10-gpu.conf"
    starts = units.enabled(plan)
    idle = [name for name in starts if not services.enabled(name)]
    timers = [name for name in starts if name.endswith(".timer")]
    behind = services.behind(list(wanted)) or (services.live and not all(services.active(name) for name in timers))
    resting = [name for name in wanted if name not in starts and services.enabled(name)]
    words = [*changed, *(f"{name} (removed)" for name in gone), *(f"{name} (enabled)" for name in idle)]
    words += [f"{name} (disabled)" for name in resting]
    words += ["10-gpu.conf (removed)"] if old.exists() else []
    words += ["systemd reloaded"] if behind and not words else []
    if not steps.settle("units", same=not words, now=_when(plan), todo=f"write or enable {', '.join(words)}"):
        return
    for name in gone:
        services.ask("disable", "--now", name)
        (folder / name).unlink()
    for name in resting:
        services.do("disable", "--now", name)
    old.unlink(missing_ok=True)
    for name in changed:
        files.write(folder / name, wanted[name])
    if services.live:
        services.do("daemon-reload")
    for name in idle:
        services.do("enable", name)
    for name in timers:
        services.start(name)
    if plan.settings.power_mode and services.live and units.POWER in changed + idle:
        services.start(units.POWER)
    steps.step("done", "units", ", ".join(words))


def _when(plan: Plan) -> str:
    return {
        places.ALWAYS: "the service runs all the time",
        places.BOOT: "the service runs after each start of the machine",
        places.IDLE: "the service runs again and again, when nothing else does",
    }.get(plan.settings.when, f"the service runs at {plan.settings.when}")


def start_step(steps: Steps, plan: Plan) -> None:
    """Start the resident service, again where it runs with another program, bundle or unit, and wait until it is ready.

    Raises:
        ApplianceError: it does not start.
    """
    services = Services(plan.root)
    if not plan.settings.resident or plan.root != Path("/"):
        return
    if not services.live:
        steps.step("note", "service", "systemd does not run here: it starts with the machine")
        return
    same = services.active(units.SERVICE) and files.holds(_stamp(plan), _started_with(plan), 0o644)
    if steps.settle("service", same=same, now="runs", todo="start it"):
        say("starting the service")
        start(plan)
        steps.step("done", "service", f"runs and is ready: {places.SOCKET}")


def start(plan: Plan) -> None:
    """Start the resident service again, wait until it is ready, and note what it runs with.

    Raises:
        ApplianceError: it does not start.
    """
    Services(plan.root).start(units.SERVICE)
    files.write(_stamp(plan), _started_with(plan))


def _stamp(plan: Plan) -> Path:
    return plan.root / places.BUNDLES[1:] / ".started"


def _started_with(plan: Plan) -> str:
    """The program and the bundle that a start takes, and the unit."""
    names = (plan.settings.venv, f"{places.BUNDLES}/current")
    return (
        " ".join(files.link_target(plan.root / name[1:]) for name in names) + "\n" + units.render(plan)[units.SERVICE]
    )


def record_step(steps: Steps, plan: Plan) -> None:
    """What this machine was, for the next time. Raises ApplianceError where it cannot be written."""
    machine = plan.machine
    jetpack = machine.release.jetpack if machine.release is not None else ""
    values = {"TARGET": machine.target.name, "JETPACK": jetpack, "L4T": machine.l4t, "TENSORRT": machine.tensorrt}
    text = "".join(f"{key}={value}\n" for key, value in {**values, "PYTHON": machine.target.python_version}.items())
    path = plan.root / installation.RECORD[1:]
    same = files.holds(path, text, 0o644)
    if steps.settle("record", same=same, now=installation.RECORD, todo=f"write {installation.RECORD}"):
        files.write(path, text)
        steps.step("done", "record", installation.RECORD)


def tell_upgrade(steps: Steps, plan: Plan) -> None:
    """Say that JetPack changed since the last time."""
    before, machine = installation.read_record(plan.root), plan.machine
    was = before.get("L4T", ""), before.get("TENSORRT", "")
    if before and was != (machine.l4t, machine.tensorrt):
        old, new = (
            f"L4T {l4t or 'none'} with TensorRT {rt or 'none'}" for l4t, rt in (was, (machine.l4t, machine.tensorrt))
        )
        steps.step("note", "jetpack", f"was {old}, is {new}: engines are built again, none is reused")


def check_power_mode(plan: Plan) -> None:
    """A power mode has to be one of this machine. Raises ApplianceError."""
    if plan.settings.power_mode:
        power.number_of(plan.root, plan.settings.power_mode)
