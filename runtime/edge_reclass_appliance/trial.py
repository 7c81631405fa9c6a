"""Runs a command as the service runs: its user, its groups and its sandbox. Nothing foreign is opened as root.

Where systemd runs, a transient unit with the unit's own properties does it. Where it does not (a chroot, a container),
the nearest thing is done and said; under ``--root``, in tests, commands run as the caller.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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

OUT = "out"
"""The part of a trial's folder that the service may write."""

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
        ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        given = {**ours, **self._environment(), **environ}
        try:
            return subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=given,
                cwd="/",  # modules of the caller's folder are not found
                check=False,
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
    def folder(self, fill: Callable[[Path], None]) -> Iterator[Path]:
        """A folder for a trial, removed afterwards: root's own, and in it :data:`OUT`, which the service may write.

        ``fill`` puts in what the trial needs, while nobody else can reach the folder. After that, root writes nothing
        there: the service could put a link where root writes.
        """
        state = self.plan.root / places.STATE[1:]
        for left in state.glob(".trial.*"):  # by a power cut
            shutil.rmtree(left, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=".trial.", dir=state))  # 0700
        try:
            (made / OUT).mkdir(mode=0o700)
            fill(made)
            for path in (*(made / OUT).rglob("*"), made / OUT):
                self._give(path)
            made.chmod(0o755)
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _give(self, path: Path) -> None:
        """Give a path to the service's user, where this process may."""
        user = users.find(self.plan.root, self.plan.settings.service_user)
        if user is not None and os.geteuid() == 0:
            os.chown(path, user.uid, user.gid, follow_symlinks=False)

    def take_back(self, work: Path, name: str, target: Path) -> None:
        """Copy what a trial left in ``OUT/name`` of its folder to ``target``, as root's own.

        The service may still change what lies there: each name is opened once, by the folder that holds it and never
        through a link, and what was opened is what is looked at and copied.

        Raises:
            ApplianceError: something in it is neither a file nor a folder.
        """
        with _folder_at(work / OUT) as out:
            if os.geteuid() == 0:
                os.fchown(out, 0, 0)
            os.fchmod(out, 0o700)
            with _folder_at(name, out) as top:
                _take(top, work / OUT / name, target, target.stat().st_gid)

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


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def _folder_at(path: Path | str, holder: int | None = None) -> Iterator[int]:
    """The descriptor of a folder, which is no link. Raises ApplianceError where it is something else."""
    with _opened(path, _FOLDER, holder, path) as descriptor:
        yield descriptor


@contextmanager
def _opened(name: Path | str, flags: int, holder: int | None, shown: Path | str) -> Iterator[int]:
    try:
        descriptor = os.open(name, flags, dir_fd=holder)
    except OSError as error:
        raise _odd(shown) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take(folder: int, shown: Path, target: Path, group: int) -> None:
    """Copy the files of an open folder, and of those in it; ``group`` may read the secret."""
    for name in sorted(os.listdir(folder)):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        there = target / name
        if stat.S_ISDIR(found.st_mode):
            with _opened(name, _FOLDER, folder, shown / name) as inside:
                there.mkdir(mode=0o755, exist_ok=True)
                _take(inside, shown / name, there, group)
            continue
        if not stat.S_ISREG(found.st_mode):
            raise _odd(shown / name)
        with _opened(name, _FILE, folder, shown / name) as descriptor:
            _copy(descriptor, shown / name, there, group)


def _copy(descriptor: int, shown: Path, there: Path, group: int) -> None:
    opened = os.fstat(descriptor)
    if not stat.S_ISREG(opened.st_mode) or opened.st_nlink != 1:  # a second name: it may be somebody else's file
        raise _odd(shown)
    secret = there.name == "secret"
    new = there.with_name(f".new-{there.name}")
    with os.fdopen(os.dup(descriptor), "rb") as source, new.open("wb") as copy:
        shutil.copyfileobj(source, copy)
        os.fchmod(copy.fileno(), 0o640 if secret else 0o644)
        if os.geteuid() == 0:
            os.fchown(copy.fileno(), 0, group if secret else 0)
        os.fsync(copy.fileno())
    new.replace(there)


def _odd(shown: Path | str) -> ApplianceError:
    return ApplianceError(f"{shown} is neither a file nor a folder of the trial: nothing more of it is taken")


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
