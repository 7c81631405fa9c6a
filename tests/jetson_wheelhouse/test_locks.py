"""The committed locks: complete for pyproject.toml, hashed, and of wheels that the target takes. No network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version
from wheelhouse.__main__ import bounds
from wheelhouse.lock import Locked, read_lock
from wheelhouse.targets import TARGETS, Target

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "jetson" / "wheelhouse"

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return loaded


def locked(target: Target) -> dict[str, Locked]:
    return {wheel.name: wheel for wheel in read_lock(LOCKS / f"{target.name}.lock")}


def asked(target: Target, project: dict[str, Any]) -> list[Requirement]:
    lines = list(project["dependencies"])
    for extra in target.extras:
        lines += project["optional-dependencies"][extra]
    requirements = [Requirement(line) for line in lines]
    return [each for each in requirements if each.marker is None or each.marker.evaluate(target.markers())]


def test_there_is_one_lock_per_target_and_no_other() -> None:
    assert {file.stem for file in LOCKS.glob("*.lock")} == set(TARGETS)


@each_target
def test_every_dependency_is_locked_within_its_bounds(target: Target, project: dict[str, Any]) -> None:
    wheels = locked(target)
    requirements = asked(target, project)
    assert {"numpy", "onnxruntime", "av"} <= {requirement.name for requirement in requirements}
    for requirement in requirements:
        wheel = wheels.get(canonicalize_name(requirement.name))
        assert wheel is not None, f"{requirement} is not locked; run jetson/make_wheelhouse.sh {target.name} --update"
        assert requirement.specifier.contains(wheel.version), f"{requirement}: {wheel.version} is locked"


@each_target
def test_nothing_is_older_than_what_is_tested(target: Target) -> None:
    """constraints/oldest.txt is the floor that CI runs on; typer and rich pull in what is not named there."""
    wheels = locked(target)
    oldest = dict(
        line.split("==") for line in (ROOT / "constraints/oldest.txt").read_text().splitlines() if "==" in line
    )
    compared = [name for name in oldest if canonicalize_name(name) in wheels]
    assert len(compared) >= 9
    for name in compared:
        assert Version(wheels[canonicalize_name(name)].version) >= Version(oldest[name]), name


@each_target
def test_every_wheel_installs_there(target: Target) -> None:
    for wheel in locked(target).values():
        name, version, _, tags = parse_wheel_filename(wheel.file)
        assert (name, str(version)) == (wheel.name, wheel.version)
        assert tags & target.tags(), f"{wheel.file} does not install on {target.name}"


@each_target
def test_every_line_that_pip_reads_has_a_hash(target: Target) -> None:
    text = (LOCKS / f"{target.name}.lock").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(locked(target)) >= 20
    for line in lines:
        assert re.search(r" --hash=sha256:[0-9a-f]{64}$", line), line
    assert "://" not in text


@each_target
def test_bounds_of_the_target_are_met(target: Target) -> None:
    wheels = locked(target)
    for line in bounds(target):
        requirement = Requirement(line)
        if requirement.name in wheels:
            assert requirement.specifier.contains(wheels[requirement.name].version), line


@each_target
def test_the_extras_are_what_the_target_is_for(target: Target, project: dict[str, Any]) -> None:
    assert set(target.extras) <= set(project["optional-dependencies"])
    assert ("tensorrt" in target.extras) == target.name.startswith("jetpack")
    # TensorRT's bindings come from JetPack; a wheel would shadow them. Nothing of the exporter's travels either.
    unwanted = {"tensorrt", "tensorrt-rtx", "torch", "transformers", "onnx", "librosa", "numba"}
    assert not unwanted & set(locked(target))
    assert "pip" in locked(target)


@pytest.mark.parametrize("name", ["debian12", "debian12-amd64"])
def test_debian_takes_the_versions_of_jetpack6(name: str) -> None:
    ours, theirs = locked(TARGETS[name]), locked(TARGETS["jetpack6"])
    assert {name: theirs[name].version for name in ours} == {name: wheel.version for name, wheel in ours.items()}


def test_the_last_wheels_for_python_3_10() -> None:
    """facts: newer ones have no cp310 wheel, so a resolution that gives others used another index."""
    wheels = locked(TARGETS["jetpack6"])
    assert {name: wheels[name].version for name in ("numpy", "onnxruntime")} == {
        "numpy": "2.2.6",
        "onnxruntime": "1.23.2",
    }


def test_platforms_end_at_the_systems_c_library() -> None:
    platforms = TARGETS["jetpack6"].platforms
    assert platforms[0] == "manylinux_2_35_aarch64"
    assert {"manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"} <= set(platforms)
    assert "manylinux_2_36_aarch64" not in platforms
    assert not [name for name in platforms if "x86_64" in name]
    assert {name.replace("x86_64", "aarch64") for name in TARGETS["debian12-amd64"].platforms} == set(
        TARGETS["debian12"].platforms
    )
