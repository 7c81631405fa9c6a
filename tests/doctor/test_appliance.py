"""What doctor says of a machine that was provisioned: the service, its library, the music, the kernel's sandbox."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tagged
from edge_reclass_appliance import installation, music
from edge_reclass_appliance.users import User
from edge_reclass_doctor import machine as machines
from edge_reclass_doctor.appliance import appliance_problems, survey_appliance
from edge_reclass_doctor.kernel import enforced
from edge_reclass_doctor.machine import Host, ToolResult
from edge_reclass_doctor.report import ApplianceState, Problem
from edge_reclass_doctor.summary import mark, service_line

RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "Result": "success",
    "ExecMainStatus": "0",
    "ExecMainStartTimestamp": "Sun 2026-11-29 02:30:00 UTC",
    "ExecMainExitTimestamp": "",
    "NRestarts": "0",
    "StatusText": "watching 1 folder",
    "MainPID": "0",
    "ControlGroup": "/system.slice/edge-reclass.service",
}
WAITING = {
    **RUNNING,
    "ActiveState": "inactive",
    "ExecMainExitTimestamp": "Sun 2026-11-29 02:41:00 UTC",
    "StatusText": "",
}


class Provisioned:
    """A folder that stands for a provisioned machine, whose systemctl says what the test wants."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.units: dict[str, dict[str, str]] = {"edge-reclass.service": dict(RUNNING), "edge-reclass.timer": {}}
        (root / "etc/edge-reclass").mkdir(parents=True)
        (root / "etc/passwd").write_text("edge-reclass:x:990:990::/:/usr/sbin/nologin\n")
        (root / "etc/group").write_text("root:x:0:\nedge-reclass:x:990:\nmusicians:x:4242:\n")
        (root / "srv/music/album").mkdir(parents=True)
        (root / "srv/music/album/a.mp3").write_bytes(b"x")
        (root / "var/lib/edge-reclass/bundles").mkdir(parents=True)
        (root / "var/lib/edge-reclass/bundles/current").symlink_to("starter-1")
        for path in (root, *root.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)
        self.settings(WHEN="always")

    def settings(self, **values: str) -> None:
        lines = {"SERVICE_USER": "edge-reclass", "MUSIC": "/srv/music", **values}
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        (self.root / "etc/edge-reclass/provision.conf").write_text(text)

    def __call__(self, command: Sequence[str], seconds: float) -> ToolResult:
        assert list(command[:2]) == ["systemctl", "show"], command
        shown = self.units[command[2]]
        return ToolResult(0, "".join(f"{key}={value}\n" for key, value in shown.items()), "")

    def look(self) -> tuple[ApplianceState, list[Problem]]:
        found = installation.find(self.root)
        assert found is not None
        state = survey_appliance(found, self, self.root)
        here = machines.probe(Host(root=self.root))
        return state, [one for one in appliance_problems(found, state, here) if one.code != "sandbox-weaker"]


@pytest.fixture
def there(tmp_path: Path) -> Provisioned:
    return Provisioned(tmp_path / "root")


def codes(problems: list[Problem]) -> list[str]:
    return [one.code for one in problems]


def test_no_appliance(tmp_path: Path) -> None:
    assert installation.find(tmp_path) is None


def test_all_is_well(there: Provisioned) -> None:
    state, problems = there.look()
    assert problems == []
    assert (state.bundle, state.user, state.when) == ("starter-1", "edge-reclass", "always")
    assert state.service is not None and state.service.status == "watching 1 folder"
    assert state.music[0].readable and state.music[0].reason is None
    assert service_line(state).startswith("active, since Sun 2026-11-29 02:30:00 UTC, watching 1 folder")
    assert state.library.reason == "no run has ended yet"


@pytest.mark.parametrize(
    ("shown", "code", "fix"),
    [
        ({"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "4"}, "service-failed", "journalctl"),
        ({"Result": "watchdog"}, "service-failed", "journalctl"),
        ({"ActiveState": "inactive"}, "service-stopped", "sudo systemctl start edge-reclass.service"),
        ({"LoadState": "not-found"}, "service-missing", "edge-reclass-appliance provision"),
    ],
)
def test_the_service_does_not_run(there: Provisioned, shown: dict[str, str], code: str, fix: str) -> None:
    there.units["edge-reclass.service"].update({"ExecMainExitTimestamp": "Sun 2026-11-29 03:00:00 UTC", **shown})
    _, problems = there.look()
    assert codes(problems) == [code]
    assert problems[0].severity == "problem" and fix in problems[0].fix
    assert mark("service", problems) == "✗"


def test_a_service_that_runs_at_night(there: Provisioned) -> None:
    there.settings(WHEN="*-*-* 02:30:00")
    there.units["edge-reclass.service"] = dict(WAITING)
    there.units["edge-reclass.timer"] = {"NextElapseUSecRealtime": "Mon 2026-11-30 02:30:00 UTC"}
    state, problems = there.look()
    assert problems == []
    assert service_line(state) == (
        "inactive, last run ended Sun 2026-11-29 02:41:00 UTC (success, exit code 0),"
        " next start: Mon 2026-11-30 02:30:00 UTC"
    )
    there.units["edge-reclass.timer"] = {"NextElapseUSecRealtime": ""}
    assert codes(there.look()[1]) == ["service-unplanned"]


def test_systemd_does_not_answer(there: Provisioned) -> None:
    there.units = {}
    found = installation.find(there.root)
    assert found is not None
    state = survey_appliance(found, lambda *_: ToolResult(None, "", "", "systemctl cannot be started"), there.root)
    assert state.service is None
    assert service_line(state) == "systemd does not answer"


def test_the_library_is_counted(there: Provisioned) -> None:
    song = there.root / "srv/music/album/a.mp3"
    (there.root / "var/lib/edge-reclass/library").mkdir(parents=True, exist_ok=True)
    good, bad = tagged.verdict(song, "Rock"), tagged.verdict(there.root / "srv/music/b.mp3", None)
    tagged.state(there.root / "var/lib/edge-reclass/library/library.state", [good, bad], there.root / "srv/music")
    state, problems = there.look()
    assert (state.library.tracks, state.library.statuses) == (2, {"ok": 1, "unsure": 1})
    assert problems == [], "a track that nobody is sure of is an answer"
    (there.root / "var/lib/edge-reclass/library/library.state").write_bytes(b"no database" * 100)
    state, problems = there.look()
    assert codes(problems) == ["library-unusable"] and mark("library", problems) == "✗"


def test_music_that_the_service_may_not_read(there: Provisioned) -> None:
    album = there.root / "srv/music/album"
    album.chmod(0o700)
    state, problems = there.look()
    assert codes(problems) == ["music-closed"] and not state.music[0].readable
    # Which folder is named first depends on the folders above those of this test.
    assert "is closed to edge-reclass" in problems[0].message and problems[0].fix.startswith("sudo setfacl ")
    album.chmod(0o755)
    (there.root / "srv").chmod(0o700)
    assert codes(there.look()[1]) == ["music-closed"]
    (there.root / "srv").chmod(0o755)
    there.settings(MUSIC="/srv/usb")
    assert "/srv/usb is not there" in there.look()[1][0].message
    (there.root / "srv/usb").mkdir()
    (there.root / "srv/usb").chmod(0o755)
    _, problems = there.look()
    assert codes(problems) == ["music-unseen"] and "is empty" in problems[0].message


def test_the_machine_was_upgraded(there: Provisioned) -> None:
    (there.root / "etc/edge-reclass/installed").write_text("L4T=36.4.3\nTARGET=jetpack6\n")
    _, problems = there.look()
    assert codes(problems) == ["system-changed"]
    assert "was L4T 36.4.3 when it was provisioned, and is L4T none now" in problems[0].message


def kernel(root: Path, config: str | None, **status: Any) -> dict[str, bool | None]:
    (root / "proc/7").mkdir(parents=True, exist_ok=True)
    if config is not None:
        (root / "proc/config.gz").write_bytes(gzip.compress(config.encode()))
    lines = {"Seccomp": "2", "CapBnd": "0000000000000000", "NoNewPrivs": "1", **status}
    (root / "proc/7/status").write_text("".join(f"{key}:\t{value}\n" for key, value in lines.items()))
    return {one.name: one.holds for one in enforced(root, 7, "/none")}


def test_what_the_kernel_enforces(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("cpu pids\n")
    (tmp_path / "proc/7/ns").mkdir(parents=True)
    (tmp_path / "proc/1/ns").mkdir(parents=True)
    (tmp_path / "proc/7/ns/net").symlink_to("net:[2]")
    (tmp_path / "proc/1/ns/net").symlink_to("net:[1]")
    found = kernel(tmp_path, "CONFIG_CGROUP_BPF=y\n")
    assert found == {
        "network": True,
        "system calls": True,
        "rights": True,
        "devices": True,
        "addresses": True,
        "memory": False,
    }
    found = kernel(tmp_path, "# CONFIG_CGROUP_BPF is not set\n", Seccomp="0", CapBnd="000001ffffffffff")
    assert not any((found["system calls"], found["rights"], found["devices"], found["addresses"]))
    (tmp_path / "proc/config.gz").unlink()
    found = kernel(tmp_path, None)
    assert found["devices"] is None, "what cannot be seen is not called good"
    (tmp_path / "proc/config.gz").write_bytes(b"no gzip")
    assert kernel(tmp_path, None)["devices"] is None


def test_chmod_shuts_what_an_access_list_had_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask of an access list is what chmod calls the group's rights, and bounds every entry."""
    tmp_path.chmod(0o700)
    user = User("edge-reclass", 990, 990)
    for mask, opens in ((5, True), (0, False), (4, False)):
        entries = [(1, 7, 0xFFFFFFFF), (2, 5, 990), (4, 0, 0xFFFFFFFF), (16, mask, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
        content = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        monkeypatch.setattr("edge_reclass_appliance.music.os.getxattr", lambda *_, given=content: given)
        assert music.may(tmp_path, user, True) is opens
