"""The units: systemd takes them without a warning, their exposure stays low, and values are put in as they are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.unit_file import jetson, last, parse, plan, unit, words
from edge_reclass_appliance import places, units
from edge_reclass_appliance.units import Plan

SERVICE = units.SERVICE
EXPOSURE = {"cpu": 0.4, "tensorrt": 0.8, "tags": 0.4}
"""The most that `systemd-analyze security` may say (0 safe, 10 exposed); docs/jetson.md has what it does say."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def all_plans(tmp_path: Path) -> list[Plan]:
    settings = ({}, {"when": "*-*-* 02:30:00"}, {"when": places.BOOT}, {"when": places.IDLE, "tags": True})
    plans = [
        plan(music=("/srv/the music", "/home/me/Music", "/home/me/Music:old"), power_mode="25W", **one)
        for one in settings
    ]
    return [*plans, jetson(tmp_path)]


def install(root: Path, of: Plan) -> list[str]:
    """A root with the units of a machine, the programs that they name, and this machine's own units."""
    folder = root / "etc/systemd/system"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in units.render(of).items():
        (folder / name).write_text(text)
    for program in ("opt/edge-reclass/venv/bin/edge-reclass", "opt/edge-reclass/bin/edge-reclass-appliance", "bin/sh"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).write_text("#!/bin/sh\n")
        (root / program).chmod(0o755)
    own = root / "usr/lib/systemd/system"
    if not own.exists():
        shutil.copytree("/usr/lib/systemd/system", own, symlinks=True)
    return list(units.render(of))


def analyze(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", f"--root={root}", *arguments], capture_output=True, text=True, check=False
    )


def verify(root: Path, names: list[str]) -> str:
    done = analyze(root, "verify", "--man=no", "--recursive-errors=no", *names)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


@needs_systemd
def test_systemd_takes_them_without_a_word(tmp_path: Path) -> None:
    for one in all_plans(tmp_path):
        assert verify(tmp_path, install(tmp_path, one)) == "0\n"


@needs_systemd
@pytest.mark.parametrize(
    ("old", "new"), [("ProtectSystem=strict", "ProtectSistem=strict"), ("WatchdogSec=5min", "WatchdogSec=soon")]
)
def test_systemd_would_have_said_something(tmp_path: Path, old: str, new: str) -> None:
    names = install(tmp_path, plan())
    path = tmp_path / "etc/systemd/system" / SERVICE
    path.write_text(path.read_text().replace(old, new))
    assert verify(tmp_path, names) != "0\n"


def exposure(root: Path, name: str) -> float:
    done = analyze(root, "security", "--offline=true", name)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found.group(1))


@needs_systemd
def test_exposure(tmp_path: Path) -> None:
    install(tmp_path, plan(tags=True))
    on_cpu = exposure(tmp_path, SERVICE)
    assert on_cpu <= EXPOSURE["cpu"]
    assert exposure(tmp_path, units.TAGS) <= EXPOSURE["tags"]
    install(tmp_path, jetson(tmp_path))
    assert on_cpu < exposure(tmp_path, SERVICE) <= EXPOSURE["tensorrt"]


def test_a_service_that_runs_for_years() -> None:
    service = unit(SERVICE, plan())
    assert last(service, "Service", "Type") == "notify"
    assert last(service, "Service", "WatchdogSec") == "5min"
    assert last(service, "Service", "Restart") == "on-failure"
    # Trying again changes nothing: wrong usage, an invalid bundle.
    assert {"2", "4"} == set(words(service, "Service", "RestartPreventExitStatus"))
    # A person who tries things does not come to 30 starts in an hour.
    assert (last(service, "Unit", "StartLimitIntervalSec"), last(service, "Unit", "StartLimitBurst")) == ("1h", "30")
    assert last(service, "Unit", "OnFailure") == units.FAILED
    assert last(service, "Service", "MemoryMax") == "75%"
    assert last(service, "Service", "User") == "edge-reclass"
    nightly = unit(SERVICE, plan(when="daily"))
    assert last(nightly, "Service", "Type") == "exec"  # where nothing is new, it ends without READY=1
    assert {"3", "143"} == set(words(nightly, "Service", "SuccessExitStatus"))  # some tracks failed; stopped
    assert last(nightly, "Unit", "OnSuccess") == units.REPORT


def test_no_directive_is_newer_than_ubuntu_22_04(tmp_path: Path) -> None:
    """systemd 249 warns of what it does not know. These came later (systemd's NEWS, 250 to 255)."""
    newer = {
        *("RestartSteps", "RestartMaxDelaySec", "RestartMode", "MemoryZSwapMax", "RestrictFileSystems", "OpenFile"),
        *("ExitType", "StartupMemoryMax", "MemoryPressureWatch", "SetLoginEnvironment", "SurviveFinalKillSignal"),
    }
    for one in all_plans(tmp_path):
        for name, text in units.render(one).items():
            assert not newer & {key for section in parse(text).values() for key in section}, name


def test_values_are_put_in_as_they_are() -> None:
    service = unit(SERVICE, plan(music=("/home/Björk & Co [live] *",)))
    assert words(service, "Service", "BindReadOnlyPaths") == ["-/home/Björk & Co [live] *"]
    command = words(service, "Service", "ExecStart")
    assert command[:3] == ["/opt/edge-reclass/venv/bin/edge-reclass", "serve", "--watch"]
    assert command[command.index("--root") + 1] == "/home/Björk & Co [live] *"


def test_a_colon_does_not_end_the_path_of_a_bind() -> None:
    text = units.render(plan(music=("/home/me/Music:old",)))[SERVICE]
    assert 'BindReadOnlyPaths=-"/home/me/Music:old"\n' in text


@pytest.mark.parametrize(("code", "told"), [(0, "the disk is full"), (1, "no report could be made: journalctl")])
def test_the_owners_hook_reads_what_failed(tmp_path: Path, code: int, told: str) -> None:
    (command,) = words(unit(units.FAILED, plan()), "Service", "ExecStart")[2:]
    tool, hook = tmp_path / "tool", tmp_path / "hook"
    tool.write_text(f"#!/bin/sh\n[ {code} = 1 ] || echo the disk is full\nexit {code}\n")
    tool.chmod(0o755)
    hook.write_text(f"#!/bin/sh\ncat > {tmp_path}/mail\necho $1 >> {tmp_path}/mail\n")
    command = command.replace(plan().settings.tool, str(tool)).replace(places.HOOK, str(hook))
    without = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert told in without.stdout, "the journal has it"
    hook.chmod(0o755)
    subprocess.run(["/bin/sh", "-c", command], check=True)
    assert told in (tmp_path / "mail").read_text() and "reports/latest.txt" in (tmp_path / "mail").read_text()


@pytest.mark.parametrize("when", [places.ALWAYS, "daily"])
def test_the_command_takes_every_option_that_the_unit_passes(when: str) -> None:
    """The unit's options are those of this version's commands."""
    from typer.testing import CliRunner

    from edge_reclass.cli.commands import app

    command = words(unit(SERVICE, plan(when=when, tags=True)), "Service", "ExecStart")
    shown = CliRunner().invoke(app, [command[1], "--help"], env={"COLUMNS": "200"})
    if command[1] == "serve" and shown.exit_code == 2:
        pytest.skip("this version has no command serve")
    assert shown.exit_code == 0, shown.output
    for option in (word for word in command if word.startswith("--")):
        assert re.search(rf"{option}\b", shown.output), option


def test_nothing_reports_home(tmp_path: Path) -> None:
    """ONNX Runtime 1.29 and newer would look its server's address up, and write an identifier into a cache."""
    for one in all_plans(tmp_path):
        assert "ORT_DISABLE_TELEMETRY=1" in words(unit(SERVICE, one), "Service", "Environment")


def test_a_trial_has_every_property_of_the_unit_but_its_share_of_the_machine() -> None:
    """What is tried is tried as it will run."""
    of = plan(music=("/home/me/My Music",))
    given = [f"{key}={value}" for key, value in units.sandbox(of)]
    in_unit = units.render(of)[SERVICE].splitlines()
    assert set(given) <= set(in_unit)
    about_starting = {"Type", "NotifyAccess", "TimeoutStartSec", "TimeoutStopSec", "ExecStart", "StandardInput"}
    about_starting |= {"SyslogIdentifier", "Restart", "RestartSec", "RestartPreventExitStatus", "WatchdogSec"}
    about_starting |= {"SuccessExitStatus", "RuntimeDirectory", "RuntimeDirectoryMode"}
    rest = unit(SERVICE, of)["Service"].keys() - {line.split("=")[0] for line in given}
    assert rest == about_starting
