"""edge-reclass-bundle: A and B, and the way back."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from jetson import fake_root
from jetson.fake_root import JETPACK6, Device


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    """An installed JetPack 6; each test leaves it with the bundle ``one`` in use, or says so."""
    base = tmp_path_factory.mktemp("bundles")
    device = fake_root.make(base / "device", JETPACK6)
    done = device.install("--no-units", "--bundle", str(fake_root.write_bundle(base / "one", "one")))
    assert done.returncode == 0, done.stderr
    return device


def names(device: Device) -> set[str]:
    return {path.name for path in (device.state / "bundles").iterdir()} - {".verified", "current", "previous"}


def test_a_new_bundle_and_back(device: Device, tmp_path: Path) -> None:
    one = device.current()
    done = device.bundle("install", str(fake_root.write_bundle(tmp_path / "two", "two")))
    assert done.returncode == 0, done.stderr
    two = device.current()
    assert two.startswith("two-") and device.current("previous") == one

    device.forget()
    back = device.bundle("rollback")
    assert back.returncode == 0, back.stderr
    assert (device.current(), device.current("previous")) == (one, two)
    assert device.calls("verify") == []  # it was verified on this machine, with this program
    assert device.calls("inspect")  # but its files are hashed again

    listed = device.bundle("list").stdout.splitlines()
    assert [line.split(maxsplit=1) for line in listed] == [[one, "in use"], [two, "before"]]
    for wanted in (one, two):
        refused = device.bundle("remove", wanted)
        assert refused.returncode == 2
        assert "is in use, or the one to go back to" in refused.stderr
    assert device.bundle("use", two).returncode == 0
    assert device.bundle("use", one).returncode == 0
    assert device.current() == one


def test_the_same_bundle_again_changes_nothing(device: Device, tmp_path: Path) -> None:
    before = device.tree()
    done = device.bundle("install", str(fake_root.write_bundle(tmp_path / "one", "one")))
    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stderr
    after = device.tree()
    assert {name: value[:2] for name, value in after.items()} == {name: value[:2] for name, value in before.items()}


def test_an_archive_of_the_folder_or_of_its_content(device: Device, tmp_path: Path) -> None:
    one = device.current()
    folder = fake_root.write_bundle(tmp_path / "three", "three")
    for name, inside in (("a.tar.gz", "my-bundle"), ("b.tar", ".")):
        with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as tar:
            tar.add(folder, inside)
        done = device.bundle("install", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        assert device.current().startswith("three-")
        assert not (device.state / "bundles" / device.current() / "engines").exists()
        assert device.bundle("use", one).returncode == 0


@pytest.mark.parametrize("fail", ["verify", "build"])
def test_what_disagrees_is_not_switched_to(device: Device, tmp_path: Path, fail: str) -> None:
    before, links = names(device), (device.current(), device.root)
    done = device.bundle("install", str(fake_root.write_bundle(tmp_path / "bad", f"bad-{fail}")), FAKE_FAIL=fail)
    assert done.returncode == 4
    assert f"the bundle in use stays: {device.current()}" in done.stderr
    assert (names(device), (device.current(), device.root)) == (before, links)


def _member(tar: tarfile.TarFile, name: str, content: bytes = b"x", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content) if not fields else 0
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("evil", ["../outside", "/etc/outside", "link", "nothing", "not a tar", "altered"])
def test_what_is_no_bundle_is_refused(device: Device, tmp_path: Path, evil: str) -> None:
    before, current = names(device), device.current()
    folder = fake_root.write_bundle(tmp_path / "evil", "evil")
    archive = tmp_path / "evil.tar"
    if evil == "altered":
        (folder / "encoders/one.onnx").write_text("other weights")
    with tarfile.open(archive, "w") as tar:
        if evil != "nothing":
            tar.add(folder, ".")
        if evil == "link":
            _member(tar, "encoders/link", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        elif "outside" in evil:
            _member(tar, evil)
        elif evil == "nothing":
            _member(tar, "readme")
    if evil == "not a tar":
        archive.write_text("not a tar")
    done = device.bundle("install", str(archive))
    assert done.returncode == 4, done.stderr
    assert "to mend it:" in done.stderr
    assert (names(device), device.current()) == (before, current)
    assert not list(device.base.rglob("outside"))


def test_a_bad_name_is_seen_in_a_long_archive(device: Device, tmp_path: Path) -> None:
    """The list is longer than a pipe: whoever stops reading at the first bad name breaks it."""
    folder = fake_root.write_bundle(tmp_path / "long", "long")
    with tarfile.open(tmp_path / "long.tar", "w") as tar:
        _member(tar, "../outside")
        tar.add(folder, ".")
        for number in range(3000):
            _member(tar, f"a/long/name/so/that/the/list/is/longer/than/a/pipe/holds/{number:04d}")
    done = device.bundle("install", str(tmp_path / "long.tar"))
    assert done.returncode == 4
    assert "names files outside of its own folder" in done.stderr


def test_a_damaged_copy_is_replaced(device: Device, tmp_path: Path) -> None:
    folder = fake_root.write_bundle(tmp_path / "four", "four")
    one = device.current()
    assert device.bundle("install", str(folder)).returncode == 0
    four = device.current()
    assert device.bundle("use", one).returncode == 0
    damaged = device.state / "bundles" / four / "encoders/one.onnx"
    damaged.write_text("bit rot")
    refused = device.bundle("rollback")
    assert refused.returncode == 4
    assert device.current() == one
    done = device.bundle("install", str(folder))
    assert done.returncode == 0, done.stderr
    assert damaged.read_text() == "weights"
    assert device.bundle("use", one).returncode == 0


def test_a_bundle_of_another_time_is_verified_again(device: Device, tmp_path: Path) -> None:
    one = device.current()
    assert device.bundle("install", str(fake_root.write_bundle(tmp_path / "five", "five"))).returncode == 0
    five = device.current()
    assert device.bundle("use", one).returncode == 0
    (device.state / "bundles/.verified" / five).write_text("device=tensorrt l4t=36.4.0 and so on\n")
    device.forget()
    assert device.bundle("rollback", FAKE_FAIL="verify").returncode == 4
    assert device.current() == one
    assert device.bundle("rollback").returncode == 0
    assert device.calls("verify")
    assert device.bundle("use", one).returncode == 0


def test_removing(device: Device, tmp_path: Path) -> None:
    one = device.current()
    assert device.bundle("install", str(fake_root.write_bundle(tmp_path / "six", "six"))).returncode == 0
    six = device.current()
    assert device.bundle("install", str(fake_root.write_bundle(tmp_path / "seven", "seven"))).returncode == 0
    assert device.bundle("use", one).returncode == 0
    assert device.bundle("remove", six).returncode == 0
    assert six not in names(device)
    for wrong in ("..", "", "current", "none", "a/b"):
        assert device.bundle("remove", wrong).returncode == 2
    assert device.bundle().returncode == 2
    assert device.bundle("polish").returncode == 2
    assert "usage" in device.bundle("--help").stdout


def test_the_installed_copy_is_whole(device: Device) -> None:
    share = device.root / "opt/edge-reclass/share/jetson"
    assert sorted(path.name for path in share.iterdir()) == ["bin", "devices", "lib", "provision.sh", "units"]
    for path in share.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (fake_root.JETSON / path.relative_to(share)).read_bytes()
            assert path.stat().st_mode & 0o022 == 0
