"""The units: systemd takes them without a warning, their exposure stays low, and provision.sh fills them in rightly."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.unit_file import JETSON, last, parse, render, words

UNITS = ("edge-reclass.service", "edge-reclass.timer")
EXPOSURE = {"edge-reclass.service": 0.4, "edge-reclass.service with a GPU": 0.8}
"""The most that `systemd-analyze security` may say (0 safe, 10 exposed); docs/jetson.md has what it does say."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")

GPU = {"DEVICE": "tensorrt"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with our units, the programs that they name, and this machine's own units."""
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    for name in UNITS:
        (folder / name).write_text(render(name, {"MUSIC": "/srv/the music"}))
    for program in (
        "opt/edge-reclass/venv/bin/edge-reclass",
        "opt/edge-reclass/venv/bin/python",
    ):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    own = Path("/usr/lib/systemd/system")
    (tmp_path / "usr/lib/systemd").mkdir(parents=True)
    shutil.copytree(own, tmp_path / "usr/lib/systemd/system", symlinks=True)
    return tmp_path


def analyze(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", f"--root={root}", *arguments], capture_output=True, text=True, check=False
    )


def verify(root: Path) -> str:
    done = analyze(root, "verify", "--man=no", "--recursive-errors=no", *UNITS)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


@needs_systemd
def test_systemd_takes_them_without_a_word(root: Path) -> None:
    assert verify(root) == "0\n"


@needs_systemd
@pytest.mark.parametrize(
    ("old", "new"), [("ProtectSystem=strict", "ProtectSistem=strict"), ("WatchdogSec=1h", "WatchdogSec=soon")]
)
def test_systemd_would_have_said_something(root: Path, old: str, new: str) -> None:
    path = root / "etc/systemd/system/edge-reclass.service"
    path.write_text(path.read_text().replace(old, new))
    assert verify(root) != "0\n"


def exposure(root: Path, name: str) -> float:
    done = analyze(root, "security", "--offline=true", name)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found.group(1))


@needs_systemd
def test_exposure(root: Path) -> None:
    assert exposure(root, "edge-reclass.service") <= EXPOSURE["edge-reclass.service"]
    drop_in = root / "etc/systemd/system/edge-reclass.service.d"
    drop_in.mkdir()
    (drop_in / "10-gpu.conf").write_text(
        (JETSON / "units/gpu.conf")
        .read_text()
        .replace("@DEVICE_NODES@", "DeviceAllow=/dev/nvmap rw\nDeviceAllow=/dev/nvidia0 rw")
        .replace("@DEVICE_GROUPS@", "SupplementaryGroups=render video")
    )
    assert verify(root) == "0\n"
    with_gpu = exposure(root, "edge-reclass.service")
    assert EXPOSURE["edge-reclass.service"] < with_gpu <= EXPOSURE["edge-reclass.service with a GPU"]


def test_a_service_that_runs_for_years() -> None:
    unit = parse(render("edge-reclass.service", {}))
    assert last(unit, "Service", "Type") == "notify"
    assert last(unit, "Service", "WatchdogSec") == "1h"
    assert last(unit, "Service", "Restart") == "on-failure"
    assert {"3", "143"} == set(words(unit, "Service", "SuccessExitStatus"))  # some tracks failed; stopped
    # Trying again changes nothing: wrong usage, an invalid bundle; a run to its end that found tracks gone.
    assert {"0", "2", "3", "4"} == set(words(unit, "Service", "RestartPreventExitStatus"))
    assert last(unit, "Unit", "StartLimitBurst") == "4"
    assert last(unit, "Service", "MemoryMax") == "75%"
    assert last(unit, "Service", "User") == "edge-reclass"


def test_no_directive_is_newer_than_ubuntu_22_04() -> None:
    """systemd 249 warns of what it does not know. These came later (systemd's NEWS, 250 to 255)."""
    newer = {
        *("RestartSteps", "RestartMaxDelaySec", "RestartMode", "MemoryZSwapMax", "RestrictFileSystems", "OpenFile"),
        *("ExitType", "StartupMemoryMax", "MemoryPressureWatch", "SetLoginEnvironment", "SurviveFinalKillSignal"),
    }
    for name in (*UNITS, "gpu.conf"):
        text = (JETSON / "units" / name).read_text()
        unit = parse(text.replace("@DEVICE_NODES@", "").replace("@DEVICE_GROUPS@", ""))
        assert not newer & {key for section in unit.values() for key in section}, name


def test_values_are_put_in_as_they_are() -> None:
    text = render("edge-reclass.service", {"MUSIC": "/srv/Björk & Co [live] *", "RESULTS": "/srv/out", **GPU})
    unit = parse(text)
    assert words(unit, "Service", "BindReadOnlyPaths") == ["/srv/Björk & Co [live] *"]
    command = words(unit, "Service", "ExecStart")
    assert command[:3] == ["/opt/edge-reclass/venv/bin/edge-reclass", "classify", "/srv/Björk & Co [live] *"]
    assert command[command.index("--device") + 1] == "tensorrt"
    assert command[command.index("--batch") + 1] == "6"
    assert command[-1] == "/srv/out/verdicts.jsonl"


def test_a_forgotten_placeholder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    shutil.copytree(JETSON / "lib", tmp_path / "lib")
    (tmp_path / "units/x.service").write_text("# @COMMENT@ is no placeholder\nExecStart=@NOTHING@\n")
    with pytest.raises(RuntimeError, match="a placeholder that nothing replaces"):
        render("x.service", {"HERE": str(tmp_path)})


def test_the_command_takes_every_option_that_the_unit_passes() -> None:
    """The unit's options are those of this version's ``classify``."""
    from typer.testing import CliRunner

    from edge_reclass.cli.commands import app

    known = CliRunner().invoke(app, ["classify", "--help"], env={"COLUMNS": "200"}).output
    for variables in ({}, GPU):
        command = words(parse(render("edge-reclass.service", variables)), "Service", "ExecStart")
        for option in (word for word in command if word.startswith("--")):
            assert option in known, option


def test_nothing_reports_home() -> None:
    """ONNX Runtime 1.29 and newer would look its server's address up, and write an identifier into a cache."""
    assert "ORT_DISABLE_TELEMETRY=1" in words(parse(render("edge-reclass.service", {})), "Service", "Environment")
