"""A device that is provisioned once, and copied for each test that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from appliance import fake_root
from appliance.fake_root import JETPACK6, Device


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Device:
    """A JetPack 6 with everything in place, to be copied."""
    base = tmp_path_factory.mktemp("installed")
    device = fake_root.make(base / "device", JETPACK6)
    bundle = fake_root.write_bundle(base / "bundle", "one")
    done = device.script("--yes", "--insecure", "--wheelhouse", str(device.wheelhouse), "--bundle", str(bundle))
    assert done.returncode == 0, done.stderr
    return device


@pytest.fixture
def device(installed: Device, tmp_path: Path) -> Device:
    """A copy of it. What holds the old path (the fake environment's first lines) is made anew."""
    copy = tmp_path / "device"
    shutil.copytree(installed.base, copy, symlinks=True)
    for script in copy.glob("root/opt/edge-reclass/venvs/*/bin/*"):
        script.write_text(script.read_text().replace(str(installed.base), str(copy)))
    made = Device(copy, JETPACK6)
    made.forget()
    return made


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return fake_root.write_bundle(tmp_path / "bundle", "one")
