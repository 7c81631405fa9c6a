"""provision.sh for real: a wheelhouse's wheels, the starter bundle, its trial, without a network.

``EDGE_RECLASS_WHEELHOUSE`` names a wheelhouse for this machine, a Debian 12 (target ``debian12`` or
``debian12-amd64``). Needs root, for a network namespace without a network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.unit_file import JETSON

WHEELHOUSE = os.environ.get("EDGE_RECLASS_WHEELHOUSE", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if not WHEELHOUSE:
        pytest.skip("EDGE_RECLASS_WHEELHOUSE is not set: no wheelhouse for this machine")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare for a namespace without a network")
    for folder in ("etc", "proc", "var/lib/dpkg"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy("/etc/os-release", tmp_path / "etc/os-release")
    (tmp_path / "proc/meminfo").write_text(Path("/proc/meminfo").read_text())
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc" / name).touch()
    return tmp_path


def provision(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--net", str(JETSON / "provision.sh"), "--root", str(root), "--no-units", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        timeout=600,
        check=False,
    )


def test_a_real_installation(root: Path) -> None:
    done = provision(root, "--yes", "--insecure", "--wheelhouse", WHEELHOUSE)
    assert done.returncode == 0, done.stderr
    assert "done       bundle" in done.stderr
    again = provision(root, "--yes")
    assert again.returncode == 0, again.stderr
    assert "nothing was changed" in again.stderr
    program = root / "opt/edge-reclass/venv/bin/edge-reclass"
    bundle = root / "var/lib/edge-reclass/bundles/current"
    shown = subprocess.run(
        [program, "inspect", str(bundle), "--format", "json"], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(shown.stdout)["name"] == "starter"
