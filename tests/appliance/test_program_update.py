"""A new program is switched to after the bundle in use answered with it; else nothing is switched or remembered."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from appliance.fake_root import Device
from appliance.unit_file import plan
from edge_reclass_appliance import files, places, steps
from edge_reclass_appliance.commands import provision
from edge_reclass_appliance.errors import ApplianceError
from edge_reclass_appliance.saying import Steps


def test_an_update_whose_trial_fails_is_not_switched_to(device: Device) -> None:

    link = device.root / "opt/edge-reclass/venv"
    before, bundle = link.readlink(), device.current()
    folder = next((device.base / "wheelhouse").iterdir())
    (folder / "requirements.lock").write_text(f"edge-reclass==0.2.0 --hash=sha256:{'1' * 64}\n")
    update = device.base / "update.tar"
    with tarfile.open(update, "w") as tar:
        tar.add(folder, folder.name)
    failed = device.provision("--yes", "--wheelhouse", str(update), FAKE_FAIL="verify")
    assert failed.returncode == 4, failed.stderr
    assert (link.readlink(), device.current()) == (before, bundle)
    done = device.provision("--yes", "--wheelhouse", str(update))
    assert done.returncode == 0, done.stderr
    assert link.readlink() != before
    assert "nothing was changed" in device.provision("--yes", "--wheelhouse", str(update)).stderr


def test_a_service_that_does_not_start_goes_back_to_program_and_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = plan(root=tmp_path)
    venv, current = tmp_path / machine.settings.venv[1:], tmp_path / places.BUNDLES[1:] / "current"
    files.switch(venv, "venvs/old")
    files.switch(current, "one")
    before = provision._in_use(machine)
    files.switch(venv, "venvs/new")
    files.switch(current, "two")
    started = []

    def fails(*_: object) -> None:
        raise ApplianceError("it does not start")

    monkeypatch.setattr(steps, "start_step", fails)
    monkeypatch.setattr(steps, "start", lambda _: started.append((str(venv.readlink()), str(current.readlink()))))
    with pytest.raises(ApplianceError, match="from before are in use again"):
        provision._start(Steps(), machine, before)
    assert started == [("venvs/old", "one")]
