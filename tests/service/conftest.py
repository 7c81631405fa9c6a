"""A small bundle, music, and one service for all tests that leave it as it was."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the service needs the extra [service]")
pytest.importorskip("sse_starlette", reason="the service needs the extra [service]")
pytest.importorskip("prometheus_client", reason="the service needs the extra [service]")

import bundles
import synth
from served import Served, serving


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages, of which the second always hears what the first leaves open."""
    stages = [bundles.fma_stage(), bundles.waveform_stage("mert")]
    return bundles.make_bundle(
        tmp_path_factory.mktemp("bundle"), stages, biases={"fma": (0.0, 0.2, 0.1), "mert": (9.0, 0.0, 0.0)}
    )


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few tracks, one below a folder, one that is no audio; nobody writes here."""
    root = tmp_path_factory.mktemp("library") / "Musik ü"
    (root / "album").mkdir(parents=True)
    for i, name in enumerate(("a.wav", "album/b.flac", "album/c.ogg")):
        synth.write(root / name, synth.music(3.0, 22_050, seed=i), 22_050)
    (root / "bad.mp3").write_bytes(b"no audio at all" * 100)
    return root


@pytest.fixture(scope="session")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ways out of its part ``inside``, which is a root, and into it."""
    top = tmp_path_factory.mktemp("fenced")
    (top / "inside").mkdir()
    (top / "inside2").mkdir()
    for name in ("outside.wav", "inside2/outside.wav", "inside/good.wav"):
        synth.write(top / name, synth.music(2.0, 22_050), 22_050)
    (top / "inside/link.wav").symlink_to("good.wav")
    (top / "inside/out.wav").symlink_to("../outside.wav")
    (top / "inside/up").symlink_to("..")
    (top / "inside/loop.wav").symlink_to("loop.wav")
    (top / "inside/null.wav").symlink_to("/dev/null")
    os.mkfifo(top / "inside/fifo.wav")
    (top / "inside/folder.wav").mkdir()
    (top / "alias").symlink_to("inside")
    return top


@pytest.fixture(scope="session")
def service(
    tiny_bundle: Path, library: Path, fenced: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """For tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("service")
    options = ("--root", library, "--root", fenced / "inside", "--state", folder / "music.state")
    with serving(folder, *options, "--bundle", tiny_bundle, "--workers", 1) as served:
        yield served


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, as the names of sockets need it."""
    with tempfile.TemporaryDirectory(prefix="er-") as folder:
        yield Path(folder)
