"""The Debian package for real: installed, provisioned, used and purged in a Debian 12 without a network.

``EDGE_RECLASS_DEB`` names a package for this machine (``jetson/make_wheelhouse.sh debian12-amd64 --deb``), and
``EDGE_RECLASS_DEBIAN`` a folder with a Debian 12, which is copied:
``debootstrap --variant=minbase --include=python3,systemd bookworm FOLDER``. Needs root, and takes minutes.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import wave
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGE, DEBIAN = os.environ.get("EDGE_RECLASS_DEB", ""), os.environ.get("EDGE_RECLASS_DEBIAN", "")
_ENTER = 'mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; exec chroot "$1" /bin/sh -c "$2"'

Run = Callable[[str], str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in the copy, which has no network and processes of its own; gives what it said."""
    if not PACKAGE or not DEBIAN:
        pytest.skip("EDGE_RECLASS_DEB and EDGE_RECLASS_DEBIAN are not set: no package, or no Debian to install it in")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    root = tmp_path / "debian"
    subprocess.run(["cp", "-a", DEBIAN, root], check=True, timeout=600)
    shutil.copy(PACKAGE, root / "root/edge-reclass.deb")
    (root / "srv/music").mkdir(exist_ok=True)
    _tone(root / "srv/music/tone.wav")

    def inside(command: str) -> str:
        done = subprocess.run(
            ["unshare", "--net", "--mount", "--pid", "--fork", "/bin/bash", "-c", _ENTER, "enter", root, command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
            check=False,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return inside


def _tone(path: Path) -> None:
    samples = array("h", (round(8000 * math.sin(n * n / 3e7)) for n in range(22_050 * 20)))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 22_050, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


def test_installed_used_and_purged(run: Run) -> None:
    before = run(_OURS)
    assert "Next: sudo edge-reclass-appliance provision" in run("dpkg -i /root/edge-reclass.deb")
    assert "came in the same package as this program" in run("edge-reclass-appliance provision --yes")
    assert "nothing was changed" in run("edge-reclass-appliance provision --yes")
    assert "1 tracks in" in run("edge-reclass classify /srv/music/tone.wav").replace("1 track in", "1 tracks in")
    removed = run("dpkg -r edge-reclass")
    assert "sudo dpkg -P edge-reclass" in removed
    assert run("ls -A /opt/edge-reclass /usr/local/bin 2> /dev/null; true").strip("\n") in ("", "/usr/local/bin:")
    run("test -f /etc/edge-reclass/provision.conf")
    run("dpkg -P edge-reclass")
    assert run(_OURS) == before
    run("test -f /srv/music/tone.wav")


_OURS = "find / -xdev -name '*edge?reclass*' -not -path '/root/*' | sort; getent passwd edge-reclass || true"
