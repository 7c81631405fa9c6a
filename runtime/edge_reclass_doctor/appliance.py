"""What an owner asks of a provisioned machine: the bundle in use, the service, its library, and the music."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from edge_reclass.errors import ANSWER_STATUSES, EdgeReclassError
from edge_reclass.installing import provision_command
from edge_reclass.library import State
from edge_reclass_appliance import installation, music, places, units, users
from edge_reclass_appliance.installation import Installation
from edge_reclass_doctor.kernel import enforced
from edge_reclass_doctor.machine import Machine, Run
from edge_reclass_doctor.report import ApplianceState, LibraryState, MusicState, Problem, ServiceState

_SECONDS = 10.0
_LOOKED_AT = 2000
"""So many files and folders of each music folder are looked at, not all of a library."""

_SHOW = (
    "ActiveState,Result,ExecMainStatus,ExecMainStartTimestamp,ExecMainExitTimestamp,NRestarts,StatusText,MainPID,"
    "ControlGroup,LoadState,NextElapseUSecRealtime"
)


def find_appliance(root: Path = Path("/")) -> Installation | None:
    """What ``edge-reclass-appliance provision`` installed here; None where it never ran."""
    return installation.find(root)


def bundle_in_use(root: Path = Path("/")) -> Path:
    """The bundle that the service opens."""
    return root / places.BUNDLES[1:] / "current"


def engine_store(root: Path = Path("/")) -> Path:
    """Where the service's engines lie."""
    return root / places.ENGINES[1:]


def restore_command(found: Installation) -> str:
    """What brings a good bundle back: the one before, where there is one."""
    if found.previous:
        return "sudo edge-reclass-appliance bundle rollback"
    return "sudo edge-reclass-appliance bundle install DIR_OR_TAR   (a good copy of it)"


def survey_appliance(found: Installation, run: Run, root: Path = Path("/")) -> ApplianceState:
    """Look at the service and what it works on.

    Args:
        found: what is installed.
        run: runs systemctl.
        root: where everything is looked for.
    """
    settings = found.settings
    shown = _show(run, units.SERVICE)
    pid = int(shown.get("MainPID") or 0)
    return ApplianceState(
        user=settings.service_user,
        program=found.program or None,
        bundle=found.bundle or None,
        previous=found.previous or None,
        when=settings.when,
        service=_service(found, shown, run) if shown else None,
        library=_library(root),
        music=tuple(_music(root, folder, settings.service_user) for folder in settings.music),
        sandbox=enforced(root, pid or None, shown.get("ControlGroup", "")),
    )


def _show(run: Run, unit: str) -> dict[str, str]:
    done = run(("systemctl", "show", unit, f"--property={_SHOW}"), _SECONDS)
    if done.status != 0:
        return {}
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


def _service(found: Installation, shown: dict[str, str], run: Run) -> ServiceState:
    timer = {} if found.settings.resident else _show(run, units.TIMER)
    code = shown.get("ExecMainStatus", "")
    return ServiceState(
        unit=units.SERVICE,
        resident=found.settings.resident,
        active=shown.get("ActiveState", "unknown") if shown.get("LoadState") == "loaded" else "not installed",
        result=shown.get("Result", "unknown"),
        exit_code=int(code) if code.isdecimal() and shown.get("ExecMainExitTimestamp") else None,
        started=shown.get("ExecMainStartTimestamp") or None,
        ended=shown.get("ExecMainExitTimestamp") or None,
        restarts=int(shown.get("NRestarts") or 0),
        status=shown.get("StatusText") or None,
        next_start=timer.get("NextElapseUSecRealtime") or None,
    )


def _library(root: Path) -> LibraryState:
    file = root / places.LIBRARY[1:]
    try:
        if not file.exists():
            return LibraryState(places.LIBRARY, reason="no run has ended yet")
        with State.open(file) as state:
            counts = state.counts()
    except PermissionError:
        return LibraryState(places.LIBRARY, reason="this user may not read it: sudo shows it")
    except EdgeReclassError as error:
        closed = not os.access(file, os.R_OK)
        return LibraryState(places.LIBRARY, reason="this user may not read it: sudo shows it" if closed else str(error))
    return LibraryState(
        path=places.LIBRARY,
        tracks=counts.tracks,
        absent=counts.absent,
        unclassified=counts.unclassified,
        corrected=counts.corrected,
        statuses=counts.statuses,
        genres=counts.genres,
    )


def _music(root: Path, folder: str, name: str) -> MusicState:
    """Whether the service's user may read a folder, by owners, modes and access lists of what is in it."""
    path, user = root / folder[1:], users.find(root, name)
    if user is None:
        return MusicState(folder, False, f"there is no user {name}; to fix it: {provision_command()}")
    try:
        if not path.is_dir():
            return MusicState(folder, False, f"{folder} is not there; to fix it: findmnt --verify; sudo mount --all")
        above = [one for one in reversed(path.parents) if one.is_relative_to(root) and one != root]
        closed = next((one for one in above if not music.may(one, user, False)), None)
        inside = list(_some_of(path))
    except PermissionError as error:
        return MusicState(folder, True, f"{error.filename} is closed to you, so it was not looked at: sudo shows it")
    closed = closed or next((one for one in (path, *inside) if not music.may(one, user, True)), None)
    if closed is not None:
        return MusicState(folder, False, music.remedy(closed, path, user, users.groups(root)))
    if not inside:
        return MusicState(folder, True, f"{folder} is empty: is its disk mounted? findmnt {shlex.quote(folder)}")
    return MusicState(folder, True)


def _some_of(folder: Path) -> Iterator[Path]:
    """The first files and folders below, without hidden ones; a folder that this user may not read is one of them."""
    left = _LOOKED_AT
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "lost+found")
        for name in (*folders, *sorted(name for name in names if not name.startswith("."))):
            path = Path(base, name)
            if path.is_symlink():
                continue
            yield path
            left -= 1
            if left == 0:
                return


def appliance_problems(found: Installation, state: ApplianceState, machine: Machine) -> Iterator[Problem]:
    """What the owner has to know, and the command that mends it."""
    yield from _of_service(state)
    for folder in state.music:
        what, _, fix = (folder.reason or "").partition("; to fix it: ")
        if not folder.readable:
            yield Problem("music-closed", what, fix, severity="problem")
        elif folder.reason:
            yield Problem(
                "music-unseen", what, "sudo edge-reclass doctor" if "sudo" in what else f"ls -la {folder.folder}"
            )
    yield from _of_library(state.library)
    was, now = found.record.get("L4T", ""), machine.jetson.l4t if machine.jetson else ""
    if found.record and was != (now or ""):
        yield Problem(
            "system-changed",
            f"the machine was L4T {was or 'none'} when it was provisioned, and is L4T {now or 'none'} now",
            provision_command(),
        )
    for one in state.sandbox:
        if one.holds is False:
            fix = f"systemctl cat {units.SERVICE}   (the rest of the sandbox holds without it; another kernel has it)"
            yield Problem("sandbox-weaker", f"{one.name}: {one.detail}", fix)


def _of_service(state: ApplianceState) -> Iterator[Problem]:
    service = state.service
    journal = f"sudo journalctl -u {units.SERVICE} -n 30 --no-pager"
    if service is None:
        yield Problem(
            "service-unknown", "systemd does not answer, so nothing is known of the service", "systemctl status"
        )
    elif service.active == "not installed":
        yield Problem("service-missing", f"{service.unit} is not installed", provision_command(), severity="problem")
    elif service.active == "failed" or service.result not in ("success", "unknown", ""):
        code = "" if service.exit_code is None else f", exit code {service.exit_code}"
        yield Problem(
            "service-failed",
            f"the last run of the service did not end well ({service.result}{code})",
            f"{journal}   (says why; sudo systemctl start {service.unit} tries again)",
            severity="problem",
        )
    elif service.resident and service.active not in ("active", "activating", "reloading"):
        yield Problem(
            "service-stopped", "the service does not run", f"sudo systemctl start {service.unit}", severity="problem"
        )
    elif not service.resident and service.next_start is None and re.fullmatch(r"[^a-z]*", state.when):
        fix = f"sudo systemctl enable --now {units.TIMER}"
        yield Problem("service-unplanned", "nothing starts the next run", fix, severity="problem")


def _of_library(library: LibraryState) -> Iterator[Problem]:
    failed = {name: count for name, count in library.statuses.items() if name not in ANSWER_STATUSES}
    if failed:
        said = ", ".join(f"{count} {name}" for name, count in failed.items())
        fix = f"sudo edge-reclass library list {library.path} --status {next(iter(failed))}"
        yield Problem("tracks-failed", f"tracks without a genre: {said}", fix)
    if library.reason and "sudo" in library.reason:
        yield Problem(
            "library-closed", f"{library.path}: {library.reason.partition(':')[0]}", "sudo edge-reclass doctor"
        )
    elif library.reason and "yet" not in library.reason:
        yield Problem("library-unusable", library.reason, f"ls -l {library.path}", severity="problem")
