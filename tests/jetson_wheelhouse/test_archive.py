"""Checks and archive on small wheels made here: what is refused, and that the bytes depend on nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from wheelhouse.archive import install_text, pack, requirements_text
from wheelhouse.contents import Wheel, faults, read_wheel
from wheelhouse.lock import Locked, LockError, lock_text, read_lock
from wheelhouse.sbom import sbom_text
from wheelhouse.targets import TARGETS

from jetson_wheelhouse.wheels import DEBIAN, SOURCE, make_wheel, make_wheels


@pytest.fixture
def wheels(tmp_path: Path) -> list[Wheel]:
    return make_wheels(tmp_path / "wheels")


def lock_of(wheels: list[Wheel]) -> list[Locked]:
    return [wheel.locked for wheel in wheels if wheel.name != "edge-reclass"]


def found(wheels: list[Wheel], locked: list[Locked] | None = None) -> list[str]:
    return list(faults(DEBIAN, wheels, lock_of(wheels) if locked is None else locked))


def without(wheels: list[Wheel], name: str) -> list[Wheel]:
    return [wheel for wheel in wheels if wheel.name != name]


def test_a_complete_folder_has_no_fault(wheels: list[Wheel]) -> None:
    assert found(wheels) == []
    assert {wheel.name: wheel.licence for wheel in wheels} == {
        "edge-reclass": "Apache-2.0",
        "numpy": "BSD",
        "onnxruntime": "MIT License",
        "pip": None,
    }


def test_what_an_extra_needs_has_to_be_there(wheels: list[Wheel]) -> None:
    assert found(without(wheels, "onnxruntime")) == ["edge-reclass needs onnxruntime, which is missing"]


def test_markers_are_the_targets_not_this_machines(wheels: list[Wheel]) -> None:
    """numpy wants tomli below Python 3.11 only: JetPack 6 lacks it, Debian 12 does not."""
    named = [line for line in faults(TARGETS["jetpack6"], wheels, lock_of(wheels)) if "tomli" in line]
    assert named == ["numpy needs tomli, which is missing"]


def test_a_version_outside_the_bounds(wheels: list[Wheel]) -> None:
    old = [replace(wheel, version="1.9") if wheel.name == "numpy" else wheel for wheel in wheels]
    assert "edge-reclass needs numpy>=2, got 1.9" in found(old)


def test_a_wheel_that_nothing_needs(wheels: list[Wheel], tmp_path: Path) -> None:
    stray = read_wheel(make_wheel(tmp_path, "left-over", "1"))
    assert found([*wheels, stray]) == ["left-over is locked but nothing needs it"]


def test_a_wheel_for_another_system(wheels: list[Wheel], tmp_path: Path) -> None:
    for tag in (
        "cp310-cp310-manylinux_2_17_aarch64",
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_39_aarch64",
    ):
        other = read_wheel(make_wheel(tmp_path, "numpy", "2.2.6", tag=tag))
        (fault,) = found([*without(wheels, "numpy"), other])
        assert fault == f"numpy-2.2.6-{tag}.whl does not install on debian12 (cp311, glibc 2.36)"


def test_each_processor_has_wheels_of_its_own(wheels: list[Wheel], tmp_path: Path) -> None:
    pc = TARGETS["debian12-amd64"]
    (numpy,) = (wheel for wheel in wheels if wheel.name == "numpy")
    (fault,) = faults(pc, wheels, lock_of(wheels))
    assert fault == f"{numpy.file.name} does not install on debian12-amd64 (cp311, glibc 2.36)"
    fitting = read_wheel(make_wheel(tmp_path, "numpy", "2.2.6", tag="cp311-cp311-manylinux2014_x86_64"))
    its_own = [*without(wheels, "numpy"), fitting]
    assert list(faults(pc, its_own, lock_of(its_own))) == []


def test_a_wheel_for_a_newer_python(wheels: list[Wheel], tmp_path: Path) -> None:
    other = read_wheel(make_wheel(tmp_path, "numpy", "3.0", "Requires-Python: >=3.12"))
    assert found([*without(wheels, "numpy"), other]) == [
        "numpy-3.0-py3-none-any.whl needs Python >=3.12, debian12 has 3.11"
    ]


def test_a_wheel_that_is_not_as_locked(wheels: list[Wheel]) -> None:
    locked = [replace(lock, sha256="0" * 64) if lock.name == "pip" else lock for lock in lock_of(wheels)]
    (fault,) = found(wheels, locked)
    assert fault.startswith(f"pip: expected pip-26.3-py3-none-any.whl {'0' * 64}, got pip-26.3-py3-none-any.whl ")


def test_a_wheel_that_was_not_downloaded(wheels: list[Wheel]) -> None:
    assert "pip 26.3 is locked but was not downloaded" in found(without(wheels, "pip"), lock_of(wheels))


def test_two_wheels_of_one_package(wheels: list[Wheel], tmp_path: Path) -> None:
    second = read_wheel(make_wheel(tmp_path, "pip", "26.4"))
    assert "pip is there twice: pip-26.3-py3-none-any.whl and pip-26.4-py3-none-any.whl" in found([*wheels, second])


def test_the_projects_own_wheel_is_missing(wheels: list[Wheel]) -> None:
    assert found(without(wheels, "edge-reclass")) == ["the wheel of edge-reclass itself is missing"]


def test_a_file_that_is_no_wheel(tmp_path: Path) -> None:
    broken = tmp_path / "pip-26.3-py3-none-any.whl"
    broken.write_bytes(b"half a downl")
    with pytest.raises(ValueError, match=r"pip-26\.3-py3-none-any\.whl: not a wheel"):
        read_wheel(broken)


def test_the_archive_is_what_the_readme_says(wheels: list[Wheel], tmp_path: Path) -> None:
    archive = pack(DEBIAN, wheels, SOURCE, tmp_path)
    assert archive.name == "edge-reclass-1.2.3-debian12.tar"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (tmp_path / f"{archive.name}.sha256").read_text() == f"{digest}  {archive.name}\n"
    top = "edge-reclass-1.2.3-debian12"
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert names == sorted(names)
        assert set(names) == {
            *(top, f"{top}/INSTALL.txt", f"{top}/manifest.json", f"{top}/requirements.lock", f"{top}/sbom.cdx.json"),
            f"{top}/wheels",
            *(f"{top}/wheels/{wheel.file.name}" for wheel in wheels),
        }
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(SOURCE.date, 0, "")}
        manifest = json.load(tar.extractfile(f"{top}/manifest.json") or io.BytesIO())
        for entry in manifest["wheels"]:
            data = (tar.extractfile(f"{top}/wheels/{entry['file']}") or io.BytesIO()).read()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
        requirements = (tar.extractfile(f"{top}/requirements.lock") or io.BytesIO()).read().decode()
        install = (tar.extractfile(f"{top}/INSTALL.txt") or io.BytesIO()).read().decode()
        sbom = (tar.extractfile(f"{top}/sbom.cdx.json") or io.BytesIO()).read().decode()
    assert sbom == sbom_text(DEBIAN, wheels, SOURCE) == (tmp_path / f"{top}.cdx.json").read_text(encoding="utf-8")
    assert manifest["target"] == {
        "name": "debian12",
        "python": "3.11",
        "implementation": "cp",
        "abi": "cp311",
        "machine": "aarch64",
        "glibc": "2.36",
        "extras": ["cpu", "codecs", "tags", "watch", "service"],
    }
    assert manifest["source"] == {"commit": "c" * 40, "modified": False, "date": SOURCE.date}
    assert manifest["sequence"] == SOURCE.date, "a package's, which is in no signed release, is compared by it"
    assert manifest["bytes"] == sum(wheel.bytes for wheel in wheels)
    assert requirements == requirements_text(DEBIAN, wheels)
    lines = [line for line in requirements.splitlines() if not line.startswith("#")]
    assert lines == [
        f"{name}=={wheel.version} --hash=sha256:{wheel.sha256}"
        for wheel in wheels
        for name in ["edge-reclass[cpu,codecs,tags,watch,service]" if wheel.name == "edge-reclass" else wheel.name]
    ]
    assert "--no-index --find-links wheels --require-hashes -r requirements.lock" in install
    assert "--system-site-packages" not in install


def test_only_jetpacks_environment_sees_the_systems_packages(wheels: list[Wheel], tmp_path: Path) -> None:
    with tarfile.open(pack(TARGETS["jetpack7"], wheels, SOURCE, tmp_path)) as tar:
        text = (tar.extractfile("edge-reclass-1.2.3-jetpack7/INSTALL.txt") or io.BytesIO()).read().decode()
    assert "-m venv --without-pip --system-site-packages ~/edge-reclass\n" in text


def test_the_shell_finds_pip_in_its_wheel(wheels: list[Wheel], tmp_path: Path) -> None:
    """A pattern is expanded only where it names a file, and wheels/pip-*.whl/pip names none."""
    command = next(line.strip() for line in install_text(DEBIAN, wheels).splitlines() if "pip install" in line)
    here = tmp_path / "here"
    (here / "wheels").mkdir(parents=True)
    (here / "wheels/pip-26.3-py3-none-any.whl").touch()
    told = command.replace("~/edge-reclass/bin/python", "echo")
    done = subprocess.run(["bash", "-c", told], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("wheels/pip-26.3-py3-none-any.whl/pip install --no-index ")


def test_the_same_wheels_give_the_same_bytes(wheels: list[Wheel], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    one = pack(DEBIAN, wheels, SOURCE, first).read_bytes()
    for wheel in wheels:
        os.utime(wheel.file, (1, 1))
        wheel.file.chmod(0o600)
    assert pack(DEBIAN, wheels, SOURCE, second).read_bytes() == one
    assert pack(DEBIAN, wheels, replace(SOURCE, date=1), second).read_bytes() != one


def test_a_lock_reads_as_it_was_written(wheels: list[Wheel], tmp_path: Path) -> None:
    file = tmp_path / "debian12.lock"
    file.write_text(lock_text(DEBIAN, lock_of(wheels)[::-1]), encoding="utf-8")
    assert read_lock(file) == lock_of(wheels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no wheel is locked"),
        ("# pip-1-py3-none-any.whl\npip==1\n", ":2: expected NAME==VERSION --hash=sha256:…, got 'pip==1'"),
        (f"pip==1 --hash=sha256:{'0' * 64}\n", ":1: pip has no line with its file above it"),
        (f"# pip-1-py3-none-any.whl\npip==1 --hash=sha256:{'0' * 64}\n" * 2, ":4: pip is locked twice"),
    ],
)
def test_a_damaged_lock_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "jetpack6.lock"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(LockError) as refused:
        read_lock(file)
    assert message in str(refused.value)
    assert "jetson/make_wheelhouse.sh jetpack6 --update" in str(refused.value)


def test_an_absent_lock_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(
        LockError, match=r"no such lock file; make it with: jetson/make_wheelhouse\.sh jetpack7 --update"
    ):
        read_lock(tmp_path / "jetpack7.lock")
