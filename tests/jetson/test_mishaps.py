"""What happens to a board in years: full disks, power cuts, hardened users, files that change, wrong options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from jetson import fake_root
from jetson.fake_root import DEBIAN12, JETPACK6, JETSON, Device


def shell(script: str, root: str = "") -> subprocess.CompletedProcess[str]:
    """``script`` with common.sh, as strict as provision.sh."""
    text = f"set -Eeuo pipefail\nROOT={root!r}\n. {str(JETSON / 'lib/common.sh')!r}\n{script}"
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60, check=False)


def test_a_user_that_is_not_there_yet_ends_nothing() -> None:
    """On a real machine, where getent says 2: --check ended there without a word."""
    done = shell('ids=$(uid_of no-such-user-here)\necho "[$ids] $(uid_of root)"')
    assert (done.returncode, done.stdout) == (0, "[] 0:0\n")


@pytest.mark.parametrize("call", ["if {}; then echo written; else echo same; fi", "{} || true", "{}"])
def test_a_full_disk_never_replaces_a_file_with_half_of_it(tmp_path: Path, call: str) -> None:
    (tmp_path / "unit").write_text("good\n")
    command = 'write_file /unit 0644 "$(printf "%5000s" x)"'
    done = shell(f"trap '' XFSZ\nulimit -f 1\n{call.format(command)}\necho went on", str(tmp_path))
    assert done.returncode == 1
    assert "unit cannot be written; what was there before is still there" in done.stderr
    assert done.stdout == ""
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"unit": "good\n"}


def test_a_hardened_root_makes_what_the_service_can_read(tmp_path: Path, bundle: Path) -> None:
    device = fake_root.make(tmp_path / "device", JETPACK6)
    options = ["--root", str(device.root), "--yes", "--wheelhouse", str(device.wheelhouse), "--bundle", str(bundle)]
    strict = ["bash", "-c", 'umask 077; exec "$@"', "-"]
    done = device._run([*strict, str(JETSON / "provision.sh"), *options], {})
    assert done.returncode == 0, done.stderr
    second = fake_root.write_bundle(tmp_path / "second", "two", "others")
    command = device.root / "opt/edge-reclass/bin/edge-reclass-bundle"
    done = device._run([*strict, str(command), "--root", str(device.root), "install", str(second)], {})
    assert done.returncode == 0, done.stderr
    ours = [device.root / "opt/edge-reclass", device.state, device.root / "etc/edge-reclass"]
    closed = [
        path
        for path in [*ours, *(path for folder in ours for path in folder.rglob("*"))]
        if not path.is_symlink() and ~path.stat().st_mode & (0o005 if path.is_dir() else 0o004)
    ]
    assert closed == [device.state / "results"]


@pytest.mark.parametrize("option", ["--results", "--prefix"])
@pytest.mark.parametrize("check", ["--check", "--yes"])
def test_a_folder_of_somebody_else_keeps_owner_and_mode(device: Device, option: str, check: str) -> None:
    home = device.root / "srv/me"
    home.mkdir(parents=True)
    (home / "letter.txt").write_text("mine")
    home.chmod(0o700)
    before = device.tree()
    done = device.provision(check, option, "/srv/me")
    assert done.returncode == 2
    assert "/srv/me holds something else" in done.stderr and "/srv/me/edge-reclass" in done.stderr
    assert device.tree() == before


def test_results_go_on_where_they_were(device: Device) -> None:
    assert device.provision("--yes", "--results", "/srv/results").returncode == 0
    (device.root / "srv/results/verdicts.jsonl").write_text("{}\n")
    done = device.provision("--yes", "--results", "/srv/results")
    assert done.returncode == 0, done.stderr
    assert "nothing was changed" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--music", "/srv/a\rExecStartPre=/bin/sh"], "would read as more than a name"),
        (["--results", "/srv/music"], "is the music, which is only read"),
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
        with (device.state / "bundles" / name / "bundle.yaml").open("a") as manifest:
            manifest.write("threshold: 0.1\n")

    refused = device.bundle("rollback")
    assert refused.returncode == 4
    assert "its manifest was changed" in refused.stderr and device.current() == one
    checked = device.provision("--check")
    assert checked.returncode == 3
    assert f"replace {one}, which was altered or is damaged" in checked.stderr
    stopped = device.provision("--yes")
    assert stopped.returncode == 4
    assert f"the bundle in use, {one}, was altered or is damaged" in stopped.stderr

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


def test_files_are_on_the_disk_before_a_link_names_them(installed: Device) -> None:
    calls = [call for call in installed.calls() if call.split()[0] in {"pip", "sync", "verify", "classify"}]
    assert [call.split()[0] for call in calls] == ["pip", "sync", "verify", "sync", "classify"]
    assert "/opt/edge-reclass/venvs/" in calls[1] and "/bundles/.incoming." in calls[3]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_power_cut_at_any_rename_of_an_update(device: Device, tmp_path: Path, moment: str) -> None:
    """Killed at the first, second, … ``mv``: the old or the new bundle is in use, and the next run ends well."""
    move = device.base / "bin/mv"
    move.write_text(
        '#!/bin/bash\necho >> "$FAKE_CALLS.mv"\n'
        'if [ "$(wc -l < "$FAKE_CALLS.mv")" = "${KILL_AT:-0}" ]; then\n'
        f'  [ {moment} = before ] || /usr/bin/mv "$@"\n'
        '  kill -KILL "$(cat "$FAKE_CALLS.pid")"; exit 1\nfi\nexec /usr/bin/mv "$@"\n'
    )
    move.chmod(0o755)
    counted, command = device.base / "calls.mv", device.root / "opt/edge-reclass/bin/edge-reclass-bundle"

    def install(bundle: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
        counted.unlink(missing_ok=True)
        line = ["bash", "-c", 'echo $$ > "$FAKE_CALLS.pid"; exec "$@"', "-", str(command), "--root", str(device.root)]
        return device._run([*line, "install", str(bundle)], {"KILL_AT": str(kill_at)})

    for kill_at in range(1, 20):
        name = f"number{kill_at}"
        bundle = fake_root.write_bundle(tmp_path / name, name, name)
        before = device.current()
        done = install(bundle, kill_at)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        assert device.current() == before or device.current().startswith(f"{name}-")
        assert device.provision("--yes").returncode == 0
        again = install(bundle, 0)
        assert again.returncode == 0, again.stderr
        assert device.current().startswith(f"{name}-")
        assert not [path for path in device.state.rglob(".*") if path.name.startswith((".incoming", ".next"))]
    assert kill_at > 3


def test_a_command_that_fails_is_never_taken_for_wrong_usage(device: Device) -> None:
    """tar ends with 2 where the disk is full, which is our own code for wrong usage."""
    tar = device.base / "bin/tar"
    tar.write_text("#!/bin/bash\necho 'tar: No space left on device' >&2\nexit 2\n")
    tar.chmod(0o755)
    (device.root / "opt/edge-reclass/share/jetson/units/README.md").unlink()
    done = device.provision("--yes")
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1 and "to fix it: df -h; then run this again" in done.stderr
