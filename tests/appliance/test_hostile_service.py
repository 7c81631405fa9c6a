"""The service's user, taken over by somebody, against what root does in the folders that the service writes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from appliance.unit_file import plan
from edge_reclass_appliance import files, places, report
from edge_reclass_appliance.errors import ApplianceError
from edge_reclass_appliance.signatures import SignatureError, Trust
from edge_reclass_appliance.signatures.manifest import Release
from edge_reclass_appliance.signatures.trust import SEEN, STORED_KEY
from edge_reclass_appliance.trial import OUT, Trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    made = plan(root=tmp_path)
    (made.root / places.STATE[1:]).mkdir(parents=True)
    (made.root / "etc").mkdir(exist_ok=True)
    (made.root / "etc/passwd").write_text("edge-reclass:x:4242:4242::/:/bin/false\n")
    return Trial(made)


def test_a_trials_folder_is_filled_before_the_service_may_reach_it(trial: Trial) -> None:
    seen = []

    def fill(work: Path) -> None:
        seen.append((stat.S_IMODE(work.stat().st_mode), work.stat().st_uid))
        (work / "given").write_text("sound")
        (work / OUT / "store").mkdir()
        (work / OUT / "store/one").write_text("engine")

    with trial.folder(fill) as work:
        assert seen == [(0o700, os.geteuid())]
        assert stat.S_IMODE(work.stat().st_mode) == 0o755
        service = 4242 if os.geteuid() == 0 else os.geteuid()
        assert {path.stat().st_uid for path in (work, work / "given")} == {os.geteuid()}
        assert {path.stat().st_uid for path in (work / OUT, *(work / OUT).rglob("*"))} == {service}
    assert not work.exists()


@pytest.mark.parametrize("evil", ["link to a file", "link to a folder", "fifo", "hard link", "the folder itself"])
def test_nothing_but_the_trials_own_files_is_taken_back(trial: Trial, tmp_path: Path, evil: str) -> None:
    secret, target = tmp_path / "others", tmp_path / "engines"
    secret.mkdir()
    target.mkdir()
    (secret / "shadow").write_text("root's")
    with trial.folder(lambda work: (work / OUT / "store").mkdir()) as work:
        store = work / OUT / "store"
        if evil == "link to a file":
            (store / "a").symlink_to(secret / "shadow")
        elif evil == "link to a folder":
            (store / "a").symlink_to(secret)
        elif evil == "fifo":
            os.mkfifo(store / "a")
        elif evil == "hard link":
            os.link(secret / "shadow", store / "a")
        else:
            store.rmdir()
            store.symlink_to(secret)
        with pytest.raises(ApplianceError, match="neither a file nor a folder"):
            trial.take_back(work, "store", target)
    assert list(target.rglob("*")) == []
    assert (secret / "shadow").read_text() == "root's"


def test_what_a_trial_built_is_taken_back(trial: Trial, tmp_path: Path) -> None:
    target = tmp_path / "engines"
    target.mkdir()
    with trial.folder(lambda work: (work / OUT / "store/key").mkdir(parents=True)) as work:
        (work / OUT / "store/key/engine.plan").write_text("native code")
        (work / OUT / "store/secret").write_text("s")
        trial.take_back(work, "store", target)
    assert (target / "key/engine.plan").read_text() == "native code"
    assert stat.S_IMODE((target / "secret").stat().st_mode) == 0o640
    assert {path.stat().st_uid for path in target.rglob("*")} == {os.geteuid()}


def test_a_link_in_a_folders_place_keeps_its_targets_mode(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (tmp_path / "reports").symlink_to(other)
    with pytest.raises(ApplianceError, match="is a link"):
        files.own_folder(tmp_path / "reports", 0o755, 0, 0)
    assert stat.S_IMODE(other.stat().st_mode) == 0o700


def test_a_fifo_for_a_library_does_not_hang_the_report(tmp_path: Path) -> None:
    state = tmp_path / places.LIBRARY[1:]
    state.parent.mkdir(parents=True)
    os.mkfifo(state)
    with pytest.raises(ApplianceError, match="expected a file"):
        report.write(tmp_path, places.Settings(), failed=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_the_report_is_never_written_by_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("edge-reclass:x:4242:4343::/:/bin/false\n")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            report.become_the_service(tmp_path, places.Settings())
            os.write(writing, repr((os.getresuid(), os.getresgid(), os.getgroups())).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        assert said.read() == repr(((4242,) * 3, (4343,) * 3, []))


@pytest.mark.parametrize("evil", ["fifo", "link", "everybody's", "deep"])
def test_what_releases_were_seen_is_read_from_roots_own_file_alone(tmp_path: Path, evil: str) -> None:
    seen = tmp_path / SEEN
    assert seen.parent == tmp_path / STORED_KEY.parent
    seen.parent.mkdir(parents=True)
    if evil == "fifo":
        os.mkfifo(seen)
    elif evil == "link":
        (tmp_path / "other").write_text("{}")
        seen.symlink_to(tmp_path / "other")
    else:
        seen.write_text("[" * 100_000 if evil == "deep" else "{}")
        seen.chmod(0o644 if evil == "deep" else 0o666)
    with pytest.raises(SignatureError, match="is damaged" if evil == "deep" else "that only root writes"):
        Trust(root=tmp_path).check_sequence(Release("edge-reclass", "1", 1, ()))
