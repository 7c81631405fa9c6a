"""Small files that cannot be read, and tools that are missing, refuse, hang or never end."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from doctor.machine.emulator import replace_tool
from edge_reclass.host import read_text
from edge_reclass_doctor.machine import Host, run_tool
from edge_reclass_doctor.machine.reading import read_int, read_list, scaled, subfolders


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe12\0\0\n")
    (tmp_path / "number").write_text("729600\n")
    for path in (tmp_path / "absent", tmp_path / "folder", tmp_path / "nul\0"):
        assert read_text(path) is None
        assert read_int(path) is None
        assert scaled(path, 1e-3) is None
    assert read_text(tmp_path / "binary") == "\ufffd\ufffd12"
    assert read_int(tmp_path / "binary") is None
    assert scaled(tmp_path / "number", 1e-3) == 729.6
    assert subfolders(tmp_path / "absent") == []


@pytest.mark.parametrize("text", ["", "nan", "1e3", "12 34", "0x10", "٣", "9" * 20, "<unsupported>"])
def test_what_is_no_number_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text, encoding="utf-8")
    assert read_int(tmp_path / "file") is None


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 1), ("0-5", 6), ("0-3,8-11", 8), ("0,2-3\n", 3), ("", None), ("5-0", None), ("a-b", None), (None, None)],
)
def test_kernel_lists(text: str | None, count: int | None) -> None:
    assert read_list(text) == count


def test_folders_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("zone10", "zone2", "other", "zone1"):
        (tmp_path / name).mkdir()
    assert [path.name for path in subfolders(tmp_path)] == ["other", "zone1", "zone2", "zone10"]


def test_a_tool_that_answers(tmp_path: Path) -> None:
    tool = replace_tool(tmp_path, "usr/bin/tool", "one\ntwo\n", then="echo wrong >&2; exit 3")
    result = run_tool((str(tool),), 10)
    assert (result.status, result.stdout, result.stderr, result.failure) == (3, "one\ntwo\n", "wrong\n", None)


def count_from(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a tool has counts from when ``ready`` is there: starting it may take long."""

    class Process(subprocess.Popen[str]):
        def communicate(self, *arguments: Any, **options: Any) -> tuple[str, str]:
            until = time.monotonic() + 60
            while not ready.exists() and time.monotonic() < until:
                time.sleep(0.02)
            return super().communicate(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", Process)


def test_a_tool_that_hangs_is_stopped_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "child"
    count_from(note, monkeypatch)
    tool = replace_tool(
        tmp_path, "usr/bin/tool", "half", then=f"sleep 300 & echo $! > {note}.new; mv {note}.new {note}; wait"
    )
    began = time.monotonic()
    result = run_tool((str(tool),), 0.5)
    assert time.monotonic() - began < 60
    assert result.stdout == "half"
    assert result.status is None
    assert result.failure == f"{tool} did not answer within 0.5 s"
    child = int(note.read_text())
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if not Path(f"/proc/{child}/stat").exists() or ") Z " in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def test_a_tool_that_closes_its_output_and_goes_on_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_from(tmp_path / "ready", monkeypatch)
    tool = replace_tool(tmp_path, "usr/bin/tool", "x", then=f"exec >&- 2>&-; : > {tmp_path}/ready; exec sleep 300")
    result = run_tool((str(tool),), 0.5)
    assert (result.stdout, result.status) == ("x", None)
    assert "did not answer" in (result.failure or "")


def test_a_tool_that_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "empty").chmod(0o755)
    assert "cannot be started (No such file" in (run_tool((str(tmp_path / "absent"),), 1).failure or "")
    assert "cannot be started" in (run_tool((str(tmp_path / "empty"),), 1).failure or "")


def test_tools_are_looked_for_below_the_root_alone(tmp_path: Path) -> None:
    tool = replace_tool(tmp_path, "usr/sbin/nvpmodel", "")
    assert Host(tmp_path).find_tool("nvpmodel") == tool
    assert Host(tmp_path).find_tool("sh") is None
    assert Host(environ={}).find_tool("sh") is not None
    (tmp_path / "mine").mkdir()
    own = replace_tool(tmp_path, "mine/no-such-tool-elsewhere", "")
    assert Host(environ={"PATH": str(own.parent)}).find_tool("no-such-tool-elsewhere") == own
    tool.chmod(0o644)
    assert Host(tmp_path).find_tool("nvpmodel") is None
