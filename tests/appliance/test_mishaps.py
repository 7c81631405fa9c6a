"""What happens to a board in years: full disks, power cuts, hardened users, files that change, wrong options."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import fake_root
from appliance.fake_root import DEBIAN12, JETPACK6, JETSON, Device

RUNTIME = JETSON.parent / "runtime"


def test_a_full_disk_never_replaces_a_file_with_half_of_it(tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("good\n")
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from edge_reclass_appliance import errors, files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        "try: files.write(Path(sys.argv[2]), 'x' * 5000)\n"
        "except errors.ApplianceError as error: sys.exit(str(error))\n"
    )
    command = [sys.executable, "-IB", "-c", script, str(RUNTIME), str(tmp_path / "unit")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "unit cannot be written" in done.stderr and "what was there before is still there" in done.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"unit": "good\n"}


def test_a_hardened_root_makes_what_the_service_can_read(tmp_path: Path, bundle: Path) -> None:
    device = fake_root.make(tmp_path / "device", JETPACK6)
    options = [
        "--root",
        str(device.root),
        "--yes",
        "--insecure",
        "--wheelhouse",
        str(device.wheelhouse),
        "--bundle",
        str(bundle),
    ]
    strict = ["bash", "-c", 'umask 077; exec "$@"', "-"]
    done = device.run([*strict, str(JETSON / "provision.sh"), *options], {})
    assert done.returncode == 0, done.stderr
    second = fake_root.write_bundle(tmp_path / "second", "two", "others")
    tool = str(device.root / "opt/edge-reclass/bin/edge-reclass-appliance")
    install = ["bundle", "--root", str(device.root), "install", str(second), "--insecure"]
    done = device.run([*strict, sys.executable, "-IB", tool, *install], {})
    assert done.returncode == 0, done.stderr
    ours = [device.root / "opt/edge-reclass", device.state, device.root / "etc/edge-reclass"]
    closed = [
        path
        for path in [*ours, *(path for folder in ours for path in folder.rglob("*"))]
        if not path.is_symlink() and ~path.stat().st_mode & (0o005 if path.is_dir() else 0o004)
    ]
    assert sorted(closed) == [device.state / "library", device.state / "reports"]


@pytest.mark.parametrize("check", ["--check", "--yes"])
def test_a_folder_of_somebody_else_keeps_owner_and_mode(device: Device, check: str) -> None:
    home = device.root / "srv/me"
    home.mkdir(parents=True)
    (home / "letter.txt").write_text("mine")
    home.chmod(0o700)
    before = device.tree()
    done = device.provision(check, "--prefix", "/srv/me")
    assert done.returncode == 2
    assert "/srv/me holds something else" in done.stderr and "/srv/me/edge-reclass" in done.stderr
    assert device.tree() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--music", "/srv/a\rExecStartPre=/bin/sh"], "would read as more than a name"),
        (["--prefix", "/home/me/edge-reclass"], "the service sees nothing of"),
        pytest.param(
            ["--calendar", "every tuesday"],
            "systemd does not understand 'every tuesday'",
            marks=pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze"),
        ),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_remembered(device: Device, options: list[str], says: str) -> None:
    before = device.tree()
    done = device.provision("--yes", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert device.tree() == before


def test_a_changed_manifest_is_noticed(device: Device, tmp_path: Path) -> None:
    """Its files have their hashes, and a threshold in it another value: its digest is not the one in its name."""
    good = fake_root.write_bundle(tmp_path / "good", "two", "others")
    one = device.current()
    assert device.bundle("install", str(good)).returncode == 0
    two = device.current()
    assert device.bundle("rollback").returncode == 0
    for name in (one, two):
        manifest = device.state / "bundles" / name / "bundle.yaml"
        manifest.write_text(manifest.read_text().replace("{", '{"threshold": 0.1, ', 1))

    refused = device.bundle("rollback")
    assert refused.returncode == 4
    assert "its manifest was changed" in refused.stderr and device.current() == one
    checked = device.provision("--check")
    assert checked.returncode == 3
    assert f"replace {one}, which was altered or is damaged" in checked.stderr
    stopped = device.provision("--yes")
    assert stopped.returncode == 4
    assert f"the bundle in use, {one}: " in stopped.stderr and "its manifest was changed" in stopped.stderr

    done = device.bundle("install", str(good))
    assert done.returncode == 0, done.stderr
    assert device.current() == two
    assert "threshold" not in (device.state / "bundles" / two / "bundle.yaml").read_text()
    assert not list((device.state / "bundles").glob(".incoming*"))


def test_check_sees_engines_that_are_gone(device: Device) -> None:
    for engine in (device.state / "engines").iterdir():
        shutil.rmtree(engine)
    before = device.tree()
    checked = device.provision("--check")
    assert checked.returncode == 3
    assert f"build engines of {device.current()}, which are missing or damaged" in checked.stderr
    assert device.tree() == before
    assert device.provision("--yes").returncode == 0
    assert device.provision("--check").returncode == 0


def test_an_archive_under_another_name_is_compared_all_the_same(tmp_path: Path) -> None:
    device = fake_root.make(tmp_path / "device", JETPACK6)
    renamed = device.base / "wheels.tar"
    device.wheelhouse.rename(renamed)
    (device.base / f"{device.wheelhouse.name}.sha256").rename(device.base / "wheels.tar.sha256")
    checked = device.provision("--check", "--wheelhouse", str(renamed))
    assert checked.returncode == 3, checked.stderr
    shutil.copy(renamed, device.wheelhouse)  # what the checksum file names is whole; what was given is not
    with renamed.open("r+b") as archive:
        archive.seek(600)
        archive.write(b"damage")
    refused = device.provision("--check", "--wheelhouse", str(renamed))
    assert refused.returncode == 1
    assert "damaged on the way" in refused.stderr


def test_an_environment_made_by_hand_is_not_overwritten(tmp_path: Path) -> None:
    """INSTALL.txt of a wheelhouse names the same place."""
    device = fake_root.make(tmp_path / "device", DEBIAN12)
    (device.root / "opt/edge-reclass/venv/bin").mkdir(parents=True)
    done = device.install()
    assert done.returncode == 1
    assert "somebody installed by hand" in done.stderr
    assert "to fix it: sudo mv /opt/edge-reclass/venv /opt/edge-reclass/venv.by-hand" in done.stderr
    assert device.calls("pip") == []


def test_what_power_cuts_left_does_not_fill_the_disk(device: Device) -> None:
    venvs = device.root / "opt/edge-reclass/venvs"
    broken, another = venvs / f"py3.10-{'0123' * 4}", venvs / "of-another-program"
    broken.mkdir()
    another.mkdir()
    used = (device.root / "opt/edge-reclass/venv").resolve()
    lock = device.base / "wheelhouse/edge-reclass-0.1.0-jetpack6/requirements.lock"
    lock.write_text(lock.read_text() + "numpy==2.2.6 --hash=sha256:00\n")
    done = device.provision("--yes", "--wheelhouse", str(lock.parent))
    assert done.returncode == 0, done.stderr
    assert not broken.exists()
    assert used.is_dir() and another.is_dir()


def test_a_power_cut_before_any_rename_of_an_update(tmp_path: Path, bundle: Path) -> None:
    """Ended before the first, second, … rename: the old or the new bundle is in use, and the next run ends well."""
    device = fake_root.make(tmp_path / "device", DEBIAN12)
    assert device.install("--no-units", "--bundle", str(bundle)).returncode == 0

    def install(bundle: Path, renames: int) -> subprocess.CompletedProcess[str]:
        command = ("bundle", "--root", str(device.root), "install", str(bundle), "--insecure")
        return device.appliance(*command, renames=renames)

    for renames in range(20):
        name = f"number{renames}"
        new = fake_root.write_bundle(tmp_path / name, name, name)
        before = device.current()
        done = install(new, renames)
        if done.returncode == 0:
            break
        assert done.returncode == 9, done.stderr
        assert device.current() == before or device.current().startswith(f"{name}-")
        again = install(new, 99)
        assert again.returncode == 0, again.stderr
        assert device.current().startswith(f"{name}-")
        left = [path.name for path in device.state.rglob(".*")]
        assert not [one for one in left if one.startswith((".incoming", ".next", ".trial"))]
    assert renames > 3


def test_a_killed_trial_leaves_nothing_behind(device: Device, tmp_path: Path) -> None:
    bundle = fake_root.write_bundle(tmp_path / "two", "two", "others")
    assert device.bundle("install", str(bundle), FAKE_FAIL="verify-killed").returncode == -9
    assert list(device.state.glob(".trial.*"))
    assert device.bundle("install", str(bundle)).returncode == 0
    assert not list(device.state.glob(".trial.*")) and not list(device.state.glob("bundles/.incoming.*"))


def test_what_no_step_foresaw_ends_with_a_message(device: Device) -> None:
    (device.root / "etc/systemd/system/edge-reclass.timer").mkdir()  # of another mode, and no file
    done = device.provision("--yes")
    assert done.returncode == 1
    assert "what was in use before is still in use" in done.stderr and "Traceback" not in done.stderr
