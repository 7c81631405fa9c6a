"""docs/clients.md: its programs run as they stand there, against a real service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from client.same import timeless
from client.test_c import SOURCE, WARNINGS
from edge_reclass import Cascade, Verdict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clients.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def done(command: list[str], **options: object) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]
    assert ran.returncode == 0, ran.stderr
    return str(ran.stdout)


def test_python(socket_path: str, music: Path) -> None:
    first, second = blocks("python")[:2]
    program = first.replace("/tmp/er.sock", socket_path).replace("song.mp3", "a.wav")
    assert program != first
    assert done([sys.executable, "-c", program], cwd=music).startswith("ok Alpha 0.")
    program = second.replace("/tmp/er.sock", socket_path).replace("b.wav", "b.flac")
    lines = done([sys.executable, "-c", program], cwd=music).splitlines()
    assert [line.rpartition("/")[2] for line in lines] == ["a.wav Alpha", "b.flac Alpha"]


def test_c(socket_path: str, music: Path, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc or gcc)")
    (block,) = blocks("c")
    (tmp_path / "main.c").write_text(block.replace("/tmp/er.sock", socket_path))
    files = [str(tmp_path / "main.c"), str(SOURCE / "edge-reclass.c")]
    done([compiler, *WARNINGS, f"-I{SOURCE}", *files, "-o", str(tmp_path / "main")])
    assert done([str(tmp_path / "main"), str(music / "a.wav")]) == "Alpha\n"


def test_node(socket_path: str, tiny: Path, music: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    (block,) = blocks("js")
    assert len([line for line in block.splitlines() if line.strip()]) <= 25
    (tmp_path / "classify.mjs").write_text(block)
    tracks = [music / "a.wav", music / "b.flac", music / "bad.mp3"]
    lines = done([node, str(tmp_path / "classify.mjs"), socket_path, *map(str, tracks)]).splitlines()
    with Cascade.open(tiny) as cascade:
        expected = [replace(timeless(cascade.classify(track)), mtime_ns=None) for track in tracks]
    said = [Verdict.from_dict(json.loads(line)) for line in lines]
    assert [replace(timeless(one), mtime_ns=None) for one in said] == expected
    refused = subprocess.run(
        [node, str(tmp_path / "classify.mjs"), socket_path, "/etc/passwd"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused.returncode != 0 and "--root" in refused.stderr
