"""The owner's report: what is new, what changed, what failed and why, since the report before."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_appliance import files, places, users
from edge_reclass_appliance.errors import ApplianceError
from edge_reclass_appliance.places import Settings
from edge_reclass_appliance.saying import say

_SHOWN = 20
_FINE = ("ok", "unsure")

Seen = dict[str, list[str]]
"""Path → status, genre (or what kept it from having one)."""


@dataclass(frozen=True)
class Changes:
    """What differs between two looks at the library."""

    new: list[str]
    changed: list[str]
    """Tracks that have another genre, or got one."""
    failed: list[str]
    """Tracks that failed now, and had not failed so before."""
    gone: int


def read_library(program: str, state: Path) -> Seen:
    """Every track of a state file that is there, by ``edge-reclass library export``.

    Raises:
        ApplianceError: the state cannot be read.
    """
    command = [program, "library", "export", str(state), "--present", "--format", "jsonl"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ApplianceError(f"{program} cannot be started ({error.strerror})", "provision.sh --yes") from error
    if done.returncode != 0:
        raise ApplianceError(f"{state} cannot be read: {done.stderr.strip()}", f"edge-reclass library status {state}")
    seen: Seen = {}
    for line in done.stdout.splitlines():
        verdict = json.loads(line)
        what = verdict.get("genre") or verdict.get("error") or ""
        seen[verdict["path"]] = [str(verdict["status"]), str(what)]
    return seen


def compare(before: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> Changes:
    """What happened from one look to the next."""
    fine = {path for path, (status, _) in now.items() if status in _FINE}
    failed = [path for path in now if path not in fine and before.get(path) != now[path]]
    new = [path for path in now if path in fine and path not in before]
    changed = [path for path in now if path in fine and path in before and before[path] != now[path]]
    return Changes(new, changed, failed, sum(path not in now for path in before))


def page(changes: Changes, now: Mapping[str, list[str]], service: str, at: str) -> str:
    """The report as text."""
    counts = Counter(status for status, _ in now.values())
    genres = Counter(what for status, what in now.values() if status in _FINE and what)
    lines = [f"edge-reclass, {at}", f"service: {service}"]
    lines.append(f"library: {len(now)} tracks: {_counted(counts.most_common()) or 'none yet'}")
    lines.append(f"genres:  {_counted(genres.most_common()) or 'none yet'}")
    lines.append(
        f"since the last report: {len(changes.new)} new, {len(changes.changed)} changed, {len(changes.failed)} failed,"
        f" {changes.gone} not there any more"
    )
    for title, paths in (("new", changes.new), ("changed", changes.changed), ("failed", changes.failed)):
        if paths:
            lines += ["", f"{title}:", *(f"  {' '.join(now[path]):24}  {path}" for path in paths[:_SHOWN])]
            lines += [f"  … and {len(paths) - _SHOWN} more"] if len(paths) > _SHOWN else []
    return "\n".join(_printable(line) for line in lines) + "\n"


def service_state(resident: bool) -> str:
    """How the service does, as systemd says."""
    properties = "ActiveState,SubState,Result,ExecMainStatus,NRestarts"
    command = ["systemctl", "show", "edge-reclass.service", f"--property={properties}"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return "not known: there is no systemctl"
    values = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    if not values.get("ActiveState"):
        return f"not known: {done.stderr.strip() or 'systemd does not answer'}"
    state, result = values["ActiveState"], values.get("Result", "")
    if state == "failed" or result not in ("success", ""):
        code = values.get("ExecMainStatus", "")
        return f"FAILED ({result}, exit code {code}); journalctl -u edge-reclass -n 30 says why"
    restarts = values.get("NRestarts", "0")
    again = "" if restarts in ("0", "") else f", restarted {restarts} times"
    return f"{'runs' if state == 'active' else 'waits for its next run' if not resident else state}{again}"


def write(root: Path, settings: Settings, *, failed: bool) -> str:
    """Write the report and the page of the library into the reports' folder; gives the report's text.

    Args:
        root: ``/``, or a folder in tests.
        settings: the machine's.
        failed: the service has failed: what is known is said, even where the library cannot be read or the disk is
            full.

    Raises:
        ApplianceError: the library cannot be read, or the report not be written; never with ``failed``.
    """
    folder, state = root / places.REPORTS[1:], root / places.LIBRARY[1:]
    program = str(root / settings.venv[1:] / "bin/edge-reclass")
    service, at = service_state(settings.resident), time.strftime("%Y-%m-%d %H:%M")
    try:
        known = _is_there(state)
        now = read_library(program, state) if known else {}
    except ApplianceError as error:
        if not failed:
            raise
        text = f"edge-reclass, {at}\nservice: {service}\nlibrary: {_printable(str(error))}\n"
        _note(folder, text)
        return text
    text = page(compare(_before(folder), now), now, service, at)
    if failed:  # what is new now is told again by the next report
        _note(folder, text)
        return text
    if known:
        html = [program, "library", "report", str(state), "--no-tags", "--output", str(folder / "library.html")]
        subprocess.run(html, stdin=subprocess.DEVNULL, check=False)
    _keep(folder / "latest.txt", text)
    today = folder / f"{time.strftime('%Y-%m-%d')}.txt"  # of every run of the day
    _keep(today, "\n".join(filter(None, (files.read(today), text))))
    _keep(folder / "seen.json", json.dumps(now))
    _forget_old(folder)
    return text


def become_the_service(root: Path, settings: Settings) -> None:
    """Give up root's rights for good: the service writes the folder of the reports, so root writes nothing there.

    Raises:
        ApplianceError: there is no such user.
    """
    user = users.find(root, settings.service_user)
    if user is None or user.uid == 0:
        raise ApplianceError(f"there is no user {settings.service_user} to write the report as", "provision.sh --yes")
    os.setgroups(user.groups)
    os.setgid(user.gid)
    os.setuid(user.uid)
    os.chdir("/")


def _is_there(state: Path) -> bool:
    """Whether the library's state is there. Raises ApplianceError where it is no file, which would not be read."""
    try:
        found = state.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ApplianceError(f"{state} cannot be read ({error.strerror})", f"ls -ld {state.parent}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ApplianceError(f"{state}: expected a file, got {stat.filemode(found.st_mode)}", f"ls -l {state}")
    return True


def _before(folder: Path) -> Seen:
    try:
        before = json.loads((folder / "seen.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return before if isinstance(before, dict) else {}


def _note(folder: Path, text: str) -> None:
    """Keep the report of a failure where there is room: the owner is told in any case."""
    today = folder / f"{time.strftime('%Y-%m-%d')}.txt"
    try:
        _keep(folder / "latest.txt", text)
        _keep(today, "\n".join(filter(None, (files.read(today), text))))
    except (ApplianceError, OSError) as error:
        say(f"the report is only told, not kept: {error}")


def _keep(path: Path, text: str) -> None:
    files.write(path, text, 0o640)


def _forget_old(folder: Path, most: int = 30) -> None:
    for old in sorted(folder.glob("20??-??-??.txt"))[:-most]:
        old.unlink(missing_ok=True)


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)
