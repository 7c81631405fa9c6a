"""provision.sh without --root, as on a device: under bubblewrap, with a root of its own and this machine's /usr.

Real beyond what test_provision.py has: getent, useradd, runuser, owners and modes, the smoke test as the service's
user, and everything that provision.sh does only where no --root was given. systemctl and pip stay fakes.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import fake_root, sandbox
from appliance.fake_root import DEBIAN12, JETPACK6, JETSON, Device, Kind

_REASON = sandbox.unavailable() or (None if os.geteuid() == 0 else "needs root, to make a user")
pytestmark = pytest.mark.skipif(_REASON is not None, reason=f"no root of its own here: {_REASON}")

_FROM_HERE = ("nsswitch.conf", "ld.so.cache", "login.defs", "pam.d", "security", "alternatives")
_CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return real(tmp_path, DEBIAN12)


def real(tmp_path: Path, kind: Kind) -> Device:
    machine = platform.machine()
    if kind is DEBIAN12 and machine == "x86_64":
        kind = dataclasses.replace(kind, machine=machine, target="debian12-amd64")
    device = fake_root.make(tmp_path / "device", kind)
    root = device.root
    for name in ("dev", "proc"):
        shutil.rmtree(root / name)
    for name in (
        "dev",
        "proc",
        "tmp",
        "usr",
        "opt",
        "home",
        "run",
        "srv/python",
        "srv/checkout",
        "srv/base",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / _CHECKOUT.relative_to("/")).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in _FROM_HERE:
        if Path("/etc", name).is_dir():
            shutil.copytree(f"/etc/{name}", root / "etc" / name, symlinks=True)
        elif Path("/etc", name).exists():
            shutil.copy(f"/etc/{name}", root / "etc" / name)
    for name, line in (
        ("passwd", "root:x:0:0:root:/root:/bin/bash"),
        ("group", "root:x:0:"),
        ("shadow", "root:*:1::::::"),
    ):
        (root / "etc" / name).write_text(f"{line}\n")
    (root / "etc/gshadow").write_text("root:*::\n")
    (device.base / "bin/useradd").unlink()
    (device.base / "calls").touch()
    (device.base / "calls").chmod(0o666)
    begun = run(device, f"/srv/python/bin/{Path(sys.executable).resolve().name}", "-c", "")
    if begun.returncode != 0:  # a shared library of it lies elsewhere, say
        pytest.skip(f"this Python does not start in a root of its own: {begun.stderr.strip()}")
    return device


def run(
    device: Device, *command: str, bind: dict[Path, str] | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    python = Path(sys.executable).resolve()
    environ = {
        "PATH": "/srv/base/bin:/usr/sbin:/usr/bin",
        "FAKE_ROOT": "/",
        "FAKE_CALLS": "/srv/base/calls",
        "FAKE_PYTHON": f"/srv/python/bin/{python.name}",
        "LC_ALL": "C.UTF-8",
        **more,
    }
    line = ["bwrap", "--cap-add", "ALL", "--unshare-pid", "--unshare-net", "--clearenv", "--chdir", "/"]
    line += ["--bind", str(device.root), "/", "--ro-bind", "/usr", "/usr", "--dev", "/dev", "--proc", "/proc"]
    (device.base / "local").mkdir(exist_ok=True)
    line += ["--bind", str(device.base / "local"), "/usr/local/bin"]
    line += ["--perms", "1777", "--tmpfs", "/tmp", "--ro-bind", str(python.parents[1]), "/srv/python"]
    line += [
        "--ro-bind",
        str(_CHECKOUT),
        "/srv/checkout",
    ]
    # The fake program is named by its path in the checkout, which the service's user has to reach: bwrap would give the
    # folders above it the modes that they have here, such as 0700 of mktemp.
    for parent in reversed(_CHECKOUT.parents[:-1]):
        line += ["--perms", "0755", "--dir", str(parent)]
    line += ["--ro-bind", str(_CHECKOUT), str(_CHECKOUT), "--bind", str(device.base), "/srv/base"]
    for source, target in (bind or {}).items():
        line += ["--bind", str(source), target]
    for name, value in environ.items():
        line += ["--setenv", name, value]
    return subprocess.run(
        [*line, "--", *command], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )


def test_the_whole_way(device: Device) -> None:
    fake_root.write_bundle(device.base / "bundle", "one")
    provision = f"/srv/checkout/{JETSON.name}/provision.sh"
    options = ("--insecure", "--wheelhouse", f"/srv/base/{device.wheelhouse.name}", "--bundle", "/srv/base/bundle")

    before = device.tree()
    checked = run(device, provision, "--check", *options)
    assert checked.returncode == 3, checked.stderr
    assert "9 to do" in checked.stderr
    assert device.tree() == before

    done = run(device, provision, "--yes", *options)
    assert done.returncode == 0, done.stderr
    assert "systemd does not run here, so trials have the service's user, groups and rights" in done.stderr
    after = device.tree()
    again = run(device, provision, "--yes")
    assert again.returncode == 0 and "nothing was changed" in again.stderr, again.stderr
    assert device.tree() == after
    checked = run(device, "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", provision, "--check")
    assert checked.returncode == 0, checked.stderr
    refused = run(device, "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", provision, "--yes")
    assert refused.returncode == 2 and "needs root" in refused.stderr

    line = (device.root / "etc/passwd").read_text().splitlines()[-1].split(":")
    assert line[0] == "edge-reclass" and line[6] == "/usr/sbin/nologin"
    owners = {path: path.lstat().st_uid for path in (device.root / "var/lib/edge-reclass").rglob("*")}
    assert sorted(path.name for path, owner in owners.items() if owner != 0) == ["library", "reports"]
    assert owners[device.state / "reports"] == int(line[2])
    # The service makes its state in a folder of its own, and deletes nothing of root's.
    assert device.state.stat().st_mode & 0o7777 == 0o755
    library = (device.state / "library").stat()
    assert library.st_mode & 0o7777 == 0o2770 and library.st_gid == int(line[3])
    assert not [
        path
        for path in (device.root / "opt").rglob("*")
        if path.lstat().st_uid or (path.lstat().st_mode & 0o22 and not path.is_symlink())
    ]


_TENSORRT = "/usr/lib/python3/dist-packages"


@pytest.mark.skipif(not Path(_TENSORRT).is_dir(), reason=f"no {_TENSORRT} to put a fake tensorrt over")
def test_the_trial_opens_what_only_the_units_groups_may(tmp_path: Path) -> None:
    """On a Jetson, /dev/nvmap belongs to root:video with 0660; without the group, the driver does not start."""
    device = real(tmp_path, JETPACK6)
    groups = "root:x:0:\nvideo:x:44:\nmusic:x:1044:edge-reclass\n"
    node = device.base / "nvmap"
    node.touch()
    os.chown(node, 0, 44)
    node.chmod(0o660)
    fake_root.write_bundle(device.base / "bundle", "one")

    def provision() -> subprocess.CompletedProcess[str]:
        return run(
            device,
            f"/srv/checkout/{JETSON.name}/provision.sh",
            *("--yes", "--insecure", "--wheelhouse", f"/srv/base/{device.wheelhouse.name}"),
            *("--bundle", "/srv/base/bundle"),
            bind={node: "/dev/nvmap", device.root / _TENSORRT[1:]: _TENSORRT},
            FAKE_NODE="/dev/nvmap",
        )

    (device.root / "etc/group").write_text(groups.replace("video:x:44:\n", ""))
    refused = provision()
    assert refused.returncode == 5, refused.stderr
    assert "the service may not open /dev/nvmap (mode 0660, group 44): that group has no name" in refused.stderr
    assert "to fix it: sudo groupadd --system --gid 44 video" in refused.stderr
    kept = (device.root / "etc/group").read_text()
    (device.root / "etc/group").write_text(kept + "video:x:44:\n")
    node.chmod(0o600)
    refused = provision()
    assert refused.returncode == 5 and "it is open to root alone" in refused.stderr
    node.chmod(0o660)
    done = provision()
    assert done.returncode == 0, done.stderr
    assert "the service opens 1 nodes of the GPU; groups video" in done.stderr
    assert "SupplementaryGroups=video\n" in device.unit("edge-reclass.service")
