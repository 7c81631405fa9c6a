"""Provisioning from a signed release: what is not signed by the trusted key never gets as far as being unpacked."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from appliance import fake_root
from appliance.fake_root import DEBIAN12, Device
from appliance.signer import OTHER, OURS
from edge_reclass_appliance.errors import NOT_TRUSTED, TO_DO


@pytest.fixture
def fresh(tmp_path: Path) -> Device:
    return fake_root.make(tmp_path / "device", DEBIAN12)


def release(device: Device, folder: Path, *, sequence: int = 10, bundle: str = "one") -> Path:
    """A signed folder with the device's wheelhouse and a bundle; gives the wheelhouse's path."""
    folder.mkdir(exist_ok=True)
    (folder / device.wheelhouse.name).write_bytes(device.wheelhouse.read_bytes())
    made = fake_root.write_bundle(folder.parent / f"{folder.name}-bundle", bundle)
    with tarfile.open(folder / "bundle.tar", "w") as tar:
        tar.add(made, "bundle")
    OURS.release(folder, version=f"1.{sequence}", sequence=sequence)
    return folder / device.wheelhouse.name


def test_first_contact_then_an_older_release(fresh: Device, tmp_path: Path) -> None:
    wheelhouse = release(fresh, tmp_path / "new")
    options = ("--wheelhouse", str(wheelhouse), "--bundle", str(wheelhouse.with_name("bundle.tar")), "--no-units")
    before = fresh.tree()
    for key in ((), ("--key", OTHER.text)):
        refused = fresh.run_provision("--yes", *options, *key)
        assert refused.returncode == NOT_TRUSTED, refused.stderr
    assert fresh.run_provision("--check", *options, "--key", OURS.text).returncode == TO_DO
    changed = {name for name, value in fresh.tree().items() if before.get(name) != value}
    assert not [name for name in changed if not name.startswith("var/")], "refused, and looked at: nothing was made"

    done = fresh.run_provision("--yes", *options, "--key", OURS.text)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"signed by the key {OURS.id}, edge-reclass 1.10 (sequence 10)") == 2
    assert (fresh.root / "etc/edge-reclass/trusted.pub").read_text().splitlines()[1] == OURS.text
    assert not list((fresh.state / "bundles").glob(".checked.*"))

    older = release(fresh, tmp_path / "old", sequence=9)
    refused = fresh.run_provision("--yes", "--wheelhouse", str(older), "--no-units")
    assert refused.returncode == NOT_TRUSTED
    assert "1.9 (sequence 9) is older than 1.10 (sequence 10)" in refused.stderr
    back = fresh.run_provision("--yes", "--wheelhouse", str(older), "--no-units", "--allow-downgrade")
    assert back.returncode == 0, back.stderr


def test_nothing_unsigned_or_altered_is_run(fresh: Device, tmp_path: Path) -> None:
    refused = fresh.run_provision("--yes", "--no-units", "--wheelhouse", str(fresh.wheelhouse), "--key", OURS.text)
    assert (refused.returncode, fresh.calls("pip"), fresh.calls("venv")) == (NOT_TRUSTED, [], [])
    assert "the release is not signed, or incomplete" in refused.stderr

    wheelhouse = release(fresh, tmp_path / "new")
    with wheelhouse.open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    refused = fresh.run_provision("--yes", "--no-units", "--wheelhouse", str(wheelhouse), "--key", OURS.text)
    assert (refused.returncode, fresh.calls("pip"), fresh.calls("venv")) == (NOT_TRUSTED, [], [])
    assert "was altered" in refused.stderr
    assert not (fresh.root / "etc/edge-reclass/trusted.pub").exists()


def test_a_bundle_alone_is_a_release_too(device: Device, tmp_path: Path) -> None:
    folder = tmp_path / "update"
    folder.mkdir()
    made = fake_root.write_bundle(tmp_path / "made", "two")
    command = ("bundle", "--root", str(device.root), "install")
    refused = device.appliance(*command, str(made), "--key", OURS.text)
    assert refused.returncode == NOT_TRUSTED
    assert "is a folder, and only a file can be part of a signed release" in refused.stderr
    with tarfile.open(folder / "two.tar", "w") as tar:
        tar.add(made, "two")
    OURS.release(folder, name="two", sequence=3)
    before = device.current()
    done = device.appliance(*command, str(folder / "two.tar"), "--key", OURS.text)
    assert done.returncode == 0, done.stderr
    assert device.current().startswith("two-")
    OTHER.release(folder, name="two", sequence=4)
    refused = device.appliance(*command, str(folder / "two.tar"))
    assert refused.returncode == NOT_TRUSTED
    assert f"got one by the key {OTHER.id}" in refused.stderr
    OURS.release(folder, name="two", sequence=2)
    assert device.appliance(*command, str(folder / "two.tar")).returncode == NOT_TRUSTED
    assert before != device.current()


def test_remove_takes_away_what_was_installed_and_keeps_what_is_known(device: Device) -> None:
    units = device.root / "etc/systemd/system"
    (device.state / "library.state").write_text("verdicts")
    (device.root / "opt/edge-reclass/own").write_text("somebody's")
    assert list(units.glob("edge-reclass*"))
    done = device.appliance("remove", "--root", str(device.root))
    assert done.returncode == 0, done.stderr
    assert not list(units.glob("edge-reclass*"))
    assert [path.name for path in (device.root / "opt/edge-reclass").iterdir()] == ["own"]
    assert not list((device.root / "usr/local/bin").iterdir())
    assert (device.state / "library.state").read_text() == "verdicts"
    assert (device.root / "etc/edge-reclass/provision.conf").exists()
    (device.root / "opt/edge-reclass/own").unlink()


def test_purge_takes_everything_but_the_music(device: Device) -> None:
    (device.root / "srv/music").mkdir(parents=True, exist_ok=True)
    (device.root / "srv/music/song.flac").write_text("sound")
    tool = device.root / "opt/edge-reclass/bin/edge-reclass-appliance"
    copy = device.base / "tool"
    copy.write_bytes(tool.read_bytes())
    done = device.run(["python3", "-IB", str(copy), "remove", "--purge", "--root", str(device.root)], {})
    assert done.returncode == 0, done.stderr
    left = [str(path.relative_to(device.root)) for path in device.root.rglob("*edge-reclass*")]
    assert left == []
    assert (device.root / "srv/music/song.flac").read_text() == "sound"
    again = device.run(["python3", "-IB", str(copy), "remove", "--purge", "--root", str(device.root)], {})
    assert "nothing was removed: nothing is installed" in again.stderr
