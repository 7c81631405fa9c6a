"""``bundle``: A and B, and the way back."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from appliance import fake_root
from appliance.fake_root import JETPACK6, Device


def with_the_real_program(tmp_path: Path) -> tuple[Device, Path]:
    """A device without a GPU whose ``edge-reclass`` is this one, and a bundle of one stage with references."""
    pytest.importorskip("edge_reclass_export")
    import bundles
    from edge_reclass_export.cascade_writer import write_cascade_reference

    device = fake_root.make(tmp_path / "device", fake_root.DEBIAN12)
    done = device.install("--no-units", "--bundle", str(fake_root.write_bundle(tmp_path / "one", "one")))
    assert done.returncode == 0, done.stderr
    program = device.root / "opt/edge-reclass/venv/bin/edge-reclass"
    program.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m edge_reclass "$@"\n')
    good = bundles.make_bundle(tmp_path / "good", [bundles.fma_stage()])
    write_cascade_reference(good)
    return device, good


def flip_a_byte(head: Path) -> None:
    content = bytearray(head.read_bytes())
    # The most significant byte of the first weight that is not 0: the graph stays whole, and the weight is another.
    from onnx import load, numpy_helper

    weights = next(numpy_helper.to_array(tensor) for tensor in load(head).graph.initializer if tensor.raw_data)
    raw = weights.tobytes()
    content[content.index(raw) + 3] ^= 0x40
    head.write_bytes(bytes(content))


def test_a_broken_head_is_never_switched_to(tmp_path: Path) -> None:
    """Though every hash in its manifest is right, and the encoder is whole."""
    import bundles

    device, good = with_the_real_program(tmp_path)
    one = device.current()
    bad = tmp_path / "bad"
    shutil.copytree(good, bad)
    flip_a_byte(next(bad.glob("heads/*.onnx")))
    bundles.rehash(bad)
    refused = device.bundle("install", str(bad), OMP_NUM_THREADS="1")
    assert refused.returncode == 4, refused.stderr
    assert "mismatch: its head is another one" in refused.stderr, "what verify says on stdout is shown"
    assert device.current() == one


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    """An installed JetPack 6; each test leaves it with the bundle ``one`` in use, or says so."""
    base = tmp_path_factory.mktemp("bundles")
    device = fake_root.make(base / "device", JETPACK6)
    done = device.install("--no-units", "--bundle", str(fake_root.write_bundle(base / "one", "one")))
    assert done.returncode == 0, done.stderr
    return device


def names(device: Device) -> set[str]:
    found = {path.name for path in (device.state / "bundles").iterdir()}
    return found - {".verified", ".lock", "current", "previous"}


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
    assert "to fix it:" in done.stderr
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


@pytest.mark.parametrize(("now", "then"), [("l4t=36.4.3 ", "l4t=36.4.0 "), ("of=every-stage ", "")])
def test_a_bundle_of_another_time_is_verified_again(device: Device, tmp_path: Path, now: str, then: str) -> None:
    """On another system, or by an earlier program, which looked at encoders alone."""
    one = device.current()
    assert device.bundle("install", str(fake_root.write_bundle(tmp_path / "five", "five"))).returncode == 0
    five = device.current()
    assert device.bundle("use", one).returncode == 0
    verified = device.state / "bundles/.verified" / five
    assert now in verified.read_text()
    verified.write_text(verified.read_text().replace(now, then))
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
    assert device.bundle("polish").returncode == 2


def test_the_tool_is_one_file_and_needs_no_checkout(device: Device, tmp_path: Path) -> None:
    tool = device.root / "opt/edge-reclass/bin/edge-reclass-appliance"
    assert tool.stat().st_mode & 0o777 == 0o755
    assert device.tool("--help", PYTHONPATH=str(tmp_path)).returncode == 0
    before = tool.read_bytes()
    done = device.tool("provision", "--yes", "--no-units", "--root", str(device.root))  # run out of itself
    assert done.returncode == 0, done.stderr
    assert tool.read_bytes() == before
