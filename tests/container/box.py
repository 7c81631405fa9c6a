"""A Debian 12 with a running systemd and no network, in a container of the tests' own (root).


The system is made once by debootstrap (``EDGE_RECLASS_CONTAINER_BASE``, by default in /var/tmp) and stays as it was.
Each box writes into a folder over it, which outlives a kill of the container, as a disk outlives a power cut.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

BASE = Path(os.environ.get("EDGE_RECLASS_CONTAINER_BASE", "/var/tmp/edge-reclass-bookworm"))
_PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,acl,procps,e2fsprogs"
_TOOLS = ("systemd-nspawn", "debootstrap", "nsenter", "mount", "losetup", "mkfs.ext4")
_SECONDS = 120.0


def unavailable() -> str | None:
    """Why no box can be made here; None where it can."""
    if not os.environ.get("EDGE_RECLASS_CONTAINER"):
        return "set EDGE_RECLASS_CONTAINER=1 for the tests in a container (root; the first time, a network)"
    if os.geteuid() != 0:
        return "a container with systemd takes root"
    missing = [name for name in _TOOLS if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def make_base() -> Path:
    """The Debian that every box has below it."""
    if not (BASE / "etc/debian_version").exists():
        part = BASE.with_name(BASE.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(part)], check=True
        )
        part.rename(BASE)
    return BASE


class Box:
    """One machine. ``start`` and ``kill`` as often as wanted; ``close`` removes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._loops: list[str] = []
        for name in ("root", "upper", "work"):
            (folder / name).mkdir(parents=True)
        layers = f"lowerdir={make_base()},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)], check=True)

    def start(self) -> None:
        """Boot, and wait until systemd is done."""
        # bpf: so that what the units ask for of devices and addresses is enforced as on a real machine.
        with (self.folder / "console").open("ab") as log:
            self._nspawn = subprocess.Popen(
                [
                    *("systemd-nspawn", f"--directory={self.root}", "--boot", "--private-network", "--register=no"),
                    *("--keep-unit", f"--machine=box{os.getpid()}", "--link-journal=no", "--console=read-only"),
                    *("--system-call-filter=bpf", "--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        self._wait(lambda: bool(children.read_text().split()), "systemd-nspawn starts nothing")
        self._leader = int(children.read_text().split()[0])
        ready = ("running", "degraded")
        self._wait(lambda: self.run("systemctl is-system-running", check=False).stdout.strip() in ready, "no boot")

    def _wait(self, done, what: str) -> None:  # type: ignore[no-untyped-def]
        until = time.monotonic() + _SECONDS
        while not done():
            if time.monotonic() > until:
                raise AssertionError(f"{what}: {(self.folder / 'console').read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    def wait(self, command: str, seconds: float = _SECONDS) -> None:
        """Wait until a command in the box succeeds."""
        until = time.monotonic() + seconds
        while self.run(command, check=False).returncode:
            assert time.monotonic() < until, f"{command}: {self.run(command, check=False)}"
            time.sleep(0.5)

    def run(self, command: str, *, check: bool = True, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run a shell command as root, or as ``user``, inside."""
        inside = ["bash", "-c", command]
        if user:
            inside = ["runuser", "-u", user, "--", *inside]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        enter = ["nsenter", "-t", str(self._leader), "-a", "--", "env", "-i", path, "HOME=/root", "LC_ALL=C.UTF-8"]
        done = subprocess.run([*enter, *inside], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def copy(self, source: Path, target: str) -> None:
        """Bring a file or folder of this machine into the box."""
        place = self.root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, place)

    def disk(self, name: str, megabytes: int) -> str:
        """A new file system on a block device; its device node in the box, to be mounted there."""
        image = self.folder / f"{name}.img"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        loop = subprocess.run(
            ["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True
        ).stdout.strip()
        self._loops.append(loop)
        device = os.stat(loop).st_rdev  # noqa: PTH116
        self.run(f"mknod -m 600 /dev/{name} b {os.major(device)} {os.minor(device)}")
        return f"/dev/{name}"

    def node(self, path: str, mode: str, owner: str) -> None:
        """A character device that behaves as /dev/null does, with another name, owner and mode."""
        self.run(f"mkdir -p {shlex.quote(str(Path(path).parent))}; rm -f {path}; mknod -m {mode} {path} c 1 3")
        self.run(f"chown {owner} {path}; chmod {mode} {path}")

    def kill(self) -> None:
        """As when the power goes: nothing is told, and nothing ends in order."""
        if self._nspawn is not None:
            for process in (self._leader, self._nspawn.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._nspawn.wait(60)
            self._nspawn, self._leader = None, 0

    def close(self) -> None:
        """Stop it and remove what was mounted."""
        self.kill()
        subprocess.run(["umount", "--lazy", str(self.root)], check=False)
        for loop in self._loops:
            subprocess.run(["losetup", "--detach", loop], check=False)
