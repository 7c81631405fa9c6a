"""The command as a user runs it, in this process or under a shell, with a small bundle and folders of music."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import bundles
from edge_reclass.cli.commands import main

RATE = 22_050


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Done:
    """Call the entry point in this process, which is a second quicker than a new one."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["edge-reclass", *map(str, arguments)])
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 1
    return Done(code, out.getvalue(), err.getvalue())


def shell(command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = command.replace("EDGE", f"{sys.executable} -m edge_reclass classify")
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = [bundles.fma_stage(), bundles.waveform_stage("mert")]
    root = tmp_path_factory.mktemp("bundle")
    return bundles.make_bundle(root, stages, biases={"fma": (0.0, 0.2, 0.1), "mert": (9.0, 0.0, 0.0)})


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tracks, one in a folder below; a cover, a hidden file and a hidden folder."""
    root = tmp_path_factory.mktemp("music")
    (root / "album").mkdir()
    (root / ".hidden").mkdir()
    noise = (0.1 * np.random.default_rng(0).standard_normal(3 * RATE)).astype(np.float32)
    for name in ("b.wav", "album/a.flac", ".hidden/c.wav", ".d.wav"):
        soundfile.write(root / name, noise, RATE)
    (root / "album/cover.jpg").write_bytes(b"\xff\xd8")
    return root


@pytest.fixture
def songs(music: Path, tmp_path: Path) -> Path:
    """A copy of two tracks, free to be spoiled."""
    root = tmp_path / "songs"
    root.mkdir()
    shutil.copy(music / "b.wav", root / "a.wav")
    shutil.copy(music / "album/a.flac", root / "b.flac")
    return root
