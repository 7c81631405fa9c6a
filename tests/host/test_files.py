"""A file that is written appears complete or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_reclass.errors import UsageError
from edge_reclass.host import write_whole


def test_a_file_is_replaced_through_its_link_and_nothing_else_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "a.json", tmp_path / "link.json"
    target.write_bytes(b"before")
    link.symlink_to(target)
    write_whole(link, b"after")
    assert link.is_symlink() and target.read_bytes() == b"after"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "link.json"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    target.write_bytes(b"before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match=r"a\.json: cannot be written \(No space left"):
        write_whole(target, b"after")
    assert target.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UsageError, match="expected a file, got a folder"):
        write_whole(tmp_path, b"")
    with pytest.raises(UsageError, match="cannot be written"):
        write_whole(tmp_path / "absent" / "a.json", b"")
