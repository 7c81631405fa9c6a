"""One service for the tests of a module that leave it as it was."""

from __future__ import annotations

import shutil
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
    shutil.copy(root / "a.wav", root / "d.wav")
    return root


@pytest.fixture(scope="module")
def service(tiny_bundle: Path, library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    options = ("--root", library, "--state", folder / "music.state", "--bundle", tiny_bundle, "--workers", 1)
    with serving(folder, *options) as served:
        yield served


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, as the names of sockets need it."""
    with tempfile.TemporaryDirectory(prefix="er-") as folder:
        yield Path(folder)
