"""One real service for all tests of the clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import bundles
import synth


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages, of which the second hears what the first leaves open."""
    stages = [bundles.fma_stage(), bundles.waveform_stage("mert")]
    root = tmp_path_factory.mktemp("bundle")
    return bundles.make_bundle(root, stages, biases={"fma": (0.0, 0.2, 0.1), "mert": (9.0, 0.0, 0.0)})


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tracks, one of them with a name that is not UTF-8, and one that is no audio; nobody writes here."""
    root = tmp_path_factory.mktemp("music") / "Musik ü \"'\\"
    root.mkdir()
    for i, name in enumerate(("a.wav", "b.flac", b"c\xff.wav".decode("utf-8", "surrogateescape"))):
        synth.write(root / name, synth.music(3.0, 22_050, seed=i), 22_050)
    (root / "bad.mp3").write_bytes(b"no audio at all" * 100)
    return root


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A track that is below no root of the service."""
    file = tmp_path_factory.mktemp("elsewhere") / "outside.wav"
    synth.write(file, synth.music(3.0, 22_050, seed=9), 22_050)
    return file


@pytest.fixture(scope="session")
def socket_path(tiny: Path, music: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a real service listens."""
    pytest.importorskip("uvicorn", reason="the service needs the extra [service]")
    pytest.importorskip("prometheus_client", reason="the service needs the extra [service]")
    from served import serving

    with serving(tmp_path_factory.mktemp("service"), "--root", music, "--bundle", tiny, "--workers", 1) as served:
        yield str(served.socket)
