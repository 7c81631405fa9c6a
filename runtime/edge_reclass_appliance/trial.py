"""Runs a command as the service runs: its user, its groups and its sandbox. Nothing foreign is opened as root.

Where systemd runs, a transient unit with the unit's own properties does it. Where it does not (a chroot, a container),
the nearest thing is done and said; under ``--root``, in tests, commands run as the caller.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from edge_reclass_appliance import devices, places, units, users
from edge_reclass_appliance.errors import FAILED, ApplianceError
from edge_reclass_appliance.releases import LARGE_ALLOCATION_CURE, LARGE_ALLOCATION_FAILED
from edge_reclass_appliance.saying import say
from edge_reclass_appliance.units import Plan

How = Literal["unit", "user", "caller"]

_NOT_OF_A_TRIAL = ("MemoryMax", "OOMScoreAdjust", "Nice", "CPUSchedulingPolicy", "IOSchedulingClass")
"""What says how much the service may take of the machine, which a build of engines takes as root would."""

_SAID = {
    "user": "systemd does not run here, so trials have the service's user, groups and rights{network}, but not its"
    " limits on files, devices and system calls",
    "caller": "--root is not a machine that runs: trials run as the caller, without the service's user and sandbox",
}


@dataclass(frozen=True)
class Trial:
    """Runs commands as the service would."""

    plan: Plan

    @cached_property
    def how(self) -> How:
        """``unit``: in a transient unit; ``user``: with the user's rights alone; ``caller``: as whoever calls."""
        if self.plan.root != Path("/"):
            return "caller"
        if Path("/run/systemd/system").is_dir() and shutil.which("systemd-run") is not None:
            return "unit"
        return "user"

    @cached_property
    def _unshare(self) -> list[str]:
        """Without a network, where this process may have that."""
        tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
        return ["unshare", "--net"] if tried.returncode == 0 else []

    def explain(self) -> str:
        """In words, what a trial here lacks of the service's sandbox; empty where it lacks nothing."""
        network = " and no network" if self.how == "user" and self._unshare else ""
        return _SAID.get(self.how, "").format(network=network)

    def run(self, command: Sequence[str], **environ: str) -> subprocess.CompletedProcess[str]:
        """Run ``command`` to its end; its standard output and error as text.

        Raises:
            ApplianceError: it cannot be started as the service.
        """
        line = self._line(command, environ)
        given = {**os.environ, **self._environment(), **environ}
        try:
            return subprocess.run(
                line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=given, check=False
            )
        except OSError as error:
            raise ApplianceError(f"{line[0]} cannot be started ({error.strerror})") from error

    def require(self, command: Sequence[str], what: str, fix: str, code: int = FAILED) -> str:
        """Run ``command``, which has to succeed; its standard output.

        Raises:
            ApplianceError: it did not: ``what``, and what it said itself; ``fix`` and ``code`` are the error's.
        """
        done = self.run(command)
        if done.returncode == 0:
            return done.stdout
        for text in (done.stdout + done.stderr).strip().splitlines()[-20:]:  # verify says on stdout what disagrees
            say(f"  {text}")
        if LARGE_ALLOCATION_FAILED in done.stdout + done.stderr:
            raise ApplianceError(
                f"{what}: the driver could not allocate a large piece of memory ({LARGE_ALLOCATION_FAILED}), which L4T"
                " 36.4.7 and newer do although enough is free",
                LARGE_ALLOCATION_CURE,
            )
        raise ApplianceError(f"{what} (exit code {done.returncode}, see above)", fix, code)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for what a trial writes, which belongs to the service's user; removed afterwards."""
        state = self.plan.root / places.STATE[1:]
        for left in state.glob(".trial.*"):  # by a power cut
            shutil.rmtree(left, ignore_errors=True)
        made = state / f".trial.{os.getpid()}"
        made.mkdir(mode=0o700)
        try:
            self.give(made)
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def give(self, path: Path) -> None:
        """Give a path to the service's user, where this process may."""
        user = users.find(self.plan.root, self.plan.settings.service_user)
        if user is not None and os.geteuid() == 0:
            os.chown(path, user.uid, user.gid, follow_symlinks=False)

    def take_back(self, folder: Path, target: Path) -> None:
        """Copy the regular files below a folder of a trial to ``target``, as root's own; nothing else is taken.

        Raises:
            ApplianceError: something in it is neither a file nor a folder.
        """
        group = target.stat().st_gid
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ApplianceError(f"{path} is neither a file nor a folder: nothing of this trial is taken")
        for path in sorted(folder.rglob("*")):
            there = target / path.relative_to(folder)
            if path.is_dir():
                there.mkdir(mode=0o755, exist_ok=True)
                continue
            new = there.with_name(f".new-{there.name}")
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source, new.open("wb") as copy:
                shutil.copyfileobj(source, copy)
                os.fchmod(copy.fileno(), 0o640 if there.name == "secret" else 0o644)
                if os.geteuid() == 0:
                    os.fchown(copy.fileno(), 0, group if there.name == "secret" else 0)
                os.fsync(copy.fileno())
            new.replace(there)

    def _environment(self) -> dict[str, str]:
        values = [value for key, value in units.sandbox(self.plan) if key == "Environment"]
        pairs = dict(word.split("=", 1) for value in values for word in value.split())
        cache = self.plan.root / places.CACHE[1:] / "cuda"
        return {**pairs, "CUDA_CACHE_PATH": str(cache)}

    def _line(self, command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
        if self.how == "caller":
            return list(command)
        if self.how == "unit":
            line = ["systemd-run", "--wait", "--pipe", "--collect", "--quiet", "--service-type=exec"]
            for key, value in units.sandbox(self.plan):
                if key not in _NOT_OF_A_TRIAL:
                    line += ["-p", f"{key}={value}"]
            line += [f"--setenv={key}={value}" for key, value in environ.items()]
            return [*line, "--", *command]
        user = users.find(self.plan.root, self.plan.settings.service_user)
        if user is None:
            raise ApplianceError(f"there is no user {self.plan.settings.service_user}", "provision.sh --yes")
        known = users.groups(self.plan.root)
        numbers = set(user.groups) | {user.gid}
        if self.plan.machine.device != "cpu":
            numbers |= {known[name] for name in devices.device_groups(self.plan.root)}
        line = [*self._unshare, "setpriv", f"--reuid={user.uid}", f"--regid={user.gid}"]
        line += [f"--groups={','.join(map(str, sorted(numbers)))}", "--no-new-privs", "--bounding-set=-all"]
        return [*line, "--inh-caps=-all", "--", *command]


_LOOK = """
import json, os, sys
found = {"files": 0, "closed": [], "absent": [], "writable": True}
def closed(error):
    if isinstance(error, PermissionError) and len(found["closed"]) < 20:
        found["closed"].append(error.filename)
for top in sys.argv[1:]:
    if not os.path.isdir(top):
        try:
            os.stat(top)
        except PermissionError:
            found["closed"].append(top)
            continue
        except OSError:
            pass
        found["absent"].append(top)
        continue
    found["writable"] &= os.access(top, os.W_OK | os.X_OK)
    for folder, folders, names in os.walk(top, onerror=closed):
        folders[:] = [name for name in folders if name != "lost+found"]
        for name in names:
            path = os.path.join(folder, name)
            if os.access(path, os.R_OK):
                found["files"] += 1
            elif len(found["closed"]) < 20 and not os.path.islink(path):
                found["closed"].append(path)
        if found["files"] > 100000:
            break
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Sight:
    """What the service sees of the music."""

    files: int
    """Files that it may read; counting ends after 100 000."""
    closed: list[str]
    """Files and folders that it may not read, the first 20."""
    absent: list[str]
    """Folders that are not there."""
    writable: bool
    """Whether it may write into the music's folders, as far as their modes say."""


def look(trial: Trial, python: str) -> Sight:
    """Look at the music as the service.

    Raises:
        ApplianceError: that cannot be tried.
    """
    folders = [str(trial.plan.root / folder[1:]) for folder in trial.plan.settings.music]
    done = trial.run([python, "-I", "-c", _LOOK, *folders])
    try:
        return Sight(**json.loads(done.stdout))
    except (ValueError, TypeError):
        raise ApplianceError(
            f"whether the service may read the music cannot be tried (exit code {done.returncode}): {done.stderr}"
        ) from None
