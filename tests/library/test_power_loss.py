"""The power goes at every moment of ``classify --state``, ``tag --write`` and ``tag --undo``: see tests/power_loss.py.

EDGE_RECLASS_POWER=all looks at every moment; by default it is one in several, and always the last.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import power_loss
import tagged
from command import run
from edge_reclass.library.journal import Journal
from edge_reclass.library.state import State
from edge_reclass.library.tags.writing import COMMAND, recover
from libraries import Library, library, small_bundle
from power_loss import Cut, Recording, record

__all__ = ["library", "small_bundle"]

_WHY = power_loss.unavailable()
pytestmark = pytest.mark.skipif(_WHY is not None, reason=f"nothing can be recorded: {_WHY}")

EVERY = os.environ.get("EDGE_RECLASS_POWER") == "all"
PROGRAM = [sys.executable, "-m", "edge_reclass"]
WRITING = 0
"""Number of the first command in the recording of tags."""
ENVIRON = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def some(cuts: Iterable[Cut], of: int) -> Iterator[Cut]:
    """Every cut, or one in ``of`` of each disk; the last ones always."""
    last: dict[str, Cut] = {}
    for cut in cuts:
        if EVERY or cut.done % of == 0:
            yield cut
            last.pop(cut.disk, None)
        else:
            last[cut.disk] = cut
    yield from last.values()


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def whole(file: Path) -> None:
    """The state is no damaged database; SQLite puts in order what the power cut left."""
    with sqlite3.connect(file) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_state_of_a_library(library: Library, tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.mkdir()
    file = home / "library.state"
    classify = [*PROGRAM, "classify", str(library.music), "--state", str(file), "--bundle", str(library.bundle)]
    library.add("later.wav")
    recording = record([classify], home, tmp_path / "log", ENVIRON)
    known: dict[str, int] = {"lost": 0, "kept": 0, "torn": 0}
    moments = 0
    cut = None
    for cut in some(recording.cuts(), 40):
        moments += 1
        cut.restore(home)
        if not file.exists() or not file.stat().st_size:
            assert known["lost"] == 0, f"{cut.after}: a state that held verdicts is gone"
            continue
        whole(file)
        with State.open(file, create=True) as state:
            count = state.counts().tracks
        # What was committed stays: a later power cut never takes away what an earlier one left.
        assert count >= known["lost"], (cut.done, cut.after, cut.disk)
        if cut.disk == "lost":
            known["lost"] = count
    assert cut is not None
    assert known["lost"] == 4
    print(f"{moments} disks after {cut.done} calls")


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Path, dict[Path, str]]:
    """``tag --write`` and ``tag --undo`` of a few formats, the folder, and what each file was."""
    pytest.importorskip("mutagen", reason="tags are written with mutagen (extra [tags])")
    base = tmp_path_factory.mktemp("tags")
    root = base / "box"
    (root / "music").mkdir(parents=True)
    paths = [
        tagged.tag(tagged.write(root / f"music/a.{kind}", seconds=0.2), ["Pop"]) for kind in ("mp3", "flac", "ogg")
    ]
    old = {path: sha(path) for path in paths}
    state = tagged.state(root / "library.state", [tagged.verdict(path, "Hip-Hop") for path in paths], root / "music")
    tag = [*PROGRAM, "tag", str(state)]
    return record([[*tag, "--write", "--replace"], [*tag, "--undo"]], root, base / "log", ENVIRON), root, old


def test_tags_and_their_journal(tags: tuple[Recording, Path, dict[Path, str]]) -> None:
    recording, root, old = tags
    file = root / "library.state"
    seen: set[tuple[str, bool]] = set()
    moments = 0
    for cut in some(recording.cuts(seed=1), 40):
        moments += 1
        where = (cut.done, cut.after, cut.disk)
        cut.restore(root)
        whole(file)
        with State.open(file, write=True) as state:
            journal = Journal.of_state(state)
            steps = {step.path: step for step in (*journal.unfinished(COMMAND), *journal.to_undo(COMMAND))}
            now = {path: sha(path) for path in old}
            for path, digest in now.items():
                if digest != old[path]:  # a file that is not the old one is exactly the one that the journal speaks of
                    assert digest == steps[path].what["new"]["sha256"], where
            assert recover(journal) == [], where
            done = {step.path for step in journal.to_undo(COMMAND)}
        new = {path for path, digest in now.items() if digest != old[path]}
        seen.add((cut.disk, bool(new)))
        # The journal says which of the two each file is.
        if cut.command == WRITING:
            assert done == new, where
        else:  # a file may have been taken back while the journal had not heard of it
            assert new <= done, where
        assert not list((root / "music").glob(".*")), where
        undone = run("tag", file, "--undo")
        assert undone.returncode == 0, (where, undone.stdout)
        assert {path: sha(path) for path in old} == old, where
    assert {("lost", True), ("lost", False), ("torn", True), ("torn", False)} <= seen, "no cut met a written file"
    print(f"{moments} disks")
