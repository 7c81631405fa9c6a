"""Device profiles: each is right, what is wrong is refused by name, and each machine gets the one that is meant."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jetson.unit_file import JETSON


@pytest.fixture(scope="module")
def profiles() -> ModuleType:
    spec = importlib.util.spec_from_file_location("device_profile", JETSON / "bin" / "device_profile.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_profile_is_right_and_says_what_is_not_measured(profiles: ModuleType) -> None:
    loaded = profiles.load_all()
    assert {profile.name for profile in loaded} == {
        *("agx-orin-64gb", "cpu", "orin-nano-8gb", "orin-nx-16gb", "rtx", "thor"),
    }
    for profile in loaded:
        assert set(profile.settings) == set(profiles.SETTINGS)
        # Nobody has measured on any of these devices. Whoever does changes this line with the profile.
        assert all(setting.estimate for setting in profile.settings.values()), profile.name
        assert profile.settings["batch"].value <= profile.settings["max_batch"].value
    by_size = sorted((one for one in loaded if one.models), key=lambda one: one.min_memory_gib)
    for key in ("max_batch", "jobs", "workspace_mib"):
        values = [one.settings[key].value for one in by_size]
        assert values == sorted(values), key


@pytest.mark.parametrize(
    ("model", "memory", "name"),
    [
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", 7.3, "orin-nano-8gb"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 7.4, "orin-nano-8gb"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 15.3, "orin-nx-16gb"),
        ("NVIDIA Jetson AGX Orin Developer Kit", 29.9, "orin-nx-16gb"),
        ("NVIDIA Jetson AGX Orin Developer Kit", 61.4, "agx-orin-64gb"),
        ("NVIDIA Jetson AGX Thor Developer Kit", 122.8, "thor"),
        ("NVIDIA Jetson Orin Nano", 3.6, None),
        ("Raspberry Pi 5 Model B Rev 1.0", 7.9, None),
    ],
)
def test_which_machine_gets_which(profiles: ModuleType, model: str, memory: float, name: str | None) -> None:
    picked = profiles.pick(profiles.load_all(), model, memory)
    assert (picked and picked.name) == name


GOOD = (JETSON / "devices" / "thor.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("format: 1", "format: 2", "format: expected 1, got 2"),
        ("name: thor", "name: tor", "the file's own name"),
        ("name: thor", "name: thor\nname: thor", "the key 'name' stands twice"),
        ("device: tensorrt", "device: cuda", "device: expected cpu or tensorrt, got 'cuda'"),
        ("device: tensorrt", "device: tensorrt\ncolour: green", "unknown ['colour']"),
        ("min_memory_gib: 100", "min_memory_gib: true", "min_memory_gib: expected a number"),
        (
            "  max_batch: {value: 48, estimate: true",
            "  max_batch: {value: 0, estimate: true",
            "settings.max_batch.value",
        ),
        ("value: 48, estimate: true", 'value: "48", estimate: true', "a whole number from 1, got '48'"),
        ("value: 48, estimate: true", "value: 48, estimate: false", "missing ['measured'], unknown ['reckoned']"),
        ("value: 48, estimate: true", "value: 48", "value, and estimate: true or false"),
        ('reckoned: "as max_batch"', 'reckoned: ""', "settings.batch.reckoned: expected how, in words"),
        ('"16G"', '"16 GB"', "a size such as 3G"),
        ('"16G"', '"$(reboot)"', "a size such as 3G"),
        ('"120W"', '"120 W; reboot"', "settings.power_mode.value"),
        ("settings:", "setting:", "missing ['settings'], unknown ['setting']"),
        ("format: 1", "format: [1", "cannot be read"),
    ],
)
def test_what_is_wrong_is_refused(
    profiles: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    assert old in GOOD
    (tmp_path / "thor.yaml").write_text(GOOD.replace(old, new, 1))
    assert profiles.main(["--devices", str(tmp_path), "list"]) == 2
    error = capsys.readouterr().err
    assert "thor.yaml" in error and says in error


def test_the_command(profiles: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert profiles.main(["shell", "-", "NVIDIA Jetson Orin Nano", "7.3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["PROFILE=orin-nano-8gb", "PROFILE_DEVICE=tensorrt", "PROFILE_MAX_BATCH=6"]
    assert "PROFILE_ESTIMATES=6" in lines
    assert profiles.main(["show", "rtx"]) == 0
    assert "estimate" in capsys.readouterr().out
    assert profiles.main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert profiles.main(["pick", "toaster", "1"]) == 1
    assert profiles.main(["show", "toaster"]) == 2
    assert profiles.main(["--devices", str(tmp_path), "list"]) == 2
