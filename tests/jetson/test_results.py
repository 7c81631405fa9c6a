"""results.py: what becomes of verdicts when a disk is not there, or a folder cannot be read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jetson.unit_file import JETSON

SCRIPT = JETSON / "bin/results.py"
FILES = ("a.mp3", "b.mp3", "usb/c.mp3", "usb/d.mp3", "usb/deep/e.mp3", "caf\udce9/f.mp3")


class Library:
    """Music, and results of runs that "classify" whatever can be read of it."""

    def __init__(self, base: Path) -> None:
        self.music, self.results = base / "music", base / "results"
        self.results.mkdir()
        for name in FILES:
            (self.music / name).parent.mkdir(parents=True, exist_ok=True)
            (self.music / name).touch()

    def script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=False)

    def run(self, night: int, **statuses: str) -> subprocess.CompletedProcess[str]:
        """As the unit does it; ``statuses`` by file name, ok for all others."""
        kept = self.script("keep", str(self.results))
        assert kept.returncode == 0, kept.stderr
        new = self.results / "new"
        found = sorted(str(Path(folder, name)) for folder, _, names in os.walk(self.music) for name in names)
        lines = [{"path": p, "status": statuses.get(Path(p).stem, "ok"), "night": night} for p in found]
        new.write_text("".join(json.dumps(line) + "\n" for line in lines))
        new.chmod(0o640)
        new.replace(self.results / "verdicts.jsonl")
        return self.script("merge", str(self.results))

    def verdicts(self) -> dict[str, tuple[str, int]]:
        lines = map(json.loads, (self.results / "verdicts.jsonl").read_text().splitlines())
        return {os.path.relpath(v["path"], self.music): (v["status"], v["night"]) for v in lines}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    made = Library(tmp_path)
    first = made.run(1)
    assert (first.returncode, first.stderr) == (0, "")
    return made


def nights(library: Library) -> dict[str, int]:
    return {name: night for name, (_, night) in library.verdicts().items()}


@pytest.mark.parametrize("how", ["empty mount point", "mount point gone"])
def test_a_disk_that_is_not_mounted(library: Library, how: str) -> None:
    shutil.rmtree(library.music / "usb")
    if how == "empty mount point":
        (library.music / "usb").mkdir()
    done = library.run(2)
    assert done.returncode == 1
    assert "3 tracks" in done.stderr and "usb' (2)" in done.stderr
    assert nights(library) == {name: 1 if name.startswith("usb") else 2 for name in FILES}
    assert library.run(3).returncode == 1  # and every night until it is back
    assert len(nights(library)) == len(FILES)
    for name in FILES:
        (library.music / name).parent.mkdir(parents=True, exist_ok=True)
        (library.music / name).touch()
    assert library.run(4).returncode == 0
    assert set(nights(library).values()) == {4}


def test_a_folder_that_cannot_be_read(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import results
    finally:
        sys.path.pop(0)
    assert results.keep(library.results) == 0
    (library.results / "new").write_text("")
    (library.results / "new").replace(library.results / "verdicts.jsonl")

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(results.os, "scandir", refuse)
    assert results.merge(library.results) == 1
    assert len(library.verdicts()) == len(FILES)


def test_a_disk_that_is_pulled_in_the_middle_of_a_run(library: Library) -> None:
    done = library.run(2, c="missing", d="unreadable", e="corrupt")
    assert done.returncode == 1
    assert library.verdicts() == {
        **dict.fromkeys(FILES, ("ok", 2)),
        "usb/c.mp3": ("ok", 1),
        "usb/d.mp3": ("ok", 1),
        "usb/deep/e.mp3": ("corrupt", 2),
    }


def test_what_was_deleted_goes(library: Library) -> None:
    (library.music / "a.mp3").unlink()
    assert library.run(2).returncode == 0
    assert "a.mp3" not in nights(library)
    shutil.rmtree(library.music / "usb/deep")
    assert library.run(3).returncode == 1  # a whole folder: nobody knows
    assert nights(library)["usb/deep/e.mp3"] == 2
    done = library.script("forget", str(library.results), str(library.music / "usb/deep"))
    assert done.stdout == "1 verdicts were dropped, 4 stay\n"
    assert library.run(4).returncode == 0
    assert len(nights(library)) == 4


def test_a_run_that_ended_early_changes_nothing(library: Library) -> None:
    before = (library.results / "verdicts.jsonl").read_bytes()
    assert library.script("keep", str(library.results)).returncode == 0
    assert library.script("merge", str(library.results)).returncode == 0
    assert [path.name for path in library.results.iterdir()] == ["verdicts.jsonl"]
    assert (library.results / "verdicts.jsonl").read_bytes() == before


def test_a_power_cut_before_the_merge(library: Library) -> None:
    assert library.script("keep", str(library.results)).returncode == 0
    shutil.rmtree(library.music / "usb")
    (library.results / "new").write_text("")
    (library.results / "new").replace(library.results / "verdicts.jsonl")
    assert library.script("keep", str(library.results)).returncode == 0  # of the next night
    assert {name for name in nights(library) if name.startswith("usb")}
    assert library.script("merge", str(library.results)).returncode == 0


def test_permissions_stay_and_usage_is_said(library: Library) -> None:
    shutil.rmtree(library.music / "usb")
    library.run(2)
    assert (library.results / "verdicts.jsonl").stat().st_mode & 0o777 == 0o640
    assert library.script("polish").returncode == 2
