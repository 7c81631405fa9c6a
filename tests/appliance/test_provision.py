"""provision.sh on folders that look like devices: both JetPacks, a Raspberry Pi, and what is none of them."""

from __future__ import annotations

import dataclasses
import fcntl
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from appliance import fake_root
from appliance.fake_root import DEBIAN12, JETPACK6, JETPACK7, Device, Kind

STEPS = ("user", "folders", "program", "tools", "commands", "bundle", "settings", "units", "record")


def fresh(tmp_path: Path, kind: Kind) -> Device:
    return fake_root.make(tmp_path / "device", kind)


def states(text: str) -> dict[str, str]:
    """step → unchanged, done, to do"""
    found = re.findall(r"^(unchanged|done|to do) +(\w+) ", text, re.MULTILINE)
    return {name: state for state, name in found if name not in {"music", "devices"}}


KINDS = pytest.mark.parametrize("kind", [JETPACK6, JETPACK7, DEBIAN12], ids=lambda kind: kind.target)


@KINDS
def test_check_then_install_then_nothing(tmp_path: Path, kind: Kind, bundle: Path) -> None:
    device = fresh(tmp_path, kind)
    options = ("--bundle", str(bundle), "--wheelhouse", str(device.wheelhouse))

    before = device.tree()
    checked = device.provision("--check", *options)
    assert checked.returncode == 3, checked.stderr
    assert device.tree() == before
    assert states(checked.stderr) == dict.fromkeys(STEPS, "to do")

    done = device.provision("--yes", *options)
    assert done.returncode == 0, done.stderr
    assert states(done.stderr) == dict.fromkeys(STEPS, "done")

    device.forget()
    after = device.tree()
    again = device.provision("--yes", *options)
    assert again.returncode == 0, again.stderr
    assert states(again.stderr) == dict.fromkeys(STEPS, "unchanged")
    assert "nothing was changed" in again.stderr
    assert device.tree() == after
    expensive = [call for call in device.calls() if re.match(r"venv|pip|verify|classify|useradd|systemctl", call)]
    assert expensive == []
    assert all("--dry-run" in call for call in device.calls("build"))

    without = device.provision("--yes")  # what was given before is remembered
    assert states(without.stderr) == dict.fromkeys(STEPS, "unchanged"), without.stderr
    checked = device.provision("--check")
    assert checked.returncode == 0, checked.stderr
    assert device.tree() == after


def test_what_an_orin_nano_gets(device: Device, installed: Device) -> None:
    service = device.unit("edge-reclass.service")
    assert (
        "\nExecStart=/opt/edge-reclass/venv/bin/edge-reclass serve --watch --socket /run/edge-reclass/edge-reclass.sock"
        " --state /var/lib/edge-reclass/library/library.state --root /srv/music"
        " --bundle /var/lib/edge-reclass/bundles/current --device tensorrt --workers 3\n"
    ) in service
    assert "\nMemoryMax=40%\n" in service
    assert re.findall(r"^DeviceAllow=(\S+) rw$", service, re.MULTILINE) == [
        "/dev/nvmap",
        "/dev/nvhost-ctrl-gpu",
        "/dev/nvhost-gpu",
        "/dev/nvgpu/igpu0/channel",
        "/dev/nvgpu/igpu0/ctrl",
        "/dev/dri/renderD128",
    ]
    assert "\nSupplementaryGroups=video\n" in service  # there is no group render on this one
    assert (device.root / "etc/edge-reclass/installed").read_text() == (
        "TARGET=jetpack6\nJETPACK=6.2\nL4T=36.4.3\nTENSORRT=10.3.0\nPYTHON=3.10\n"
    )
    log = installed.calls()
    assert [call.split()[0] for call in log if call.split()[0] in {"venv", "pip", "build", "verify", "classify"}] == [
        *("venv", "pip", "build", "verify", "classify"),
    ]
    assert "--system-site-packages" in installed.calls("venv")[0]
    assert "--max-batch 6" in installed.calls("build")[0]
    assert any("--workspace 933" in call for call in installed.calls("build"))
    assert "--device tensorrt" in installed.calls("verify")[0]
    assert not (device.state / "bundles/current/engines").exists()
    assert not list(device.state.glob(".trial*"))


def test_engines_are_built_where_the_service_may_write_and_kept_where_it_may_not(installed: Device) -> None:
    """A foreign model is never parsed as root: the builder's folder is another one, and root takes the result."""
    built, verified = installed.calls("build")[-1], installed.calls("verify")[0]
    assert "/var/lib/edge-reclass/.trial." in built and "/var/lib/edge-reclass/.trial." in verified
    assert [path.name for path in (installed.state / "engines").rglob("*.plan")] == ["engine.plan"]


def test_thor(tmp_path: Path, bundle: Path) -> None:
    device = fresh(tmp_path, JETPACK7)
    done = device.install("--bundle", str(bundle))
    assert done.returncode == 0, done.stderr
    service = device.unit("edge-reclass.service")
    allowed = re.findall(r"^DeviceAllow=(\S+) rw$", service, re.MULTILINE)
    # By the drivers' names, also of a driver that is loaded later; and the nodes that have none.
    assert allowed == [
        *("char-nvidia", "char-nvidiactl", "char-nvidia-uvm", "char-nvidia-caps", "char-nvidia-frontend", "char-drm"),
        *("/dev/nvmap", "/dev/nvgpu/igpu-0000:01:00.0/ctrl"),
    ]
    assert "SupplementaryGroups=render video\n" in service
    assert "--workers 7\n" in service
    assert "--max-batch 48 " in device.calls("build")[0]
    assert any("--workspace 15722" in call for call in device.calls("build"))


def test_a_raspberry_pi_runs_on_the_cpu(tmp_path: Path, bundle: Path) -> None:
    device = fresh(tmp_path, DEBIAN12)
    done = device.install("--bundle", str(bundle), "--music", "/home/me/My Music=", "--music", "/srv/two")
    assert done.returncode == 0, done.stderr
    assert "nothing was changed" in device.provision("--yes").stderr
    assert "--system-site-packages" not in device.calls("venv")[0]
    assert device.calls("build") == []
    assert "--device cpu" in device.calls("verify")[0]
    service = device.unit("edge-reclass.service")
    assert ' --root "/home/me/My Music=" --root /srv/two --bundle' in service
    assert '\nBindReadOnlyPaths=-"/home/me/My Music="\n' in service
    assert "--device cpu --workers 2\n" in service and "DeviceAllow" not in service


@pytest.mark.parametrize(
    ("options", "timer"),
    [
        (["--calendar", "*-*-* 02:30:00"], ["OnCalendar=*-*-* 02:30:00", "Persistent=yes"]),
        (["--when", "boot"], ["OnBootSec=3min"]),
        (["--when", "idle"], ["OnUnitInactiveSec=2h"]),
    ],
)
def test_a_run_that_ends_instead_of_a_resident_service(device: Device, options: list[str], timer: list[str]) -> None:
    assert device.provision("--yes", *options).returncode == 0
    service, when = device.unit("edge-reclass.service"), device.unit("edge-reclass.timer")
    assert "bin/edge-reclass classify /srv/music --state /var/lib/edge-reclass/library/library.state " in service
    assert "--batch 6" in service and "OnSuccess=edge-reclass-report.service" in service
    assert all(line in when for line in timer)
    assert ("CPUSchedulingPolicy=idle" in service) == ("idle" in options)
    enabled = {path.name for path in (device.root / "etc/systemd/system").glob(".enabled-*")}
    assert enabled == {".enabled-edge-reclass.timer"}
    back = device.provision("--yes", "--when", "always")
    assert back.returncode == 0, back.stderr
    assert not (device.root / "etc/systemd/system/edge-reclass.timer").exists()
    enabled = {path.name for path in (device.root / "etc/systemd/system").glob(".enabled-*")}
    assert enabled == {".enabled-edge-reclass.service", ".enabled-edge-reclass-report.timer"}


def test_tags_have_a_unit_of_their_own(device: Device) -> None:
    assert device.provision("--yes", "--tags").returncode == 0
    tags, service = device.unit("edge-reclass-tags.service"), device.unit("edge-reclass.service")
    assert "edge-reclass tag /var/lib/edge-reclass/library/library.state --apply-approved" in tags
    assert "ReadWritePaths=-/srv/music\n" in tags and "ReadWritePaths=-/srv/music" not in service
    assert device.provision("--yes", "--no-tags").returncode == 0
    assert not list((device.root / "etc/systemd/system").glob("edge-reclass-tags*"))


def test_a_power_mode_is_kept_by_its_name(device: Device) -> None:
    refused = device.provision("--yes", "--power-mode", "25W")
    assert refused.returncode == 2 and "this machine has no power modes" in refused.stderr
    (device.root / "etc/nvpmodel.conf").write_text("< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n")
    refused = device.provision("--yes", "--power-mode", "MAXN")
    assert refused.returncode == 2 and "it has 15W, 25W" in refused.stderr
    assert device.provision("--yes", "--power-mode", "25W").returncode == 0
    assert "edge-reclass-appliance power 25W\n" in device.unit("edge-reclass-power.service")
    assert device.provision("--yes").returncode == 0
    assert (device.root / "etc/systemd/system/edge-reclass-power.service").exists()
    assert device.provision("--yes", "--power-mode", "none").returncode == 0
    assert not (device.root / "etc/systemd/system/edge-reclass-power.service").exists()


def test_music_that_is_closed_is_said_with_what_mends_it(tmp_path: Path, bundle: Path) -> None:
    device = fresh(tmp_path, DEBIAN12)
    (device.root / "srv/music").mkdir(parents=True)
    (device.root / "srv/music/one.flac").write_text("music")
    done = device.install("--bundle", str(bundle), "--music", "/srv/music", "--music", "/media/usb")
    assert "1 files can be read in /srv/music, /media/usb" in done.stderr  # what was not there is made
    shutil.rmtree(device.root / "media/usb")
    done = device.provision("--check")
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("release", "says"),
    [
        ("# R36 (release), REVISION: 3.0, GCID: 1", "L4T 36.3.0 (JetPack 6.0)"),
        ("# R35 (release), REVISION: 6.1, GCID: 1", "L4T 35.6.1 (JetPack 5 or older)"),
        ("# R38 (release), REVISION: 2.1, GCID: 1", "L4T 38.2.1 (JetPack 7.0 or 7.1)"),
        ("# R38 (release), REVISION: 4.0, GCID: 1", "L4T 38.4.0 (JetPack 7.0 or 7.1)"),
        ("# R40 (release), REVISION: 1.0, GCID: 1", "L4T 40.1.0 is not known"),
        ("# R36 (release), REVISION: 6.0, GCID: 1", "L4T 36.6.0 is not known"),
        ("damaged", "expected '# R36 (release)"),
    ],
)
def test_another_l4t_is_refused_with_what_is_known(tmp_path: Path, release: str, says: str) -> None:
    device = fresh(tmp_path, dataclasses.replace(JETPACK6, l4t=release))
    before = device.tree()
    for done in (device.install(), device.provision("--check")):
        assert done.returncode == 5
        assert says in done.stderr
        assert "  to fix it: " in done.stderr
        assert release == "damaged" or "known: JetPack 6.1 (L4T 36.4.0), 6.2 (L4T 36.4.3)" in done.stderr
    assert device.tree() == before


def test_a_patch_release_counts_as_the_one_before_it(tmp_path: Path) -> None:
    device = fresh(tmp_path, dataclasses.replace(JETPACK6, l4t="# R36 (release), REVISION: 5.1, GCID: 1"))
    said = device.provision("--check").stderr
    assert "JetPack 6.2.2 (L4T 36.5.1)" in said and "newer than this version knows, and taken as 36.5.0" in said


@pytest.mark.parametrize(("revision", "half"), [("4.4", False), ("4.7", True)])
def test_where_large_allocations_fail_the_builder_gets_half(
    tmp_path: Path, bundle: Path, revision: str, half: bool
) -> None:
    device = fresh(tmp_path, dataclasses.replace(JETPACK6, l4t=f"# R36 (release), REVISION: {revision}, GCID: 1"))
    done = device.install("--bundle", str(bundle), "--no-units")
    assert done.returncode == 0, done.stderr
    assert ("NvMapMemAllocInternalTagged" in done.stderr and "sudo reboot" in done.stderr) == half
    assert f"--workspace {466 if half else 933}" in device.calls("build")[-1]


def test_a_large_allocation_that_fails_is_known_by_its_message(tmp_path: Path, bundle: Path) -> None:
    device = fresh(tmp_path, dataclasses.replace(JETPACK6, l4t="# R36 (release), REVISION: 4.7, GCID: 1"))
    failed = device.install(
        "--bundle", str(bundle), FAKE_FAIL="build", FAKE_SAYS="NvMapMemAllocInternalTagged: 1 error 12"
    )
    assert failed.returncode == 1
    assert "could not allocate a large piece of memory" in failed.stderr and "to fix it: sudo reboot" in failed.stderr


@pytest.mark.parametrize(
    ("revision", "jetpack", "half"),
    [
        ("4.0", "6.1", False),
        ("4.3", "6.2", False),
        ("4.4", "6.2.1", False),
        ("4.7", "6.2.1", True),
        ("5.0", "6.2.2", True),
    ],
)
def test_every_jetpack_6_is_known(tmp_path: Path, revision: str, jetpack: str, half: bool) -> None:
    device = fresh(tmp_path, dataclasses.replace(JETPACK6, l4t=f"# R36 (release), REVISION: {revision}, GCID: 1"))
    said = device.provision("--check").stderr
    assert f"JetPack {jetpack} (L4T" in said
    assert ("engines are built with half of the usual scratch memory" in said) == half


def test_the_release_is_found_without_its_file(tmp_path: Path) -> None:
    device = fresh(tmp_path, JETPACK6)
    (device.root / "etc/nv_tegra_release").unlink()
    with (device.root / "var/lib/dpkg/status").open("a") as status:
        status.write("\nPackage: nvidia-l4t-core\nStatus: install ok installed\nVersion: 36.4.7-20250918154033\n")
    checked = device.provision("--check")
    assert "JetPack 6.2.1 (L4T 36.4.7), TensorRT 10.3.0" in checked.stderr


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (JETPACK6, {"os_release": 'ID=ubuntu\nVERSION_ID="24.04"\n'}, "comes with Ubuntu 22.04"),
        (DEBIAN12, {"os_release": 'ID=ubuntu\nVERSION_ID="22.04"\n'}, "'ubuntu 22.04' is not supported"),
        (DEBIAN12, {"os_release": 'ID=debian\nVERSION_ID="11"\n'}, "'debian 11' is not supported"),
        (DEBIAN12, {"os_release": ""}, "'unknown' is not supported"),
        (DEBIAN12, {"machine": "armv7l"}, "needs the 64-bit system"),
    ],
)
def test_another_userland_or_board_is_refused(tmp_path: Path, kind: Kind, changes: dict[str, Any], says: str) -> None:
    done = fresh(tmp_path, dataclasses.replace(kind, **changes)).install()
    assert done.returncode == 5
    assert says in done.stderr


def test_a_missing_tensorrt_is_explained_before_anything_is_written(tmp_path: Path) -> None:
    device = fresh(tmp_path, dataclasses.replace(JETPACK6, tensorrt=""))
    before = device.tree()
    for done in (device.install(), device.provision("--check")):
        assert done.returncode == 5
        assert "the package python3-libnvinfer is not installed" in done.stderr
        assert "to fix it: sudo apt-get install nvidia-tensorrt python3-libnvinfer" in done.stderr
    assert device.tree() == before


def test_a_tensorrt_that_cannot_be_imported_leaves_no_program(tmp_path: Path) -> None:
    device = fresh(tmp_path, JETPACK6)
    module = device.root / "usr/lib/python3/dist-packages/tensorrt.py"
    module.write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    done = device.install()
    assert done.returncode == 5
    assert "libnvinfer.so.10: cannot open" in done.stderr
    assert "--reinstall nvidia-tensorrt python3-libnvinfer" in done.stderr
    assert not (device.root / "opt/edge-reclass/venv").exists()


def test_another_tensorrt_is_said(tmp_path: Path) -> None:
    device = fresh(tmp_path, dataclasses.replace(JETPACK6, tensorrt="10.7.0.23-1+cuda12.6"))
    assert "TensorRT 10.7.0 instead of 10.3" in device.provision("--check").stderr


def test_the_wrong_or_a_damaged_wheelhouse_is_refused(tmp_path: Path) -> None:
    device = fresh(tmp_path, JETPACK6)
    fake_root.write_wheelhouse(device.base, JETPACK7)
    other = device.base / "edge-reclass-0.1.0-jetpack7.tar"
    done = device.provision("--yes", "--wheelhouse", str(other))
    assert done.returncode == 1
    assert "was made for 'jetpack7 3.12 aarch64'" in done.stderr and "this is 'jetpack6 3.10 aarch64'" in done.stderr
    with device.wheelhouse.open("r+b") as archive:
        archive.seek(600)
        archive.write(b"damage")
    done = device.install()
    assert done.returncode == 1
    assert "damaged on the way" in done.stderr
    done = device.provision("--yes", "--wheelhouse", str(tmp_path / "none.tar"))
    assert done.returncode == 2
    assert "jetson/make_wheelhouse.sh jetpack6" in done.stderr
    assert device.provision("--yes").returncode == 2  # the first time, one is needed
    assert not (device.root / "opt/edge-reclass/venv").exists()


@pytest.mark.parametrize("how", ["pip", "pip-killed"])
def test_a_broken_off_installation_is_repaired(tmp_path: Path, bundle: Path, how: str) -> None:
    device = fresh(tmp_path, JETPACK6)
    broken = device.install("--bundle", str(bundle), FAKE_FAIL=how)
    assert broken.returncode == (1 if how == "pip" else -9), broken.stderr
    assert not (device.root / "opt/edge-reclass/venv").exists()
    assert bool(list(device.root.glob("opt/edge-reclass/venvs/*"))) == (how == "pip-killed")
    done = device.install("--bundle", str(bundle))
    assert done.returncode == 0, done.stderr
    assert states(done.stderr)["program"] == "done"
    assert not list(device.root.glob("opt/edge-reclass/.unpacked.*"))
    assert not list(device.root.glob("opt/edge-reclass/venvs/*/half-written"))


def test_a_failed_update_leaves_the_program_in_use(device: Device) -> None:
    link = device.root / "opt/edge-reclass/venv"
    before = link.readlink()
    lock = device.base / "wheelhouse/edge-reclass-0.1.0-jetpack6/requirements.lock"
    lock.write_text(lock.read_text() + "numpy==2.2.6 --hash=sha256:00\n")
    newer = str(lock.parent)
    failed = device.provision("--yes", "--wheelhouse", newer, FAKE_FAIL="pip")
    assert failed.returncode == 1
    assert "the program in use was not touched" in failed.stderr
    assert link.readlink() == before
    done = device.provision("--yes", "--wheelhouse", newer)
    assert done.returncode == 0, done.stderr
    assert link.readlink() != before
    assert (link.parent / before).is_dir()
    # Another program: verified and tried again, but the engines are still this machine's.
    assert device.calls("verify") and device.calls("classify")
    assert not any("--rebuild" in call for call in device.calls("build"))


def test_a_bundle_that_disagrees_is_not_used(tmp_path: Path, bundle: Path) -> None:
    device = fresh(tmp_path, JETPACK6)
    failed = device.install("--bundle", str(bundle), FAKE_FAIL="verify")
    assert failed.returncode == 4
    assert "the bundle in use stays: none" in failed.stderr
    assert [path.name for path in (device.state / "bundles").iterdir()] == [".lock"]
    assert "units" not in states(failed.stderr)
    killed = device.install("--bundle", str(bundle), FAKE_FAIL="verify-killed")
    assert killed.returncode == -9
    assert sorted(path.name[:9] for path in (device.state / "bundles").iterdir()) == [".incoming", ".lock"]
    done = device.install("--bundle", str(bundle))
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (device.state / "bundles").iterdir())
    assert names == [".lock", ".verified", "current", device.current()]


def test_a_track_that_cannot_be_classified_is_said_and_tried_again(device: Device) -> None:
    for verified in (device.state / "bundles/.verified").iterdir():
        verified.unlink()
    failed = device.provision("--yes", FAKE_FAIL="classify")
    assert failed.returncode == 4
    assert "classify failed, as the test wanted" in failed.stderr
    assert "a made track could not be classified" in failed.stderr
    assert states(device.provision("--yes").stderr)["bundle"] == "done"


def test_after_a_jetpack_upgrade_engines_are_built_again(device: Device) -> None:
    engines = set((device.state / "engines").iterdir())
    release = "# R36 (release), REVISION: 5.0, GCID: 1"
    device.become(dataclasses.replace(JETPACK6, l4t=release, tensorrt="10.3.0.30-1+cuda12.6"))
    checked = device.provision("--check")
    assert checked.returncode == 3
    assert "was L4T 36.4.3 with TensorRT 10.3.0, is L4T 36.5.0 with TensorRT 10.3.0" in checked.stderr
    assert states(checked.stderr)["bundle"] == "to do"
    done = device.provision("--yes")
    assert done.returncode == 0, done.stderr
    assert states(done.stderr)["bundle"] == "done"
    assert states(done.stderr)["program"] == "unchanged"
    assert any("--rebuild" in call for call in device.calls("build"))
    assert any("--device tensorrt" in call for call in device.calls("verify"))
    assert device.calls("classify")
    assert set((device.state / "engines").iterdir()) > engines
    assert "L4T=36.5.0\n" in (device.root / "etc/edge-reclass/installed").read_text()


def test_after_an_upgrade_to_jetpack_7_the_program_is_another_one(device: Device) -> None:
    kind = dataclasses.replace(JETPACK7, model=JETPACK6.model, memory_kib=JETPACK6.memory_kib)
    device.become(kind)
    refused = device.provision("--yes")
    assert refused.returncode == 2
    assert "for another Python than 3.12" in refused.stderr
    done = device.install()
    assert done.returncode == 0, done.stderr
    assert str((device.root / "opt/edge-reclass/venv").readlink()).startswith("venvs/py3.12-")
    assert any("--rebuild" in call for call in device.calls("build"))
    record = (device.root / "etc/edge-reclass/installed").read_text()
    assert "TARGET=jetpack7\nJETPACK=7.2\nL4T=39.2.0\nTENSORRT=10.16.0\n" in record


@pytest.mark.parametrize(
    ("gib", "cores", "says"),
    [
        (3.4, 6, "batch 3, 3 workers, memory 40%"),  # Orin Nano 4 GB
        (7.3, 6, "batch 6, 3 workers, memory 40%"),
        (15.3, 8, "batch 12, 4 workers, memory 40%"),
        (29.9, 8, "batch 24, 4 workers, memory 40%"),
        (61.4, 12, "batch 48, 6 workers, memory 40%"),  # AGX Orin 64 GB, Thor T4000
        (122.8, 14, "batch 48, 7 workers, memory 40%"),
    ],
)
def test_limits_follow_memory_and_cores(tmp_path: Path, gib: float, cores: int, says: str) -> None:
    device = fresh(tmp_path, dataclasses.replace(JETPACK6, memory_kib=int(gib * (1 << 20)), cores=cores))
    assert f"limits: engines up to {says}; reckoned" in device.provision("--check").stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--music", "relative/path"], "expected an absolute path"),
        (["--music", "/srv/100%"], "would read as more than a name"),
        (["--prefix", '/srv/"quoted"'], "would read as more than a name"),
        (["--music", "/srv/music\nExecStartPre=/bin/sh"], "would read as more than a name"),
        (["--music", "/srv/@USER@"], "would read as more than a name"),
        (["--music", "/srv/../etc"], "without . and .."),
        (["--music", "/"], "expected a folder, got /"),
        (["--music", "/var/lib"], "which is the service's own"),
        (["--music", "//var//lib/"], "which is the service's own"),
        (["--music", "/home/"], "the service sees nothing of /home itself"),
        (["--music", "//root"], "the service sees nothing of /root itself"),
        (["--music", "/tmp"], "the service has a /tmp of its own"),
        (["--music", "/var/tmp/music"], "the service sees nothing of it"),
        (["--prefix", "/opt/two words"], "has a blank"),
        (["--user", "root"], "does not run as root"),
        (["--user", "a b"], "expected a user's name"),
        (["--calendar", "daily\nOnBootSec=1"], "--calendar"),
        (["--music"], "--music: expected one argument"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_wrong_options_change_nothing(device: Device, options: list[str], says: str) -> None:
    before = device.tree()
    done = device.provision("--yes", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert device.tree() == before


def test_without_a_terminal_nobody_is_asked(tmp_path: Path) -> None:
    device = fresh(tmp_path, JETPACK6)
    before = device.tree()
    done = device.provision("--wheelhouse", str(device.wheelhouse))
    assert done.returncode == 2
    assert "provision.sh --yes" in done.stderr
    assert device.tree() == before


def test_only_one_at_a_time(device: Device) -> None:
    with (device.state / "bundles/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = device.provision("--yes")
        assert done.returncode == 1
        assert "another installation or bundle update is running" in done.stderr
        assert device.bundle("rollback").returncode == 1
    assert device.provision("--yes").returncode == 0


def test_settings_are_read_never_run(device: Device) -> None:
    conf = device.root / "etc/edge-reclass/provision.conf"
    conf.write_text(re.sub("WHEN=.*", "WHEN=$(touch pwned)", conf.read_text()))
    done = device.provision("--yes")
    assert done.returncode == 2
    assert "--calendar: expected a time as systemd writes it, got '$(touch pwned)'" in done.stderr
    assert not list(device.base.rglob("pwned"))


def test_a_folder_that_cannot_be_made_ends_with_a_message(tmp_path: Path) -> None:
    device = fresh(tmp_path, DEBIAN12)
    (device.root / "etc/edge-reclass").write_text("a file where a folder belongs")
    done = device.install()
    assert done.returncode == 1
    assert "error: the folder /etc/edge-reclass cannot be made" in done.stderr, done.stderr
    assert "to fix it: ls -ld" in done.stderr
