"""What mends closed music, the owner's report, power modes, the table of releases."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from appliance.unit_file import plan
from edge_reclass_appliance import music, places, power, report, steps
from edge_reclass_appliance.errors import ApplianceError
from edge_reclass_appliance.releases import supported_release
from edge_reclass_appliance.saying import Steps
from edge_reclass_appliance.trial import Sight, Trial
from edge_reclass_appliance.users import User

SERVICE = User("edge-reclass", 4242, 4242)


def mounts(tmp_path: Path, kind: str) -> str:
    file = tmp_path / "mountinfo"
    file.write_text(f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / {tmp_path / 'music'} rw - {kind} /dev/b rw\n")
    return str(file)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("ext4", "sudo setfacl -R -m u:edge-reclass:rX"),
        ("exfat", "add dmask=0022,fmask=0133 to the options of"),
        ("cifs", "add dir_mode=0755,file_mode=0644 to the options of"),
        ("nfs4", "the server decides; to fix it: let user number 4242 read it"),
    ],
)
def test_what_mends_closed_music_depends_on_its_file_system(tmp_path: Path, kind: str, says: str) -> None:
    folder = tmp_path / "music"
    folder.mkdir(mode=0o755)
    (folder / "mine").mkdir(mode=0o700)
    assert says in music.remedy(folder / "mine", folder, SERVICE, {}, mounts(tmp_path, kind))


def test_a_group_that_may_read_is_the_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir(mode=0o750)
    gid = folder.stat().st_gid
    if gid == 0:
        if os.geteuid() != 0:
            pytest.skip("a folder of another group takes root")
        os.chown(folder, 0, gid := 1044)
    said = music.remedy(folder, folder, SERVICE, {"music": gid}, mounts(tmp_path, "ext4"))
    if "above the music" in said:  # the tests' own folder is closed before that
        assert "sudo setfacl -m u:edge-reclass:x" in said
    else:
        assert "sudo usermod -aG music edge-reclass" in said


def test_the_report_says_what_is_new_changed_and_failed() -> None:
    before = {"a": ["ok", "Rock"], "b": ["ok", "Jazz"], "c": ["corrupt", "cut off"], "gone": ["ok", "Pop"]}
    now = {
        "a": ["ok", "Rock"],
        "b": ["ok", "Pop"],
        "c": ["corrupt", "cut off"],
        "d": ["timeout", "30 s"],
        "e": ["ok", "Pop"],
    }
    changes = report.compare(before, now)
    assert (changes.new, changes.changed, changes.failed, changes.gone) == (["e"], ["b"], ["d"], 1)
    text = report.page(changes, now, "runs", "today")
    assert "1 new, 1 changed, 1 failed, 1 not there any more" in text and "timeout 30 s" in text
    assert "\x1b" not in report.page(
        report.compare({}, {"\x1b[2J\udce9": ["ok", "Rock"]}), {"\x1b[2J\udce9": ["ok", "Rock"]}, "", ""
    )


def test_the_report_is_of_what_the_library_says(tmp_path: Path) -> None:
    folder, state = tmp_path / places.REPORTS[1:], tmp_path / places.LIBRARY[1:]
    folder.mkdir(parents=True)
    state.parent.mkdir()
    state.touch()
    program = tmp_path / "opt/edge-reclass/venv/bin/edge-reclass"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "if sys.argv[2] == 'export': print(json.dumps({'path': '/srv/music/a', 'status': 'ok', 'genre': 'Rock'}))\n"
    )
    program.chmod(0o755)
    assert "1 new" in report.write(tmp_path, places.Settings(), failed=False)
    assert "0 new" in report.write(tmp_path, places.Settings(), failed=False)
    assert json.loads((folder / "seen.json").read_text()) == {"/srv/music/a": ["ok", "Rock"]}
    (day,) = folder.glob("20*.txt")
    assert "1 new" in day.read_text() and "0 new" in day.read_text()
    program.write_text("#!/bin/sh\necho 'the disk is full' >&2; exit 1\n")
    with pytest.raises(ApplianceError, match="the disk is full"):
        report.write(tmp_path, places.Settings(), failed=False)
    assert "the disk is full" in report.write(tmp_path, places.Settings(), failed=True)


def test_a_failure_is_told_where_no_report_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> bool:
        raise ApplianceError("no space is left")

    monkeypatch.setattr(report.files, "write", full)
    assert "0 tracks" in report.write(tmp_path, places.Settings(), failed=True)
    assert "only told, not kept: no space is left" in capsys.readouterr().err
    with pytest.raises(ApplianceError, match="no space"):
        report.write(tmp_path, places.Settings(), failed=False)


def test_a_mount_point_with_umlauts_and_blanks(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    lines = ["1 0 8:1 / / rw - ext4 /dev/a rw", r"2 1 8:2 / /media/Müller\040\134x\x41 rw shared:1 - exfat /dev/b rw"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    place = r"/media/Müller \x\x41"
    assert music.mount_of(Path(f"{place}/album"), str(file)) == (place, "exfat")
    assert music.mount_of(Path("/media/other"), str(file)) == ("/", "ext4")


def test_what_lets_tags_be_written_names_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of = plan(music=("/srv/my music", "/srv/two"), tags=True)
    monkeypatch.setattr(steps, "look", lambda *_: Sight(0, [], [], False))
    steps.music_step(Steps(), of, Trial(of), "python3")
    said = capsys.readouterr().err
    assert "sudo setfacl -R -m u:edge-reclass:rwX -m d:u:edge-reclass:rwX '/srv/my music' /srv/two   " in said
    assert "no file is in /srv/my music, /srv/two" in said


def test_a_power_mode_that_is_not_set_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / power.CONFIGURATION).write_text("< POWER_MODEL ID=3 NAME=25W >\n")
    tool = tmp_path / "nvpmodel"
    tool.write_text(f"#!/bin/sh\ncd {tmp_path}; [ $1 = -q ] || echo $2 > mode\necho NV Power Mode: $(cat name)\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "name").write_text("25W")
    assert power.apply(tmp_path, "25W") is False
    (tmp_path / "name").write_text("15W")  # it needs a reboot for that, and says so
    with pytest.raises(ApplianceError, match="the power mode 25W was not set"):
        power.apply(tmp_path, "25W")
    assert (tmp_path / "mode").read_text() == "3\n"


def test_a_patch_release_is_taken_as_the_one_before_it() -> None:
    assert supported_release("36.4").jetpack == "6.1" and supported_release("36.4.5").taken_as == "36.4.4"
    assert supported_release("39.2.3").taken_as == "39.2.1"


def test_an_earlier_versions_settings_are_read(tmp_path: Path) -> None:
    (tmp_path / "etc/edge-reclass").mkdir(parents=True)
    old = "PREFIX=/opt/edge-reclass\nSERVICE_USER=er\nMUSIC=/srv/my music\nRESULTS=/srv/out\nCALENDAR=daily\n"
    (tmp_path / places.SETTINGS[1:]).write_text(old)
    found = places.read_settings(tmp_path)
    assert (found.service_user, found.music, found.when) == ("er", ("/srv/my music",), "daily")
    assert plan(when=found.when, music=found.music).settings.resident is False
