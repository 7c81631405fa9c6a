"""edge-reclass-power: the mode is set when it differs, nothing restarts, and missing tools are no error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jetson import fake_root
from jetson.fake_root import JETPACK6

SCRIPT = fake_root.JETSON / "bin" / "edge-reclass-power"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    fake_root.make(tmp_path / "device", JETPACK6)
    return tmp_path / "device"


def run(base: Path, what: str, **environ: str) -> subprocess.CompletedProcess[str]:
    given = {
        "PATH": f"{base / 'bin'}:/usr/bin:/bin",
        "FAKE_ROOT": str(base / "root"),
        "FAKE_CALLS": str(base / "calls"),
        "RUNTIME_DIRECTORY": str(base),
        **environ,
    }
    return subprocess.run(
        ["bash", str(SCRIPT), what], capture_output=True, text=True, env=given, timeout=60, check=False
    )


def calls(base: Path) -> list[str]:
    return (base / "calls").read_text().splitlines() if (base / "calls").exists() else []


def test_a_mode_is_set_once(base: Path) -> None:
    first = run(base, "start", POWER_MODE="2", CLOCKS="keep")
    assert first.returncode == 0 and "power mode 2: set" in first.stdout
    again = run(base, "start", POWER_MODE="2", CLOCKS="keep")
    assert again.returncode == 0 and "power mode 2: unchanged" in again.stdout
    assert calls(base).count("nvpmodel -m 2") == 1
    assert not [call for call in calls(base) if call.startswith("jetson_clocks")]


def test_a_mode_that_needs_a_restart_is_said_and_nothing_restarts(base: Path) -> None:
    done = run(base, "start", POWER_MODE="2", FAKE_REBOOT="2")
    assert done.returncode == 1
    assert "answered no" in calls(base)
    assert "power mode is 0, wanted 2; to mend it: sudo nvpmodel -m 2" in done.stderr


def test_clocks_go_up_and_back(base: Path) -> None:
    assert run(base, "start", CLOCKS="max").returncode == 0
    assert run(base, "start", CLOCKS="max").returncode == 0
    stored = base / "clocks"
    assert calls(base) == [f"jetson_clocks --store {stored}", "jetson_clocks ", "jetson_clocks "]
    assert run(base, "stop").returncode == 0
    assert calls(base)[-1] == f"jetson_clocks --restore {stored}"
    assert not stored.exists()
    assert run(base, "stop").stdout == ""


def test_keep_touches_nothing(base: Path) -> None:
    done = run(base, "start", POWER_MODE="keep", CLOCKS="keep")
    assert (done.returncode, done.stdout, calls(base)) == (0, "", [])


def test_without_the_tools_it_says_so(base: Path) -> None:
    for name in ("nvpmodel", "jetson_clocks"):
        (base / "bin" / name).unlink()
    done = run(base, "start", POWER_MODE="2", CLOCKS="max")
    assert done.returncode == 0
    assert "nvpmodel was not found" in done.stdout and "jetson_clocks was not found" in done.stdout


def test_wrong_usage(base: Path) -> None:
    assert run(base, "restart").returncode == 2
